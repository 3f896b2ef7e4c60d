"""The assistant: a LoRA that takes part while training, so that a distilled model can be trained, and is left out of pictures."""

from __future__ import annotations

from pathlib import Path

from weber.adapters.files import AdapterFile, load_adapter
from weber.config.model import ModelConfig
from weber.errors import ModelError
from weber.families.family import Family
from weber.families.hub import load_snapshot
from weber.training.checks import NO_ASSISTANT


def load_assistant(config: ModelConfig, family: Family) -> AdapterFile | None:
    """The assistant of a run, from a file or the hub; None where it has none. Raises ModelError or AdapterError in words."""
    place = family.assistant if config.assistant is None else config.assistant
    if place is None or place == NO_ASSISTANT:
        return None
    path = Path(place).expanduser()
    if path.is_file():
        return load_adapter(path)
    folder = path if path.is_dir() else load_snapshot(place, ["*.safetensors"], revision=None, key="model.assistant")
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelError(
            "The assistant is not one file.",
            got=f"model.assistant = {place!r} with {', '.join(file.name for file in files) or 'no *.safetensors file'}",
            fix="set model.assistant to the file itself",
        )
    return load_adapter(files[0])
