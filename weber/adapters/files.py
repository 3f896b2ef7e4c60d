"""LoRA files in diffusers layout: alpha in `lora_adapter_metadata`, the training facts beside it in the header.

The layout is the one that `FluxPipeline.load_lora_weights` reads (diffusers `loaders/lora_base.py`): without the metadata a reader takes
alpha = rank, which is wrong wherever they differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

METADATA_KEY = "lora_adapter_metadata"
FACTS_KEY = "weber"


@dataclass(frozen=True)
class AdapterFile:
    """What an adapter file holds; tensor names are those of the model's modules."""

    tensors: dict[str, Tensor]
    rank: int
    alpha: float
    modules: list[str]
    facts: dict[str, object]


def save_adapter(
    path: Path, tensors: Mapping[str, Tensor], config: AdapterConfig, *, facts: Mapping[str, object], export_key: Callable[[str], str]
) -> None:
    """Write weights (fp32) and metadata to `path`, whole or not at all. The same input gives the same bytes."""
    modules = sorted({_module_of(name) for name in tensors})
    settings = {
        "r": config.rank,
        "lora_alpha": config.rank if config.alpha is None else config.alpha,
        "target_modules": modules,
        "lora_dropout": config.dropout,
        "bias": "none",
        "peft_type": "LORA",
    }
    prefix = export_key("")
    metadata = {
        "format": "pt",
        METADATA_KEY: json.dumps({prefix + key: value for key, value in settings.items()}, sort_keys=True),
        FACTS_KEY: json.dumps(facts, sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file({export_key(name): tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary, metadata=metadata)
    os.replace(temporary, path)


def load_adapter(path: Path, *, export_key: Callable[[str], str]) -> AdapterFile:
    """Read a file that `save_adapter` wrote. Raises AdapterError where it is missing, damaged or of another layout."""
    if not path.is_file():
        raise AdapterError("There is no adapter file.", got=str(path), fix="give the run folder of a run that has saved one")
    prefix = export_key("")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterError("The adapter file is damaged.", got=f"{path}: {error}", fix="take an earlier checkpoint") from error
    if METADATA_KEY not in metadata:
        raise AdapterError(
            "The adapter file has no metadata in diffusers layout, so its alpha is unknown.",
            got=f"{path} with keys such as {next(iter(tensors), 'none')}",
            expected=f"a header entry {METADATA_KEY}",
            fix="use a file written by weber",
        )
    settings = json.loads(metadata[METADATA_KEY])
    modules = sorted({_module_of(name) for name in tensors})
    facts = json.loads(metadata.get(FACTS_KEY, "{}"))
    return AdapterFile(tensors, int(settings[prefix + "r"]), float(settings[prefix + "lora_alpha"]), modules, facts)


def _module_of(name: str) -> str:
    return name.rsplit(".lora_", 1)[0]
