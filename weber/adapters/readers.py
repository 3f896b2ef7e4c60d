"""Which tensors of a file each program loads, by their names: a table of what its reader looks for, so that a file is checked without it.

| program | read from | version |
|---|---|---|
| diffusers | `loaders/lora_pipeline.py`, `loaders/lora_conversion_utils.py` | 0.42 |
| ComfyUI | `comfy/lora.py`, the names that `comfy/utils.py` gives it, `comfy/weight_adapter` | 0.33 |
| kohya | `networks/lora_*.py` of sd-scripts, and of musubi-tuner for newer models | 2026 |
| LyCORIS | `lycoris/wrapper.py:create_lycoris_from_weights` | 4.1 |
| ai-toolkit | `toolkit/network_mixins.py:load_weights`, for layers that `toolkit/lora_special.py` has by itself | 27a03a9, 2026-08 |
| BFL | its own models: whole ones, with an adapter merged into them | |

Families are told apart by how many of the library's layers the first layer of the makers' single-stream block is (`layouts.count_parts`):
4, 1, or 0 where that block is built otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weber.adapters.layouts import count_parts
from weber.adapters.lycoris_names import BIAS
from weber.adapters.names import WHOLE, find_stem
from weber.adapters.text import COMFYUI_PREFIX, KOHYA_PREFIX, TEXT_PREFIX, find_text_module, is_text
from weber.families.pairing import Match, Pairing, find_module, find_original

DIFFUSERS, COMFYUI, KOHYA, LYCORIS, AI_TOOLKIT, BFL = "diffusers", "ComfyUI", "kohya", "LyCORIS", "ai-toolkit", "BFL"
PROGRAMS = (DIFFUSERS, COMFYUI, KOHYA, LYCORIS, AI_TOOLKIT, BFL)

_AB = ("lora_A.weight", "lora_B.weight")
_DOWN_UP = ("lora_down.weight", "lora_up.weight")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_OTHERS = ("a1.weight", "a2.weight", "b1.weight", "b2.weight", "oft_blocks", "rescale", "diff", BIAS, "dora_scale")
_DEFAULTS = ("lora_A.default.weight", "lora_B.default.weight", "lora.down.weight", "lora.up.weight")
_LENGTHS = ("lora_magnitude_vector", "lora_magnitude_vector.weight")
_ALPHA = ("alpha",)
_LYCORIS = (*_DOWN_UP, *_ALPHA, *_LOKR, *_LOHA, *_OTHERS)
_ALL = (*_AB, *_DEFAULTS, *_LENGTHS, *_LYCORIS)
_NAME = re.compile(rf"(?P<stem>.+?)\.(?P<part>{'|'.join(map(re.escape, _ALL))})")

ORIGINAL, MODULE, TEXT = "the makers'", "the library's", "CLIP's"
BLOCKS, FIRST, KNOWN, ANY = "blocks", "blocks and first layers", "layers with a name of their own there", "all layers"
_FIVE = "blocks, first layers and the last one"
_ATTENTION = "attention, and what is outside of blocks"
_ALL_FAMILIES, _OLD, _NEW, _NEWEST = (4, 1, 0), (4,), (1,), (0,)


@dataclass(frozen=True)
class Row:
    """One kind of name that a program's reader knows: `prefix`, a layer's name of one kind (flat: with `_` for `.`), and one of `parts`.

    `families`: by `count_parts`; `where`: which layers it knows so; `form`: files that it reads so, `lora` or `lokr`, left out: all.
    """

    program: str
    prefix: str
    names: str
    parts: Sequence[str]
    families: Sequence[int] = _ALL_FAMILIES
    where: str = ANY
    is_flat: bool = False
    form: str = ""


_ROWS = (
    Row(DIFFUSERS, "transformer.", MODULE, (*_AB, *_LENGTHS, *_ALPHA), _OLD),
    Row(DIFFUSERS, "transformer.", MODULE, (*_AB, *_LENGTHS, *_LOKR), _NEW),
    Row(DIFFUSERS, "transformer.", MODULE, (*_AB, *_LENGTHS), _NEWEST),
    Row(DIFFUSERS, "lora_unet_", ORIGINAL, (*_DOWN_UP, *_ALPHA), _OLD, BLOCKS, is_flat=True),
    Row(DIFFUSERS, "lora_unet_", ORIGINAL, (*_DOWN_UP, *_ALPHA), _NEW, _FIVE, is_flat=True),
    Row(DIFFUSERS, "lora_transformer_", MODULE, (*_DOWN_UP, *_ALPHA), _OLD, _ATTENTION, is_flat=True),
    Row(DIFFUSERS, "diffusion_model.", ORIGINAL, (*_DOWN_UP, *_ALPHA), _OLD, BLOCKS),
    Row(DIFFUSERS, "diffusion_model.", ORIGINAL, (*_AB, *_LOKR, *_ALPHA), _NEW),
    Row(DIFFUSERS, "base_model.model.", ORIGINAL, _AB, _NEW),
    Row(DIFFUSERS, "lycoris_", MODULE, (*_LOKR, *_ALPHA), _NEW, BLOCKS, is_flat=True),
    Row(DIFFUSERS, "", MODULE, (*_LOKR, *_ALPHA), _NEW),
    Row(DIFFUSERS, "diffusion_model.", ORIGINAL, _AB, _NEWEST, BLOCKS),
    Row(DIFFUSERS, TEXT_PREFIX, TEXT, (*_AB, *_ALPHA), _OLD),
    Row(DIFFUSERS, KOHYA_PREFIX, TEXT, (*_DOWN_UP, *_ALPHA), _OLD, is_flat=True),
    Row(DIFFUSERS, "lora_te_", TEXT, (*_DOWN_UP, *_ALPHA), _OLD, is_flat=True),
    Row(DIFFUSERS, COMFYUI_PREFIX, TEXT, (*_DOWN_UP, *_ALPHA), _OLD),
    *(
        Row(COMFYUI, prefix, names, (*_AB, *_DEFAULTS, *_LYCORIS), families, where, is_flat=prefix.endswith("_"))
        for prefix, names, families, where in (
            ("diffusion_model.", ORIGINAL, _ALL_FAMILIES, ANY),
            ("lora_unet_", ORIGINAL, _ALL_FAMILIES, ANY),
            ("transformer.", MODULE, (4, 1), KNOWN),
            ("lycoris_", MODULE, (4, 1), KNOWN),
            ("lora_transformer_", MODULE, (4, 1), KNOWN),
            ("", MODULE, (4, 1), KNOWN),
            (COMFYUI_PREFIX, TEXT, _OLD, ANY),
            (TEXT_PREFIX, TEXT, _OLD, ANY),
            (KOHYA_PREFIX, TEXT, _OLD, ANY),
            ("lora_te_", TEXT, _OLD, ANY),
        )
    ),
    Row(KOHYA, "lora_unet_", ORIGINAL, (*_DOWN_UP, *_ALPHA), _OLD, FIRST, is_flat=True),
    Row(KOHYA, "lora_unet_", ORIGINAL, (*_DOWN_UP, *_ALPHA, *_LOKR, *_LOHA), _NEW, BLOCKS, is_flat=True),
    Row(KOHYA, KOHYA_PREFIX, TEXT, (*_DOWN_UP, *_ALPHA), _OLD, is_flat=True),
    Row(LYCORIS, "lycoris_", MODULE, _LYCORIS, is_flat=True),
    *(
        Row(AI_TOOLKIT, prefix, names, parts, families, BLOCKS, form=form)
        for prefix, names, families in (
            ("transformer.", MODULE, _OLD),
            ("transformer.", ORIGINAL, _NEW),
            ("diffusion_model.", ORIGINAL, _NEW),
        )
        for form, parts in (("lora", (*_AB, *_DOWN_UP)), ("lokr", (*_LOKR, *_ALPHA)))
    ),
)


@dataclass(frozen=True)
class Reading:
    """What a program makes of a file: names of tensors that it loads, and of those that it does not, each with the reason.

    `what` they are.
    """

    program: str
    loaded: tuple[str, ...]
    left: dict[str, str]
    what: str = "tensors"

    def __str__(self) -> str:
        if not self.left:
            return f"loads all {len(self.loaded)} {self.what}"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        told = [f"{reason} ({len(names)}, such as {names[0]})" for reason, names in reasons.items()]
        return f"loads {len(self.loaded) or 'none'} of {len(self.loaded) + len(self.left)} {self.what}: {'; '.join(told)}"


@dataclass(frozen=True)
class _Name:
    """A tensor's name, taken apart; `match` is None for CLIP's layers and for what no family has."""

    text: str
    prefix: str
    stem: str
    part: str
    match: Match | None
    is_text: bool


def list_readings(names: Iterable[str], pairings: Sequence[Pairing]) -> list[Reading]:
    """What each program makes of an adapter file with these tensors, for a model with these names."""
    listed, family = list(names), count_parts(pairings)
    taken = [_take_apart(name, pairings) for name in listed]
    form = "lokr" if any(one is not None and one.part in _LOKR for one in taken) else "lora"
    readings = []
    for program in PROGRAMS[:-1]:
        stop = _find_stop(program, [one for one in taken if one is not None], family)
        reasons = {name: stop or _find_reason(program, one, family, form) for name, one in zip(listed, taken, strict=True)}
        loaded = tuple(name for name, reason in reasons.items() if not reason)
        readings.append(Reading(program, loaded, {name: reason for name, reason in reasons.items() if reason}))
    return readings


def build_merged_reading(modules: Iterable[str], pairings: Sequence[Pairing]) -> Reading:
    """The layers of a whole model in the makers' names that an adapter of these modules changes, when it is merged into it."""
    loaded, left = {}, {}
    for module in modules:
        match = None if is_text(module) else find_module(pairings, module)
        if match is None:
            left[module] = "a whole model is the transformer alone" if is_text(module) else "no layer of the makers' files"
        else:
            loaded[f"{match.original}.weight"] = module
    return Reading(BFL, tuple(loaded), left, "changed tensors of a model that it is merged into")


