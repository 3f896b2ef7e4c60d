"""The blocks of FLUX.1 from few operations (`weber/blocks`), with the library's layers and names.

What `FluxTransformerBlock.forward` and `FluxSingleTransformerBlock.forward` of diffusers compute, to the last bits
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
    """Called with all tokens (B, S, D), the vector that modulates, and the angles of their positions; gives the tokens."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        *inward, outward = layers
        widths = [3 * outward.num_outputs, inward[-1].num_outputs]
        self._inward = Group(inward, widths)
        self._outward = [build_summand(outward, (0, 1), widths=(outward.num_outputs, widths[1]))]

    def compute(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        joint_BSD, modulation_BD, angles = inputs
        norm, attention = self.block.norm, self.block.attn
        shift, scale, gate = norm.linear(norm.silu(modulation_BD))[:, None].chunk(3, dim=-1)
        joint_BSD, projections, mlp = project(joint_BSD, scale, shift=shift, group=self._inward, eps=norm.norm.eps, keeps=self.keeps)
        weights = read_norm(attention.norm_q), read_norm(attention.norm_k)
        stream = projections, *weights
        (seen_BSD,) = attend([stream], angles, eps=attention.norm_q.eps, keeps=self.keeps, backend=self.backend)
        return close(joint_BSD, gate, inputs=[seen_BSD, mlp], kinds=[None, "gelu"], summands=self._outward)


class DoubleBlock(OwnForward):
    """Called with image and text tokens, the vector that modulates, and the angles; gives text and image tokens."""

    def __init__(self, block: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(block)
        self._streams = streams.Streams(layers, "gelu")

    def compute(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        image_BND, text_BTD, modulation_BD, angles = inputs
        norms = self.block.norm1_context, self.block.norm1
        told = [norm.linear(norm.silu(modulation_BD))[:, None].chunk(6, dim=-1) for norm in norms]
        return self._streams.run(
            self.block, image_BND, text_BTD=text_BTD, told=told, angles=angles, keeps=self.keeps, backend=self.backend
        )


def list_layers(block: nn.Module) -> list[nn.Module] | None:
    """All layers of a block, as `build_block` takes them; None where it is not the library's own."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxSingleTransformerBlock, FluxTransformerBlock

    part: Any = block
    if type(block) not in (FluxSingleTransformerBlock, FluxTransformerBlock):
        return None
    attention = part.attn
    if type(attention.processor) is not FluxAttnProcessor or attention.fused_projections or has_hooks(attention):
        return None
    if type(block) is FluxSingleTransformerBlock:
        return [attention.to_q, attention.to_k, attention.to_v, part.proj_mlp, part.proj_out]
    text_mlp, image_mlp = ([one.net[0].proj, one.net[2]] for one in (part.ff_context, part.ff))
    return streams.list_layers(attention, text_mlp=text_mlp, image_mlp=image_mlp)


def build_block(block: nn.Module, layers: Sequence[Layer]) -> OwnForward:
    """See `OwnBlocks`."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    return (SingleBlock if type(block) is FluxSingleTransformerBlock else DoubleBlock)(block, layers)
