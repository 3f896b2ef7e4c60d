"""Columns in a file: what is read is what was written, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.data.columns import TextPacker, build_columns, find_span, read_columns, write_columns

TEXTS = st.lists(st.text(st.characters(exclude_categories=[]), max_size=20), max_size=30)


@given(TEXTS, st.integers(0, 30), st.integers(0, 30))
def test_texts_are_read_one_by_one_and_in_rows(texts: list[str], start: int, stop: int) -> None:
    packer = TextPacker()
    for text in texts:
        packer.add(text)
    column = build_columns(packer.build("words"), {}).read_texts("words")
    assert list(column) == texts and [column[place] for place in range(len(texts))] == texts
    assert column[start:stop] == texts[start:stop]
    for place in (-1, len(texts)):
        with pytest.raises(IndexError):
            column[place]


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    packer = TextPacker()
    for text in ("a cat", "", "\udcff", "ä"):
        packer.add(text)
    arrays = {"numbers": np.arange(6, dtype=np.int32).reshape(3, 2), "none": np.zeros((0, 4)), **packer.build("words")}
    write_columns(tmp_path / "new" / "one.columns", build_columns(arrays, {"a": [1, "b"], "t": (1, 2)}))
    columns = read_columns(tmp_path / "new" / "one.columns")
    assert columns is not None and columns.facts == {"a": [1, "b"], "t": [1, 2]}
    assert list(columns.read_texts("words")) == ["a cat", "", "\udcff", "ä"] and "words" in columns and "other" not in columns
    for name, array in arrays.items():
        assert columns.arrays[name].dtype == array.dtype and np.array_equal(columns.arrays[name], array)
        assert columns.arrays[name].ctypes.data % 8 == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.columns"]


@pytest.mark.parametrize("num_bytes", [0, 10, 24, 60, -64])
def test_what_is_not_whole_is_not_there(tmp_path: Path, num_bytes: int) -> None:
    file = tmp_path / "one.columns"
    write_columns(file, build_columns({"numbers": np.arange(100)}, {"a": 1}))
    data = file.read_bytes()
    file.write_bytes(data[:num_bytes])
    assert read_columns(file) is None
    file.write_bytes(data.replace(b'"a":1', b'"a":2'))
    assert read_columns(file) is None
    assert read_columns(tmp_path / "none.columns") is None


def test_parts_of_rows() -> None:
    ends = np.array([2, 2, 5])
    assert [find_span(ends, place) for place in range(3)] == [(0, 2), (2, 2), (2, 5)]
    with pytest.raises(IndexError):
        find_span(ends, 3)
