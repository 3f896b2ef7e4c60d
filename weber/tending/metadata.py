"""Captions, tags and sizes of pictures in one table: built from files, merged with others, and written as files again."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags

from weber.config.data import DataConfig
from weber.data import parquet
from weber.data.backends.sources import LOCAL
from weber.data.beside import cut_suffix
from weber.data.caption_files import CaptionFiles
from weber.data.captions import read_captions
from weber.data.files import Files
from weber.data.formats import open_picture
from weber.data.images import decode_picture
from weber.data.names import ByName
from weber.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, Table, read_table
from weber.data.whole import write_whole
from weber.errors import ConfigError, DataError, MissingExtraError
from weber.progress import Progress
from weber.tending.caption_texts import RECORDS, find_pictures
from weber.tending.undo import write_texts

ENDINGS = (".jsonl", ".parquet", ".json")
"""JSON Lines and Parquet as training reads them; JSON as kohya's scripts have it: a table for each picture under its name."""

_CAPTION, _TAGS = ".caption", ".txt"
_TAG_COLUMN = "tags"
_TURNED = range(5, 9)  # values of EXIF for pictures that lie on their side


@dataclass
class Entry:
    """What is known of a picture: several captions where its file has several lines. `more` are other columns of a table."""

    captions: tuple[str, ...] = ()
    tags: str = ""
    size: tuple[int, int] | None = None
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """Where captions and tags are: endings of files. Left out: captions in .caption and tags in .txt, or without the former captions in
    .txt. `joins`: tags become a part of captions, as kohya's trainer does it."""

    captions: str | None = None
    tags: str | None = None
    joins: bool = False
    recursive: bool = True


def build_metadata(folder: Path, sources: Sources, *, progress: Progress) -> tuple[dict[str, Entry], list[str]]:
    """What the files of a folder say, by the names of pictures below it; and what was left out, as `name: reason`."""
    files = find_pictures(folder, recursive=sources.recursive)
    endings = _choose_endings(files, sources)
    config = DataConfig(path=folder, caption_endings=[one for one in endings if one is not None])
    known, entries, left = CaptionFiles(config, files), dict[str, Entry](), list[str]()
    for number, name in enumerate(files.pictures, 1):
        own = dict(zip(config.caption_endings, known.find(name).of_endings, strict=True))
        captions, tags = (own.get(ending) if ending else None for ending in endings)
        try:
            entry = Entry(_read_captions(folder, captions), ", ".join(_read_captions(folder, tags)), read_size(folder / name))
            entries[name] = _join(entry) if sources.joins else entry
        except (DataError, MissingExtraError) as error:
            left.append(f"{name}: {error.what}")
        progress("reading captions and sizes", number, len(files.pictures))
    return entries, left


def read_entries(table: Path, folder: Path | None) -> dict[str, Entry]:
    """A table of any kind that training or kohya's scripts read, by the names of pictures. `folder`: where they lie, for tables that name
    them without their endings."""
    rows = read_table(table, LOCAL, name=f'the table "{table}"')
    column = _find_column(rows)
    text_column = next((one for one in rows.columns if one.lower() in CAPTION_COLUMNS), None)
    names = None if folder is None else find_pictures(folder).pictures
    full, entries = _build_finder(names, folder), dict[str, Entry]()
    for row in rows.rows:
        [name, *_] = rows.read_texts(row, column) or ("",)
        if not name:
            continue
        cells = dict(row.cells)
        del cells[column]
        captions = rows.read_texts(row, text_column, several=True) if text_column in cells else ()
        cells.pop(text_column or "", None)
        tags, size = cells.pop(_TAG_COLUMN, None), _read_size_cells(cells)
        text = ", ".join(map(str, tags)) if isinstance(tags, list) else str(tags or "")
        entries[full(name)] = Entry(captions, text, size, {key: cell for key, cell in cells.items() if cell is not None})
    return entries


def _find_column(table: Table) -> str:
    wanted = (*IMAGE_COLUMNS, "image_path")
    found = next((one for one in table.columns if one.lower() in wanted), None)
    if found is None:
        raise DataError(
            f"{table.name} names no pictures",
            got=f"the columns {', '.join(table.columns)}",
            expected=f"one of {', '.join(wanted)}",
            fix="rename the column with the names of the pictures",
        )
    return found


def merge_entries(tables: Sequence[Mapping[str, Entry]]) -> dict[str, Entry]:
    """All pictures of all tables; what a later one says of a picture takes the place of what an earlier one says."""
    merged: dict[str, Entry] = {}
    for table in tables:
        for name, new in table.items():
            old = merged.get(name, Entry())
            merged[name] = Entry(new.captions or old.captions, new.tags or old.tags, new.size or old.size, {**old.more, **new.more})
    return merged


def write_entries(entries: Mapping[str, Entry], file: Path, *, folder: Path | None = None) -> None:
    """Write a table. With `folder` names are whole paths below it. Raises ConfigError for an ending that there is not."""
    named = {name if folder is None else str((folder / name).absolute()): entry for name, entry in entries.items()}
    write = _WRITERS.get(file.suffix.lower())
    if write is None:
        raise ConfigError(
            "A table of that kind is not written.", got=str(file), expected=", ".join(ENDINGS), fix="name a file that ends so"
        )
    write_whole(file, write(named))


