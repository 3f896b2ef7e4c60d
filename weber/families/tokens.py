"""Tokens of text and image on their way through the blocks: apart, or one behind the other.

Blocks of one stream leave them joined, so that the next one need not join them again.

Legend: B batch, T text tokens, N image tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weber.families.family import Condition

TEXT, PROJECTED = "text", "projected"
"""What a network is told of a text: (B, T, D') of its encoder, or (B, T, D), which its own first layer has made of that before."""

TEXT_LAYER = "context_embedder"
"""That layer, in every family."""


def embed_text(transformer: nn.Module, condition: Condition, *, dtype: torch.dtype) -> Tensor:
    """The text as blocks take it (B, T, D)."""
    if PROJECTED in condition:
        return condition[PROJECTED].to(dtype)
    text_BTD: Tensor = transformer.get_submodule(TEXT_LAYER)(condition[TEXT].to(dtype))
    return text_BTD


@dataclass(frozen=True)
class Tokens:
    """`text` and `image`, or `joint` (B, T + N, D), of which `num_text` are text."""

    parts: tuple[Tensor, Tensor] | None
    whole: Tensor | None
    num_text: int

    @property
    def text(self) -> Tensor:
        """(B, T, D)."""
        return self.split()[0]

    @property
    def image(self) -> Tensor:
        """(B, N, D)."""
        return self.split()[1]

    def split(self) -> tuple[Tensor, Tensor]:
        """Text and image."""
        if self.parts is not None:
            return self.parts
        assert self.whole is not None
        return self.whole[:, : self.num_text], self.whole[:, self.num_text :]

    def join(self) -> Tensor:
        """All of them."""
        return torch.cat(self.split(), dim=1) if self.whole is None else self.whole


def build_tokens(text: Tensor, image: Tensor) -> Tokens:
    """Apart."""
    return Tokens((text, image), None, text.shape[1])
