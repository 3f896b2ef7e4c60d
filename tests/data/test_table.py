"""Tables: three ways to write the same rows, and every way to break one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.data.backends.sources import LOCAL
from weber.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, Table, read_table
from weber.errors import DataError

ROWS = [{"image": "a.png", "caption": 'a "quoted", comma,\nline'}, {"image": "ü b.png", "caption": "two\u2028lines"}]


def _read(path: Path, text: str | bytes) -> Table:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(path, LOCAL, name="the table")


def test_three_kinds_say_the_same(tmp_path: Path) -> None:
    lines = _read(tmp_path / "a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n")
    listed = _read(tmp_path / "a.JSON", json.dumps(ROWS, indent=2))
    cells = '"' + ROWS[0]["caption"].replace('"', '""') + '"'
    comma = _read(tmp_path / "a.csv", f"\ufeffimage, caption\r\na.png,{cells}\r\n\r\nü b.png,two\u2028lines\r\n")
    for table in (lines, listed, comma):
        assert [dict(row.cells) for row in table.rows] == ROWS
        assert table.columns == ("image", "caption")
    assert [row.where for row in lines.rows] == ["line 1", "line 2"]
    assert [row.where for row in listed.rows] == ["row 1", "row 2"]
    assert [row.where for row in comma.rows] == ["line 2", "line 5"]


def test_json_with_a_table_under_the_name_of_each_picture(tmp_path: Path) -> None:
    tree = {"/pictures/a.png": {"caption": "one", "train_resolution": [64, 64]}, "b.png": {"tags": "cat, red"}}
    table = _read(tmp_path / "a.json", json.dumps(tree))
    assert [row.cells["image"] for row in table.rows] == list(tree)
    assert [row.where for row in table.rows] == ["the entry /pictures/a.png", "the entry b.png"]
    assert table.columns == ("image", "caption", "train_resolution", "tags")


def test_columns_are_those_of_any_row(tmp_path: Path) -> None:
    table = _read(tmp_path / "a.jsonl", '{"file_name": "a"}\n{"file_name": "b", "text": "t", "image": 3}')
    assert table.columns == ("file_name", "text", "image")
    assert table.check_column(None, IMAGE_COLUMNS, key="data.0.image_column") == "image"
    assert table.check_column("file_name", IMAGE_COLUMNS, key="data.0.image_column") == "file_name"
    assert table.check_column(None, CAPTION_COLUMNS, key="data.0.caption_column") == "text"


@pytest.mark.parametrize(("wanted", "words"), [(None, "named caption, text, prompt or instruction"), ("words", '"words"')])
def test_a_missing_column_names_those_that_are_there(tmp_path: Path, wanted: str | None, words: str) -> None:
    table = _read(tmp_path / "a.csv", "image,title\na,b")
    with pytest.raises(DataError) as error:
        table.check_column(wanted, CAPTION_COLUMNS, key="data.3.caption_column")
    assert error.value.what == f"the table has no column {words}"
    assert error.value.got == "the columns image, title"
    assert error.value.fix == "set data.3.caption_column to one of them"


def test_texts_of_a_cell(tmp_path: Path) -> None:
    table = _read(tmp_path / "a.jsonl", '{"a": " x ", "b": ["x", " ", "y"], "c": null, "d": "", "e": []}')
    read = {column: table.read_texts(table.rows[0], column, several=True) for column in "abcdef"}
    assert read == {"a": ("x",), "b": ("x", "y"), "c": (), "d": (), "e": (), "f": ()}


@pytest.mark.parametrize(
    ("cell", "several", "words"),
    [
        ("3", True, "holds a number"),
        ("true", True, "holds true or false"),
        ('["a", 3]', True, "holds a number"),
        ('["a", null]', True, "holds no text"),
        ('["a"]', False, "holds a list"),
        ('{"path": "a"}', False, "holds a table"),
    ],
)
def test_a_cell_that_is_no_text(tmp_path: Path, cell: str, several: bool, words: str) -> None:
    table = _read(tmp_path / "a.jsonl", f'{{"a": "x"}}\n{{"a": {cell}}}')
    with pytest.raises(DataError) as error:
        table.read_texts(table.rows[1], "a", several=several)
    assert error.value.what == f'the table, line 2: the column "a" {words}'
    assert error.value.got == cell


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "", ["has no rows"]),
        ("a.jsonl", "\n \n", ["has no rows"]),
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n', ["line 3 is not JSON: expecting value", '{"a": }']),
        ("a.jsonl", '{"a": 1}\n{"a": "x\n', ["line 2 is not JSON"]),
        ("a.jsonl", '{"a": 1}\n["b"]', ["line 2 is not a row", '["b"]']),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", ["line 1 is not JSON", "9999 ..."]),
        ("a.jsonl", "[" * 100_000, ["line 1 is not JSON"]),
        ("a.jsonl", b'{"a": "\xe4"}', ["is not UTF-8 text"]),
        ("a.json", '{"a": "b"}', ["holds no list"]),
        ("a.json", '[{"a": "b"},\n{"a": "c"\n]', ["line 3 is not JSON", "got: ]"]),
        ("a.json", '[{"a": "b"}, "c"]', ["row 2 is not a row"]),
        ("a.json", "[]", ["has no rows"]),
        ("a.csv", "a,b\n", ["has no rows"]),
        ("a.csv", "a,b\n1,2\n\n3\n", ["line 4: 1 cells, but 2 columns", "columns a, b"]),
        ("a.csv", "a,b\n1,two, three\n", ["line 2: 3 cells, but 2 columns", "double quotes"]),
        ("a.csv", 'a,b\n1,"x"y\n', ["line 2 is not CSV"]),
        ("a.csv", 'a,b\n1,"x\n2,y\n', ["line 2 is not CSV", "unexpected end"]),
        ("a.csv", "a,b,a\n1,2,3\n", ['has the column "a" twice']),
        ("missing.csv", None, ["cannot be read", "No such file"]),
    ],
)
def test_a_broken_table_is_one_error(tmp_path: Path, name: str, text: str | bytes | None, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        read_table(tmp_path / name, LOCAL, name="the table") if text is None else _read(tmp_path / name, text)
    assert error.value.what.startswith("the table")
    assert [word for word in words if word not in str(error.value)] == []
    assert error.value.fix
    assert len(str(error.value)) < 500


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    rows = [{"Image": "a.png", "Caption": "ein Hut, rot"}]
    for separator in (";", "\t"):
        table = _read(tmp_path / "table.csv", f'Image{separator}Caption\na.png{separator}"ein Hut, rot"\n')
        assert [dict(row.cells) for row in table.rows] == rows
        assert table.check_column(None, IMAGE_COLUMNS, key="data.0.image_column") == "Image"
    assert [dict(row.cells) for row in _read(tmp_path / "table.jsonl", json.dumps(rows, indent=1)).rows] == rows
    with pytest.raises(DataError, match="is a spreadsheet or an archive, not text"):
        _read(tmp_path / "table.csv", "PK\3\4 rest")
