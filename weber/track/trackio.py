"""trackio: numbers and pictures of a run, in its own folder on this machine, or where TRACKIO_SERVER_URL or TRACKIO_SPACE_ID say."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

from weber.imports import load_module
from weber.track.jsonl import Numbers
from weber.track.run_facts import RunFacts


class TrackioService:
    """A run at trackio, gone on with under its name."""

    def __init__(self, facts: RunFacts) -> None:
        self._library = load_module("trackio")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it writes
            self._run = self._library.init(
                project=facts.project,
                name=f"{facts.name}-{facts.identifier}",
                config={**facts.settings, "plan": facts.summary},
                resume="allow",
                embed=False,
                auto_log_cpu=True,
            )

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        self._run.log(dict(numbers), step=step)

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        for number, (path, prompt) in enumerate(pictures.items(), start=1):
            self._run.log({f"pictures/{number}": self._library.Image(str(path), caption=prompt)}, step=step)

    def close(self) -> None:
        """Send the rest."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
