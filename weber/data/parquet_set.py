"""Sets whose table is a Parquet file with pictures in it: these are unpacked once."""

from __future__ import annotations

import importlib
import shutil
from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from filelock import FileLock

from weber.config.data import DataConfig
from weber.config.elsewhere import build_absolute, find_scheme
from weber.data import parquet
from weber.data.backends.backend import Backend
from weber.data.unpack import TABLE_NAME, read_parquet, write_unpacked
from weber.errors import DataError
from weber.progress import Progress


def load_parquet_set(config: DataConfig, folder: Path, *, files: Backend, progress: Progress, key: str) -> DataConfig:
    """A set whose table has pictures in it, with `path` and `metadata` of what was unpacked below `folder`; any other as it is.

    Raises DataError for a file that cannot be read, and where `path` is given too; MissingExtraError where no Parquet file can be.
    """
    if config.metadata is None or config.metadata.suffix.lower() != parquet.ENDING:
        return config
    table, name = build_absolute(config.metadata), f'the table "{config.metadata}"'
    parquet.check_installed(name)
    try:
        source = BytesIO(files.read(table)) if find_scheme(table) else table
        if not _has_pictures(source):
            return config
        if config.path is not None:
            got, fix = f'{key}.path = "{config.path}"', f"remove {key}.path"
            raise DataError(f"{name} has pictures in it, so path has no effect", got=got, fix=fix)
        place = folder / _hash(table.as_posix()) / _hash(repr(files.stat(table)))
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name("unpacking.lock")):
            if not (place / TABLE_NAME).is_file():
                for older in place.parent.glob("*/"):
                    shutil.rmtree(older)
                tables = read_parquet([source], home=table.parent)
                write_unpacked(place, tables, name=name, report=partial(progress, f"unpacking {table.name}"))
    except parquet.DAMAGED as error:
        raise parquet.explain(name, error) from error
    except DataError as error:
        if error.fix:
            raise
        raise DataError(f"{name} cannot be read", got=error.what, fix="name a file that is there and that you may read") from error
    return config.model_copy(update={"name": config.set_name, "path": place, "metadata": place / TABLE_NAME})


def _has_pictures(source: Any) -> bool:
    schema, types = importlib.import_module("pyarrow.parquet").read_schema(source), importlib.import_module("pyarrow.types")
    kinds = [field.type for field in schema]
    return any(types.is_binary(kind) or types.is_large_binary(kind) or types.is_struct(kind) for kind in kinds)


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
