"""What SkyPilot is told of a run: a task file (https://docs.skypilot.co, "SkyPilot YAML"), and a folder of all that goes to the machine.

SkyPilot copies links as links and leaves out what .gitignore files name, so what goes there is laid out in a folder of its own: each file
by a second name (a hard link) where the disk can do that, else as a copy. The same parcel as that of `weber remote`.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from weber.checkpoint.lock import LOCK_NAME
from weber.checkpoint.save import CONFIG_NAME
from weber.memory.estimate import Estimate
from weber.planning.plan import Plan
from weber.remote import there
from weber.remote.parcel import FILES, Parcel, build_name, list_bytes, list_files
from weber.remote.there import CODE, OUT, PACKAGES, SETTINGS, TEMPLATE
from weber.track.record import STATUS_NAME

IGNORED = ".skyignore"
"""Where it lies SkyPilot reads no .gitignore; it is empty."""
HUB_TOKEN = "HF_TOKEN"
_GB = 10**9
_SYSTEM_BYTES, _LEAST_GB, _SPARE = 30 * _GB, 60, 1.25
"""Of a disk: what the system and SkyPilot take, the smallest one, and what is left free of all else."""
_SETUP = """set -e
cd ~/{root}
python=""
for one in python3 python3.13 python3.12 python3.11 python3.14 ; do
  if "$one" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 ; then python=$one ; break ; fi
done
if [ -z "$python" ] ; then  # SkyPilot has brought uv
  uv=$(command -v uv || echo "$HOME/.local/bin/uv")
  "$uv" python install 3.12
  python=$("$uv" python find 3.12)
fi
"$python" -P {code} settle "$PWD" {key}
test -x ./{ready}
"""
_RUN = """cd ~/{root}
./{python} -P {code} hold "$PWD" train {settings} --resume
grep -q '"code": 0' {ended}
"""


@dataclass(frozen=True)
class Wish:
    """What a person wants to rent. `gpu`: as SkyPilot calls it; `count`: how many; `cloud`: None for the cheapest; `price`: dollars an
    hour, where SkyPilot does not know it; `disk_gb`: None for what the plan needs; `token`: that of the hub."""

    gpu: str
    count: int = 1
    cloud: str | None = None
    is_spot: bool = False
    idle_minutes: int = 15
    price: float | None = None
    disk_gb: int | None = None
    token: str | None = None


def build_task(wish: Wish, *, cluster: str, stage: Path, root: str, key: str, disk_gb: int, is_trained: bool) -> str:
    """The task file. `root`: the run's folder there, below the home folder; without `is_trained` the machine is only made ready."""
    code = f"{CODE}/weber/remote/there.py"
    resources: dict[str, Any] = {"accelerators": f"{wish.gpu}:{wish.count}", "disk_size": disk_gb, "use_spot": wish.is_spot}
    resources |= {} if wish.cloud is None else {"infra": wish.cloud}
    resources["autostop"] = {"idle_minutes": wish.idle_minutes, "down": True}
    tree: dict[str, Any] = {"name": cluster, "resources": resources, "file_mounts": {f"~/{root}": str(stage)}}
    tree |= {} if wish.token is None else {"secrets": {HUB_TOKEN: None}}
    tree["setup"] = _SETUP.format(root=root, code=code, key=key, ready=there.PYTHON)
    if is_trained:
        tree["run"] = _RUN.format(root=root, python=there.PYTHON, code=code, settings=SETTINGS, ended=there.ENDED)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def choose_disk(plan: Plan, parcel: Parcel, *, estimate: Estimate) -> int:
    """GB: all that the run has there, its text encoders as they are when they encode, the system, and a quarter more."""
    texts = {one.name: one.parts.get("text encoder", 0) for one in estimate.phases if one.name.startswith("encoding captions")}
    needed = sum(list_bytes(plan, parcel, needs_environment=True).values()) + sum(texts.values())
    return max(_LEAST_GB, 10 * math.ceil((_SPARE * needed + _SYSTEM_BYTES) / (10 * _GB)))


def build_stage(stage: Path, parcel: Parcel, *, packages: Sequence[str], past: Path | None) -> None:
    """Lay out what goes to the machine. `past`: the folder here of a run that goes on there, with its checkpoints."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700, parents=True)
    for file, place in _list_pairs(parcel, past=past):
        _place(file, stage / place)
    texts: Mapping[str, str] = {TEMPLATE: parcel.settings, PACKAGES: "\n".join(packages) + "\n", IGNORED: ""}
    for name, text in texts.items():
        (stage / name).touch(mode=0o600)
        (stage / name).write_text(text, encoding="utf-8")


def _list_pairs(parcel: Parcel, *, past: Path | None) -> Iterator[tuple[Path, Path]]:
    """Each file, and where it lies in the stage."""
    package = Path(there.__file__).parents[1]
    for file in list_files(package, ()):
        if "__pycache__" not in file.parts:
            yield file, Path(CODE, package.name, file.relative_to(package))
    for top in parcel.sources:
        yield from ((file, Path(FILES, file.relative_to(file.anchor))) for file in list_files(top, parcel.left_out))
    left_out = (CONFIG_NAME, LOCK_NAME, STATUS_NAME)
    for file in () if past is None else list_files(past, ()):
        place = file.relative_to(past) if past is not None else file
        if not any(part.startswith(".") for part in place.parts) and place.as_posix() not in left_out:
            yield file, Path(OUT, build_name(past or file), place)


def _place(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = file.resolve()
    with suppress(OSError):  # another disk, or a file of somebody else
        os.link(whole, place)
        return
    shutil.copyfile(whole, place)


class _Dumper(yaml.SafeDumper):
    """Scripts as they are read."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)
