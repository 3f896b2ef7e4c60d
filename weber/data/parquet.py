"""Parquet files as tables: their rows, and what is said where they cannot be read."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from io import BytesIO

from weber.errors import DataError, MissingExtraError

ENDING = ".parquet"
DAMAGED = (OSError, ValueError, RuntimeError)
"""What is raised for a file that cannot be read."""


def read_rows(data: bytes, *, name: str) -> Iterator[Mapping[str, object]]:
    """The rows of a file."""
    check_installed(name)
    try:
        yield from importlib.import_module("pyarrow.parquet").read_table(BytesIO(data)).to_pylist()
    except DAMAGED as error:
        raise explain(name, error) from error


def check_installed(name: str) -> None:
    """Raise MissingExtraError where no Parquet file can be read."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("Parquet files cannot be read, because pyarrow is not installed.", got=name, fix="pip install 'weber[hub]'")


def explain(name: str, error: Exception) -> DataError:
    """The error of a file that cannot be read."""
    got = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{name} is no Parquet file that can be read", got=got, fix="write it again, or fetch it again; or save it as CSV")
