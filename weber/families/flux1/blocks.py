"""The blocks of FLUX.1 from few operations (`weber/blocks`), with the library's layers and names.

What `FluxTransformerBlock.forward` and `FluxSingleTransformerBlock.forward` of diffusers compute, to the last bits
(tests/families/flux1/test_blocks.py). Blocks that hold more than plain layers are run by the library.

Legend: B batch, T text tokens, N image tokens, S all of them, D width.
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
class SingleBlock(OwnForward):
    """Called with all tokens (B, S, D), the vector that modulates, and the angles of their positions; gives the tokens."""

    block: Any
    inward: Sequence[Layer]
    outward: Sequence[Layer]

    def __call__(self, joint_BSD: Tensor, modulation_BD: Tensor, angles: Tensor) -> Tensor:
        """See the class."""
        block, width = self.block, joint_BSD.shape[-1]
        norm, attention = block.norm, block.attn
        shift, scale, gate = norm.linear(norm.silu(modulation_BD))[:, None].chunk(3, dim=-1)
        widths = [3 * width, self.inward[-1].num_outputs]
        joint_BSD, projections, mlp = project(joint_BSD, scale, shift, self.inward, widths=widths, eps=norm.norm.eps)
        (seen_BSD,) = attend([Stream(projections, read_norm(attention.norm_q), read_norm(attention.norm_k))], angles, eps=attention.norm_q.eps)
        return close(joint_BSD, gate, [(seen_BSD, None), (mlp, "gelu")], [Summand(self.outward[0], (0, 1))])


@dataclass(frozen=True)
class DoubleBlock(OwnForward):
    """Called with image and text tokens, the vector that modulates, and the angles; gives text and image tokens.

    `layers`: of each stream, text first: to queries, keys and values; out of attention; into the MLP; out of it.
    """

    block: Any
    layers: Sequence[Sequence[Layer]]

    def __call__(self, image_BND: Tensor, text_BTD: Tensor, modulation_BD: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        block, attention = self.block, self.block.attn
        weights = ((attention.norm_added_q, attention.norm_added_k), (attention.norm_q, attention.norm_k))
        norms = ((block.norm1_context, block.norm2_context), (block.norm1, block.norm2))
        told = [norm.linear(norm.silu(modulation_BD))[:, None].chunk(6, dim=-1) for norm, _ in norms]

        streams, tokens = [], []
        for x, (shift, scale, *_), (norm, _), pair, layers in zip((text_BTD, image_BND), told, norms, weights, self.layers, strict=True):
            x, projections = project(x, scale, shift, layers[:3], widths=[3 * x.shape[-1]], eps=norm.norm.eps)
            tokens.append(x)
            streams.append(Stream(projections, *map(read_norm, pair)))
        seen = attend(streams, angles, eps=attention.norm_q.eps)
        results = []
        for x, own, (_, _, gate, mlp_shift, mlp_scale, mlp_gate), (_, norm), layers in zip(
            tokens, seen, told, norms, self.layers, strict=True
        ):
            x = close(x, gate, [(own, None)], [Summand(layers[3], (0,))])
            x, mlp = project(x, mlp_scale, mlp_shift, [layers[4]], widths=[layers[4].num_outputs], eps=norm.eps)
            results.append(close(x, mlp_gate, [(mlp, "gelu")], [Summand(layers[5], (0,))]))
        return results[0], results[1]


def build_block(block: nn.Module) -> SingleBlock | DoubleBlock | None:
    """A block as it is now, or None where the library has to run it."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxSingleTransformerBlock, FluxTransformerBlock

    part: Any = block
    is_single = type(block) is FluxSingleTransformerBlock
    if not (is_single or type(block) is FluxTransformerBlock) or has_hooks(block) or has_hooks(part.attn):
        return None
    attention = part.attn
    if type(attention.processor) is not FluxAttnProcessor or attention.fused_projections:
        return None
    if is_single:
        layers = read_layers([attention.to_q, attention.to_k, attention.to_v, part.proj_mlp, part.proj_out])
        return None if layers is None else SingleBlock(part, layers[:4], layers[4:])
    text = [attention.add_q_proj, attention.add_k_proj, attention.add_v_proj, attention.to_add_out, *_list_mlp(part.ff_context)]
    image = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0], *_list_mlp(part.ff)]
    layers = read_layers([*text, *image])
    return None if layers is None else DoubleBlock(part, (layers[:6], layers[6:]))


def _list_mlp(part: Any) -> list[nn.Module]:
    return [part.net[0].proj, part.net[2]]
