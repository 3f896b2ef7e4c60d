"""How a run begins on another machine.

Nothing is sent before both sides are looked at: the plan here, and there Python, rsync, GPU, disk and what has become of a run of that
name. Then files, packages, settings; then a process there that nobody who leaves takes along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weber.checkpoint.lock import LOCK_NAME
from weber.checkpoint.resume import load_latest
from weber.checkpoint.save import CONFIG_NAME
from weber.config.run import RunConfig
from weber.config.toml import write_toml
from weber.data.words import describe_count
from weber.errors import CheckpointError, ConfigError, RemoteError
from weber.memory.cards import find_driver_card
from weber.planning.places import check_places
from weber.planning.plan import Plan, build_plan
from weber.planning.resolve import build_absolute
from weber.planning.sizes import describe_size
from weber.remote import there
from weber.remote.link import Host, Link
from weber.remote.parcel import FILES, Parcel, build_key, build_name, build_parcel, list_bytes, list_packages
from weber.remote.rented import Rented, check_free, find_rented
from weber.remote.there import CODE, OUT, PACKAGES, SETTINGS, TOKEN
from weber.results.runs import is_run
from weber.track.progress import Watcher
from weber.track.record import STATUS_NAME

HOME = "weber-remote"
"""Where runs lie there, below the home folder."""
_MIB = 2**20
_PLACE = re.compile(r"~?[\w./+-]*", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """What a person says of the machine. `there`: where runs lie; `python`: an interpreter; `key`: the fingerprint that its key must have;
    `token`: that of the hub, for models with a license to agree to."""

    there: str = HOME
    python: str | None = None
    key: str | None = None
    resume: bool = False
    token: str | None = None


def send(config: RunConfig, host: Host, *, asked: Asked, watcher: Watcher) -> Rented:
    """Begin a run on another machine. Raises RemoteError, and what `build_plan` raises, before anything is sent."""
    folder, name = build_absolute(config.output.folder), build_name(build_absolute(config.output.folder))
    _check_here(config, folder, asked=asked)
    link, packages = Link(host, folder=folder, python=asked.python), list_packages()
    if asked.key is not None:
        link.accept(asked.key)
    facts = link.look(asked.there, name, packages=packages)
    root = str(facts["root"])
    _check_there(facts, host, asked=asked, folder=folder)
    plan = build_plan(config, watcher.report, is_resumed=asked.resume, card=_name_card(facts, config, host))
    parcel = build_parcel(plan, root)
    key = build_key(packages)
    is_ready = not facts["lacking"] or key in _list(facts, "environments")
    _check_space(plan, parcel, facts, host=host, needs_environment=not is_ready)
    watcher.write(f"{host.words}: {_describe(facts)}; the run lies in {root}.")
    watcher.write(
        f"Sending {describe_count(parcel.num_files, 'file')}, {describe_size(parcel.num_bytes)}, of which only what is not there."
    )
    link.ask("prepare", root)
    _send_files(link, parcel, root, past=folder if asked.resume else None)
    texts = {SETTINGS: parcel.settings, PACKAGES: "\n".join(packages) + "\n"}
    link.ask("write", root, texts if asked.token is None else texts | {TOKEN: asked.token})
    python = install_packages(link, root, key=key, watcher=watcher)
    settings = write_toml(plan.resolved.model_dump())
    rented = Rented(folder, link.host, root, name, python, settings)
    rented.save()
    link.ask("start", root, python, "train", SETTINGS, *(["--resume"] if asked.resume else []))
    return rented


def _check_here(config: RunConfig, folder: Path, *, asked: Asked) -> None:
    check_places(config)
    if not _PLACE.fullmatch(asked.there):
        raise ConfigError(
            "The folder there has letters that shells read.", got=f"--there {asked.there}", fix="letters, digits, ., -, _ and /"
        )
    if not asked.resume:
        check_free(folder)
        if is_run(folder):
            raise CheckpointError(
                "The folder here holds a run already.",
                got=f"output.folder = {folder}",
                fix="add --resume to go on with it there, or change it",
            )
    elif find_rented(folder) is None and load_latest(folder).folder is None:
        raise CheckpointError("There is nothing to go on from.", got=f"{folder} without a whole checkpoint", fix="leave --resume out")


def _check_there(facts: Mapping[str, object], host: Host, *, asked: Asked, folder: Path) -> None:
    state, root = facts["state"], facts["root"]
    if state == "foreign":
        raise RemoteError(
            "The folder there holds something else.", got=f"{host.words}, {root}", fix="set output.folder to another name, or --there"
        )
    if state == "running" or (state in ("ended", "gone") and not asked.resume):
        is_ours = find_rented(folder) is not None
        done = f"weber remote down {folder}" if is_ours else "delete its folder there"
        watch = f"weber remote attach {folder}" if is_ours else "attach where it was started"
        raise RemoteError(
            "A run of that name is at work there." if state == "running" else "A run of that name is there already.",
            got=f"{host.words}, {root}",
            fix=f"watch it: {watch}; or set output.folder to another name"
            if state == "running"
            else f"--resume goes on with it; or {done}",
        )
    if not facts["rsync"]:
        raise RemoteError(
            "rsync is not installed there.", got=host.words, fix="install it there: apt-get update && apt-get install -y rsync"
        )


def _name_card(facts: Mapping[str, object], config: RunConfig, host: Host) -> str | None:
    """The GPU there as the planner wants it; None where there is none, or the settings want none."""
    gpus = _list(facts, "gpus")
    if config.memory.device in ("cpu", "mps"):
        return None
    if not gpus:
        if config.memory.device.startswith("cuda"):
            raise RemoteError(
                "There is no GPU.", got=f'{host.words}, and memory.device = "{config.memory.device}"', fix="rent one with a GPU"
            )
        return None
    name, mebibytes = str(gpus[0][0]), float(gpus[0][1])
    card, size = find_driver_card(name), mebibytes * _MIB / 10**9
    if card is None:
        return f"{mebibytes / 1024:.0f}GiB"
    return f"{card.name} {min(card.sizes_gb, key=lambda one: abs(one - size))}GB"


def _check_space(plan: Plan, parcel: Parcel, facts: Mapping[str, object], *, host: Host, needs_environment: bool) -> None:
    needs = list_bytes(plan, parcel, needs_environment=needs_environment)
    free, needed = _count(facts, "free_bytes"), sum(needs.values()) - _count(facts, "num_bytes")
    if needed > free:
        parts = ", ".join(f"{what} {describe_size(num_bytes)}" for what, num_bytes in needs.items() if num_bytes)
        raise RemoteError(
            "The run would fill the disk there.",
            got=f"{host.words}: {describe_size(needed)} to be written to {facts['root']}, where {describe_size(free)} are free: {parts}",
            fix=f"rent a larger disk, name a folder on another one (--there), or free {describe_size(needed - free)}",
        )


def _send_files(link: Link, parcel: Parcel, root: str, *, past: Path | None) -> None:
    """`past`: the folder here of a run that goes on there, with its checkpoints."""
    closed = "--chmod=D700,F600"
    package = Path(there.__file__).parents[1]
    link.send([str(package)], f"{root}/{CODE}", options=["--delete", "--mkpath", "--exclude=__pycache__"])
    if parcel.sources:
        kept_out = [f"--exclude={one.as_posix()}" for one in parcel.left_out]
        partial = ["--partial-dir=.rsync-partial", "--relative", "--mkpath", closed]
        link.send([str(one) for one in parcel.sources], f"{root}/{FILES}", options=[*partial, *kept_out])
    if past is not None:
        left_out = [f"--exclude={one}" for one in (".*", f"/{CONFIG_NAME}", f"/{LOCK_NAME}", f"/{STATUS_NAME}")]
        link.send([f"{past}/"], f"{root}/{OUT}/{build_name(past)}", options=["--mkpath", "--update", closed, *left_out])


def install_packages(link: Link, root: str, *, key: str, watcher: Watcher) -> str:
    """The Python there with the packages of here. Raises RemoteError."""

    def write(line: bytes) -> None:
        watcher.write(line.decode(errors="replace").rstrip())

    try:
        return str(link.ask("install", root, key, write=write)["python"])
    except RemoteError as error:
        if error.is_passing:
            raise
        raise RemoteError(
            "The packages could not be installed there.",
            got=error.got,
            fix="see what pip said above; where venv is missing: apt-get install -y python3-venv; or name a Python that has them: --python",
        ) from error


def _describe(facts: Mapping[str, object]) -> str:
    """The machine in words."""
    version = ".".join(str(one) for one in _list(facts, "version"))
    gpus = [f"{name} ({float(size) / 1024:.0f} GiB)" for name, size in _list(facts, "gpus")]
    return f"Python {version}, {', '.join(gpus) or 'no GPU'}, {describe_size(_count(facts, 'free_bytes'))} free"


def _list(facts: Mapping[str, object], name: str) -> list[Any]:
    found = facts.get(name)
    return found if isinstance(found, list) else []


def _count(facts: Mapping[str, object], name: str) -> int:
    found = facts.get(name)
    return found if isinstance(found, int) else 0
