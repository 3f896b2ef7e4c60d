"""Adapters as each program reads them: one row per layout.

| layout    | names                                             | where alpha stands                  |
|-----------|---------------------------------------------------|-------------------------------------|
| diffusers | `transformer.<module>.lora_A/B.weight`            | in the header (`metadata.py`)       |
| kohya     | `lora_unet_<original with _>.lora_down/up.weight` | `.alpha` beside them                |
| comfyui   | `diffusion_model.<original>.lora_A/B.weight`      | nowhere: a reader takes the rank    |

Alpha is the rank in all of them, and the scale is in `up`: ComfyUI reads all three, and no header. What CLIP's layers are called in them
says `text.py`.

What a layout's readers would lose, or read as something else, is refused with its name:
- kohya: layers outside of the blocks, but the first ones (`img_in`, `time_in`, ...), which kohya's trainers write (`in_dims`) and ComfyUI
  reads. The library's reader of this layout drops these without a word (`loaders/lora_conversion_utils.py`); kohya's trainers do not know
  the last layer.
- both: `norm_out.linear`. Its rows stand in another order in the makers' files; ComfyUI takes them as they are there and the library's
  reader does not turn them, so that no file is right for both.
- both: DoRA. ComfyUI divides by the length of the old weight's rows, PEFT by that of the changed one's, and the library drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.fuse import build_fused
from weber.adapters.metadata import PREFIX, SETTINGS_KEY, build_settings
from weber.adapters.text import build_text_stem, is_text, split_modules
from weber.errors import AdapterError
from weber.families.pairing import Match, Pairing, find_module, find_original

Written = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by name, and entries of the header."""

_FIRST = "_in"
"""How the makers' names of the first layers end."""
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Layout:
    """How one kind of program reads adapters. `of_originals`: it has the makers' names; `only_inner`: of what lies behind the blocks, and
    of what they share, nothing is read.

    `write` gets what `check_layout` lets pass, with alpha = rank.
    """

    name: str
    write: Callable[[Mapping[str, Factors], Sequence[Pairing]], Written]
    of_originals: bool
    only_inner: bool = False


def check_layout(
    modules: Mapping[str, Factors] | Iterable[str], *, layout: str, pairings: Sequence[Pairing], is_dora: bool = False
) -> None:
    """Raise AdapterError where a layout cannot carry changes of these modules, or a DoRA.

    Where changes are given and not names, it is seen whether they are DoRAs.
    """
    row = find_layout(layout)
    if isinstance(modules, Mapping):
        _check_magnitudes(row, modules)
    elif is_dora and row.of_originals:
        raise _build_dora_error(row, "a DoRA (adapter.dora)")
    if not row.of_originals:
        return
    if row.only_inner and count_parts(pairings) == 0:
        raise AdapterError(
            f"No program reads adapters of this model in the {layout} layout.", got=f"layout {layout}", fix="take comfyui or diffusers"
        )
    unwritten = [module for module in modules if not is_text(module) and not _can_carry(row, find_module(pairings, module))]
    if unwritten:
        raise AdapterError(
            f"Programs that read the {layout} layout would lose or misread {len(unwritten)} layers of the adapter.",
            got=", ".join(unwritten[:_NUM_SHOWN]) + (f" and {len(unwritten) - _NUM_SHOWN} more" if unwritten[_NUM_SHOWN:] else ""),
            expected="layers of blocks, or the first ones" if row.only_inner else "layers with a name of their own in the makers' files",
            fix="take another layout (diffusers carries everything), or train other targets",
        )


def list_readers(modules: Iterable[str], *, pairings: Sequence[Pairing]) -> list[str]:
    """What ComfyUI does not find in the library's layout, as a sentence; nothing where it finds all."""
    matches = {name: find_module(pairings, name) for name in modules}
    lost = [name for name, match in matches.items() if match is not None and match.pairing.only_original]
    shown = f"{len(lost)} layers in the diffusers layout, such as {', '.join(lost[:_NUM_SHOWN])}"
    return [f"ComfyUI does not find {shown}: for it add comfyui to the formats"] if lost else []


