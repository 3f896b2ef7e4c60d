"""When a run is measured by pictures that it does not learn, and who is told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from weber.track.events import build_scores
from weber.track.jsonl import read_metrics
from weber.track.metrics import Trackers
from weber.track.progress import Watcher
from weber.track.scores import HELD_OUT, MEASURED, describe_scores, list_evaluations
from weber.training.due import is_due
from weber.training.evaluation import evaluate, identify
from weber.training.prepared import Training
from weber.training.stop import Stop, Stopped


class Judge:
    """Measures a run now and then; what it has measured before is in the metrics."""

    def __init__(self, training: Training, trackers: Trackers, *, watcher: Watcher, stop: Stop) -> None:
        self._training, self._trackers, self._watcher, self._stop = training, trackers, watcher, stop
        plan = training.plan
        self._every, self._of = plan.count_steps(plan.resolved.evaluation.every), identify(training)
        self._scores: list[Mapping[str, float]] = list_evaluations(read_metrics(training.folder), of=self._of)

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` finished steps is to be measured, and was not."""
        is_measured = any(line["step"] == step for line in self._scores)
        has_held = bool(self._training.plan.measured.held_out)
        return has_held and not is_measured and is_due(step, every=self._every, num_steps=self._training.plan.num_steps)

    def judge(self, step: int) -> None:
        """Measure the state after `step` finished steps, and say it."""
        try:
            found = evaluate(self._training, self._stop.guard(self._watcher.report))
        except Stopped:
            self._watcher.write(f"Stopped while evaluating: step {step} is measured if the run goes on from there.")
            return
        numbers = {name: number for name, number in found.items() if math.isfinite(number)}
        if HELD_OUT not in numbers:
            return
        self._scores.append({"step": step, **numbers})
        self._trackers.write(step, {**numbers, MEASURED: self._of})
        said = describe_scores(numbers, self._scores[0] if len(self._scores) > 1 else None)
        self._watcher.write(f"Evaluation after step {step}: {said}")
        self._training.messages.tell(build_scores(step, said, numbers=numbers))
