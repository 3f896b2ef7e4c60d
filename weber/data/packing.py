"""Examples to columns: what `Part` in `pictures.py` reads, row by row."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weber.data.buckets import Bucket
from weber.data.columns import Array, TextPacker
from weber.data.crops import Crop
from weber.data.examples import Example, Reference
from weber.data.loss_masks import LossMask
from weber.data.masks import Mask

ROWS = ".rows"
"""Of a column with several rows per picture, or none: where the rows of each picture end."""

_CONTENT_BYTES = 16
_CROP_NUMBERS = 6


@dataclass(frozen=True)
class Shape:
    """What decides which step can hold a picture, and what it costs there: `references` are the sizes of its references as they are cut;
    `is_masked`: with a mask for a model that repaints, `is_partial`: with a mask for the loss."""

    bucket: Bucket
    references: tuple[tuple[int, int], ...] = ()
    is_masked: bool = False
    is_partial: bool = False

    @classmethod
    def read(cls, row: list[Any]) -> Shape:
        """From its row in the facts of columns."""
        width, height, references, is_masked, is_partial = row
        return cls(Bucket(width, height), tuple((one[0], one[1]) for one in references), is_masked, is_partial)


class Packer:
    """Columns of pictures that are being written. Paths are written as seen from `folder`, where they lie below it."""

    def __init__(self, folder: Path) -> None:
        self._start = "" if folder == Path() else f"{folder.as_posix()}/"
        self._contents = bytearray()
        self._texts = defaultdict[str, TextPacker](TextPacker)
        self._ints = defaultdict[str, "array[int]"](lambda: array("i"))
        self._ends = defaultdict[str, "array[int]"](lambda: array("q"))
        self._floats = defaultdict[str, "array[float]"](lambda: array("d"))
        self._shapes: dict[object, int] = {}
        self._words: dict[str, int] = {"": 0}

    def add(self, one: Example) -> None:
        """One more picture."""
        self._texts["path"].add(self._name(one.path))
        self._contents += bytes.fromhex(one.content)
        self._ints["size"].extend((one.width, one.height))
        self._ints["color"].append(self._number(one.color))
        sizes = tuple((reference.crops[0].width, reference.crops[0].height) for reference in one.references)
        shape = (one.bucket.width, one.bucket.height, sizes, bool(one.masks), one.loss_mask is not None)
        self._ints["shape"].append(self._shapes.setdefault(shape, len(self._shapes)))
        self._add_crops("crop", one.crops)
        for caption in one.captions:
            self._texts["caption"].add(caption)
        self._ends["caption" + ROWS].append(len(self._texts["caption"]))
        self._texts["caption_file"].add(one.caption_file)
        weights = one.caption_weights or (1.0,) * len(one.captions)
        self._floats["caption.weight"].extend(weights)
        self._ints["partial"].append(one.is_part_of_captions)
        self._add_references(one.references)
        self._add_masks(one.masks)
        self._add_loss_mask(one.loss_mask)

    def __len__(self) -> int:
        return len(self._contents) // _CONTENT_BYTES

    @property
    def facts(self) -> dict[str, Any]:
        """What the numbers of the columns stand for."""
        return {"shapes": list(self._shapes), "words": list(self._words)}

    def build(self) -> dict[str, Array]:
        """The columns; of what no picture has there is none."""
        for name in ("crop", "reference.crop"):
            for change in (f"{name}.mirrored", f"{name}.tint"):
                if change in self._ints:
                    self._ints[change].extend([0] * (len(self._ints[name]) // _CROP_NUMBERS - len(self._ints[change])))
        arrays: dict[str, Array] = {"content": np.frombuffer(self._contents, np.uint8).reshape(-1, _CONTENT_BYTES)}
        kinds = ((self._ints, np.int32), (self._ends, np.int64), (self._floats, np.float64))
        arrays |= {name: np.frombuffer(numbers, dtype) for columns, dtype in kinds for name, numbers in columns.items()}
        arrays |= {name: arrays[name].reshape(-1, width) for name, width in (("size", 2), ("crop", _CROP_NUMBERS))}
        if (arrays["caption.weight"] == 1).all():
            del arrays["caption.weight"]
        if not arrays["partial"].any():
            del arrays["partial"]
        for name, texts in self._texts.items():
            arrays |= texts.build(name)
        if "reference.crop" in arrays:
            arrays["reference.crop"] = arrays["reference.crop"].reshape(-1, _CROP_NUMBERS)
        empty = {name.removesuffix(ROWS) for name, ends in self._ends.items() if name.endswith(ROWS) and not (len(ends) and ends[-1])}
        return {name: column for name, column in arrays.items() if name.removesuffix(ROWS).partition(".")[0] not in empty - {"caption"}}

    def _add_references(self, references: Iterable[Reference]) -> None:
        for one in references:
            self._add_file("reference", one.path, one.content, one.color)
            self._add_crops("reference.crop", one.crops)
        self._ends["reference" + ROWS].append(len(self._texts["reference"]))

    def _add_masks(self, masks: Iterable[Mask]) -> None:
        for one in masks:
            self._add_file("mask", one.path, one.content, one.form)
            self._floats["mask.share"].append(one.share)
        self._ends["mask" + ROWS].append(len(self._texts["mask"]))

    def _add_loss_mask(self, one: LossMask | None) -> None:
        if one is not None:
            self._add_file("loss_mask", one.path, one.content, one.form)
            self._floats["loss_mask.share"].append(one.share)
            self._ints["loss_mask.alpha"].append(one.is_alpha)
        self._ends["loss_mask" + ROWS].append(len(self._texts["loss_mask"]))

    def _add_file(self, name: str, path: Path | None, content: str, word: str) -> None:
        self._texts[name].add("" if path is None else self._name(path))
        self._texts[f"{name}.content"].add(content)
        self._ints[f"{name}.word"].append(self._number(word))

    def _add_crops(self, name: str, crops: Iterable[Crop]) -> None:
        numbers = self._ints[name]
        for one in crops:
            numbers.extend((one.resize_width, one.resize_height, one.left, one.top, one.width, one.height))
            if one.is_mirrored:
                self._mark(f"{name}.mirrored", len(numbers) // _CROP_NUMBERS - 1, 1)
            if one.tint:
                self._mark(f"{name}.tint", len(numbers) // _CROP_NUMBERS - 1, self._number(one.tint))
        self._ends[f"{name}{ROWS}"].append(len(numbers) // _CROP_NUMBERS)

    def _mark(self, name: str, row: int, number: int) -> None:
        """A number in a column of which most rows are 0."""
        self._ints[name].extend([0] * (row - len(self._ints[name])) + [number])

    def _number(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _name(self, path: Path) -> str:
        name = path.as_posix()
        return name[len(self._start) :] if self._start and name.startswith(self._start) else name