def find_layout(name: str) -> Layout:
    """The row of that name. Raises AdapterError where there is none."""
    if name not in LAYOUTS:
        raise AdapterError("There is no such layout.", got=name, expected=", ".join(LAYOUTS), fix="choose one of these")
    return LAYOUTS[name]


def _can_carry(row: Layout, match: Match | None) -> bool:
    if match is None or match.pairing.is_norm or match.pairing.swapped:
        return False
    return not row.only_inner or match.number != "" or match.original.partition(".")[0].endswith(_FIRST)


def _check_magnitudes(row: Layout, modules: Mapping[str, Factors]) -> None:
    plain = [name for name, factors in modules.items() if factors.magnitude is None]
    decomposed = [name for name, factors in modules.items() if factors.magnitude is not None]
    if decomposed and row.of_originals:
        raise _build_dora_error(row, f"magnitudes of {len(decomposed)} layers, such as {decomposed[0]}")
    if decomposed and plain:
        raise AdapterError(
            "An adapter file cannot be a LoRA in some layers and a DoRA in others.",
            got=f"{len(plain)} layers of {len(modules)} without magnitudes, such as {plain[0]}",
            fix="write them into two files",
        )


def _build_dora_error(row: Layout, got: str) -> AdapterError:
    return AdapterError(
        f"The {row.name} layout cannot carry a DoRA: the programs that read it do not agree on what its magnitudes mean.",
        got=got,
        fix="take the diffusers layout, or merge the adapter into its model",
    )


def _write_diffusers(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    tensors = {}
    for module, factors in modules.items():
        name = module if is_text(module) else PREFIX + module
        tensors[f"{name}.lora_A.weight"] = factors.down
        tensors[f"{name}.lora_B.weight"] = factors.up
        if factors.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = factors.magnitude
    return tensors, {SETTINGS_KEY: build_settings(modules)}


def _write_kohya(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    tensors = {}
    changed, text = split_modules(modules)
    stems = {"lora_unet_" + original.replace(".", "_"): factors for original, factors in _build_originals(changed, pairings).items()}
    stems |= {build_text_stem(name, "kohya"): factors for name, factors in text.items()}
    for stem, factors in stems.items():
        tensors[f"{stem}.lora_down.weight"] = factors.down
        tensors[f"{stem}.lora_up.weight"] = factors.up
        tensors[f"{stem}.alpha"] = torch.tensor(factors.alpha)
    return tensors, {}


def _write_comfyui(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    """ComfyUI takes either pair of names; the library, where it has to take a single-stream block's first layer apart, only one."""
    down, up = ("lora_down", "lora_up") if count_parts(pairings) > 1 else ("lora_A", "lora_B")
    changed, text = split_modules(modules)
    stems = {f"diffusion_model.{original}": factors for original, factors in _build_originals(changed, pairings).items()}
    stems |= {build_text_stem(name, "comfyui"): factors for name, factors in text.items()}
    tensors = {}
    for stem, factors in stems.items():
        tensors[f"{stem}.{down}.weight"] = factors.down
        tensors[f"{stem}.{up}.weight"] = factors.up
    return tensors, {}


def _build_originals(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> dict[str, Factors]:
    """Changes of the makers' layers."""
    matches = {match.original: match for match in (find_module(pairings, name) for name in modules) if match is not None}
    return {original: _build_original(modules, match) for original, match in matches.items()}


def _build_original(modules: Mapping[str, Factors], match: Match) -> Factors:
    parts = [modules.get(name) for name in match.modules]
    position = next(position for position, part in enumerate(parts) if part is not None)
    part = parts[position]
    assert part is not None
    unit = part.up.shape[0] // match.pairing.rows[position]
    return build_fused(parts, [unit * rows for rows in match.pairing.rows])


def count_parts(pairings: Sequence[Pairing]) -> int:
    """How many of the library's layers the first layer of the makers' single-stream block is; 0: that block is built differently."""
    match = find_original(pairings, "single_blocks.0.linear1")
    return 0 if match is None else len(match.modules)


LAYOUTS = {
    row.name: row
    for row in (
        Layout("diffusers", _write_diffusers, of_originals=False),
        Layout("kohya", _write_kohya, of_originals=True, only_inner=True),
        Layout("comfyui", _write_comfyui, of_originals=True),
    )
}
