"""Weights & Biases: numbers and pictures of a run, sent or, with WANDB_MODE=offline, kept below the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from weber.errors import ConfigError
from weber.imports import load_module
from weber.track.jsonl import Numbers
from weber.track.run_facts import RunFacts


def check_login() -> None:
    """Raise ConfigError where it would have to ask for a key: nobody is there to answer."""
    library = load_module("wandb")
    settings = library.setup(library.Settings(silent=True)).settings
    if settings.mode in ("online", "shared") and not library.login(prompt=False, verify=False):
        raise ConfigError(
            "wandb has no key to send anything with.",
            got='output.trackers with "wandb"',
            fix="run `wandb login` once, or set WANDB_API_KEY; with WANDB_MODE=offline the run is kept in its folder, for `wandb sync`",
        )


class WandbService:
    """A run at wandb, gone on with under its identifier. Raises RuntimeError where wandb does not take it."""

    def __init__(self, facts: RunFacts) -> None:
        self._library = load_module("wandb")
        with self._speaking():
            self._run = self._library.init(
                project=facts.project,
                name=facts.name,
                id=facts.identifier,
                notes=facts.summary,
                dir=facts.folder,
                config=dict(facts.settings),
                resume="allow",
                settings=self._library.Settings(silent=True, console="off", disable_git=True, save_code=False),
            )

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        with self._speaking():
            self._run.log(dict(numbers), step=step)

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        with self._speaking():
            shown = [self._library.Image(str(path), caption=prompt) for path, prompt in pictures.items()]
            self._run.log({"pictures": shown}, step=step)

    def close(self) -> None:
        """Send the rest."""
        with self._speaking():
            self._run.finish()

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except self._library.Error as error:
            raise RuntimeError(str(error)) from error
