"""The pictures of a run: packed as columns, and an `Example` made of a row when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from weber.config.elsewhere import find_scheme
from weber.data.buckets import Bucket
from weber.data.columns import Array, Columns, build_columns, find_span
from weber.data.crops import Crop
from weber.data.examples import Example, Reference
from weber.data.loss_masks import LossMask
from weber.data.masks import Mask
from weber.data.packing import ROWS, Packer, Shape

_NUM_BUILT = 256  # a step asks for its pictures more than once
_PATHS = ("path", "caption_file", "reference", "mask", "loss_mask")
"""Columns of texts that are paths."""


@dataclass(frozen=True)
class Shared:
    """What all pictures of a part have in common: see `Example`. Paths are kept as seen from `folder`."""

    set_name: str
    folder: Path
    repeats: int = 1
    loss_weight: float = 1.0
    is_regularization: bool = False
    caption_dropout: float = 0.0
    reference_dropout: float = 0.0
    is_order_drawn: bool = False


class Part:
    """A set's pictures."""

    def __init__(self, shared: Shared, columns: Columns) -> None:
        self.shared, self.columns = shared, columns
        self.shapes = [Shape.read(row) for row in columns.facts["shapes"]]
        self.words: list[str] = columns.facts["words"]
        self.captions = columns.read_texts("caption")
        self.paths, self._caption_files = columns.read_texts("path"), columns.read_texts("caption_file")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def contents(self) -> NDArray[np.bytes_]:
        """Names of the pictures' bytes (N,), to be compared and sorted."""
        return self.array("content").reshape(-1).view("S16")

    @cached_property
    def counts(self) -> list[int]:
        """How many pictures are of each of the `shapes`."""
        counts: list[int] = np.bincount(self.array("shape"), minlength=len(self.shapes)).tolist()
        return counts

    def count_word(self, name: str, word: str) -> int:
        """How many rows of a column of words have that one."""
        return int((self.array(name) == self.words.index(word)).sum()) if word in self.words and name in self.columns.arrays else 0

    def array(self, name: str) -> Array:
        """A column of numbers."""
        return self.columns.arrays[name]

    def number_buckets(self, buckets: Sequence[Bucket]) -> NDArray[np.int64]:
        """The place of each picture's bucket among these (N,)."""
        places: NDArray[np.int64] = np.array([buckets.index(shape.bucket) for shape in self.shapes])[self.array("shape")]
        return places

    def build(self, place: int) -> Example:
        """One picture."""
        shared, shape = self.shared, self.shapes[int(self.array("shape")[place])]
        width, height = self.array("size")[place].tolist()
        crops = self._list_crops("crop", self._find_rows("crop", place))
        captions = self._find_rows("caption", place)
        return Example(
            shared.set_name,
            _join(shared.folder, self.paths[place]),
            self.array("content")[place].tobytes().hex(),
            width,
            height,
            shape.bucket,
            crops,
            tuple(self.captions[captions.start : captions.stop]),
            shared.repeats,
            tuple(self._list_references(place)),
            tuple(self._list_masks(place)),
            self._find_loss_mask(place),
            shared.loss_weight,
            shared.is_regularization,
            shared.caption_dropout,
            self._caption_files[place],
            self.words[int(self.array("color")[place])],
            self._list_weights(captions),
            "partial" in self.columns.arrays and bool(self.array("partial")[place]),
            shared.reference_dropout,
            shared.is_order_drawn,
        )

    def _find_rows(self, name: str, place: int) -> range:
        """The rows of a column that belong to a picture."""
        return range(*find_span(self.array(name + ROWS), place)) if name + ROWS in self.columns.arrays else range(0)

    def _list_crops(self, name: str, rows: range) -> tuple[Crop, ...]:
        crops = tuple(Crop(*row) for row in self.array(name)[rows.start : rows.stop].tolist())
        for column in (f"{name}.mirrored", f"{name}.tint"):
            if column in self.columns.arrays:
                changes = self.array(column)[rows.start : rows.stop].tolist()
                crops = tuple(
                    replace(crop, tint=self.words[change]) if column.endswith("tint") else replace(crop, is_mirrored=bool(change))
                    for crop, change in zip(crops, changes, strict=True)
                )
        return crops

    def _list_weights(self, captions: range) -> tuple[float, ...]:
        """None where all are as likely."""
        if "caption.weight" not in self.columns.arrays:
            return ()
        weights: list[float] = self.array("caption.weight")[captions.start : captions.stop].tolist()
        return tuple(weights) if any(weight != 1 for weight in weights) else ()

    def _list_references(self, place: int) -> Iterator[Reference]:
        for row in self._find_rows("reference", place):
            path, content, word = self._read_file("reference", row)
            assert path is not None
            yield Reference(path, content, self._list_crops("reference.crop", self._find_rows("reference.crop", row)), word)

    def _list_masks(self, place: int) -> Iterator[Mask]:
        for row in self._find_rows("mask", place):
            yield Mask(*self._read_file("mask", row), float(self.array("mask.share")[row]))

    def _find_loss_mask(self, place: int) -> LossMask | None:
        rows = self._find_rows("loss_mask", place)
        if not rows:
            return None
        path, content, word = self._read_file("loss_mask", rows.start)
        is_alpha, share = self.array("loss_mask.alpha")[rows.start], self.array("loss_mask.share")[rows.start]
        assert path is not None
        return LossMask(path, content, bool(is_alpha), word, float(share))

    def _read_file(self, name: str, row: int) -> tuple[Path | None, str, str]:
        """Path, content and form or color of something beside a picture."""
        path, content = self.columns.read_texts(name)[row], self.columns.read_texts(f"{name}.content")[row]
        return _join(self.shared.folder, path) if path else None, content, self.words[int(self.array(f"{name}.word")[row])]