def list_model_readings(names: Iterable[str], pairings: Sequence[Pairing]) -> list[Reading]:
    """What each program makes of a whole model with these tensors."""
    listed, knows = list(names), count_parts(pairings) > 0
    of_makers = {name for name in listed if find_original(pairings, name.rpartition(".")[0]) is not None}
    modules = {name: find_module(pairings, name.rpartition(".")[0]) for name in listed}
    of_library = {name for name, match in modules.items() if match is not None}
    known = {name for name, match in modules.items() if match is not None and knows and not match.pairing.only_original}
    loads = {DIFFUSERS: of_makers | of_library, COMFYUI: of_makers | known, BFL: of_makers}
    reason = "it does not know these names"
    return [
        Reading(program, tuple(name for name in listed if name in good), {name: reason for name in listed if name not in good})
        for program, good in loads.items()
    ]


def _take_apart(name: str, pairings: Sequence[Pairing]) -> _Name | None:
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    prefix = max((row.prefix for row in _ROWS if name.startswith(row.prefix)), key=len)
    stem = found["stem"].removeprefix(prefix)
    return _Name(name, prefix, stem, found["part"], find_stem(pairings, stem), find_text_module(stem) is not None)


def _find_stop(program: str, names: Sequence[_Name], family: int) -> str:
    """Why a program's reader ends with an error at the whole file; nothing where it does not."""
    if program != DIFFUSERS or family not in _NEW:
        return ""
    has_kohya = any(one.part == "lora_down.weight" for one in names)
    has_alpha = any(one.part in _ALPHA and one.prefix == "diffusion_model." for one in names)
    is_lokr = any(one.part in _LOKR for one in names)
    if has_alpha and not has_kohya and not is_lokr:
        return "its reader ends at an alpha beside these names"
    is_lycoris = is_lokr and any(one.prefix == "lycoris_" for one in names)
    if is_lycoris and any(one.match is None or not one.match.number or one.part not in (*_LOKR, *_ALPHA, "dora_scale") for one in names):
        return "its reader ends at layers outside of blocks, and at other forms than LoKr"
    return ""


