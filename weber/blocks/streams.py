"""Two streams of tokens, text and image, with layers of their own and attention in common: double blocks.

Legend: B batch, T text tokens, N image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from weber.blocks.attend import attend
from weber.blocks.close import build_summand, close
from weber.blocks.group import Group
from weber.blocks.layer import Layer, read_norm
from weber.blocks.project import project
from weber.kernels.activate import Activation

_NUM_LAYERS = 6


class Streams:
    """`layers`: of text, then of image: to queries, keys and values; out of attention; into the MLP; out of it."""

    def __init__(self, layers: Sequence[Layer], activation: Activation) -> None:
        self._streams = [_Stream(own, activation) for own in (layers[:_NUM_LAYERS], layers[_NUM_LAYERS:])]

    def run(
        self,
        block: Any,
        image_BND: Tensor,
        *,
        text_BTD: Tensor,
        told: Sequence[Sequence[Tensor]],
        angles: Tensor,
        keeps: bool,
        backend: str | None,
    ) -> tuple[Tensor, Tensor]:
        """Text and image tokens. `told`: of each stream shift, scale and gate (B, 1, D) of attention, and the three of the MLP."""
        text, image = self._streams
        attention, eps = block.attn, block.norm2.eps
        text_BTD, text_projections = text.enter(text_BTD, told[0], eps=eps, keeps=keeps)
        image_BND, image_projections = image.enter(image_BND, told[1], eps=eps, keeps=keeps)
        streams = [
            (text_projections, read_norm(attention.norm_added_q), read_norm(attention.norm_added_k)),
            (image_projections, read_norm(attention.norm_q), read_norm(attention.norm_k)),
        ]
        text_seen, image_seen = attend(streams, angles, eps=attention.norm_q.eps, keeps=keeps, backend=backend)
        text_BTD = text.leave(text_BTD, text_seen, told=told[0], eps=eps, keeps=keeps)
        return text_BTD, image.leave(image_BND, image_seen, told=told[1], eps=eps, keeps=keeps)


class _Stream:
    def __init__(self, layers: Sequence[Layer], activation: Activation) -> None:
        *inward, outward, up, down = layers
        self._inward, self._up, self._activation = Group(inward), Group([up]), activation
        self._outward = [build_summand(outward, (0,), widths=(outward.num_outputs,))]
        self._down = [build_summand(down, (0,), widths=(up.num_outputs,))]

    def enter(self, x: Tensor, told: Sequence[Tensor], *, eps: float, keeps: bool) -> tuple[Tensor, ...]:
        """The tokens, and their queries, keys and values beside each other."""
        shift, scale, *_ = told
        return project(x, scale, shift=shift, group=self._inward, eps=eps, keeps=keeps)

    def leave(self, x: Tensor, seen: Tensor, *, told: Sequence[Tensor], eps: float, keeps: bool) -> Tensor:
        """The tokens after what they have seen, and the MLP."""
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = told
        x = close(x, gate, inputs=[seen], kinds=[None], summands=self._outward)
        x, hidden = project(x, mlp_scale, shift=mlp_shift, group=self._up, eps=eps, keeps=keeps)
        return close(x, mlp_gate, inputs=[hidden], kinds=[self._activation], summands=self._down)


def list_layers(attention: Any, *, text_mlp: Sequence[nn.Module], image_mlp: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers of both streams, as `Streams` takes them, from the library's attention and the layers of the MLPs."""
    text = [attention.add_q_proj, attention.add_k_proj, attention.add_v_proj, attention.to_add_out, *text_mlp]
    return [*text, attention.to_q, attention.to_k, attention.to_v, attention.to_out[0], *image_mlp]
