"""The blocks of FLUX.2 from few operations (`weber/blocks`), with the library's layers and names.

What `Flux2TransformerBlock.forward` and `Flux2SingleTransformerBlock.forward` of diffusers compute, to the last bits
(tests/families/flux2/test_blocks.py). Blocks that hold more than plain layers are run by the library.

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
    """Called with all tokens (B, S, D), what modulates them (B, 3 D), and the angles of their positions; gives the tokens."""

    block: Any
    layers: Sequence[Layer]

    def __call__(self, joint_BSD: Tensor, modulation: Tensor, angles: Tensor) -> Tensor:
        """See the class."""
        block, attention = self.block, self.block.attn
        inward, outward = self.layers
        shift, scale, gate = _cut(modulation, 3)
        widths = [3 * attention.inner_dim, inward.num_outputs - 3 * attention.inner_dim]
        joint_BSD, projections, mlp = project(joint_BSD, scale, shift, [inward], widths=widths, eps=block.norm.eps)
        (seen_BSD,) = attend([Stream(projections, read_norm(attention.norm_q), read_norm(attention.norm_k))], angles, eps=attention.norm_q.eps)
        return close(joint_BSD, gate, [(seen_BSD, None), (mlp, "swiglu")], [Summand(outward, (0, 1))])


@dataclass(frozen=True)
class DoubleBlock(OwnForward):
    """Called with image and text tokens, what modulates each of them (B, 6 D), and the angles; gives text and image tokens.

    `layers`: of each stream, text first: to queries, keys and values; out of attention; into the MLP; out of it.
    """

    block: Any
    layers: Sequence[Sequence[Layer]]

    def __call__(
        self, image_BND: Tensor, text_BTD: Tensor, image_modulation: Tensor, text_modulation: Tensor, angles: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        block, attention = self.block, self.block.attn
        weights = ((attention.norm_added_q, attention.norm_added_k), (attention.norm_q, attention.norm_k))
        norms = ((block.norm1_context, block.norm2_context), (block.norm1, block.norm2))
        told = [_cut(text_modulation, 6), _cut(image_modulation, 6)]

        streams, tokens = [], []
        for x, (shift, scale, *_), (norm, _), pair, layers in zip((text_BTD, image_BND), told, norms, weights, self.layers, strict=True):
            x, projections = project(x, scale, shift, layers[:3], widths=[3 * x.shape[-1]], eps=norm.eps)
            tokens.append(x)
            streams.append(Stream(projections, *map(read_norm, pair)))
        seen = attend(streams, angles, eps=attention.norm_q.eps)
        results = []
        for x, own, (_, _, gate, mlp_shift, mlp_scale, mlp_gate), (_, norm), layers in zip(
            tokens, seen, told, norms, self.layers, strict=True
        ):
            x = close(x, gate, [(own, None)], [Summand(layers[3], (0,))])
            x, mlp = project(x, mlp_scale, mlp_shift, [layers[4]], widths=[layers[4].num_outputs], eps=norm.eps)
            results.append(close(x, mlp_gate, [(mlp, "swiglu")], [Summand(layers[5], (0,))]))
        return results[0], results[1]


def build_block(block: nn.Module) -> SingleBlock | DoubleBlock | None:
    """A block as it is now, or None where the library has to run it."""
    from diffusers.models.transformers import transformer_flux2 as library

    part: Any = block
    is_single = type(block) is library.Flux2SingleTransformerBlock
    if not (is_single or type(block) is library.Flux2TransformerBlock) or has_hooks(block) or has_hooks(part.attn):
        return None
    attention = part.attn
    own = library.Flux2ParallelSelfAttnProcessor if is_single else library.Flux2AttnProcessor
    if type(attention.processor) is not own or (not is_single and attention.fused_projections):
        return None
    if is_single:
        layers = read_layers([attention.to_qkv_mlp_proj, attention.to_out])
        return None if layers is None else SingleBlock(part, layers)
    text = [attention.add_q_proj, attention.add_k_proj, attention.add_v_proj, attention.to_add_out, *_list_mlp(part.ff_context)]
    image = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0], *_list_mlp(part.ff)]
    layers = read_layers([*text, *image])
    return None if layers is None else DoubleBlock(part, (layers[:6], layers[6:]))


def _list_mlp(part: Any) -> list[nn.Module]:
    return [part.linear_in, part.linear_out]


def _cut(modulation: Tensor, count: int) -> tuple[Tensor, ...]:
    """Shifts, scales and gates (B, 1, D)."""
    return (modulation[:, None] if modulation.ndim == 2 else modulation).chunk(count, dim=-1)
