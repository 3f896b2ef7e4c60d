"""What every page knows: where it may look, where it keeps its own, and who may ask."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from weber.errors import ConfigError
from weber.serve.words import describe_ago, describe_bytes, describe_time

TOKEN_NAME = "token"
_TOKEN_BYTES = 24
VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Site:
    """`roots`: the folders whose files may be seen and changed; `home`: where the queue, logs and thumbnails are, which nobody sees through
    a page; `token`: what a browser has to show; `slots`: GPUs by the names that CUDA has for them, none where one run at a time is all
    there is; `environment`: what child processes are started with."""

    roots: tuple[Path, ...]
    home: Path
    token: str = field(repr=False)
    templates: Environment
    slots: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def build_site(
    roots: Sequence[Path], *, home: Path | None = None, slots: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Site:
    """The site of these folders. Its own folder is made, and the token kept in it, so that browsers that know it need no other after a
    restart; whoever deletes the file has a new one. Raises ConfigError for a folder that is not there."""
    found = tuple(root.expanduser().resolve() for root in roots)
    absent = next((root for root in found if not root.is_dir()), None)
    if absent is not None:
        raise ConfigError("Pages can only be made of a folder.", got=str(absent), expected="a folder that is there", fix="name another one")
    place = (found[0] / ".weber" if home is None else home.expanduser()).resolve()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Site(found, place, _load_token(place / TOKEN_NAME), build_templates(), tuple(slots), dict(environment or {}))


def list_slots(environment: Mapping[str, str], *, folder: Path = _GPUS) -> list[str]:
    """The GPUs that runs may have, as CUDA names them: those that the environment leaves, else all that the driver has."""
    left = environment.get(VISIBLE)
    if left is not None:
        return [one.strip() for one in left.split(",") if one.strip() and one.strip() != "-1"]
    return [str(number) for number, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


def build_templates() -> Environment:
    """The templates, in which all text is escaped and a name that is not there is an error."""
    templates = Environment(loader=PackageLoader("weber.serve"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    templates.filters |= {"size": describe_bytes, "ago": describe_ago, "lasting": describe_time}
    return templates


def _load_token(file: Path) -> str:
    if file.is_file() and (known := file.read_text(encoding="utf-8").strip()):
        return known
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(token + "\n")
    return token
