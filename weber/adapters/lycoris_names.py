"""What tensors in files of LyCORIS are called, and which layer of which family they are of.

| program | names |
|---|---|
| LyCORIS, SimpleTuner, weber | `lycoris_<module with _ for .>.<tensor>` |
| kohya's tools with LyCORIS, musubi-tuner | `lora_unet_<original with _ for .>.<tensor>` |
| ai-toolkit, diffusion-pipe, OneTrainer | `diffusion_model.<original>.<tensor>`, or with the library's names |

weber writes the first, since ComfyUI, SimpleTuner and LyCORIS read it; but the last for layers outside of the blocks that ComfyUI knows by
the makers' name alone, which LyCORIS and SimpleTuner do not see. Biases of layers that the makers have as one, or in another order, have
both: of these ComfyUI reads the makers' alone, and the others the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weber.adapters.lycoris_forms import LENGTHS, WEIGHTS
from weber.adapters.lycoris_layers import ALPHA
from weber.adapters.names import COMFYUI_MODEL, LYCORIS_PREFIX, build_note, cut_prefix, list_further
from weber.config.lycoris import LycorisLayer
from weber.errors import AdapterError
from weber.families.pairing import Match, Pairing, find_module, swap_halves
from weber.families.tensors import Entry, Weights

BIAS = "diff_b"
_PARTS = (
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *("oft_blocks", "rescale", "diff", BIAS, ALPHA, LENGTHS),
    *WEIGHTS,
)
_OTHER_PARTS = {"lora_A": "lora_down", "lora_B": "lora_up", "lora.down": "lora_down", "lora.up": "lora_up"}
_NAME = re.compile(rf"(?P<stem>.+?)\.(?P<part>{'|'.join(map(re.escape, (*_PARTS, *_OTHER_PARTS)))})(?:\.default)?(?:\.weight)?")
_TURNS = ("diag-oft", "boft")
_NUM_SHOWN = 3


@dataclass
class Group:
    """The tensors of one stem, by their names in LyCORIS; and who names them so."""

    layout: str
    tensors: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Groups:
    """The tensors of a file by stem, and what is said of those that belong to none."""

    by_stem: dict[str, Group]
    notes: tuple[str, ...]


def group_tensors(weights: Weights, *, where: str) -> Groups:
    """The tensors of each layer. Raises AdapterError for tensors of layers that belong to no form."""
    groups: dict[str, Group] = {}
    unknown = []
    for name, entry in weights.items():
        found = _NAME.fullmatch(name)
        if found is None:
            unknown.append(name)
            continue
        stem, layout = cut_prefix(found["stem"])
        part = _OTHER_PARTS.get(found["part"], found["part"])
        group = groups.setdefault(stem, Group(layout))
        if part in group.tensors:
            fix = "remove one of the two"
            raise AdapterError("The file changes one layer twice.", got=f"{where}: {stem}, again as {name}", fix=fix)
        group.tensors[part] = entry
    further = list_further(unknown)
    strange = [name for name in unknown if name not in further]
    if strange or not groups:
        what = "The file holds tensors of layers that weber does not know." if strange else "The file holds no change of a layer."
        raise AdapterError(
            what,
            got=f"{where}: " + (", ".join((strange or unknown)[:_NUM_SHOWN]) or "nothing"),
            expected="lokr, loha, lora, full, diag-oft, boft or glora for linear layers",
            fix="use it with the program that made it",
        )
    return Groups(groups, (build_note(further),) if further else ())


def build_names(tensors: Mapping[str, Mapping[str, Tensor]], pairings: Sequence[Pairing]) -> dict[str, Tensor]:
    """The tensors of a file by their names there, of those of each module. Biases of layers that the makers have as one, or with rows in
    another order, are there as their layer has them too, with zeros for layers that have none."""
    named: dict[str, Tensor] = {}
    fused: dict[str, Match] = {}
    for module, parts in tensors.items():
        match = find_module(pairings, module)
        for part, tensor in parts.items():
            if part == BIAS and match is not None and (len(match.modules) > 1 or match.pairing.swapped):
                fused[match.original] = match
            if match is not None and match.pairing.only_original:
                named[_build_name(COMFYUI_MODEL + match.original, part)] = tensor
            else:
                named[_build_name(LYCORIS_PREFIX + module.replace(".", "_"), part)] = tensor
    for original, match in fused.items():
        named[_build_name(COMFYUI_MODEL + original, BIAS)] = _join_biases(tensors, match)
    return named


def list_readers(settings: Mapping[str, LycorisLayer], *, pairings: Sequence[Pairing]) -> list[str]:
    """What ComfyUI makes otherwise of changes of these modules, a sentence each."""
    matches = {module: find_module(pairings, module) for module in settings}
    swapped = {module for module, match in matches.items() if match is not None and match.pairing.swapped}
    turned = [module for module, one in settings.items() if module in swapped and one.algo in (*_TURNS, "glora")]
    notes = [f"ComfyUI reads {module} otherwise, which has its rows in another order there" for module in turned]
    if any(one.algo in _TURNS and one.constraint > 0 for one in settings.values()):
        notes.append("ComfyUI takes the constraint of turns for another one")
    if any(one.weight_decompose and one.wd_on_out for one in settings.values()):
        notes.append("ComfyUI divides a DoRA by other lengths")
    return [f"{note}: for it merge the adapter into its model" for note in notes]


def _join_biases(tensors: Mapping[str, Mapping[str, Tensor]], match: Match) -> Tensor:
    biases = [tensors.get(module, {}).get(BIAS) for module in match.modules]
    unit, like = next((len(one) // rows, one) for one, rows in zip(biases, match.pairing.rows, strict=True) if one is not None)
    parts = zip(biases, match.pairing.rows, strict=True)
    bias = torch.cat([torch.zeros(unit * rows).to(like) if one is None else one for one, rows in parts])
    return swap_halves(bias) if match.pairing.swapped else bias


def _build_name(stem: str, part: str) -> str:
    return f"{stem}.{part}" + (".weight" if part in WEIGHTS else "")