def split_entries(
    entries: Mapping[str, Entry], folder: Path, *, captions: str, tags: str, overwrites: bool
) -> tuple[Path | None, int, list[str]]:
    """Write captions and tags as files beside the pictures: what undoes it, how many files are written, and what is left as it is."""
    texts, left = dict[Path, str](), list[str]()
    for name, entry in entries.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            left.append(f"{name}: it does not lie below {folder}")
            continue
        for ending, text in ((captions, "\n".join(entry.captions)), (tags, entry.tags)):
            file = path.with_name(cut_suffix(path.name) + ending)
            if not text or file in texts:
                continue
            if file.exists() and not overwrites and file.read_bytes().strip() != text.encode():
                left.append(f"{file.relative_to(folder)}: it is there and says something else (--overwrite replaces it)")
            elif not file.exists() or file.read_bytes().strip() != text.encode():
                texts[file] = text + "\n"
    return (write_texts(folder / RECORDS, texts) if texts else None), len(texts), left


def read_size(file: Path) -> tuple[int, int]:
    """Width and height of the upright picture, by its header alone where that is enough. Raises DataError with a one-line reason."""
    data = LOCAL.read(file)
    try:
        with open_picture(data) as image:
            width, height = image.size
            is_turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except (OSError, ValueError, SyntaxError, TypeError):
        return decode_picture(data, lambda image: image.size)  # says in words what is wrong
    return (height, width) if is_turned else (width, height)


def _choose_endings(files: Files, sources: Sources) -> tuple[str, str | None]:
    if sources.captions is None and sources.tags is None:
        has_captions = any(name.lower().endswith(_CAPTION) for name in files.captions)
        return (_CAPTION, _TAGS) if has_captions else (_TAGS, None)
    return sources.captions or (_CAPTION if sources.tags == _TAGS else _TAGS), sources.tags


def _read_captions(folder: Path, name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    try:
        return read_captions(LOCAL.read(folder / name)).captions
    except DataError as error:
        if error.what == "caption file is empty":
            return ()
        raise DataError(f"{name}: {error.what}") from error


def _join(entry: Entry) -> Entry:
    if not entry.tags:
        return entry
    captions = tuple(f"{text}, {entry.tags}" for text in entry.captions) or (entry.tags,)
    return Entry(captions, entry.tags, entry.size, entry.more)


def _build_finder(names: Sequence[str] | None, folder: Path | None) -> Callable[[str], str]:
    """From a name in a table to the picture's below the folder: whole paths, names, and names without their endings."""
    if names is None or folder is None:
        return lambda name: name
    stems, home = ByName((cut_suffix(name), name) for name in names), folder.absolute()
    there = set(names)

    def find(name: str) -> str:
        path = Path(name)
        if path.is_absolute() and path.is_relative_to(home):
            name = path.relative_to(home).as_posix()
        found = [name] if name in there else stems.find(name) or stems.find(cut_suffix(name))
        return found[0] if found else name

    return find


def _read_size_cells(cells: dict[str, object]) -> tuple[int, int] | None:
    pair = cells.pop("image_size", None)
    width, height = cells.pop("width", None), cells.pop("height", None)
    pair = pair if isinstance(pair, list) and len(pair) == 2 else [width, height]
    texts = [str(one or "") for one in pair]
    return (int(texts[0]), int(texts[1])) if all(text.isdecimal() for text in texts) else None


def _list_cells(entry: Entry) -> dict[str, Any]:
    captions = list(entry.captions) if len(entry.captions) > 1 else next(iter(entry.captions), None)
    size = {} if entry.size is None else {"width": entry.size[0], "height": entry.size[1]}
    cells = {"caption": captions, _TAG_COLUMN: entry.tags or None, **size, **entry.more}
    return {key: cell for key, cell in cells.items() if cell is not None}


def _write_lines(entries: Mapping[str, Entry]) -> bytes:
    lines = (json.dumps({"image": name, **_list_cells(entry)}, ensure_ascii=False) for name, entry in entries.items())
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _write_as_kohya(entries: Mapping[str, Entry]) -> bytes:
    tree = {}
    for name, entry in entries.items():
        cells = {"caption": next(iter(entry.captions), None), "tags": entry.tags or None, "image_size": entry.size and list(entry.size)}
        tree[name] = {key: cell for key, cell in cells.items() if cell is not None} | dict(entry.more)
    return (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogateescape")


def _write_parquet(entries: Mapping[str, Entry]) -> bytes:
    parquet.check_installed("a table that ends in .parquet")
    rows = [{"image": name, **_list_cells(entry)} for name, entry in entries.items()]
    if any(isinstance(row.get("caption"), list) for row in rows):
        rows = [row | {"caption": list(entry.captions)} for row, entry in zip(rows, entries.values(), strict=True)]
    columns = dict.fromkeys(key for row in rows for key in row)
    table = importlib.import_module("pyarrow").table({key: [row.get(key) for row in rows] for key in columns})
    data = BytesIO()
    importlib.import_module("pyarrow.parquet").write_table(table, data)
    return data.getvalue()


_WRITERS: Mapping[str, Callable[[Mapping[str, Entry]], bytes]] = {
    ".jsonl": _write_lines,
    ".parquet": _write_parquet,
    ".json": _write_as_kohya,
}