def _find_reason(program: str, name: _Name | None, family: int, form: str) -> str:
    """Why a program does not load a tensor; nothing where it does."""
    if name is None or name.match is None and not name.is_text:
        return "no layer of the model"
    rows = [row for row in _ROWS if row.program == program and family in row.families and row.prefix == name.prefix]
    rows = [row for row in rows if row.form in ("", form)]
    spelled = [row for row in rows if _is_spelled(row, name)]
    if not spelled:
        return f"it does not read names that begin with {name.prefix}" if name.prefix and not rows else "it does not know these names"
    if not any(name.part in row.parts for row in spelled):
        return f"it does not read {name.part} there"
    reading = [row for row in spelled if name.part in row.parts]
    reasons = [_find_reason_of_place(row, name) for row in reading]
    return "" if "" in reasons else reasons[0]


def _is_spelled(row: Row, name: _Name) -> bool:
    if name.match is None or row.names == TEXT:
        return name.is_text and row.names == TEXT and ("." in name.stem) != row.is_flat
    is_original = name.match.position == WHOLE
    layer = name.match.original if is_original else name.match.modules[name.match.position]
    spelled = layer.replace(".", "_") if row.is_flat else layer
    return is_original == (row.names == ORIGINAL) and name.stem == spelled


def _find_reason_of_place(row: Row, name: _Name) -> str:
    """Why the reader does not know the layer by such a name, or does not read it as it is meant."""
    match = name.match
    if match is None:
        return ""
    is_inner, pairing = match.number != "", match.pairing
    is_first = match.original.partition(".")[0].endswith("_in")
    places = {
        ANY: True,
        BLOCKS: is_inner,
        FIRST: is_inner or is_first,
        _FIVE: is_inner or is_first and not pairing.original.startswith("guidance") or pairing.original == "final_layer.linear",
        KNOWN: not pairing.only_original,
        _ATTENTION: not is_inner or ".attn." in match.modules[max(match.position, 0)],
    }
    if not places[row.where]:
        return f"with these names it reads {row.where} only"
    if row.program == DIFFUSERS and row.names == ORIGINAL and pairing.swapped:
        return "it takes the rows of this layer in another order"
    if row.program == COMFYUI and row.names == MODULE and name.part == BIAS and (len(pairing.modules) > 1 or pairing.swapped):
        return "it reads this bias by the makers' name only"
    return ""
