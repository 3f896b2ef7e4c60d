"""Examples: pictures with their crops and captions, and all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weber.data.buckets import Bucket
from weber.data.crops import Crop
from weber.data.loss_masks import LossMask, LossWindow
from weber.data.masks import Mask
from weber.data.views import View


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that a model looks at while it learns another; `crops` has one for each crop of that one."""

    path: Path
    content: str
    crops: tuple[Crop, ...]
    color: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One usable picture. `content` names its bytes; `width` and `height` are those of the upright picture, before any crop; `color` is
    what is done to its colors.

    Every mask goes with every crop; `loss_mask` says what of the picture is learned, None: all. `loss_weight` is how much it counts;
    with `is_regularization` the model is kept as it is on it. `caption_dropout`: how likely the empty caption is; `caption_weights`: how
    likely each of the captions is beside the others, none: all are as likely; `is_part_of_captions`: the steps of the set can make more.
    `reference_dropout`: how likely it is seen without its references; with `is_order_drawn` they are seen in any order.
    `caption_file` is the name below the set's folder of the file that they are from, empty for none.
    """

    set_name: str
    path: Path
    content: str
    width: int
    height: int
    bucket: Bucket
    crops: tuple[Crop, ...]
    captions: tuple[str, ...]
    repeats: int
    references: tuple[Reference, ...] = ()
    masks: tuple[Mask, ...] = ()
    loss_mask: LossMask | None = None
    loss_weight: float = 1.0
    is_regularization: bool = False
    caption_dropout: float = 0.0
    caption_file: str = ""
    color: str = ""
    caption_weights: tuple[float, ...] = ()
    is_part_of_captions: bool = False
    reference_dropout: float = 0.0
    is_order_drawn: bool = False

    def target(self, crop: int) -> View:
        """The picture itself, by the index of its crop."""
        return View(self.path, self.content, self.crops[crop], color=self.color)

    def list_references(self, crop: int) -> tuple[View, ...]:
        """Its references, in order, as they belong to that crop of the picture."""
        return tuple(View(one.path, one.content, one.crops[crop], color=one.color) for one in self.references)

    def masked(self, crop: int, mask: int) -> View | None:
        """The picture with one of its masks; None if it has none."""
        return View(self.path, self.content, self.crops[crop], self.masks[mask], self.color) if self.masks else None

    def learned(self, crop: int) -> LossWindow | None:
        """What of the picture is learned, as it belongs to that crop; None: all of it."""
        return None if self.loss_mask is None else LossWindow(self.loss_mask, self.crops[crop])

    def caption(self, number: int | None) -> str:
        """One of its captions; None: the empty one in its place."""
        return "" if number is None else self.captions[number]

    def list_caption_numbers(self) -> list[int | None]:
        """All of its captions that may be drawn, as `caption` takes them."""
        own = range(len(self.captions)) if self.caption_dropout < 1 else ()
        return [*own, *([None] if self.caption_dropout > 0 else [])]

    def list_captions(self) -> list[str]:
        """Everything that may be drawn as its caption."""
        return [self.caption(number) for number in self.list_caption_numbers()]

    def list_views(self) -> Iterator[View]:
        """Everything of this example that is encoded."""
        for crop in range(len(self.crops)):
            yield self.target(crop)
            yield from self.list_references(crop)
            yield from (View(self.path, self.content, self.crops[crop], mask, self.color) for mask in self.masks)

    @property
    def upscaled(self) -> bool:
        """Is the picture enlarged?"""
        return self.crops[0].resize_width > self.width or self.crops[0].resize_height > self.height

    @property
    def cut_fraction(self) -> float:
        """Share of the picture's pixels that a crop cuts away."""
        crop = self.crops[0]
        return 1 - crop.width * crop.height / (crop.resize_width * crop.resize_height)
