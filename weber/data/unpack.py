"""Rows of Parquet files or of an image folder, written as numbered picture files beside a table."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from weber.config.elsewhere import is_address
from weber.data.backends.sources import LOCAL
from weber.data.formats import SUFFIXES
from weber.data.table import read_table
from weber.errors import DataError

TABLE_NAME = "metadata.jsonl"
_NUM_PER_BATCH = 64
_NUM_PER_FOLDER = 1000
_STARTS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture file, and its ending if that is known."""

    data: bytes
    suffix: str


Cell = Picture | str | int | list[str] | None


@dataclass(frozen=True)
class Tables:
    """Rows to be unpacked, `total` of them. Columns of anything else are left out."""

    rows: Iterator[Mapping[str, Cell]]
    total: int


def write_unpacked(folder: Path, tables: Tables, *, name: str, report: Callable[[int, int], None]) -> None:
    """Write pictures and `metadata.jsonl` into a new folder, which appears whole or not at all.

    Raises DataError where there are no pictures, and OSError, ValueError or RuntimeError where they cannot be read or written. One
    process at a time may write a folder.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    num_pictures = 0
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a start that was killed
        unfinished.mkdir(parents=True)
        with (unfinished / TABLE_NAME).open("x", encoding="utf-8", newline="\n") as file:
            for number, row in enumerate(tables.rows):
                pictures = {key: cell for key, cell in row.items() if isinstance(cell, Picture)}
                named = {key: _write_picture(unfinished, cell, number, column) for column, (key, cell) in enumerate(pictures.items())}
                file.write(json.dumps({**row, **named}) + "\n")
                num_pictures += len(pictures)
                report(number + 1, tables.total)
        if not num_pictures:
            raise DataError(f"{name} has no pictures", got=f"{tables.total} rows without any", fix="name another dataset or split")
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_parquet(files: Sequence[Path | BytesIO], *, home: Path | None = None) -> Tables:
    """Rows of Parquet files (needs pyarrow), with pictures as the hub stores them: bytes, or a record with the field `bytes`; one that has
    a `path` alone is a file as seen from `home`.

    A damaged file is an OSError or a ValueError, here or when it is its turn.
    """
    parquet, types = importlib.import_module("pyarrow.parquet"), importlib.import_module("pyarrow.types")
    total = sum(parquet.read_metadata(file).num_rows for file in files)
    return Tables(_list_parquet(files, parquet, types, home=home), total)


def read_imagefolder(table: Path) -> Tables:
    """Rows of a metadata.jsonl or metadata.csv; a cell is a picture if it names one below the table's folder."""
    rows = read_table(table, LOCAL, name=f'the table "{table.name}" of the dataset').rows
    cells = ({key: _open_cell(cell, table.parent) for key, cell in row.cells.items() if _is_text(cell)} for row in rows)
    return Tables(cells, len(rows))


def _list_parquet(files: Sequence[Path | BytesIO], parquet: Any, types: Any, *, home: Path | None) -> Iterator[dict[str, Cell]]:
    for file in files:
        with parquet.ParquetFile(file) as opened:
            columns = [field.name for field in opened.schema_arrow if _holds_cells(field.type, types)]
            for batch in opened.iter_batches(batch_size=_NUM_PER_BATCH, columns=columns):
                for row in batch.to_pylist():
                    yield {name: _build_cell(row[name], home) for name in columns}


def _holds_cells(kind: Any, types: Any) -> bool:
    """Is that a column of pictures, of text or of whole numbers?"""
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    is_list = types.is_list(kind) or types.is_large_list(kind)
    inner = kind.value_type if is_list or types.is_dictionary(kind) else kind
    is_text = types.is_string(inner) or types.is_large_string(inner)
    return bool(is_text or (not is_list and any(test(inner) for test in (types.is_integer, types.is_binary, types.is_large_binary))))


def _build_cell(value: Any, home: Path | None) -> Cell:
    if isinstance(value, dict):
        data = value["bytes"]
        if data is None and home is not None and value.get("path"):
            return str(value["path"] if is_address(value["path"]) else home / value["path"])
        return None if data is None else Picture(data, Path(value.get("path") or "").suffix)
    return Picture(value, "") if isinstance(value, bytes) else value


def _is_text(cell: object) -> bool:
    return cell is None or isinstance(cell, str) or (isinstance(cell, list) and all(isinstance(item, str) for item in cell))


def _open_cell(cell: Any, folder: Path) -> Cell:
    if not isinstance(cell, str) or "\0" in cell or Path(cell).suffix.lower() not in SUFFIXES:
        return cell  # type: ignore[no-any-return]
    name = PurePath(cell)
    if name.is_absolute() or ".." in name.parts:
        return cell
    try:
        return Picture(LOCAL.read(folder / name), name.suffix)
    except DataError:  # it is missing: the name is kept, so that the row is set aside under it
        return cell


def _write_picture(folder: Path, picture: Picture, row: int, column: int) -> str:
    """The name of the new file below the folder."""
    suffix = picture.suffix.lower()
    if suffix not in SUFFIXES:
        suffix = next((ending for start, ending in _STARTS.items() if picture.data.startswith(start)), ".picture")
    name = f"{row // _NUM_PER_FOLDER:04}/{row:07}-{column}{suffix}"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture.data)
    return name
