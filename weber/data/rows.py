"""The pictures of a set and what belongs to each, found by the names of files or in a table; no picture is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.backends.local import LocalBackend
from weber.data.captions import CAPTION_SUFFIX
from weber.data.images import SUFFIXES
from weber.data.sets import check_pictures
from weber.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, Table, TableRow, read_table
from weber.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One picture. With a `reason` it is set aside; `captions` are those of a table, `caption_file` the file beside it."""

    path: Path
    captions: tuple[str, ...] = ()
    caption_file: Path | None = None
    references: tuple[Path, ...] = ()
    mask: Path | None = None
    loss_mask: Path | None = None
    reason: str = ""


def list_rows(config: DataConfig, *, key: str) -> list[Row]:
    """The pictures of a set in the order of their names, and those that have no row, or no file. `key` is the set's in a config.

    Raises DataError for a folder that cannot be listed or has no picture, and for a table that is broken.
    """
    assert config.path is not None
    folder = config.path.absolute()
    files = LocalBackend().list(folder, recursive=config.recursive) if config.hub is None else []
    inside = [one.absolute() for one in [*config.conditioning, config.masks, config.loss_masks] if one is not None]
    inside = [one for one in inside if one != folder and one.is_relative_to(folder)]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES and not any(path.is_relative_to(one) for one in inside)]
    if config.metadata is not None:
        rows = _list_table(config, folder, pictures, key=key)
    else:
        check_pictures(config, pictures=pictures, files=files)
        rows = [Row(path) for path in pictures]
    rows = _add_files(rows, config, folder, files)
    usable = [row for row in rows if not row.reason]
    if config.loss_masks is not None and usable and not any(row.loss_mask for row in usable):
        raise DataError(
            f'{key}.loss_masks = "{config.loss_masks}" has no mask for any picture of the set',
            expected=f'a mask of "{usable[0].path.name}" with the same name or stem, in the same subfolder',
            fix=f"name the masks as the pictures are named, or remove {key}.loss_masks",
        )
    return rows


def _add_files(rows: Sequence[Row], config: DataConfig, folder: Path, files: Sequence[Path]) -> list[Row]:
    """The rows with what is found for them by their names."""
    captions = {path.with_suffix(""): path for path in files if path.suffix.lower() == CAPTION_SUFFIX}
    folders = [("reference", one, _list_stems(one, recursive=config.recursive)) for one in config.conditioning]
    masks = [("mask", config.masks, _list_stems(config.masks, recursive=config.recursive))] if config.masks is not None else []
    weighed = config.loss_masks
    losses = {} if weighed is None else _list_stems(weighed, recursive=config.recursive)
    added = []
    for row in rows:
        if row.reason:
            added.append(row)
            continue
        try:
            _check_text(str(row.path), "file name is not text: rename the file")
            found = [_find(row.path, folder, *one) for one in [*folders, *masks]]
            references = (*row.references, *found[: len(folders)])
            mask = found[-1] if masks else None
            caption_file = captions.get(row.path.with_suffix(""))
            loss_mask = None if weighed is None else _find_one(row.path, folder, "loss mask", weighed, losses)
            added.append(Row(row.path, row.captions, caption_file, references, mask, loss_mask))
        except DataError as error:
            added.append(Row(_spell(row.path), reason=error.what))
    return added


def _list_stems(folder: Path, *, recursive: bool) -> dict[str, list[Path]]:
    """The pictures in a folder by their names below it, without endings."""
    stems: dict[str, list[Path]] = {}
    folder = folder.absolute()
    for path in LocalBackend().list(folder, recursive=recursive):
        if path.suffix.lower() in SUFFIXES:
            stems.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return stems


def _find(path: Path, folder: Path, kind: str, place: Path, stems: Mapping[str, Sequence[Path]]) -> Path:
    """As `_find_one`; there has to be one."""
    found = _find_one(path, folder, kind, place, stems)
    if found is None:
        raise DataError(f"no {kind}: {_find_stem(path, folder)} in {place}")
    return found


def _find_one(path: Path, folder: Path, kind: str, place: Path, stems: Mapping[str, Sequence[Path]]) -> Path | None:
    """The file of a picture among those of another folder: of its name, or the only one of its stem; None where there is none."""
    found = stems.get(_find_stem(path, folder), [])
    same = [one for one in found if one.name == path.name] or found
    if len(same) == 1:
        return same[0]
    if same:
        raise DataError(f"several {kind}s: {' and '.join(one.name for one in same)} in {place}")
    return None


def _find_stem(path: Path, folder: Path) -> str:
    """The picture's name below its folder, without ending."""
    below = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    return below.with_suffix("").as_posix()


def _list_table(config: DataConfig, folder: Path, pictures: Sequence[Path], *, key: str) -> list[Row]:
    """One row per row of the table, by path; then the pictures that it does not name."""
    assert config.metadata is not None
    name = f'the hub dataset "{config.hub}"' if config.hub is not None else f'the table "{config.metadata}"'
    table = read_table(config.metadata.absolute(), name=name)
    image = table.check_column(config.image_column, IMAGE_COLUMNS, key=f"{key}.image_column")
    sources = [table.check_column(one, (), key=f"{key}.conditioning_columns") for one in config.conditioning_columns]
    caption = None
    if config.caption_source == "metadata":
        caption = table.check_column(config.caption_column, CAPTION_COLUMNS, key=f"{key}.caption_column")
    known = {_identify(path): path for path in pictures}
    rows: list[Row] = []
    named: dict[str, str] = {}
    for one in table.rows:
        given = table.read_texts(one, image)
        if not given:
            rows.append(Row(config.metadata, reason=f"no picture: the column {image} is empty in {one.where}"))
            continue
        path = known.get(_identify(folder / given[0]), _join(folder, given[0]))
        row = _build_row(path, table, one, caption=caption, sources=sources, folder=folder, is_closed=config.hub is not None)
        if _identify(path) in named:
            row = Row(_spell(path), reason=f"doubled row: {one.where} names it too, {named[_identify(path)]} is used")
        named.setdefault(_identify(path), one.where)
        rows.append(row)
    named |= {_identify(path): "" for row in rows for path in row.references}
    unnamed = [Row(path, reason=f"no row: {config.metadata.name} does not name it") for place, path in known.items() if place not in named]
    return sorted(rows, key=lambda row: row.path.as_posix()) + unnamed


def _build_row(
    path: Path, table: Table, row: TableRow, *, caption: str | None, sources: Sequence[str], folder: Path, is_closed: bool
) -> Row:
    """`is_closed`: files outside of the folder are set aside, because a stranger has written the table."""
    captions = table.read_texts(row, caption, several=True) if caption is not None else ()
    names = {source: table.read_texts(row, source) for source in sources}
    try:
        for text in [str(path), *(name for one in names.values() for name in one)]:
            _check_text(text, f"file name is not text: {row.where}")
        references = tuple(_join(folder, given[0]) for given in names.values() if given)
        if is_closed and not all(one.is_relative_to(folder) for one in (path, *references)):
            raise DataError(f"file outside of the dataset: {row.where}")
        try:
            LocalBackend().stat(path)
        except DataError as error:
            raise DataError(f"{error.what}, named in {row.where}") from error
        if caption is not None and not captions:
            raise DataError(f"caption is empty: {row.where}")
        for text in captions:
            _check_text(text, f"caption is not text: {row.where}")
        for source, given in names.items():
            if not given:
                raise DataError(f"no reference: the column {source} is empty in {row.where}")
    except DataError as error:
        return Row(_spell(path), reason=error.what)
    return Row(path, captions, references=references)


def _join(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder / name))


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
