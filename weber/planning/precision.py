"""What `memory.dtype = "auto"` means on a processor: bf16 where that was tried at the run's sizes and is faster."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from weber.config.run import RunConfig
from weber.families.family import Family
from weber.kinds.table import KINDS
from weber.memory.probe import LEAST_GAIN, BlockSizes, has_bf16_units, measure_gain
from weber.planning.attention import read_number
from weber.planning.machine import Machine
from weber.progress import Progress

FILE_NAME = "precision.json"

_TRIAL = "products of a block"
"""What is timed: who times something else asks anew."""


def settle_precision(machine: Machine, config: RunConfig, *, family: Family, progress: Progress) -> Machine:
    """The machine with the precision of this run. What was measured is kept in the cache, so that a run that goes on finds the same.

    Only for adapters: whole weights in bf16 want another optimizer.
    """
    is_asked = config.memory.dtype == "auto" and machine.device.type == "cpu" and machine.wish is None
    if not is_asked or not family.is_local or not KINDS[config.adapter.kind].is_adapter or not has_bf16_units():
        return machine
    sizes = _read_sizes(config, family)
    if not sizes.is_worth_trying:
        return machine
    gain = _recall_gain(config.output.cache / FILE_NAME, sizes, progress=progress)
    return replace(machine, dtype=torch.bfloat16 if gain >= LEAST_GAIN else torch.float32, bf16_gain=gain)


def _read_sizes(config: RunConfig, family: Family) -> BlockSizes:
    num_heads = read_number(family, "num_attention_heads")
    tokens = [family.num_tokens(*family.latent_shape(one.edge_pixels, one.edge_pixels)[1:]) for one in config.learned_sets]
    return BlockSizes(config.train.batch_size * max(tokens), num_heads * read_number(family, "attention_head_dim"), num_heads)


def _recall_gain(file: Path, sizes: BlockSizes, *, progress: Progress) -> float:
    """What was measured before by this PyTorch, on as many threads of such a processor; else now."""
    key = f"{_TRIAL} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} {asdict(sizes)}"
    known = _read_known(file)
    if key not in known:
        known[key] = measure_gain(sizes, progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".tmp")
        unfinished.write_text(json.dumps(known, indent=1), encoding="utf-8")
        unfinished.replace(file)
    return known[key]


def _read_known(file: Path) -> dict[str, float]:
    """A file that is damaged knows nothing."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: gain for key, gain in known.items() if isinstance(gain, float)} if isinstance(known, dict) else {}
