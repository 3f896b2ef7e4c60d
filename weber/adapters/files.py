"""LoRA files in diffusers layout: alpha in `lora_adapter_metadata`, the training facts beside it in the header.

The layout is the one that diffusers' `load_lora_weights` reads (`loaders/lora_base.py`): without the metadata a reader takes
alpha = rank, which is wrong wherever they differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
    path: Path, tensors: Mapping[str, Tensor], *, config: AdapterConfig, facts: Mapping[str, object], export_key: Callable[[str], str]
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
    data = save({export_key(name): tensor.contiguous().cpu() for name, tensor in tensors.items()}, metadata)
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + header_bytes]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the library writes metadata in random order
    try:
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(memoryview(data)[8 + header_bytes :])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    modules = sorted({_module_of(name) for name in tensors})
    try:
        settings, facts = json.loads(metadata[METADATA_KEY]), json.loads(metadata[FACTS_KEY])
        return AdapterFile(tensors, int(settings[prefix + "r"]), float(settings[prefix + "lora_alpha"]), modules, facts)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            "The adapter file was not written by weber, so its rank and alpha are not known.",
            got=f"{path} with keys such as {next(iter(tensors), 'none')} ({error!r})",
            expected=f"header entries {METADATA_KEY} and {FACTS_KEY}",
            fix="use a file written by weber",
        ) from error


def _module_of(name: str) -> str:
    return name.rsplit(".lora_", 1)[0]
