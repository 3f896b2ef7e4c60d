"""References that may be missing, stand in lists, are left out, change their order, have sizes of their own, or are the picture itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.batches import BatchPlan
from weber.data.dataset import Dataset
from weber.data.pictures import Pictures, pack_pictures
from weber.data.sets import PictureLimits
from weber.data.views import read_pixels
from weber.errors import ConfigError
from weber.families.patches import build_reference_size

Read = Callable[..., Dataset]
Write = Callable[..., Path]

TAKES = PictureLimits(max_references=3, reference_size=build_reference_size)


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64.0, "bucket_step": 16, "captions": "none", **keys})


def _names(dataset: Dataset) -> dict[str, list[str]]:
    return {one.path.name: [f"{two.path.parent.name}/{two.path.name}" for two in one.references] for one in dataset.examples}


def test_missing_ones_are_allowed_if_asked(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(("both", "first", "second", "none")):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
        for folder, has in (("one", ("both", "first")), ("two", ("both", "second"))):
            if name in has:
                write_picture(tmp_path / folder / f"{name}.png", seed=10 + number)
    keys = {"conditioning": [tmp_path / "one", tmp_path / "two"]}
    dataset = read_sets(_config(tmp_path / "set", **keys, reference_optional=True), inputs=TAKES)
    assert _names(dataset) == {
        "both.png": ["one/both.png", "two/both.png"], "first.png": ["one/first.png"], "none.png": [], "second.png": ["two/second.png"],
    }
    assert list(_names(read_sets(_config(tmp_path / "set", **keys), inputs=TAKES))) == ["both.png"]


def test_columns_may_hold_lists(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate("abcdxyz"):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
    rows = [
        {"image": "a.png", "text": "", "refs": ["z.png", "x.png"], "last": "y.png"},
        {"image": "b.png", "text": "", "refs": "x.png", "last": "y.png"},
        {"image": "c.png", "text": "", "refs": ["x.png", "y.png", "z.png"], "last": "y.png"},
        {"image": "d.png", "text": "", "refs": [], "last": None},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = {"metadata": tmp_path / "t.jsonl", "conditioning_columns": ["refs", "last"]}
    dataset = read_sets(_config(tmp_path / "set", **keys), inputs=TAKES)
    assert _names(dataset) == {"a.png": ["set/z.png", "set/x.png", "set/y.png"], "b.png": ["set/x.png", "set/y.png"]}
    assert {item.path.name: item.reason.partition(":")[0] for item in dataset.set_aside} == {
        "c.png": "too many references", "d.png": "no reference",
    }
    assert _names(read_sets(_config(tmp_path / "set", **keys, reference_optional=True), inputs=TAKES))["d.png"] == []


def _draw(pictures: Pictures, seed: int = 3) -> list[tuple[int, ...] | None]:
    plan = BatchPlan(pictures, batch_size=4, accumulation=1, seed=seed)
    return [draw.references for step in range(2000) for batch in plan.draw_step(step) for draw in batch]


def test_they_are_left_out_and_exchanged_as_often_as_asked(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for folder in ("set", "one", "two", "three"):
        write_picture(tmp_path / folder / "a.png", seed=len(folder))
    keys = {"conditioning": [tmp_path / folder for folder in ("one", "two", "three")]}
    plain = read_sets(_config(tmp_path / "set", **keys), inputs=TAKES).examples
    assert set(_draw(plain)) == {None}
    dropped = read_sets(_config(tmp_path / "set", **keys, reference_dropout=0.25), inputs=TAKES).examples
    counts = Counter(_draw(dropped))
    assert set(counts) == {None, ()} and abs(counts[()] / 2000 - 0.25) < 0.04
    shuffled = read_sets(_config(tmp_path / "set", **keys, reference_order="shuffled"), inputs=TAKES).examples
    orders = Counter(_draw(shuffled))
    assert len(orders) == 6 and all(sorted(order or ()) == [0, 1, 2] for order in orders) and min(orders.values()) > 250
    assert _draw(shuffled) == _draw(pack_pictures(list(shuffled)))


def test_each_reference_at_a_size_of_its_own(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png")
    write_picture(tmp_path / "one" / "a.png", 400, 200, seed=1)
    write_picture(tmp_path / "two" / "a.png", 400, 200, seed=2)
    keys = {"conditioning": [tmp_path / "one", tmp_path / "two"], "conditioning_type": "reference_loose"}
    [example] = read_sets(_config(tmp_path / "set", **keys, reference_sizes=[128]), inputs=TAKES).examples
    sizes = [(one.crops[0].width, one.crops[0].height) for one in example.references]
    assert sizes == [(176, 80), (400, 192)]
    listed = PictureLimits(max_references=3, sizes=((64, 64),))
    with pytest.raises(ConfigError, match="sizes of its own list"):
        read_sets(_config(tmp_path / "set", **keys, reference_sizes=[128]), inputs=listed)


@pytest.mark.parametrize("kind", ["crop", "color"])
def test_a_picture_as_its_own_reference(tmp_path: Path, write_picture: Write, read_sets: Read, kind: str) -> None:
    write_picture(tmp_path / "set" / "a.png", 128, 128)
    keys = {"reference_own": kind, "mirror": True}
    dataset = read_sets(_config(tmp_path / "set", **keys), inputs=TAKES)
    [example] = dataset.examples
    assert dataset.notes == ()
    for crop, target in enumerate(example.crops):
        [own] = example.list_references(crop)
        assert own.content == example.content and own.crop != target and own.crop.is_mirrored == target.is_mirrored
        assert (own.crop.width, own.crop.height) == (target.width, target.height)
        assert (own.crop.tint != "") == (kind == "color")
        assert own.crop.resize_width <= 128 and (read_pixels(own) != read_pixels(example.target(crop))).any()
    with pytest.raises(ConfigError, match="no reference pictures"):
        read_sets(_config(tmp_path / "set", **keys))


def test_without_another_window_it_is_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "small.png", 64, 64)
    write_picture(tmp_path / "set" / "large.png", 128, 128, seed=1)
    dataset = read_sets(_config(tmp_path / "set", reference_own="crop"), inputs=TAKES)
    assert [item.reason.partition(":")[0] for item in dataset.set_aside] == ["no other window"]
