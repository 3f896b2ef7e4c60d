"""All pictures of a part one after the other, without making an `Example` of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weber.data.columns import Array
from weber.data.crops import describe_changes, describe_crop
from weber.data.packing import ROWS
from weber.data.pictures import Part

_NUM_AT_ONCE = 4096


class Prepared(NamedTuple):
    """A view of a picture as its key names it: `View.content` and `View.describe`; the size of the window, and if it has a mask."""

    place: int
    content: str
    preparation: str
    width: int
    height: int
    is_masked: bool


def walk_prepared(part: Part) -> Iterator[Prepared]:
    """Everything of these pictures that is encoded, as `Example.list_views` has it."""
    if "reference" in part.columns or "mask" in part.columns:
        for place in range(len(part)):
            for view in part.build(place).list_views():
                yield Prepared(place, view.content, view.describe(), view.crop.width, view.crop.height, view.mask is not None)
        return
    row, changes = 0, _list_changes(part)
    for low in range(0, len(part), _NUM_AT_ONCE):
        rows = slice(low, low + _NUM_AT_ONCE)
        contents, colors, stops = (part.array(name)[rows] for name in ("content", "color", "crop" + ROWS))
        names, first, crops = contents.tobytes().hex(), row, part.array("crop")[row : stops[-1]].tolist()
        for number, (stop, color) in enumerate(zip(stops.tolist(), colors.tolist(), strict=True)):
            for place, crop in enumerate(crops[row - first : stop - first], row):
                done = describe_crop(tuple(crop))
                if changes:
                    done = describe_changes(done, is_mirrored=bool(changes[0][place]), tint=part.words[changes[1][place]])
                done = f"{done} {part.words[color]}" if color else done
                yield Prepared(low + number, names[32 * number : 32 * number + 32], done, crop[4], crop[5], False)
            row = stop


def _list_changes(part: Part) -> list[Array]:
    """Of each crop whether it is mirrored and the number of its colors; empty where none is changed."""
    names, number = ("crop.mirrored", "crop.tint"), len(part.array("crop"))
    if not any(name in part.columns for name in names):
        return []
    return [part.array(name) if name in part.columns else np.zeros(number, np.int32) for name in names]


def list_captions(part: Part) -> list[Sequence[str]]:
    """Lists of everything that may be drawn as a caption, some of it more than once."""
    dropout = part.shared.caption_dropout
    return [*([[""]] if dropout > 0 else []), *([part.captions] if dropout < 1 else [])]


def find_name(part: Part, caption: str) -> str:
    """The name of the first picture's file that has a caption of these words, which is there."""
    row = next(row for row, text in enumerate(part.captions) if text == caption)
    return Path(part.paths[int(np.searchsorted(part.array("caption" + ROWS), row, side="right"))]).name
