"""The pictures of a set, as they lie in its folder, with what a plan has found out of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from weber.config.data import DataConfig
from weber.config.document import Document, read_document
from weber.config.elsewhere import find_scheme
from weber.config.load import build_config
from weber.config.toml import read_toml
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.formats import SUFFIXES
from weber.data.left_out import ASIDE_FOLDER
from weber.errors import ChangedError, ConfigError, DataError
from weber.serve.files import find_root
from weber.serve.site import Site

PORTION, _MOST_LISTINGS = 48, 16
"""Pictures that are shown at once."""

ORDERS = {"name": "name", "cut": "cut most", "scale": "enlarged most", "caption": "longest caption", "none": "without a caption"}
_CAPTION_ENDINGS = (*CAPTION_SUFFIXES, ".json")


@dataclass(frozen=True)
class PictureSet:
    """A set of the settings: its number, its name, and its folder, None where that is on no disk of this machine."""

    number: int
    name: str
    folder: Path | None
    config: DataConfig
    place: str = ""


class Entry(NamedTuple):
    """One picture: where it is, and what the plan says of it; nothing where none was made."""

    place: str
    facts: Mapping[str, Any] = {}

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.place)

    @property
    def id(self) -> str:
        """Its name in a page."""
        return blake2b(f"{self.place} {self.facts.get('set', '')}".encode(errors="surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class _Listing:
    """The pictures and the caption files of a folder, and when each of its folders was changed."""

    stamps: Mapping[str, int]
    pictures: tuple[Entry, ...]
    captions: frozenset[str]

    def is_fresh(self) -> bool:
        """Whether nothing has come or gone since."""
        try:
            return all(Path(folder).stat().st_mtime_ns == stamp for folder, stamp in self.stamps.items())
        except OSError:
            return False


_listings: dict[tuple[str, bool, bool], _Listing] = {}
"""Those of the folders that were looked at last, so that of a large one a page is there at once."""


def list_sets(site: Site, file: Path) -> list[PictureSet]:
    """The sets of a file of settings. Raises ConfigError where the settings cannot be."""
    config, root = build_config(read_toml(file)), find_root(site, file)
    found = []
    for number, one in enumerate(config.data):
        folder = one.path
        is_here = folder is not None and not find_scheme(folder)
        place = (root / Path(str(folder)).expanduser()).resolve() if is_here else None
        is_seen = place is not None and place.is_dir() and any(place.is_relative_to(base) for base in site.roots)
        found.append(PictureSet(number, one.set_name, place if is_seen else None, one, str(folder or one.hub or one.metadata)))
    return found


def list_entries(one: PictureSet, pictures: Path | None, *, order: str = "name") -> Sequence[Entry]:
    """The pictures of a set in one of `ORDERS`: those of the plan, else those of its folder. What the plan has not measured comes last."""
    if pictures is not None:
        rows, _ = load_rows(pictures, pictures.stat().st_mtime_ns)
        entries: Sequence[Entry] = rows.get(f"data.{one.number}", ())
    else:
        entries = () if one.folder is None else _list(one.folder, recursive=one.config.recursive).pictures
    if order == "cut":
        return sorted(entries, key=lambda entry: -entry.facts.get("cut", -1))
    if order == "scale":
        return sorted(entries, key=lambda entry: -entry.facts.get("scale", -1))
    if order == "caption":
        return sorted(entries, key=lambda entry: -max((len(text) for text in entry.facts.get("captions", ())), default=0))
    if order == "none" and one.folder is not None:
        listing = _list(one.folder, recursive=one.config.recursive)
        known = {name.rpartition(".")[0] for name in listing.captions}
        return [entry for entry in listing.pictures if entry.place.rpartition(".")[0] not in known]
    return entries


def list_refused(one: PictureSet, pictures: Path | None) -> list[Entry]:
    """The pictures of a set that the plan has set aside, with the reason."""
    if pictures is None:
        return []
    _, refused = load_rows(pictures, pictures.stat().st_mtime_ns)
    return [row for row in refused if row.facts["set"] == one.name or row.facts["set"].startswith(f"{one.name}@")]


@lru_cache(maxsize=4)
def load_rows(pictures: Path, changed_ns: int) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """What a plan has written of its pictures: those of each set by its key, and those that are set aside."""
    rows: dict[str, list[Entry]] = {}
    refused: list[Entry] = []
    with pictures.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "reason" in row:
                refused.append(Entry(row["path"], row))
            else:
                rows.setdefault(row["key"], []).append(Entry(row["path"], row))
    return rows, refused


def _list(folder: Path, *, recursive: bool, is_aside: bool = False) -> _Listing:
    """The files of a folder in the order of their names, without what was set aside."""
    key = str(folder), recursive, is_aside
    known = _listings.get(key)
    if known is not None and known.is_fresh():
        return known
    stamps, pictures, captions = dict[str, int](), list[str](), list[str]()
    for here, folders, files in os.walk(folder):
        stamps[here] = Path(here).stat().st_mtime_ns
        folders[:] = [one for one in folders if recursive and one != ASIDE_FOLDER and not one.startswith(".")]
        for one in files:
            ending = f".{one.rpartition('.')[2].lower()}"
            if ending in SUFFIXES:
                pictures.append(f"{here}{os.sep}{one}")
            elif ending in CAPTION_SUFFIXES:
                captions.append(f"{here}{os.sep}{one}")
    while len(_listings) >= _MOST_LISTINGS:
        _listings.pop(next(iter(_listings)), None)
    _listings[key] = _Listing(stamps, tuple(Entry(one) for one in sorted(pictures)), frozenset(captions))
    return _listings[key]


def find_caption(picture: Path) -> Path | None:
    """The caption file beside a picture; None where there is none."""
    return next((file for ending in CAPTION_SUFFIXES if (file := picture.with_suffix(ending)).is_file()), None)


def read_caption(one: PictureSet, picture: Path) -> Document | None:
    """The text that is edited: that of the caption file, or an empty one where there is none yet; None where the set has its captions from
    elsewhere."""
    if "textfile" not in one.config.caption_sources or one.config.caption_endings or one.folder is None:
        return None
    return read_document(find_caption(picture) or picture.with_suffix(CAPTION_SUFFIXES[0]))


def find_picture(one: PictureSet, path: Path) -> Path:
    """The same path, if it is a picture of the set. Raises DataError for any other."""
    if one.folder is None or not path.is_relative_to(one.folder) or path.suffix.lower() not in SUFFIXES:
        raise DataError("This is no picture of the set.", got=path.name, fix="reload the page")
    return path


def move_aside(one: PictureSet, picture: Path) -> Path:
    """Move a picture of the set, with its caption files, into a folder for that below the set's, which no run reads; nothing is deleted.
    Returns where it is now."""
    assert one.folder is not None
    target = one.folder / ASIDE_FOLDER / picture.relative_to(one.folder)
    _move_all(picture, target)
    return target


def move_back(one: PictureSet, picture: Path) -> Path:
    """Undo that. Raises DataError for a picture that was not set aside."""
    assert one.folder is not None
    aside = one.folder / ASIDE_FOLDER
    if not picture.is_relative_to(aside):
        raise DataError("This picture was not set aside.", got=picture.name, fix="reload the page")
    target = _find_source(aside, picture) or one.folder / picture.relative_to(aside)
    _move_all(picture, target)
    return target


def _find_source(aside: Path, picture: Path) -> Path | None:
    """Where `weber data check --apply` has taken a picture from: it sorts them by what is wrong, and writes down where each was."""
    for record in aside.glob("undo-*.json*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            for row in json.loads(record.read_text(encoding="utf-8"))["moves"]:
                if _read_place(row["target"]) == picture:
                    return _read_place(row["source"])
    return None


def _read_place(text: str) -> Path:
    """Of these records, which hold names that are no Unicode too."""
    return Path(text.encode("latin-1").decode(errors="surrogateescape"))


def list_aside(one: PictureSet) -> list[Path]:
    """The pictures that somebody has set aside."""
    if one.folder is None or not (one.folder / ASIDE_FOLDER).is_dir():
        return []
    return [entry.path for entry in _list(one.folder / ASIDE_FOLDER, recursive=True, is_aside=True).pictures]


def _move_all(picture: Path, target: Path) -> None:
    """A picture and the files of its name. Raises ChangedError where it is not there, or where something else is in its place."""
    pairs = [(picture, target), *_list_beside(picture, target)]
    if not picture.is_file():
        raise ChangedError("The picture is not there any more.", got=picture.name, fix="reload the page")
    taken = next((place for _, place in pairs if place.exists()), None)
    if taken is not None:
        raise ChangedError("There is another file of that name already.", got=str(taken), fix="rename one of them; nothing was moved")
    target.parent.mkdir(parents=True, exist_ok=True)
    for file, place in pairs:
        file.rename(place)


def _list_beside(picture: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Caption files; one that another picture of the same name has too stays with it."""
    if any(other != picture and other.suffix.lower() in SUFFIXES for other in picture.parent.glob(f"{_escape(picture.stem)}.*")):
        return
    for ending in _CAPTION_ENDINGS:
        file = picture.with_suffix(ending)
        if file.is_file():
            yield file, target.with_suffix(ending)


def _escape(stem: str) -> str:
    return "".join(f"[{one}]" if one in "*?[" else one for one in stem)


def check_local(one: PictureSet) -> None:
    """Raise ConfigError for a set whose files are not below the roots of these pages."""
    if one.folder is None:
        raise ConfigError(
            f'The pictures of the set "{one.name}" are not in a folder of these pages.',
            got=one.place,
            expected="a folder below those that `weber serve` was started with",
            fix="start it with that folder: weber serve . /the/folder",
        )
