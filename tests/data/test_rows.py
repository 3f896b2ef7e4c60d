"""Sets with a table: what each row becomes, and what is set aside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]
TAKES = PictureLimits(max_references=2)


def _config(path: Path, metadata: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, metadata=metadata, **{"resolution": 64, "bucket_step": 16, **keys})


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _below(dataset: Dataset, folder: Path) -> list[str]:
    return [example.path.relative_to(folder).as_posix() for example in dataset.examples]


def test_triplets_from_a_table(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(["b.png", "deep/a.png", "source/b.jpg", "source/a.jpg", "style.png"]):
        write_picture(tmp_path / "set" / name, seed=number, caption=None)
    table = _write_rows(
        tmp_path / "set" / "pairs.jsonl",
        [
            {"target": "deep/../b.png", "source": "source/b.jpg", "style": "style.png", "instruction": "make it blue", "score": 3},
            {"target": "./deep/a.png", "source": "source/a.jpg", "style": "style.png", "instruction": ["make it red", "paint it red"]},
        ],
    )
    config = _config(tmp_path / "set", table, image_column="target", conditioning_columns=["source", "style"])
    dataset = read_sets(config, inputs=TAKES)
    assert _below(dataset, tmp_path / "set") == ["b.png", "deep/a.png"]
    assert [example.captions for example in dataset.examples] == [("make it blue",), ("make it red", "paint it red")]
    assert [[one.path.relative_to(tmp_path / "set").as_posix() for one in example.references] for example in dataset.examples] == [
        ["source/b.jpg", "style.png"],
        ["source/a.jpg", "style.png"],
    ]
    assert not dataset.set_aside  # the references are named, though not as pictures
    assert dataset.num_opened == 5
    assert read_sets(config, inputs=TAKES).num_opened == 0


def test_a_csv_and_a_list_mean_the_same(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=None)
    (tmp_path / "a.csv").write_text('file_name,text\na.png,"a cat, asleep"\n', encoding="utf-8")
    (tmp_path / "a.json").write_text('[{"image": "a.png", "prompt": "a cat, asleep"}]', encoding="utf-8")
    datasets = [read_sets(_config(tmp_path / "set", tmp_path / name)) for name in ("a.csv", "a.json")]
    assert datasets[0].examples == datasets[1].examples
    assert datasets[0].examples[0].captions == ("a cat, asleep",)


def test_pictures_elsewhere_may_be_named(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png")
    write_picture(tmp_path / "other" / "b.png", seed=1)
    rows = [{"image": "../other/b.png", "text": "b"}, {"image": str(tmp_path / "set" / "a.png"), "text": "a"}]
    dataset = read_sets(_config(tmp_path / "set", _write_rows(tmp_path / "a.jsonl", rows)))
    assert [(example.path.name, example.captions) for example in dataset.examples] == [("b.png", ("b",)), ("a.png", ("a",))]


def test_a_table_may_serve_references_alone(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption="from the file")
    write_picture(tmp_path / "set" / "b.jpg", seed=1, caption=None)
    table = _write_rows(tmp_path / "a.jsonl", [{"image": "a.png", "source": "b.jpg"}])
    config = _config(tmp_path / "set", table, captions="textfile", conditioning_columns=["source"])
    (example,) = read_sets(config, inputs=TAKES).examples
    assert (example.captions, len(example.references)) == (("from the file",), 1)


def test_masks_and_references_from_folders_go_with_a_table(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, folder in enumerate(["set", "masks", "source"]):
        write_picture(tmp_path / folder / "deep" / "a.png", seed=number)
    table = _write_rows(tmp_path / "a.jsonl", [{"image": "deep/a.png", "text": "a"}])
    config = _config(tmp_path / "set", table, masks=tmp_path / "masks", conditioning=[tmp_path / "source"])
    (example,) = read_sets(config, inputs=PictureLimits(max_references=1, repaints=True)).examples
    assert example.references[0].path == tmp_path / "source" / "deep" / "a.png"
    assert example.masks[0].path == tmp_path / "masks" / "deep" / "a.png"


def test_an_edited_row_opens_nothing(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number in range(3):
        write_picture(tmp_path / "set" / f"{number}.png", seed=number)
    rows = [{"image": f"{number}.png", "text": f"caption {number}"} for number in range(3)]
    config = _config(tmp_path / "set", _write_rows(tmp_path / "a.jsonl", rows))
    before = read_sets(config)
    rows[1]["text"] = "another caption"
    _write_rows(tmp_path / "a.jsonl", rows)
    after = read_sets(config)
    assert after.num_opened == 0
    assert [one == other for one, other in zip(before.examples, after.examples, strict=True)] == [True, False, True]


@pytest.mark.skipif(os.name == "nt", reason="messages of another system")
def test_single_pictures_are_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(["good.png", "twice.png", "wordless.png", "lonely.png", "torn.png", "unnamed.png", "s.png"]):
        write_picture(tmp_path / "set" / name, seed=number, caption=None)
    (tmp_path / "set" / "broken.png").write_bytes(b"no picture")
    rows = [
        {"image": "good.png", "text": "good", "source": "s.png"},
        {"image": "twice.png", "text": "first", "source": "s.png"},
        {"image": "./twice.png", "text": "second", "source": "s.png"},
        {"image": "missing.png", "text": "missing", "source": "s.png"},
        {"image": "wordless.png", "text": " ", "source": "s.png"},
        {"image": "lonely.png", "text": "lonely", "source": None},
        {"image": "torn.png", "text": "torn", "source": "no such.png"},
        {"image": "broken.png", "text": "broken", "source": "s.png"},
        {"image": "", "text": "nothing", "source": "s.png"},
        {"image": "n" * 300 + ".png", "text": "long", "source": "s.png"},
        {"image": "nul\0.png", "text": "nul", "source": "s.png"},
        {"image": "half \ud83d.png", "text": "half", "source": "s.png"},
        {"image": "s.png", "text": "half a character \ud83d", "source": "s.png"},
    ]
    table = _write_rows(tmp_path / "a.jsonl", rows)
    for _ in range(2):
        dataset = read_sets(_config(tmp_path / "set", table, conditioning_columns=["source"]), inputs=TAKES)
        assert [(example.path.name, example.captions) for example in dataset.examples] == [
            ("good.png", ("good",)),
            ("twice.png", ("first",)),
        ]
        reasons = {item.path.name: item.reason for item in dataset.set_aside}
        assert reasons == {
            "a.jsonl": "no picture: the column image is empty in line 9",
            "broken.png": "not a picture: no known picture format",
            "half ?.png": "file name is not text: line 12",
            "lonely.png": "no reference: the column source is empty in line 6",
            "missing.png": "unreadable file: No such file or directory, named in line 4",
            "n" * 300 + ".png": "unreadable file: File name too long, named in line 10",
            "nul\0.png": "file name is not text: line 11",
            "s.png": "caption is not text: line 13",
            "torn.png": "unusable reference: no such.png: unreadable file: No such file or directory",
            "twice.png": "doubled row: line 3 names it too, line 2 is used",
            "unnamed.png": "no row: a.jsonl does not name it",
            "wordless.png": "caption is empty: line 5",
        }
    assert dataset.num_opened == 0


@pytest.mark.parametrize(
    ("keys", "text", "words"),
    [
        (
            {},
            '{"picture": "a.png", "text": "x"}',
            ['the table "', "has no column named image, file_name or url", "picture, text", "data.0.image_column"],
        ),
        ({}, '{"image": "a.png", "words": "x"}', ["no column named caption, text, prompt or instruction", "data.0.caption_column"]),
        ({"image_column": "img"}, '{"image": "a.png", "text": "x"}', ['no column "img"', "image, text"]),
        ({"caption_column": "long"}, '{"image": "a.png", "text": "x"}', ['no column "long"', "data.0.caption_column"]),
        ({"conditioning_columns": ["source"]}, '{"image": "a.png", "text": "x"}', ['no column "source"', "data.0.conditioning_columns"]),
        ({}, '{"image": 3, "text": "x"}', ['line 1: the column "image" holds a number', "the name of a file"]),
        ({}, '{"image": "a.png", "text": {"en": "x"}}', ['line 1: the column "text" holds a table']),
        ({"conditioning_columns": ["s"]}, '{"image": "a.png", "text": "x", "s": [3]}', ['the column "s" holds a number']),
        ({}, '{"image": "a.png", "text": "x"', ["line 1 is not JSON"]),
        ({}, "", ["has no rows"]),
        ({}, '{"image": "b.png", "text": "x"}', ["no picture of the set", "1 x unreadable file", "1 x no row"]),
        ({"metadata": "missing.jsonl"}, "", ["data.0.metadata", "is not a file", "No such file"]),
        ({"metadata": "folder.jsonl"}, "", ["data.0.metadata", "is not a file", "got: a folder"]),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(
    tmp_path: Path, write_picture: Write, read_sets: Read, keys: dict[str, Any], text: str, words: list[str]
) -> None:
    write_picture(tmp_path / "set" / "a.png")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    settings = {key: tmp_path / value if key == "metadata" else value for key, value in keys.items()}
    with pytest.raises(DataError) as error:
        read_sets(_config(tmp_path / "set", **{"metadata": tmp_path / "a.jsonl", **settings}), inputs=TAKES)
    assert [word for word in words if word not in str(error.value)] == []
    assert error.value.fix


def test_tables_from_elsewhere(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "deep" / "a.png", caption=None)
    names = ["deep\\a.png", "ftp://example.org/b.png", "C:\\pictures\\c.png", "d.mp4"]
    (tmp_path / "set" / "d.mp4").touch()
    table = _write_rows(tmp_path / "set" / "t.jsonl", [{"image": name, "text": "x"} for name in names])
    dataset = read_sets(_config(tmp_path / "set", table))
    assert _below(dataset, tmp_path / "set") == ["deep/a.png"]
    reasons = sorted(item.reason.partition(":")[0] for item in dataset.set_aside)
    assert reasons == ["address of an unknown kind", "unreadable file", "video"]


def test_a_fallback_for_empty_cells(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate("ab"):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number, caption=None)
    table = _write_rows(tmp_path / "t.jsonl", [{"image": "a.png", "text": "x"}, {"image": "b.png", "text": " "}])
    assert len(read_sets(_config(tmp_path / "set", table)).set_aside) == 1
    captions = [one.captions for one in read_sets(_config(tmp_path / "set", table, caption_fallback="y")).examples]
    assert captions == [("x",), ("y",)]


# --- limit


def test_a_limit_takes_the_same_pictures_wherever_they_lie_and_more_with_a_higher_one(
    tmp_path: Path, write_picture: Write, read_sets: Read
) -> None:
    for place in ("one", "two"):
        for number in range(12):
            write_picture(tmp_path / place / "deep" / f"{number}.png", seed=number)
        write_picture(tmp_path / place / "lonely.png", seed=99, caption=None)

    def read(place: str, limit: int, seed: int = 1) -> Dataset:
        return read_sets(DataConfig(path=tmp_path / place, resolution=64, bucket_step=16, limit=limit), seed=seed)

    few, more = read("one", 4), read("one", 7)
    assert [len(few.examples), len(more.examples)] == [4, 7]
    assert set(_below(few, tmp_path / "one")) < set(_below(more, tmp_path / "one")) and _below(few, tmp_path / "one") == sorted(
        _below(few, tmp_path / "one")
    )
    assert _below(read("two", 4, seed=2), tmp_path / "two") == _below(few, tmp_path / "one")
    assert (few.num_opened, more.num_opened) == (5, 3)  # the lonely one too; none that is left out is opened
    assert [item.path.name for item in few.set_aside] == ["lonely.png"]
    assert "one: limit = 4 of 12 pictures" in few.notes
    assert "one: limit = 12 leaves out nothing, there are 12 pictures" in read("one", 12).notes


def test_the_lot_is_a_fair_one(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    """Neither the first of the names nor those of one folder."""
    for number in range(40):
        write_picture(tmp_path / "set" / f"{number // 20}" / f"{number:02}.png", 16, 16, seed=number)
    chosen = _below(read_sets(DataConfig(path=tmp_path / "set", resolution=16, bucket_step=16, limit=20)), tmp_path / "set")
    assert 5 <= sum(name.startswith("0/") for name in chosen) <= 15
