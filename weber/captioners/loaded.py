"""A model of transformers that looks at pictures: found, read in the precision that [memory] says, and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from weber.captioners.wish import Wish
from weber.config.memory import MemoryConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError, ModelError
from weber.families.hub import find_place
from weber.memory.device import build_device, build_dtype
from weber.memory.formats import FORMATS
from weber.memory.packed import build_packed

_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_ACTS = frozenset({"device", "dtype", "quantize"})
_SOUGHT = "--model"
_DAMAGE = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError, UnpicklingError, SafetensorError)
"""What transformers and PyTorch raise of files that are not what they should be."""


def read_memory_config(settings: Mapping[str, object]) -> MemoryConfig:
    """Settings of [memory] that act on a captioner. Raises ConfigError for others."""
    idle = next((name for name in settings if name not in _ACTS), None)
    if idle is not None:
        raise ConfigError(
            f"memory.{idle} has no effect on captioners.",
            got=f"memory.{idle}={settings[idle]}",
            expected=", ".join(f"memory.{name}" for name in sorted(_ACTS)),
            fix="remove it",
        )
    return MemoryConfig.model_validate(dict(settings))


def find_folder(place: str) -> Path:
    """The folder of a model: on this machine, or of the hub. Raises ModelError."""
    path = find_place(place, _PATTERNS, key=_SOUGHT)
    if not (path / "config.json").is_file():
        raise ModelError(
            "This is no model of transformers.",
            got=f"{path}, which {'has no config.json' if path.is_dir() else 'is no folder'}",
            expected="a folder that save_pretrained has written, or a hub id",
            fix=f"correct {_SOUGHT}",
        )
    return path


def load_network(kind: Any, folder: Path, *, memory: MemoryConfig) -> nn.Module:
    """A model of that class, frozen, on its device; with `memory.quantize` the linear layers of what it has many of are packed."""
    device = build_device(memory)
    network = load_as_told(lambda: kind.from_pretrained(str(folder), dtype=build_dtype(memory, device), use_safetensors=True), folder)
    return put_network(network, memory)


def put_network(network: Any, memory: MemoryConfig) -> nn.Module:
    """A model that was read, packed and moved to its device."""
    if memory.quantize != "none":
        _pack(network, memory.quantize)
    network = network.to(build_device(memory)).eval().requires_grad_(False)
    assert isinstance(network, nn.Module)
    return network


def load_as_told(load: Any, folder: Path) -> Any:
    """What transformers reads of a folder, without bars of its own; what goes wrong in words. Raises ModelError."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return load()
    except _DAMAGE as error:
        raise ModelError(
            "The captioner cannot be read.",
            got=f"{folder}: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            expected="a whole model of that kind as safetensors, with its tokenizer and its preprocessor",
            fix="download it again, or name another one with --model",
        ) from error


@dataclass(frozen=True)
class Runner:
    """Makes texts with a model: its tokens to words by `tokenizer`. `skips`: prompts come back before the text."""

    network: Any
    tokenizer: Any
    wish: Wish
    max_length: int

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any], *, num_prompt_tokens: int = 0) -> list[str]:
        """The texts for a batch. Draws depend on the seed and on the pictures alone."""
        device, dtype = self.network.device, self.network.dtype
        moved = {name: one.to(device, dtype) if one.is_floating_point() else one.to(device) for name, one in inputs.items()}
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.wish.draws):
            if self.wish.draws:
                torch.manual_seed(build_seed(self.wish.seed, _sum(inputs)))
            tokens = self.network.generate(**moved, **self.wish.build_generation(self.max_length))
        return list(self.tokenizer.batch_decode(tokens[:, num_prompt_tokens:], skip_special_tokens=True))


def _sum(inputs: Mapping[str, Any]) -> str:
    """What tells one batch of pictures from another."""
    return ",".join(f"{one.double().sum().item():.6e}" for one in inputs.values())


def _pack(network: nn.Module, form: str) -> None:
    lists = [name for name, one in network.named_modules() if isinstance(one, nn.ModuleList)]
    for name, one in list(network.named_modules()):
        if type(one) is nn.Linear and any(name.startswith(f"{home}.") for home in lists):
            packed = build_packed(one.weight.detach(), one.bias, format=FORMATS[form], dtype=one.weight.dtype)
            network.set_submodule(name, packed)


def clean(texts: Sequence[str]) -> list[str]:
    """Each on one line."""
    return [" ".join(text.split()) for text in texts]
