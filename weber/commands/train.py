"""`weber train`, `weber demo`: runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weber.commands.terminal import (
    build_watcher,
    find_own_place,
    follow_parent,
    leave,
    read_environment,
    read_run,
    read_words,
    say,
    say_error,
)
from weber.errors import ConfigError

if TYPE_CHECKING:
    from weber.config.importers.outcome import Imported
    from weber.config.run import RunConfig
    from weber.parallel.place import Place

_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")
_RESUME = "--resume"


def place_resume(arguments: list[str]) -> list[str]:
    """The same words, with a `--resume` that names no checkpoint at the end: what stands behind it is a setting or a file of settings."""
    for number, word in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else "-"
        if word == _RESUME and (following.startswith("-") or following.endswith(".toml") or _OVERRIDE.match(following)):
            return [*arguments[:number], *arguments[number + 1 :], word]
    return arguments


def train(config: Path, /, *overrides: str, resume: Annotated[str | bool, Parameter(negative="", metavar="[STEP|FOLDER]")] = False) -> None:
    """Train an adapter, or the model itself.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    overrides
        `section.key=value`, for example `optim.lr=2e-4` or `data.0.repeats=10`.
    resume
        Go on from the latest good checkpoint in output.folder; with a step or a checkpoint's folder behind it, from that one.
    """
    with _telling_slurm():
        _train(config, overrides, resume=resume)


@contextmanager
def _telling_slurm() -> Iterator[None]:
    """A job of Slurm that is stopped, as at its time limit, can be put in the queue again."""
    try:
        yield
    except KeyboardInterrupt:
        job = read_environment().get("SLURM_JOB_ID")
        if job is not None and read_environment().get("SLURM_PROCID", "0") == "0":
            say_error(f"In Slurm: scontrol requeue {job} (the exit code is 130; the job's script should say --resume)")
        raise


def _train(config: Path, overrides: Sequence[str], *, resume: str | bool) -> None:
    settings, imported = read_run(config, overrides)
    if resume is True and (config.parent / "metrics.jsonl").is_file() and not settings.output.folder.exists():
        raise ConfigError(
            "The run folder was moved: its settings name another place.",
            got=f"output.folder = {settings.output.folder}, which does not exist",
            fix=f"add output.folder={shlex.quote(str(config.parent))}",
        )
    place = find_own_place()
    if place is not None:
        _train_together(settings, imported, place=place, resume=resume)
        return
    if settings.parallel.num_devices != 1:
        from weber.parallel.devices import list_devices

        devices = list_devices(settings)
        if len(devices) > 1:
            from weber.parallel.launch import launch

            words, own = read_words()
            leave(launch(words, devices, variables=read_environment(), own=own, write=say_error))
    from weber.training import assemble

    finished = assemble.train(settings, resume=resume, watcher=build_watcher(), imported=imported)
    say(f"The result is {finished}")


def _train_together(settings: RunConfig, imported: Imported | None, *, place: Place, resume: str | bool) -> None:
    """One of several processes. What a person reads is said by the first, or by what has started them."""
    from weber.parallel.devices import choose_device
    from weber.parallel.launch import LOST, PARENT
    from weber.parallel.world import PeerError, Undone, World, check_same
    from weber.training import assemble
    from weber.training.serve import serve
    from weber.training.state import flatten_settings

    parent = read_environment().get(PARENT, "0")
    if parent != "0" and place.rank == 0:
        follow_parent(int(parent))
    try:
        world = World(place, choose_device(settings))
        try:
            check_same(world, flatten_settings(settings.model_dump(mode="json")))
            if world.is_leader:
                finished = assemble.train(settings, resume=resume, watcher=build_watcher(), imported=imported, world=world)
                say(f"The result is {finished}")
            else:
                serve(settings, world)
        finally:
            world.dismiss()
        world.close()
    except Undone:
        leave(LOST)
    except PeerError:
        if parent != "0" or place.rank > 0:
            leave(LOST)
        raise


def demo(out: Path = Path("runs")) -> None:
    """Teach the small model that comes with weber a style, on the CPU: the same prompts before, during and after.

    Parameters
    ----------
    out
        Folder under which the run folder is made.
    """
    from weber.training.demo import run_demo

    sheet = run_demo(out, build_watcher())
    say(f"Before, during and after: {sheet}")
