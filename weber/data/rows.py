"""The pictures of a set and what belongs to each, found by the names of files or in a table; no picture is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from weber.config.caption_places import list_items
from weber.config.data import DataConfig
from weber.config.elsewhere import build_absolute, build_path, find_scheme, is_address
from weber.data.backends.backend import Backend
from weber.data.backends.sources import is_known
from weber.data.beside import Beside
from weber.data.buckets import check_size
from weber.data.caption_files import CaptionFiles, FoundFiles
from weber.data.files import Files, describe_kinds, find_suffix
from weber.data.formats import explain_ending
from weber.data.found import Folders, Found
from weber.data.names import ByName, find_spelled, normalize_name
from weber.data.seeds import build_seed
from weber.data.sets import check_pictures
from weber.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, Table, TableRow, read_table
from weber.data.words import describe_count, describe_some
from weber.errors import DataError

_TABLE_SUFFIXES = (".jsonl", ".csv")


class Row(NamedTuple):
    """One picture. With a `reason` it is set aside.

    `name` is the picture's below the set's folder, or where it does not lie there (`is_below`) its own. `captions` are those of a table,
    column by column, and `lack` says why they are none; `size` is what the table says of the
    picture's; `texts` are the caption files beside it.
    """

    path: Path
    name: str
    captions: tuple[tuple[str, ...], ...] = ()
    texts: FoundFiles = FoundFiles()
    references: tuple[Path, ...] = ()
    mask: Path | None = None
    loss_mask: Path | None = None
    reason: str = ""
    lack: str = ""
    is_below: bool = True
    size: tuple[int, int] | None = None


class Listed(NamedTuple):
    """The pictures of a set, and what a person should know, in sentences."""

    rows: Sequence[Row]
    notes: Sequence[str]


def list_rows(config: DataConfig, found: Found, *, files: Backend, key: str, is_held_out: bool = False) -> Listed:
    """The pictures of a set in the order of their names, and those that have no row, or no file. `key` is the set's in a config. Where some
    are held out these are left out; with `is_held_out` they are all that there is.

    Raises DataError for a folder that has no picture, and for a table that is broken.
    """
    folder, sorted_files = found.folder, found.files
    notes = []
    if found.own:
        notes.append(f"{config.set_name}: runs, caches and pictures of weber below it are left out: {describe_some(found.own)}")
    if config.metadata is not None:
        rows = _list_table(config, sorted_files, backend=files, key=key)
    else:
        check_pictures(config, pictures=[*sorted_files.pictures, *sorted_files.unread], files=found.home.names, own=found.own)
        names = sorted([*sorted_files.pictures, *sorted_files.unread])
        rows = [Row(folder / name, name, reason=sorted_files.unread.get(name, "")) for name in names]
    tables = _list_tables(config, sorted_files.others)
    notes += [f'{config.set_name}: the table {name} is not read: set metadata = "{folder / name}"' for name in tables[:1]]
    named = tables if config.metadata is None else [_find_below(build_absolute(config.metadata), folder)]
    texts = CaptionFiles(config, sorted_files)
    rows = _add_files(rows, texts=texts, beside=found.beside, is_optional=config.reference_optional)
    taken = {name for row in rows for name in row.texts.list_all()}
    others = [name for name in sorted_files.others if name not in named and name not in taken]
    if others:
        count = describe_count(len(others), "file")
        notes.append(f"{config.set_name}: {count} of other kinds beside the pictures: {describe_kinds(others)}")
    usable = [row for row in rows if not row.reason]
    if config.loss_masks is not None and usable and not any(row.loss_mask for row in usable):
        names = [name.rpartition("/")[2] for one in found.beside.all if one.kind == "loss mask" for name in one.names]
        raise DataError(
            f'{key}.loss_masks = "{config.loss_masks}" has no mask for any picture of the set',
            got=f"the files {describe_some(names)}" if names else "no picture files",
            expected=f'a mask of "{usable[0].path.name}" with the same name or stem, in the same subfolder',
            fix=f"name the masks as the pictures are named, or remove {key}.loss_masks",
        )
    if "textfile" in config.caption_sources:
        notes += texts.describe_lone([row.name for row in rows if row.is_below], read=taken)
    if config.every_nth is not None:
        kept = {id(row) for row in usable[:: config.every_nth]}
        rows = [row for row in rows if row.reason or id(row) in kept]
        notes.append(f"{config.set_name}: every_nth = {config.every_nth} takes {len(kept)} of {describe_count(len(usable), 'picture')}")
    if config.limit is not None:
        rows, note = _choose_rows(rows, folder, config=config, limit=config.limit)
        notes.append(f"{config.set_name}: {note}")
    if config.evaluation:
        held = {id(row) for row in _choose_held(rows, folder, config=config, key=key)}
        rows = [row for row in rows if (id(row) in held) == is_held_out and not (is_held_out and row.reason)]
    return Listed(rows, notes)


def _choose_rows(rows: Sequence[Row], folder: Path, *, config: DataConfig, limit: int) -> tuple[list[Row], str]:
    """So many of the rows that may be of use, in their order, beside those that are set aside; and what became of it, in words."""
    usable = _list_usable(rows, config)
    if len(usable) <= limit:
        return list(rows), f"limit = {limit} leaves out nothing, there are {describe_count(len(usable), 'picture')}"
    out = {id(row) for row in _draw_rows(usable, folder, "limit")[limit:]}
    return [row for row in rows if id(row) not in out], f"limit = {limit} of {describe_count(len(usable), 'picture')}"


def _choose_held(rows: Sequence[Row], folder: Path, *, config: DataConfig, key: str) -> Sequence[Row]:
    """The rows that are held out, at least one."""
    usable = _list_usable(rows, config)
    if config.evaluation == 1:
        return usable
    number = max(1, round(config.evaluation * len(usable)))
    if number >= len(usable) > 0:
        raise DataError(
            f"{key}.evaluation leaves no picture of the set to be learned",
            got=f"{key}.evaluation = {config.evaluation:g} of {describe_count(len(usable), 'picture')}",
            expected="a share that leaves some, or 1 for a set of which all are held out",
            fix=f"lower {key}.evaluation, or add pictures",
        )
    return _draw_rows(usable, folder, "evaluation")[:number]


def _list_usable(rows: Sequence[Row], config: DataConfig) -> list[Row]:
    """Those that may be of use, as far as names and tables tell."""
    needs_file = set(config.caption_sources) <= {"textfile", "json"} and config.caption_fallback is None
    return [row for row in rows if not row.reason and (row.texts.list_all() or not needs_file)]


def _draw_rows(rows: Sequence[Row], folder: Path, what: str) -> list[Row]:
    """In an order that is drawn by their names alone."""

    def draw(row: Row) -> int:
        is_far = find_scheme(row.path) and not row.is_below
        name = row.path.as_posix() if is_far else os.path.relpath(row.path, folder).replace(os.sep, "/")
        return build_seed(what, normalize_name(name))

    return sorted(rows, key=draw)


def _list_tables(config: DataConfig, others: Sequence[str]) -> list[str]:
    """Tables beside the pictures that nobody has named, where captions are in files."""
    if config.metadata is not None or "textfile" not in config.caption_sources:
        return []
    return [name for name in others if "/" not in name and find_suffix(name) in _TABLE_SUFFIXES]


def _add_files(rows: Sequence[Row], *, texts: CaptionFiles, beside: Folders, is_optional: bool) -> list[Row]:
    """The rows with what is found for them by their names."""
    added = []
    for row in rows:
        if row.reason:
            added.append(row)
            continue
        try:
            _check_text(str(row.path), "file name is not text: rename the file")
            find = Beside.find if is_optional else Beside.need
            references = (*row.references, *(path for one in beside.references if (path := find(one, row.name)) is not None))
            mask = None if beside.mask is None else beside.mask.need(row.name)
            loss_mask = None if beside.loss_mask is None else beside.loss_mask.find(row.name)
            found = texts.find(row.name) if row.is_below else FoundFiles()
            added.append(row._replace(texts=found, references=references, mask=mask, loss_mask=loss_mask))
        except DataError as error:
            added.append(_refuse(row.path, error.what))
    return added


def _list_table(config: DataConfig, files: Files, *, backend: Backend, key: str) -> list[Row]:
    """One row per row of the table, by path; then the pictures that it does not name."""
    assert config.metadata is not None
    folder = files.folder
    name = f'the hub dataset "{config.hub}"' if config.hub is not None else f'the table "{config.metadata}"'
    table = read_table(build_absolute(config.metadata), backend, name=name)
    image = table.check_column(config.image_column, IMAGE_COLUMNS, key=f"{key}.image_column")
    sources = [table.check_column(one, (), key=f"{key}.conditioning_columns") for one in config.conditioning_columns]
    columns: list[str] = []
    if "metadata" in config.caption_sources:
        wanted: list[str | None] = [*list_items(config.caption_column)] or [None]
        columns = [table.check_column(one, CAPTION_COLUMNS, key=f"{key}.caption_column") for one in wanted]
    pictures = [folder / one for one in (*files.pictures, *files.unread)]
    known = ByName((_identify(path), path) for path in pictures)
    rows: list[Row] = []
    named: dict[str, str] = {}
    for one in table.rows:
        given = table.read_texts(one, image)
        if not given:
            rows.append(_refuse(config.metadata, f"no picture: the column {image} is empty in {one.where}"))
            continue
        if is_address(given[0]):
            path = build_path(given[0] + table.read_digest(one))
        else:
            path = next(iter(known.find(_identify(folder / given[0]))), None) or _join(folder, given[0])
        row = _build_row(path, table, one, config=config, columns=columns, sources=sources, folder=folder, backend=backend)
        if _identify(path) in named:
            row = _refuse(path, f"doubled row: {one.where} names it too, {named[_identify(path)]} is used")
        named.setdefault(_identify(path), one.where)
        rows.append(row)
    named |= {_identify(path): "" for row in rows for path in row.references}
    reason = f"no row: {config.metadata.name} does not name it"
    unnamed = [Row(path, path.name, reason=reason) for path in sorted(pictures, key=Path.as_posix) if _identify(path) not in named]
    return sorted(rows, key=lambda row: row.path.as_posix()) + unnamed


def _build_row(
    path: Path,
    table: Table,
    row: TableRow,
    *,
    config: DataConfig,
    columns: Sequence[str],
    sources: Sequence[str],
    folder: Path,
    backend: Backend,
) -> Row:
    """Of a dataset of the hub, files outside of the folder are set aside, because a stranger has written the table."""
    captions = tuple(table.read_texts(row, column, several=True) for column in columns)
    lack = f"caption is empty: {row.where}" if columns and not any(captions) else ""
    names = {source: table.read_texts(row, source, several=True) for source in sources}
    try:
        for text in [str(path), *(name for one in names.values() for name in one)]:
            _check_text(text, f"file name is not text: {row.where}")
        references = tuple(_join(folder, one) for given in names.values() for one in given)
        if scheme := next((find_scheme(one) for one in (path, *references) if not is_known(one)), ""):
            raise DataError(f"address of an unknown kind: {scheme}:// in {row.where}")
        if config.hub is not None and not all(one.is_relative_to(folder) for one in (path, *references)):
            raise DataError(f"file outside of the dataset: {row.where}")
        try:
            if not find_scheme(path):  # elsewhere each question takes its time; they are asked later, many at once
                backend.stat(path)
        except DataError as error:
            raise DataError(f"{error.what}, named in {row.where}") from error
        if not find_scheme(path) and (reason := explain_ending(path.name)):
            raise DataError(reason)
        size = table.read_size(row) if config.hub is None else None  # nobody here can correct what a stranger's columns say
        if size is not None:
            check_size(*size, config=config)
        if lack and config.caption_fallback is None and config.caption_sources == ("metadata",):
            raise DataError(lack)
        for text in chain.from_iterable(captions):
            _check_text(text, f"caption is not text: {row.where}")
        for source, given in names.items():
            if not given and not config.reference_optional:
                raise DataError(f"no reference: the column {source} is empty in {row.where}")
    except DataError as error:
        return _refuse(path, error.what)
    is_below = path.is_relative_to(folder)
    name = _find_below(path, folder) if is_below else path.name
    return Row(path, name, captions, references=references, lack=lack, is_below=is_below, size=size)


def _refuse(path: Path, reason: str) -> Row:
    return Row(_spell(path), path.name, reason=reason)


def _find_below(path: Path, folder: Path) -> str:
    """Its name below the folder; the whole path of what does not lie there."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _join(folder: Path, name: str) -> Path:
    """The file of that name, as it is spelled on the disk; tables from Windows have backslashes."""
    if is_address(name):
        return build_path(name)
    path = find_spelled(Path(os.path.normpath(folder / name)))
    turned = name.replace("\\", "/")
    return path if turned == name or path.exists() else find_spelled(Path(os.path.normpath(folder / turned)))


def _identify(path: Path) -> str:
    """One text for one file, however it is spelled."""
    return os.path.normcase(os.path.normpath(path))


def _check_text(text: str, reason: str) -> None:
    """Raise DataError for text that cannot be printed, indexed or fed to an encoder."""
    if "\0" in text or text != _printable(text):
        raise DataError(reason)


def _printable(text: str) -> str:
    """Text with ? for what is not Unicode, as in names from old archives."""
    return text.encode(errors="replace").decode()


def _spell(path: Path) -> Path:
    return Path(_printable(str(path)))
