"""Parquet tables: with names, with addresses or with pictures in them; and the sizes that tables of any kind say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from weber.config.data import DataConfig
from weber.data import parquet_set
from weber.data.dataset import Dataset
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path, write_picture: Write) -> list[Path]:
    return [write_picture(tmp_path / "set" / f"{n}.png", 64 + 16 * n, seed=n, caption=f"picture {n}") for n in range(3)]


def _write(table: Path, columns: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), table)
    return table


def _config(**keys: Any) -> DataConfig:
    return DataConfig(**{"resolution": 64, "bucket_step": 16, **keys})


def _facts(dataset: Dataset) -> list[object]:
    return sorted((one.content, one.captions, one.bucket, one.crops) for one in dataset.examples)


TEXTS = [f"picture {number}" for number in range(3)]
COLUMNS: dict[str, Callable[[list[Path]], list[Any]]] = {
    "names": lambda files: [f"set/{file.name}" for file in files],
    "bytes": lambda files: [file.read_bytes() for file in files],
    "records": lambda files: [{"bytes": file.read_bytes(), "path": file.name} for file in files],
    "records with paths": lambda files: [
        {"bytes": files[0].read_bytes(), "path": None},
        *({"bytes": None, "path": f"set/{file.name}"} for file in files[1:]),
    ],
}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_table_is_the_set_that_it_names(
    tmp_path: Path, files: list[Path], read_sets: Read, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    table = _write(tmp_path / "t.parquet", {"image": COLUMNS[column](files), "text": TEXTS, "width": [64, 80, 96], "height": [64] * 3})
    found = read_sets(_config(metadata=table))
    assert _facts(found) == _facts(read_sets(_config(path=tmp_path / "set"))) and not found.set_aside
    with monkeypatch.context() as patch:
        patch.delattr(parquet_set, "write_unpacked")
        again = read_sets(_config(metadata=table))
    assert (again.num_opened, again.examples) == (0, found.examples)
    _write(table, {"image": COLUMNS[column](files), "text": ["x"] * 3})
    assert {one.captions for one in read_sets(_config(metadata=table)).examples} == {("x",)}


def test_what_cannot_be_is_said(tmp_path: Path, files: list[Path], read_sets: Read) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="is no Parquet file that can be read"):
        read_sets(_config(metadata=tmp_path / "bad.parquet"))
    table = _write(tmp_path / "t.parquet", {"image": COLUMNS["bytes"](files), "text": TEXTS})
    with pytest.raises(DataError, match="has pictures in it, so path has no effect"):
        read_sets(_config(metadata=table, path=tmp_path / "set"))
    with pytest.raises(DataError, match="has no rows"):
        read_sets(_config(metadata=_write(tmp_path / "e.parquet", {"image": pyarrow.array([], pyarrow.string())})))


def test_sizes_are_believed_and_checked(tmp_path: Path, files: list[Path], read_sets: Read) -> None:
    rows = [("set/0.png", "64", "64.5"), ("set/1.png", "80", "64"), ("set/2.png", "100", "64"), ("http://127.0.0.1:9/x", "8", "8")]
    rows += [("http://127.0.0.1:9/y", "640", "64")]
    (tmp_path / "t.csv").write_text("image,text,Width,Height\n" + "".join(f"{name},x,{w},{h}\n" for name, w, h in rows))
    found = read_sets(_config(metadata=tmp_path / "t.csv"))
    assert [one.path.name for one in found.examples] == ["1.png"]
    reasons = {one.path.name: one.reason for one in found.set_aside}
    assert reasons["0.png"] == "size is no number of pixels: 64 x 64.5 in line 2"
    assert reasons["2.png"] == "another size than its row says: 96 x 64 pixels, not 100 x 64"
    assert reasons["x"].startswith("too small") and reasons["y"].startswith("too long"), "nobody asked for them"
