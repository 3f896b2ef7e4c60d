"""Showing a run when somebody asks for it: its own settings say how, and what is asked for goes before them."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weber.config.load import build_config
from weber.config.publish import PublishConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError, PublishError, WeberError
from weber.progress import Progress
from weber.results.runs import find_run
from weber.sharing.folder import stage_folder, write_folder
from weber.sharing.send import build_command, build_message, send

DRY_FOLDER = "publish"
"""Subfolder of a run for what would be sent."""
_WORDS = {"publish.to": "TO", "publish.formats": "--format", "publish.trigger_words": "--trigger"}


@dataclass(frozen=True)
class Asked:
    """What is asked for; what is left out is as the settings of the run say."""

    to: str | None = None
    formats: Sequence[str] | None = None
    public: bool = False
    consent: bool = False
    trigger: str | None = None


@dataclass(frozen=True)
class Told:
    """`place`: where it can be seen now; `notes`: what is to be known of it."""

    place: str
    notes: tuple[str, ...]


def publish(run: Path, asked: Asked, *, is_dry: bool, out: Path | None, progress: Progress) -> Told:
    """Send what a run has learned, or where `is_dry` write the folder that would be sent (`out`, else `publish` in the run folder).

    Raises ConfigError for what cannot be asked for, CheckpointError for what is no run, PublishError where it could not be sent.
    """
    saved = find_run(run)
    config = _build_config(saved.config, asked)
    if out is not None and not is_dry:
        raise ConfigError("A folder is written with --dry-run alone.", got=f"--out {out}", fix="add --dry-run, or remove --out")
    if is_dry:
        target = saved.home.folder / DRY_FOLDER if out is None else out
        if out is None:
            shutil.rmtree(target, ignore_errors=True)
        return Told(str(target), write_folder(run, config, out=target, progress=progress).notes)
    if config.to is None:
        raise ConfigError(
            "It is not said where to.",
            got=f"no TO, and no publish.to in the settings of {saved.home.folder}",
            fix=f"write weber publish {run} owner/name, or add --dry-run",
        )
    with stage_folder(run, config, progress=progress) as folder:
        progress(f"sending to {config.to}", 0, 1)
        try:
            place = send(folder, config, message=build_message(folder), wait=_wait)
        except PublishError as error:
            again = build_command(run, config, is_set=config == saved.config.publish)
            told = PublishError(error.what, got=error.got, expected=error.expected, fix=f"{error.fix}; then try again: {again}")
            raise told from error
        progress(f"sending to {config.to}", 1, 1)
        return Told(place, folder.notes)


def _build_config(config: RunConfig, asked: Asked) -> PublishConfig:
    """The settings of the run with what is asked for over them. Without a place they are those of a dry run."""
    if asked.public != asked.consent and config.publish.visibility == "private":
        raise ConfigError(
            "What everyone may see needs --public and --consent.",
            got="--public" if asked.public else "--consent",
            fix="add --consent if you have the rights to what was learned and the license of the base model allows it"
            if asked.public
            else "add --public, or remove it",
        )
    tree = config.publish.model_dump(exclude_defaults=True)
    tree |= {} if asked.to is None else {"to": asked.to}
    tree |= {"formats": list(asked.formats)} if asked.formats else {}
    tree |= {"visibility": "public"} if asked.public else {}
    tree |= {"consent": True} if asked.consent else {}
    tree |= {} if asked.trigger is None else {"trigger_words": asked.trigger}
    is_placed = "to" in tree
    with _speaking_of_words():
        if not is_placed and tree:
            tree |= {"to": f"owner/{re.sub(r'[^A-Za-z0-9]+', '-', config.output.folder.name).strip('-') or 'name'}"}
        built = build_config({"data": [{"path": "."}], "publish": tree}).publish
    return built if is_placed else built.model_copy(update={"to": None})


@contextmanager
def _speaking_of_words() -> Iterator[None]:
    """What errors say of settings, said of the words of a command line."""
    try:
        yield
    except WeberError as error:
        error.rewrite(lambda text: re.sub(r"publish\.\w+", lambda key: _WORDS.get(key[0], key[0]), text).replace("write to = ", "write "))
        raise


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True
