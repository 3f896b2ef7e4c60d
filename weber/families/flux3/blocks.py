"""The blocks of FLUX.3 from few operations (`weber/blocks`), with the library's layers and names.

What `Flux3ModeTransformerBlock.forward` and `Flux3SingleTransformerBlock.forward` of diffusers compute, to the last bits
(tests/blocks/test_families.py).

Legend: B batch, T text tokens, N content tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weber.blocks.attend import attend
from weber.blocks.close import build_summand, close
from weber.blocks.group import Group
from weber.blocks.layer import Layer, has_hooks, read_norm
from weber.blocks.own import OwnForward
from weber.blocks.project import project


class _Streams:
    """Streams of tokens that have a block's layers in common, each with a modulation (B, 1 or its tokens, 3 D) of its own."""

    def __init__(self, block: Any, layers: Sequence[Layer]) -> None:
        *inward, outward, down = layers
        width, hidden = block.attn.inner_dim, inward[-1].num_outputs
        self._block = block
        self._inward = Group(inward, [3 * width, hidden])
        self._outward = [build_summand(outward, (0,), widths=(width,)), build_summand(down, (1,), widths=(hidden // 2,))]

    def run(
        self, tokens: Sequence[Tensor], modulations: Sequence[Tensor], *, angles: Tensor, keeps: bool, backend: str | None
    ) -> list[Tensor]:
        """The streams, in their order."""
        block, attention = self._block, self._block.attn
        told = [one.chunk(3, dim=-1) for one in modulations]
        parts = [
            project(x, scale, shift=shift, group=self._inward, eps=block.norm.eps, keeps=keeps)
            for x, (shift, scale, _) in zip(tokens, told, strict=True)
        ]
        weights = read_norm(attention.norm_q), read_norm(attention.norm_k)
        streams = [(projections, *weights) for _, projections, _ in parts]
        seen = attend(streams, angles, eps=attention.norm_q.eps, keeps=keeps, backend=backend)
        return [
            close(x, gate, inputs=[own, mlp], kinds=[None, "swiglu"], summands=self._outward)
            for (x, _, mlp), own, (_, _, gate) in zip(parts, seen, told, strict=True)
        ]


class ModeBlock(OwnForward):
    """A block that sees tokens of one kind: called with these, their modulation, and the angles of their positions."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        self._streams = _Streams(block, layers)

    def compute(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        tokens, modulation, angles = inputs
        return self._streams.run([tokens], [modulation], angles=angles, keeps=self.keeps, backend=self.backend)[0]


class JointBlock(OwnForward):
    """A block that sees content and text: called with both, their modulations, and the angles of all positions, text first."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        self._streams = _Streams(block, layers)

    def compute(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Text and content."""
        content_BND, text_BTD, modulation, text_modulation, angles = inputs
        tokens, modulations = [text_BTD, content_BND], [text_modulation, modulation]
        text_BTD, content_BND = self._streams.run(tokens, modulations, angles=angles, keeps=self.keeps, backend=self.backend)
        return text_BTD, content_BND


def list_layers(block: nn.Module) -> list[nn.Module] | None:
    """All layers of a block, as `build_block` takes them; None where it is not the library's own."""
    from diffusers.models.transformers import transformer_flux3 as library

    part: Any = block
    if type(block) not in (library.Flux3ModeTransformerBlock, library.Flux3SingleTransformerBlock):
        return None
    attention = part.attn
    if type(attention.processor) is not library.Flux3AttnProcessor or attention.fused_projections or has_hooks(attention):
        return None
    return [attention.to_q, attention.to_k, attention.to_v, part.ff.linear_in, attention.to_out[0], part.ff.linear_out]


def build_block(block: nn.Module, layers: Sequence[Layer]) -> OwnForward:
    """See `OwnBlocks`."""
    from diffusers.models.transformers.transformer_flux3 import Flux3ModeTransformerBlock

    return (ModeBlock if type(block) is Flux3ModeTransformerBlock else JointBlock)(block, layers)
