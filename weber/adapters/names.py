"""What a tensor in an adapter file is called, whoever wrote it, and which layer of which family that is.

Legend: a *stem* is a tensor's name without its ending and the writer's prefix: a module or an original (`families/pairing.py`), with
dots, or with `_` for every dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from weber.adapters.text import COMFYUI_PREFIX, KOHYA_PREFIX, TEXT_PREFIX, find_text_module
from weber.families.pairing import Match, Pairing
from weber.families.pattern import list_parents
from weber.families.table import FAMILIES, FamilyRow

DIFFUSERS, KOHYA, COMFYUI, LYCORIS_LAYOUT, BARE = "diffusers", "kohya", "comfyui", "lycoris", "without a prefix"
_NUM_SHOWN = 3
LYCORIS_PREFIX, COMFYUI_MODEL = "lycoris_", "diffusion_model."
_PREFIXES = {
    "transformer.": DIFFUSERS,
    "lora_unet_": KOHYA,
    "lora_transformer_": "kohya, with the library's names",
    LYCORIS_PREFIX: LYCORIS_LAYOUT,
    COMFYUI_MODEL: COMFYUI,
    TEXT_PREFIX: DIFFUSERS,
    KOHYA_PREFIX: KOHYA,
    "lora_te_": KOHYA,
    COMFYUI_PREFIX: COMFYUI,
    "base_model.model.": "peft",
}
"""Prefix in a file -> layout. They can follow each other: `base_model.model.transformer.` is two."""

DOWN, UP, ALPHA, MAGNITUDE = "down", "up", "alpha", "magnitude"
_TENSOR = re.compile(
    r"(?P<stem>.+?)\.(?:"
    rf"(?P<{DOWN}>(?:lora_A(?:\.default)?|lora_down|lora\.down)\.weight)"
    rf"|(?P<{UP}>(?:lora_B(?:\.default)?|lora_up|lora\.up)\.weight)"
    rf"|(?P<{ALPHA}>alpha)"
    rf"|(?P<{MAGNITUDE}>lora_magnitude_vector(?:\.default)?(?:\.weight)?)"
    r")"
)

WHOLE = -1
"""`Match.position` of a stem that names the whole original, not one of its modules."""

_ROWS_PER_COLUMN = {
    "transformer_blocks.{}.ff.net.0.proj": Fraction(4),
    "transformer_blocks.{}.ff_context.net.0.proj": Fraction(4),
    "transformer_blocks.{}.ff.net.2": Fraction(1, 4),
    "transformer_blocks.{}.ff_context.net.2": Fraction(1, 4),
    "single_transformer_blocks.{}.proj_out": Fraction(1, 5),
    "transformer_blocks.{}.ff.linear_in": Fraction(6),
    "transformer_blocks.{}.ff_context.linear_in": Fraction(6),
    "transformer_blocks.{}.ff.linear_out": Fraction(1, 3),
    "transformer_blocks.{}.ff_context.linear_out": Fraction(1, 3),
    "single_transformer_blocks.{}.attn.to_qkv_mlp_proj": Fraction(9),
    "single_transformer_blocks.{}.attn.to_out": Fraction(1, 4),
}
"""Shapes of the layers whose originals have one name in two families: only these tell the families apart."""


@dataclass(frozen=True)
class TensorName:
    """A tensor's name, taken apart; `role` is one of DOWN, UP, ALPHA, MAGNITUDE."""

    layout: str
    stem: str
    role: str


@dataclass(frozen=True)
class Fit:
    """A family that knows every stem of a file."""

    family: FamilyRow
    matches: Mapping[str, Match]


def read_name(name: str) -> TensorName | None:
    """What a tensor of an adapter file is; None where it is none of a LoRA."""
    found = _TENSOR.fullmatch(name)
    if found is None:
        return None
    stem, layout = cut_prefix(found["stem"])
    return TensorName(layout, stem, next(role for role in (DOWN, UP, ALPHA, MAGNITUDE) if found[role] is not None))


def cut_prefix(name: str) -> tuple[str, str]:
    """A name without its writer's prefix, and the layout that this tells."""
    layout = BARE
    while prefix := next((one for one in _PREFIXES if name.startswith(one)), None):
        name, layout = name.removeprefix(prefix), _PREFIXES[prefix] if layout == BARE else layout
    return name, layout


def list_further(names: Iterable[str]) -> list[str]:
    """Of tensors that are none of an adapter's, those that belong to no layer of any family, nor to CLIP, and so may be left out."""
    return [name for name in names if not any(_is_layer(part) for part in list_parents(cut_prefix(name)[0]))]


def build_note(further: Sequence[str]) -> str:
    """What is said of tensors that are left out."""
    shown = ", ".join(further[:_NUM_SHOWN]) + (", ..." if further[_NUM_SHOWN:] else "")
    return f"{len(further)} further tensors are no part of an adapter of the model, and are left out: {shown}."


def list_fits(shapes: Mapping[str, tuple[int, int] | None]) -> list[Fit]:
    """The families that know all of these stems, given the (rows, columns) of their layers, where these are known.

    Several where a file holds, say, the attention of double-stream blocks only; then each of them gives the same modules.
    """
    fits = []
    for family in FAMILIES:
        matches = {stem: find_stem(family.pairings, stem) for stem in shapes}
        found = {stem: match for stem, match in matches.items() if match is not None and _has_shape(match, shapes[stem])}
        if len(found) == len(shapes):
            fits.append(Fit(family, found))
    return fits


def find_stem(pairings: Sequence[Pairing], stem: str) -> Match | None:
    """The layer that a stem names, as the makers' (position WHOLE) or as the library's."""
    for pairing in pairings:
        for position, template in enumerate((pairing.original, *pairing.modules), WHOLE):
            found = _compile(template).fullmatch(stem)
            if found and not pairing.is_norm:
                return Match(pairing, "".join(found.groups()), position)
    return None


def _is_layer(stem: str) -> bool:
    return find_text_module(stem) is not None or any(find_stem(family.pairings, stem) is not None for family in FAMILIES)


def _has_shape(match: Match, shape: tuple[int, int] | None) -> bool:
    if match.position != WHOLE or shape is None:
        return True
    rows, columns = shape
    if len(match.pairing.rows) > 1:
        return rows == sum(match.pairing.rows) * columns
    return rows == _ROWS_PER_COLUMN.get(match.pairing.modules[0], Fraction(rows, columns)) * columns


@lru_cache(maxsize=1024)
def _compile(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\.", "[._]").replace(r"\{\}", r"(\d+)"))
