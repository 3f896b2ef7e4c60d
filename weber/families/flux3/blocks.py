"""The blocks of FLUX.3 from few operations (`weber/blocks`), with the library's layers and names.

What `Flux3ModeTransformerBlock.forward` and `Flux3SingleTransformerBlock.forward` of diffusers compute, to the last bits
(tests/families/flux3/test_blocks.py). Blocks that hold more than plain layers are run by the library.

Legend: B batch, T text tokens, N content tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from weber.blocks.attend import Stream, attend
from weber.blocks.close import Summand, close
from weber.blocks.layer import Layer, OwnForward, has_hooks, read_layers, read_norm
from weber.blocks.project import project


@dataclass(frozen=True)
class Streams(OwnForward):
    """A block over streams of tokens that have its layers in common, each with a modulation (B, 1 or its tokens, 3 D) of its own.

    Called with the streams, their modulations, and the angles of all positions; gives the streams.
    """

    block: Any
    inward: Sequence[Layer]
    outward: Sequence[Layer]

    def run(self, tokens: Sequence[Tensor], modulations: Sequence[Tensor], angles: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        block, attention = self.block, self.block.attn
        told = [one.chunk(3, dim=-1) for one in modulations]
        widths = [3 * attention.inner_dim, self.inward[-1].num_outputs]
        parts = [
            project(x, scale, shift, self.inward, widths=widths, eps=block.norm.eps)
            for x, (shift, scale, _) in zip(tokens, told, strict=True)
        ]
        streams = [Stream(projections, read_norm(attention.norm_q), read_norm(attention.norm_k)) for _, projections, _ in parts]
        seen = attend(streams, angles, eps=attention.norm_q.eps)
        summands = [Summand(self.outward[0], (0,)), Summand(self.outward[1], (1,))]
        return tuple(
            close(x, gate, [(own, None), (mlp, "swiglu")], summands)
            for (x, _, mlp), own, (_, _, gate) in zip(parts, seen, told, strict=True)
        )


@dataclass(frozen=True)
class ModeBlock(Streams):
    """A block that sees tokens of one kind: called with these, their modulation, and the angles of their positions."""

    def __call__(self, tokens: Tensor, modulation: Tensor, angles: Tensor) -> Tensor:
        """See the class."""
        return self.run([tokens], [modulation], angles)[0]


@dataclass(frozen=True)
class JointBlock(Streams):
    """A block that sees text and content, in the order of the library: content first."""

    def __call__(
        self, content_BND: Tensor, text_BTD: Tensor, modulation: Tensor, text_modulation: Tensor, angles: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Text and content."""
        text_BTD, content_BND = self.run([text_BTD, content_BND], [text_modulation, modulation], angles)
        return text_BTD, content_BND


def build_block(block: nn.Module) -> ModeBlock | JointBlock | None:
    """A block as it is now, or None where the library has to run it."""
    from diffusers.models.transformers import transformer_flux3 as library

    part: Any = block
    kinds = {library.Flux3ModeTransformerBlock: ModeBlock, library.Flux3SingleTransformerBlock: JointBlock}
    if type(block) not in kinds or has_hooks(block) or has_hooks(part.attn):
        return None
    attention = part.attn
    if type(attention.processor) is not library.Flux3AttnProcessor or attention.fused_projections:
        return None
    outward = [attention.to_out[0], part.ff.linear_out]
    layers = read_layers([attention.to_q, attention.to_k, attention.to_v, part.ff.linear_in, *outward])
    return None if layers is None else kinds[type(block)](part, layers[:4], layers[4:])
