"""What the other machine needs of a run: its settings with the places that things have there, and the files that they name.

Every file keeps its whole path, below one folder: what names another file from where it is (tables, indexes) still finds it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement

from weber.config.data import DataConfig
from weber.config.elsewhere import find_scheme
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.config.toml import write_toml
from weber.data.backends.sources import FETCHED_FOLDERS
from weber.errors import DataError
from weber.families.singles import INDEX_ENDING, list_pieces
from weber.planning.plan import HUB_NAME, Plan
from weber.planning.resolve import build_absolute
from weber.planning.space import list_needs
from weber.remote.there import OUT
from weber.results.runs import SUFFIX, find_adapter

FILES, CACHE = "files", "cache"
_ENVIRONMENT_BYTES = 9 * 2**30
"""PyTorch with CUDA and all else, and what pip keeps while it unpacks."""
_HALF_BYTES = 2
"""Of each number of a model that is downloaded there."""
_PLACES = {
    "model": ("path", "transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer_path", "assistant"),
    "sampling": ("model", "preview_model", "clip_model", "likeness_model"),
}
"""Texts that are places where such a file or folder is here, and else something else, such as a hub id."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==")


@dataclass(frozen=True)
class Parcel:
    """`settings`: TOML for there; `sources`: files and folders here; `left_out`: folders in them that are not sent."""

    settings: str
    sources: tuple[Path, ...]
    left_out: tuple[Path, ...]
    num_files: int
    num_bytes: int


def build_name(folder: Path) -> str:
    """What a run is called there: as its folder here, in letters that every shell and system takes."""
    return _UNSAFE.sub("-", folder.name).strip(".-") or "run"


def build_parcel(plan: Plan, root: str) -> Parcel:
    """All that a run needs in the folder `root` there. Raises DataError for tables that name files by where they are here."""
    config = plan.asked
    left_out = (build_absolute(config.output.folder), build_absolute(config.output.cache))
    for one in config.data:
        _check_table(one, plan)
    tree, sources = _move(config, PurePosixPath(root, FILES))
    tree["output"] |= {"folder": f"{root}/{OUT}/{build_name(left_out[0])}", "cache": f"{root}/{CACHE}"}
    settings = write_toml(build_config(tree).model_dump(exclude_unset=True))
    sources += [one for one in _list_named(plan, left_out[1]) if not _is_below(one, sources)]
    tops = [one for one in dict.fromkeys(sources) if not _is_below(one, [other for other in sources if other != one])]
    sizes = [file.stat().st_size for top in tops for file in list_files(top, left_out)]
    return Parcel(settings, tuple(tops), left_out, len(sizes), sum(sizes))


def list_bytes(plan: Plan, parcel: Parcel, *, needs_environment: bool) -> dict[str, int]:
    """What the other machine will have on its disk, by what it is: all that the run writes, its files, the model, packages."""
    needs = {need.what: need.num_bytes for need in list_needs(plan)} | {"files": parcel.num_bytes}
    named = [place for place in (plan.asked.model.path, plan.asked.model.transformer) if place is not None]
    if not any(Path(place).expanduser().exists() for place in named):
        needs["the model, at least"] = _HALF_BYTES * sum(one.numel() for one in plan.family.skeleton.parameters())
    return needs | ({"packages": _ENVIRONMENT_BYTES} if needs_environment else {})


def list_packages() -> tuple[str, ...]:
    """The packages that weber and its extras need, as they are installed here: `name==version` of each, and of what they need."""
    found: dict[str, str] = {}
    waiting = [("weber", frozenset({""}))]
    installed = [one for one in importlib.metadata.distributions() if one.metadata["Name"]]
    # The first of a name is the one that is imported: libraries put copies of others at the end of the path.
    names = {_normalize(one.metadata["Name"]): one for one in reversed(installed)}
    while waiting:
        name, extras = waiting.pop()
        present = names.get(name)
        if present is None or name in found:
            continue
        found[name] = present.version.partition("+")[0]
        for text in present.requires or ():
            needed = Requirement(text)
            if name != "weber" and needed.marker is not None and not any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            if name == "weber" and _EXTRA.search(str(needed.marker)) and ("dev" in str(needed.marker) or "recipe" in str(needed.marker)):
                continue
            waiting.append((_normalize(needed.name), frozenset({"", *needed.extras})))
    found.pop("weber", None)
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()) if not name.startswith("nvidia-"))


