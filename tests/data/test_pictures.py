"""Pictures packed as columns: each comes back as it was, and what is counted is what is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.data.buckets import Bucket
from weber.data.columns import read_columns, write_columns
from weber.data.crops import Crop
from weber.data.examples import Example, Reference
from weber.data.loss_masks import LossMask
from weber.data.masks import Mask
from weber.data.pictures import Part, Pictures, pack_pictures
from weber.data.walk import list_captions, walk_prepared

CROPS = tuple(Crop(100 + left, 90, left, 3, 64, 48) for left in range(3))


def _build(number: int, kind: int, *, several: bool) -> Example:
    """A picture; `kind` says in bits what it has beside it."""
    crops = CROPS if several else CROPS[:1]
    references = tuple(Reference(Path(f"/r/{n}/{number}.png"), f"{n:032x}", crops, "" if n else "icc") for n in range(kind % 3))
    return Example(
        "set" if number < 4 else "other",
        Path(f"/p/ä {number}.png"),
        f"{number:032x}",
        300,
        200 + kind,
        Bucket(64, 48 if kind % 2 else 32),
        crops,
        tuple(f"caption {n}" for n in range(1 + kind % 2)),
        repeats=1 if number < 4 else 3,
        references=references,
        masks=tuple(Mask(None if kind & 4 else Path("/m.png"), f"drawn {n}", "cut" if n else "", 0.25) for n in range(kind & 2)),
        loss_mask=LossMask(Path("/l.png"), "f" * 32, bool(kind & 4), "cut", 0.5) if kind & 8 else None,
        loss_weight=0.5 if number < 4 else 1.0,
        is_regularization=number >= 4,
        caption_dropout=0.1,
        caption_file=f"p/{number}.txt" if kind & 1 else "",
        color="srgb" if kind & 2 else "",
    )


EXAMPLES = st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=1, max_size=9).map(
    lambda kinds: [_build(number, kind, several=several) for number, (kind, several) in enumerate(kinds)]
)


@given(EXAMPLES)
def test_every_picture_comes_back(examples: list[Example]) -> None:
    pictures = pack_pictures(examples)
    assert list(pictures) == examples and len(pictures) == len(examples)
    assert [pictures[place] for place in range(-len(examples), len(examples))] == examples * 2
    assert pictures[1:3] == examples[1:3]
    assert [one.masks[0].share for one in pictures if one.masks] == [0.25 for one in examples if one.masks]
    with pytest.raises(IndexError):
        pictures[len(examples)]


@given(EXAMPLES)
def test_counts(examples: list[Example]) -> None:
    pictures = pack_pictures(examples)
    assert pictures.count_uses() == sum((Counter({one.bucket: one.repeats}) for one in examples), Counter())
    assert sum(pictures.counts) == len(examples)
    members: dict[Bucket, list[int]] = {}
    for _, repeats, cells in pictures.list_cells():
        for bucket, places in cells.items():
            members.setdefault(bucket, []).extend(place for place in places.tolist() for _ in range(repeats))
    assert sorted(members) == sorted({one.bucket for one in examples})
    for bucket, places in members.items():
        assert places == [place for place, one in enumerate(examples) if one.bucket == bucket for _ in range(one.repeats)]


@given(EXAMPLES)
def test_views_and_captions_are_walked_as_each_picture_lists_them(examples: list[Example]) -> None:
    start = 0
    for part in pack_pictures(examples).parts:
        own = examples[start : start + len(part)]
        views = [(place, view) for place, one in enumerate(own) for view in one.list_views()]
        assert [(one.place, one.content, one.preparation) for one in walk_prepared(part)] == [
            (place, view.content, view.describe()) for place, view in views
        ]
        assert [(one.width, one.height, one.is_masked) for one in walk_prepared(part)] == [
            (view.crop.width, view.crop.height, view.mask is not None) for _, view in views
        ]
        assert {text for texts in list_captions(part) for text in texts} == {text for one in own for text in one.list_captions()}
        start += len(part)


def test_the_name_of_a_dataset_is_that_of_what_is_learned() -> None:
    examples = [_build(number, 15, several=True) for number in range(3)]
    name = pack_pictures(examples).identify()
    assert pack_pictures(examples).identify() == name
    moved = [replace(one, path=Path("/elsewhere") / one.path.name, caption_file="") for one in examples]
    assert pack_pictures(moved).identify() == name
    changes = [
        {"captions": ("another", "caption 1")},
        {"content": "0" * 31 + "f"},
        {"repeats": 2},
        {"crops": CROPS[:2], "references": ()},
        {"loss_mask": None},
    ]
    for change in changes:
        assert pack_pictures([replace(examples[0], **change), *examples[1:]]).identify() != name  # type: ignore[arg-type]


def test_a_file_of_a_part(tmp_path: Path) -> None:
    pictures = pack_pictures([_build(number, number, several=True) for number in range(4)])
    write_columns(tmp_path / "one", pictures.parts[0].columns)
    columns = read_columns(tmp_path / "one")
    assert columns is not None and Pictures([Part(pictures.parts[0].shared, columns)]) == pictures
    assert all(not array.flags.writeable for array in columns.arrays.values() if array.size)
    assert np.array_equal(pictures.parts[0].contents, columns.arrays["content"].reshape(-1).view("S16"))