def _join(folder: Path, name: str) -> Path:
    """A path as it was: an address is none below the folder."""
    path = Path(name)
    return path if find_scheme(path) else folder / path


class Pictures(Sequence[Example]):
    """The pictures of all sets, one behind the other. Equal are those that are the same pictures in the same order."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self._starts = np.cumsum([0, *map(len, self.parts)])
        self._build = lru_cache(maxsize=_NUM_BUILT)(self._find)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._build(place)

    def _find(self, place: int) -> Example:
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.parts[part].build(place - int(self._starts[part]))

    def __iter__(self) -> Iterator[Example]:
        for part in self.parts:
            yield from map(part.build, range(len(part)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pictures) and len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def find_part(self, set_name: str) -> Part:
        """The pictures of a set."""
        return next(part for part in self.parts if part.shared.set_name == set_name)

    @cached_property
    def kinds(self) -> list[tuple[Shared, Shape]]:
        """Of which kinds pictures there are: what their part has in common, and their shape."""
        return [(part.shared, shape) for part in self.parts for shape in part.shapes]

    @cached_property
    def counts(self) -> list[int]:
        """How many pictures are of each of the `kinds`, without repeats."""
        return [count for part in self.parts for count in part.counts]

    def count_uses(self) -> dict[Bucket, int]:
        """How many pictures an epoch has of each bucket, with repeats; buckets in the order of their first picture."""
        uses: dict[Bucket, int] = {}
        for (shared, shape), count in zip(self.kinds, self.counts, strict=True):
            uses[shape.bucket] = uses.get(shape.bucket, 0) + count * shared.repeats
        return uses

    def list_cells(self) -> Iterator[tuple[str, int, dict[Bucket, NDArray[np.int64]]]]:
        """Of each part the name of its set, its repeats, and the places of each bucket's pictures in order."""
        for part, start in zip(self.parts, self._starts.tolist(), strict=False):
            buckets = sorted({shape.bucket for shape in part.shapes})
            numbers = part.number_buckets(buckets)
            cells = {bucket: np.flatnonzero(numbers == number) + start for number, bucket in enumerate(buckets)}
            yield part.shared.set_name, part.shared.repeats, cells

    def identify(self) -> str:
        """A name for all that is learned, wherever the files are: what pictures and masks hold, how they are cut, captions and repeats."""
        digest = blake2b(digest_size=16)
        for part in self.parts:
            facts = part.columns.facts
            digest.update(f"{part.shared.repeats} {facts['shapes']} {facts['words']}".encode())
            for name, column in sorted(part.columns.arrays.items()):
                if name.rpartition(".")[0] not in _PATHS:
                    digest.update(name.encode() + np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def pack_pictures(examples: Iterable[Example]) -> Pictures:
    """Pictures in memory, whatever sets they are of."""
    parts = []
    for shared, members in groupby(examples, key=_share):
        packer = Packer(shared.folder)
        for one in members:
            packer.add(one)
        parts.append(Part(shared, build_columns(packer.build(), packer.facts)))
    return Pictures(parts)


def _share(one: Example) -> Shared:
    chances = one.caption_dropout, one.reference_dropout, one.is_order_drawn
    return Shared(one.set_name, Path(), one.repeats, one.loss_weight, one.is_regularization, *chances)
