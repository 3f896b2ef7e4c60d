"""Adapters as each program reads them: one row per layout.

| layout    | names                                        | scale                                  |
|-----------|----------------------------------------------|----------------------------------------|
| diffusers | `transformer.<module>.lora_A/B.weight`       | alpha in the header (`metadata.py`)    |
| kohya     | `lora_unet_<original with _>.lora_down/up.weight` | `.alpha` beside them              |
| comfyui   | `diffusion_model.<original>.lora_A/B.weight` | in `up`: a reader takes alpha = rank   |

What a layout's readers would lose, or read as something else, is refused with its name:
- kohya: layers outside of the blocks. The library's reader drops most of them without a word (`loaders/lora_conversion_utils.py`), and
  kohya's own trainers do not know the last layer.
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
from weber.errors import AdapterError
from weber.families.pairing import Match, Pairing, find_module, find_original

Written = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by name, and entries of the header."""

_NUM_SHOWN = 3


@dataclass(frozen=True)
class Layout:
    """How one kind of program reads adapters. `only_blocks`: other layers are lost; `of_originals`: it has the makers' names.

    `write` gets what `check_layout` lets pass.
    """

    name: str
    write: Callable[[Mapping[str, Factors], Sequence[Pairing]], Written]
    of_originals: bool
    only_blocks: bool = False


def check_layout(modules: Mapping[str, Factors] | Iterable[str], *, layout: str, pairings: Sequence[Pairing]) -> None:
    """Raise AdapterError where a layout cannot carry changes of these modules, or, where the changes are given, a DoRA among them."""
    row = find_layout(layout)
    if isinstance(modules, Mapping):
        _check_magnitudes(row, modules)
    if not row.of_originals:
        return
    if row.only_blocks and _count_parts(pairings) == 0:
        raise AdapterError(
            f"No program reads adapters of this model in the {layout} layout.", got=f"layout {layout}", fix="take comfyui or diffusers"
        )
    unwritten = [module for module in modules if not _can_carry(row, find_module(pairings, module))]
    if unwritten:
        raise AdapterError(
            f"Programs that read the {layout} layout would lose or misread {len(unwritten)} layers of the adapter.",
            got=", ".join(unwritten[:_NUM_SHOWN]) + (f" and {len(unwritten) - _NUM_SHOWN} more" if unwritten[_NUM_SHOWN:] else ""),
            expected="layers of blocks" if row.only_blocks else "layers that have a name of their own in the makers' files",
            fix="take another layout (diffusers carries everything), or train other targets",
        )


def find_layout(name: str) -> Layout:
    """The row of that name. Raises AdapterError where there is none."""
    if name not in LAYOUTS:
        raise AdapterError("There is no such layout.", got=name, expected=", ".join(LAYOUTS), fix="choose one of these")
    return LAYOUTS[name]


def _can_carry(row: Layout, match: Match | None) -> bool:
    return match is not None and not match.pairing.is_norm and not match.pairing.swapped and (not row.only_blocks or match.number != "")


def _check_magnitudes(row: Layout, modules: Mapping[str, Factors]) -> None:
    plain = [name for name, factors in modules.items() if factors.magnitude is None]
    decomposed = [name for name, factors in modules.items() if factors.magnitude is not None]
    if decomposed and row.of_originals:
        raise AdapterError(
            f"The {row.name} layout cannot carry a DoRA: the programs that read it do not agree on what its magnitudes mean.",
            got=f"magnitudes of {len(decomposed)} layers, such as {decomposed[0]}",
            fix="take the diffusers layout, or merge the adapter into its model",
        )
    if decomposed and plain:
        raise AdapterError(
            "An adapter file cannot be a LoRA in some layers and a DoRA in others.",
            got=f"{len(plain)} layers of {len(modules)} without magnitudes, such as {plain[0]}",
            fix="write them into two files",
        )


def _write_diffusers(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    tensors = {}
    for name, factors in modules.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = factors.down
        tensors[f"{PREFIX}{name}.lora_B.weight"] = factors.up
        if factors.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = factors.magnitude
    return tensors, {SETTINGS_KEY: build_settings(modules)}


def _write_kohya(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    tensors = {}
    for original, factors in _build_originals(modules, pairings).items():
        stem = "lora_unet_" + original.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = factors.down
        tensors[f"{stem}.lora_up.weight"] = factors.up
        tensors[f"{stem}.alpha"] = torch.tensor(factors.alpha)
    return tensors, {}


def _write_comfyui(modules: Mapping[str, Factors], pairings: Sequence[Pairing]) -> Written:
    """ComfyUI takes either pair of names; the library, where it has to take a single-stream block's first layer apart, only one."""
    down, up = ("lora_down", "lora_up") if _count_parts(pairings) > 1 else ("lora_A", "lora_B")
    tensors = {}
    for original, factors in _build_originals(modules, pairings).items():
        baked = factors.build_baked()
        tensors[f"diffusion_model.{original}.{down}.weight"] = baked.down
        tensors[f"diffusion_model.{original}.{up}.weight"] = baked.up
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


def _count_parts(pairings: Sequence[Pairing]) -> int:
    """How many of the library's layers the first layer of the makers' single-stream block is; 0: that block is built differently."""
    match = find_original(pairings, "single_blocks.0.linear1")
    return 0 if match is None else len(match.modules)


LAYOUTS = {
    row.name: row
    for row in (
        Layout("diffusers", _write_diffusers, of_originals=False),
        Layout("kohya", _write_kohya, of_originals=True, only_blocks=True),
        Layout("comfyui", _write_comfyui, of_originals=True),
    )
}