def build_key(packages: Sequence[str]) -> str:
    """What tells a list of packages from others."""
    return hashlib.blake2b("\n".join(packages).encode(), digest_size=6).hexdigest()


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _move(config: RunConfig, files: PurePosixPath) -> tuple[dict[str, Any], list[Path]]:
    """The settings that were made, with every place as it is there, and those places here."""
    sources: list[Path] = []

    def move(value: Any) -> Any:
        if isinstance(value, Path) and not find_scheme(value):
            path = build_absolute(value)
            sources.append(_find_file(path))
            return f"{files}{path.as_posix()}"
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {key: move(one) for key, one in value.items()}
        return [move(one) for one in value] if isinstance(value, list) else value

    def move_text(table: dict[str, Any], name: str) -> None:
        text = table.get(name)
        if isinstance(text, str) and Path(text).expanduser().exists():
            table[name] = move(Path(text))
            sources.extend(_list_pieces(build_absolute(Path(text))))

    tree = config.model_dump(exclude_unset=True)
    places = {name: tree.setdefault("output", {}).pop(name, None) for name in ("folder", "cache")}
    start = tree.get("adapter", {}).get("start_from")
    if isinstance(start, str) and Path(start).expanduser().is_dir():
        tree["adapter"]["start_from"] = str(find_adapter(Path(start)))
    moved = {name: move(section) for name, section in tree.items()}
    for section, names in (*_PLACES.items(), ("adapter", ("start_from",))):
        for name in names:
            move_text(moved.get(section, {}), name)
    for one in moved.get("model", {}).get("adapters", ()):
        move_text(one, "path")
    moved["output"] |= places
    return moved, sources


def _find_file(path: Path) -> Path:
    """What is there of a path: itself, or the archive that it leads into."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _list_pieces(path: Path) -> tuple[Path, ...]:
    """The other pieces of a model of which one, or the index, is named."""
    return list_pieces(path) if path.is_file() and path.name.endswith((SUFFIX, INDEX_ENDING)) else ()


def _list_named(plan: Plan, cache: Path) -> Iterator[Path]:
    """Files that tables name, wherever they lie. What weber has fetched itself it fetches there too."""
    tables = {one.set_name for one in plan.config.data if one.metadata is not None}
    for example in plan.dataset.examples if tables else ():
        if example.set_name in tables:
            paths = (example.path, *(one.path for one in example.references))
            yield from (_find_file(one) for one in paths if not find_scheme(one) and not _is_fetched(one, cache))


def _is_fetched(path: Path, cache: Path) -> bool:
    return any((cache / name) in path.parents for name in (HUB_NAME, *FETCHED_FOLDERS))


def _check_table(config: DataConfig, plan: Plan) -> None:
    """Refuse a table of text that says where on this machine its pictures are."""
    if config.metadata is None or find_scheme(config.metadata) or config.metadata.suffix == ".parquet":
        return
    example = next((one for one in plan.dataset.examples if one.set_name == config.set_name), None)
    text = build_absolute(config.metadata).read_text(encoding="utf-8", errors="replace")
    if example is not None and str(example.path) in text:
        raise DataError(
            "The table names its pictures by where they are on this machine.",
            got=f"{config.metadata} with {example.path}",
            expected="names as seen from the table, or from data.path",
            fix="write them so, such as pictures/001.jpg",
        )


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(one in path.parents or (one == path) for one in folders)


def list_files(top: Path, left_out: Sequence[Path]) -> Iterator[Path]:
    """All files of a folder, or the file itself, without some folders; what a link leads to, as if it were there."""
    if not top.is_dir():
        yield top
        return
    for place, folders, files in os.walk(top, followlinks=True):
        folders[:] = [one for one in folders if Path(place, one) not in left_out]
        yield from (path for path in (Path(place, one) for one in files) if path.exists())
