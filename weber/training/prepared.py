"""A run before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weber.checkpoint.resume import Found
from weber.planning.plan import Plan
from weber.sharing.beside import Publisher
from weber.track.webhooks import SILENT, Messages
from weber.training.batch import Loader
from weber.training.learner import Learner
from weber.training.pictures import Painter
from weber.training.saving import Saver
from weber.training.scoring import Scoring


@dataclass(frozen=True)
class Training:
    """A run that is ready to go on after the steps of `start`."""

    plan: Plan
    learner: Learner
    loader: Loader
    painter: Painter
    saver: Saver
    start: Found
    messages: Messages = SILENT
    scoring: Scoring | None = None
    publisher: Publisher | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.plan.resolved.output.folder
