"""The blocks of FLUX.2 from few operations (`weber/blocks`), with the library's layers and names.

What `Flux2TransformerBlock.forward` and `Flux2SingleTransformerBlock.forward` of diffusers compute, to the last bits
(tests/blocks/test_families.py).

Legend: B batch, T text tokens, N image tokens, S all of them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weber.blocks import streams
from weber.blocks.attend import attend
from weber.blocks.close import build_summand, close
from weber.blocks.group import Group
from weber.blocks.layer import Layer, has_hooks, read_norm
from weber.blocks.own import OwnForward
from weber.blocks.project import project


class SingleBlock(OwnForward):
    """Called with all tokens (B, S, D), what modulates them (B, 3 D), and the angles of their positions; gives the tokens."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        inward, outward = layers
        width, hidden = self.block.attn.inner_dim, self.block.attn.mlp_hidden_dim
        self._inward = Group([inward], [3 * width, inward.num_outputs - 3 * width])
        self._outward = [build_summand(outward, (0, 1), widths=(width, hidden))]

    def compute(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        joint_BSD, modulation, angles = inputs
        block, attention = self.block, self.block.attn
        shift, scale, gate = _cut(modulation, 3)
        joint_BSD, projections, mlp = project(joint_BSD, scale, shift=shift, group=self._inward, eps=block.norm.eps, keeps=self.keeps)
        weights = read_norm(attention.norm_q), read_norm(attention.norm_k)
        stream = projections, *weights
        (seen_BSD,) = attend([stream], angles, eps=attention.norm_q.eps, keeps=self.keeps, backend=self.backend)
        return close(joint_BSD, gate, inputs=[seen_BSD, mlp], kinds=[None, "swiglu"], summands=self._outward)


class DoubleBlock(OwnForward):
    """Called with image and text tokens, what modulates each of them (B, 6 D), and the angles; gives text and image tokens."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        self._streams = streams.Streams(layers, "swiglu")

    def compute(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        image_BND, text_BTD, image_modulation, text_modulation, angles = inputs
        told = [_cut(text_modulation, 6), _cut(image_modulation, 6)]
        return self._streams.run(
            self.block, image_BND, text_BTD=text_BTD, told=told, angles=angles, keeps=self.keeps, backend=self.backend
        )


def list_layers(block: nn.Module) -> list[nn.Module] | None:
    """All layers of a block, as `build_block` takes them; None where it is not the library's own."""
    from diffusers.models.transformers import transformer_flux2 as library

    part: Any = block
    processors = {
        library.Flux2SingleTransformerBlock: library.Flux2ParallelSelfAttnProcessor,
        library.Flux2TransformerBlock: library.Flux2AttnProcessor,
    }
    if type(block) not in processors or type(part.attn.processor) is not processors[type(block)] or has_hooks(part.attn):
        return None
    if type(block) is library.Flux2SingleTransformerBlock:
        return [part.attn.to_qkv_mlp_proj, part.attn.to_out]
    if part.attn.fused_projections:
        return None
    text_mlp, image_mlp = ([one.linear_in, one.linear_out] for one in (part.ff_context, part.ff))
    return streams.list_layers(part.attn, text_mlp=text_mlp, image_mlp=image_mlp)


def build_block(block: nn.Module, layers: Sequence[Layer]) -> OwnForward:
    """See `OwnBlocks`."""
    from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock

    return (SingleBlock if type(block) is Flux2SingleTransformerBlock else DoubleBlock)(block, layers)


def _cut(modulation: Tensor, count: int) -> Sequence[Tensor]:
    """Shifts, scales and gates (B, 1, D)."""
    return (modulation[:, None] if modulation.ndim == 2 else modulation).chunk(count, dim=-1)
