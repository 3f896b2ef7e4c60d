"""When the state of a run is saved, when older checkpoints go, and what becomes of a state after which a step has failed."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import torch

from weber.checkpoint.resume import Found
from weber.checkpoint.retention import LEFT, RUINED, list_aside, save_space
from weber.checkpoint.retention import put_aside as put_checkpoint_aside
from weber.checkpoint.save import CONFIG_NAME, build_name, list_checkpoints
from weber.config.run import RunConfig
from weber.errors import CheckpointError, TrainingError
from weber.planning.plan import Plan
from weber.results.finished import put_aside
from weber.track.progress import Watcher
from weber.track.webhooks import SILENT, Messages
from weber.training.due import is_due
from weber.training.learner import Learner
from weber.training.state import save_state


class Saver:
    """Saves the state of a run.

    Whether a state is good is known when the step after it has a finite loss and finite gradients (`prove`): only then older checkpoints
    are deleted. A state after which a step failed is kept aside, so that nobody goes on from it by accident.
    """

    def __init__(
        self,
        plan: Plan,
        learner: Learner,
        *,
        start: Found,
        previous: RunConfig | None,
        watcher: Watcher,
        messages: Messages = SILENT,
    ) -> None:
        self._plan, self._learner, self._start, self._watcher, self._messages = plan, learner, start, watcher, messages
        self._folder, output = plan.resolved.output.folder, plan.resolved.output
        self._configs = [plan.resolved] if previous is None else [plan.resolved, previous]
        self._every = plan.count_steps(output.save_every)
        self._keep_last = None if output.keep_last == "all" else output.keep_last
        self._keep_every = None if output.keep_every is None else plan.count_steps(output.keep_every)
        self._saved = start.step if start.folder == self._folder / build_name(start.step) else None
        self._is_proved, self._has_left = False, not start.is_chosen

    @property
    def configs(self) -> list[RunConfig]:
        """The settings of the run, as they are and as they were before: results may have the names of either."""
        return self._configs

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` finished steps is to be saved."""
        periods = [self._every] if self._keep_every is None else [self._every, self._keep_every]
        return any(is_due(step, every=every, num_steps=self._plan.num_steps) for every in periods)

    def save(self, step: int) -> None:
        """Write the checkpoint of `step` finished steps, unless that was done. Raises TrainingError where the weights are not finite."""
        if self._saved == step:
            return
        if not self._is_finite():
            raise TrainingError(
                f"What is trained is no longer finite after step {step}, so it was not saved.",
                got=f"optim.lr = {self._plan.resolved.optim.lr:g}",
                fix=self._propose_start(),
            )
        self._put_aside(step)
        folder = save_state(self._folder, self._learner, plan=self._plan, step=step)
        self._saved, self._is_proved = step, False
        self._messages.tell_checkpoint(folder)

    def prove(self) -> None:
        """A step went well, or there is none left: the state before it is good, and older checkpoints can go."""
        if not self._is_proved:
            save_space(self._folder, keep_last=self._keep_last, keep_every=self._keep_every)
            self._is_proved = True

    def give_up(self, step: int, error: TrainingError) -> TrainingError:
        """What is to be said where the step after `step` finished ones has failed; their state is kept aside, if it is finite."""
        if self._is_finite():
            aside = self._keep_ruined(step)
            if aside is not None:
                self._watcher.write(
                    f"The state before that step is kept as {aside.name}; a run goes on from it only if it is named: --resume {aside}"
                )
        else:
            self._watcher.write("What is trained is itself no longer finite and was not saved.")
        return TrainingError(error.what, got=error.got, expected=error.expected, fix=f"{self._propose_start()}; {error.fix}")

    def _put_aside(self, step: int) -> None:
        """Finished results of other steps, and checkpoints that are later than the one that was chosen."""
        aside = put_aside(self._folder, self._configs, step=step)
        if aside:
            what = "result is" if len(aside) == 1 else "results are"
            self._watcher.write(f"The earlier {what} kept in {aside[0].parent} until this run has its own.")
        later = [] if self._has_left else [one for number, one in list_checkpoints(self._folder) if number > self._start.step]
        self._has_left = True
        if later:
            moved = [put_checkpoint_aside(folder, LEFT).name for folder in later]
            self._watcher.write(f"Later than the checkpoint that was chosen, and so kept as {', '.join(moved)}: delete what is not needed.")

    def _keep_ruined(self, step: int) -> Path | None:
        for old in list_aside(self._folder, RUINED):
            shutil.rmtree(old, ignore_errors=True)
        try:
            if self._saved != step:
                save_state(self._folder, self._learner, plan=self._plan, step=step, ending=RUINED)
                return self._folder / (build_name(step) + RUINED)
        except CheckpointError as error:
            self._watcher.write(f"The state before that step could not be kept: {error.got}")
            return None
        folder = self._folder / build_name(step)
        return put_checkpoint_aside(folder, RUINED) if folder.is_dir() else None

    def _propose_start(self) -> str:
        """How to go on with less."""
        lr, checkpoints = self._plan.resolved.optim.lr, [folder for _, folder in list_checkpoints(self._folder)]
        assert lr is not None
        command = f"weber train {shlex.quote(str(self._folder / CONFIG_NAME))} --resume optim.lr={lr / 10:.3g}"
        if not checkpoints:
            return f"start again with a lower rate: {command}"
        earlier = f" (earlier ones, if that is not enough: --resume {checkpoints[0].name})" if len(checkpoints) > 1 else ""
        return f"go on from {checkpoints[-1].name}, after which all was finite, with a lower rate: {command}{earlier}"

    def _is_finite(self) -> bool:
        return all(bool(torch.isfinite(parameter).all()) for _, parameter in self._learner.parameters)


