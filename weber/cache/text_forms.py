"""How the text that a network reads is kept: as its encoder made it, after the network's own first layer, or in 8 bits.

Only the tensor `text` (T, D) of a text part is kept otherwise; all else is small. A form is a row of `build_text_form`.
Legend: B captions, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor, nn

from weber.config.output import TextCache
from weber.families.family import Family
from weber.families.tokens import PROJECTED, TEXT, TEXT_LAYER

SCALE = "text_scale"
_FP8 = torch.float8_e4m3fn
_LARGEST_FP8 = torch.finfo(_FP8).max
_SCALE_BYTES = 4

Shapes = Mapping[str, tuple[int, ...]]


class TextForm(Protocol):
    """What is kept of the tensors of a caption, and what a step is told of what was kept."""

    @property
    def identity(self) -> str:
        """Part of the key of what is kept."""
        ...

    def prepare(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What an encoder made of captions (B, ...), still where the encoder is."""
        ...

    def release(self) -> None:
        """Let go of what `prepare` has needed."""
        ...

    def pack(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The same (B, ...) as it is written."""
        ...

    def unpack(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """What was written of one caption, as the network is told it."""
        ...

    def list_told(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """The shapes that the network is told in place of these."""
        ...

    def count_bytes(self, shapes: Shapes, dtype: torch.dtype) -> int:
        """What is written of one caption whose tensors have these shapes."""
        ...


@dataclass(frozen=True)
class FullText:
    """As the encoder made it."""

    identity: str = ""

    def prepare(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `TextForm`."""
        return tensors

    def release(self) -> None:
        """See `TextForm`."""

    def pack(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `TextForm`."""
        return tensors

    def unpack(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """See `TextForm`."""
        return dict(tensors)

    def list_told(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """See `TextForm`."""
        return dict(shapes)

    def count_bytes(self, shapes: Shapes, dtype: torch.dtype) -> int:
        """See `TextForm`."""
        return dtype.itemsize * sum(torch.Size(shape).numel() for shape in self.list_told(shapes).values())


@dataclass(frozen=True)
class ProjectedText(FullText):
    """As the network's own first layer makes it, caption by caption, in the run's precision; `width` is what that has at its end."""

    load: Callable[[], nn.Module] = nn.Identity
    width: int = 0

    def prepare(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `TextForm`; one by one, because more rows at once may be summed in another order."""
        text = tensors[TEXT]
        layer = self._layer.to(text.device)
        dtype = next(layer.parameters()).dtype
        kept = {name: tensor for name, tensor in tensors.items() if name != TEXT}
        return kept | {PROJECTED: torch.stack([layer(one[None].to(dtype))[0] for one in text])}

    def release(self) -> None:
        """See `TextForm`."""
        self.__dict__.pop("_layer", None)

    def list_told(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """See `TextForm`."""
        kept = {name: shape for name, shape in shapes.items() if name != TEXT}
        return kept | {PROJECTED: (*shapes[TEXT][:-1], self.width)}

    @cached_property
    def _layer(self) -> nn.Module:
        return self.load()


@dataclass(frozen=True)
class Fp8Text(FullText):
    """In 8 bits (e4m3), with a scale for each token. Told as what it was, but for the error: at most 1/16 of each number."""

    identity: str = "+fp8"

    def pack(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `TextForm`."""
        text = tensors[TEXT].float()
        scale = (text.abs().amax(dim=-1, keepdim=True) / _LARGEST_FP8).clamp_min(torch.finfo(torch.float32).tiny)
        return {**tensors, TEXT: (text / scale).to(_FP8), SCALE: scale}

    def unpack(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """See `TextForm`."""
        kept = {name: tensor for name, tensor in tensors.items() if name != SCALE}
        return kept | {TEXT: (tensors[TEXT].float() * tensors[SCALE]).to(dtype)}

    def count_bytes(self, shapes: Shapes, dtype: torch.dtype) -> int:
        """See `TextForm`."""
        others = {name: shape for name, shape in shapes.items() if name != TEXT}
        text = torch.Size(shapes[TEXT])
        return super().count_bytes(others, dtype) + text.numel() + _SCALE_BYTES * (text.numel() // text[-1])


FULL: TextForm = FullText()


def build_text_form(name: TextCache, family: Family, *, dtype: torch.dtype) -> TextForm:
    """The row of `output.text_cache`; texts that are not kept at all are told in full."""
    if name == "fp8":
        return Fp8Text()
    if name == "projected":
        layer = family.load_skeleton().get_submodule(TEXT_LAYER)
        identity = family.identify("transformer") if family.is_local else ""
        width = layer.get_parameter("weight").shape[0]
        return ProjectedText(f"+projected {identity}", partial(_load_layer, family, layer, dtype=dtype), width)
    return FULL


def _load_layer(family: Family, layer: nn.Module, *, dtype: torch.dtype) -> nn.Module:
    """The layer with its own numbers, which are read from the network's files, and of them nothing else."""
    entries = family.open_transformer()
    numbers = {name: entries[f"{TEXT_LAYER}.{name}"].read().to(dtype) for name, _ in layer.named_parameters()}
    layer.load_state_dict(numbers, assign=True)
    return layer.requires_grad_(False)
