"""When a run is measured by pictures that it does not learn, and read for what goes wrong; and who is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from weber.sampling.likeness import measure_likeness, measure_noise
from weber.track.events import build_finding, build_scores
from weber.track.findings import list_findings
from weber.track.jsonl import read_metrics, read_readings
from weber.track.metrics import Trackers
from weber.track.progress import Watcher
from weber.track.scores import FINDING, HELD_OUT, MEASURED, describe_scores, list_evaluations
from weber.track.signals import LIKENESS, NOISE, Signals
from weber.training.due import is_due
from weber.training.evaluation import evaluate, identify
from weber.training.prepared import Training
from weber.training.probe import Probe
from weber.training.scoring import COPIES, Scoring
from weber.training.stop import Stop, Stopped


class Judge:
    """Measures and reads a run now and then. `signals` is what others record; what was measured before is in the readings."""

    def __init__(self, training: Training, trackers: Trackers, *, watcher: Watcher, stop: Stop) -> None:
        self._training, self._trackers, self._watcher, self._stop = training, trackers, watcher, stop
        plan, lines = training.plan, read_readings(training.folder)
        self._every, self._of = plan.count_steps(plan.resolved.evaluation.every), identify(training)
        self.signals = Signals()
        self.signals.load(read_metrics(training.folder), lines, scores=list_evaluations(lines, of=self._of))
        self._known: set[str] = set()
        self._probe: Probe | None = None

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` finished steps is to be read."""
        return is_due(step, every=self._every, num_steps=self._training.plan.num_steps)

    def watch(self, step: int) -> None:
        """Look at the step after `step` finished ones: at the first one, and where the state after it is to be read."""
        if step == self._training.start.step or self.is_due(step + 1):
            learner = self._training.learner
            self._probe = Probe(learner.parameters, sums=None if learner.crew is None else learner.crew.watching)

    def note(self, step: int, *, lr: float) -> None:
        """That step is done. `lr`: its rate."""
        if self._probe is None:
            return
        numbers = {name: number for name, number in self._probe.read().items() if math.isfinite(number)}
        self._probe = None
        asked = self._training.plan.resolved.optim.lr
        self.signals.lr_share = lr / asked if asked else 1.0
        self.signals.probes.append({"step": step, **numbers})
        self._trackers.write_reading(step, numbers)

    def judge(self, step: int) -> None:
        """Measure the state after `step` finished steps, unless that was done, and say what goes wrong with the run."""
        losses = self.signals.take_losses()
        if losses:
            self._trackers.write_reading(step, losses)
        if not any(line["step"] == step for line in self.signals.scores):
            self._evaluate(step)
        found = list_findings(self.signals) if step > self._training.start.step else []
        for name, text in found:
            if name not in self._known:
                self._watcher.write(f"Doctor, after step {step}: {text}.")
                self._training.messages.tell(build_finding(step, text, name=name))
            self._trackers.write_reading(step, {FINDING: name, "text": text})
        self._known = {name for name, _ in found}

    def look(self, step: int, files: Sequence[Path]) -> None:
        """Look at the pictures that were painted after `step` finished steps, unless that was done."""
        if not files or any(line["step"] == step for line in self.signals.looks):
            return
        prompts = len(set(self._training.painter.list_painted(step).values()))
        numbers = {NOISE: measure_noise(files)} | ({LIKENESS: measure_likeness(files)} if prompts == len(files) > 1 else {})
        self.signals.looks.append({"step": step, **numbers})
        self._trackers.write_reading(step, numbers)
        if self._training.scoring is not None and step > 0:
            self._score(self._training.scoring, step, files)

    def _score(self, scoring: Scoring, step: int, files: Sequence[Path]) -> None:
        try:
            scored = scoring.score(files, self._stop.guard(self._watcher.report))
        except Stopped:
            self._watcher.write(f"Stopped while scoring: the pictures of step {step} have no scores.")
            return
        self._trackers.write_reading(step, scored.numbers)
        self._watcher.write(f"Pictures of step {step}: {scored.describe()}")
        if scored.copies:
            sheet = scoring.save_copies(scored.copies, step=step)
            text = scored.describe_copies(sheet)
            self._watcher.write(f"Doctor, after step {step}: {text}.")
            self._training.messages.tell(build_finding(step, text, name=COPIES))
            self._trackers.write_reading(step, {FINDING: COPIES, "text": text})

    def _evaluate(self, step: int) -> None:
        try:
            found = evaluate(self._training, self._stop.guard(self._watcher.report))
        except Stopped:
            self._watcher.write(f"Stopped while evaluating: step {step} is measured if the run goes on from there.")
            return
        numbers = {name: number for name, number in found.items() if math.isfinite(number)}
        if HELD_OUT not in numbers:
            return
        scores = self.signals.scores
        scores.append({"step": step, **numbers})
        self._trackers.write_reading(step, {**numbers, MEASURED: self._of})
        said = describe_scores(numbers, scores[0] if len(scores) > 1 else None)
        self._watcher.write(f"Evaluation after step {step}: {said}")
        self._training.messages.tell(build_scores(step, said, numbers=numbers))
