"""Layers of FLUX.1 by the names that kohya's LoRA has for them, and the patterns that mean the same here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

NUM_DOUBLE, NUM_SINGLE = 19, 38

ALL_LINEAR = "ai-toolkit"
"""The set of targets that holds every linear layer of the blocks, modulation included, as kohya's LoRA does."""

DOUBLE = "transformer_blocks"
SINGLE = "single_transformer_blocks"

_IMG_ATTN, _TXT_ATTN = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_LAYERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DOUBLE: {
        "img_attn_qkv": _IMG_ATTN,
        "img_attn_proj": ("attn.to_out.0",),
        "img_mlp_0": ("ff.net.0.proj",),
        "img_mlp_2": ("ff.net.2",),
        "img_mod_lin": ("norm1.linear",),
        "txt_attn_qkv": _TXT_ATTN,
        "txt_attn_proj": ("attn.to_add_out",),
        "txt_mlp_0": ("ff_context.net.0.proj",),
        "txt_mlp_2": ("ff_context.net.2",),
        "txt_mod_lin": ("norm1_context.linear",),
    },
    SINGLE: {
        "linear1": (*_IMG_ATTN, "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation_lin": ("norm.linear",),
    },
}
"""Blocks -> what kohya's scripts call a layer in them -> our layers."""

_KINDS: Mapping[str, tuple[str, str]] = {
    "img_attn_dim": (DOUBLE, "img_attn"),
    "txt_attn_dim": (DOUBLE, "txt_attn"),
    "img_mlp_dim": (DOUBLE, "img_mlp"),
    "txt_mlp_dim": (DOUBLE, "txt_mlp"),
    "img_mod_dim": (DOUBLE, "img_mod"),
    "txt_mod_dim": (DOUBLE, "txt_mod"),
    "single_dim": (SINGLE, "linear"),
    "single_mod_dim": (SINGLE, "modulation"),
}

TYPE_DIMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    name: (blocks, tuple(f"{blocks}.*.{layer}" for kind, layers in _LAYERS[blocks].items() if kind.startswith(start) for layer in layers))
    for name, (blocks, start) in _KINDS.items()
}
"""Network argument -> the blocks, and the patterns of their layers that get a rank of their own."""

ATTENTION = tuple(pattern for name in ("img_attn_dim", "txt_attn_dim") for pattern in TYPE_DIMS[name][1])
"""Attention of the blocks with two streams."""

BLOCKS: Mapping[str, tuple[str, ...]] = {
    blocks: tuple(f"{blocks}.*.{layer}" for layers in kinds.values() for layer in layers) for blocks, kinds in _LAYERS.items()
}
"""Blocks -> patterns of all their layers."""

INPUTS: tuple[tuple[str, ...], ...] = (
    ("x_embedder",),
    ("time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_2"),
    ("time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_2"),
    ("time_text_embed.guidance_embedder.linear_1", "time_text_embed.guidance_embedder.linear_2"),
    ("context_embedder",),
)
"""Layers of `in_dims`: of the picture, the noise level, the pooled text, the guidance, the text."""


class RegexPool:
    """Names of layers, from which regular expressions take those that they find: there the first that finds one counts."""

    def __init__(self) -> None:
        counts = {DOUBLE: ("double", NUM_DOUBLE), SINGLE: ("single", NUM_SINGLE)}
        self._left: dict[str, tuple[str, str, int]] = {
            f"lora_unet_{word}_blocks_{number}_{kind}": (blocks, kind, number)
            for blocks, (word, num) in counts.items()
            for number in range(num)
            for kind in _LAYERS[blocks]
        }

    def take(self, expression: str) -> list[str]:
        """Patterns of the layers that it finds among those that are left. Raises re.error."""
        compiled = re.compile(expression)
        names = [name for name in self._left if compiled.search(name)]
        found = [self._left.pop(name) for name in names]
        return list(_list_patterns(found))


def _list_patterns(found: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    """As few patterns as they need: a kind in all blocks, a whole block, or a kind in one block."""
    for blocks, num in ((DOUBLE, NUM_DOUBLE), (SINGLE, NUM_SINGLE)):
        numbers = {kind: {number for one, other, number in found if (one, other) == (blocks, kind)} for kind in _LAYERS[blocks]}
        everywhere = [kind for kind, those in numbers.items() if len(those) == num]
        if len(everywhere) == len(numbers):
            yield f"{blocks}.*"
            continue
        yield from (f"{blocks}.*.{layer}" for kind in everywhere for layer in _LAYERS[blocks][kind])
        others = {kind: those for kind, those in numbers.items() if kind not in everywhere}
        for number in range(num):
            here = [kind for kind, those in others.items() if number in those]
            if len(here) == len(numbers):
                yield f"{blocks}.{number}.*"
            else:
                yield from (f"{blocks}.{number}.{layer}" for kind in here for layer in _LAYERS[blocks][kind])
