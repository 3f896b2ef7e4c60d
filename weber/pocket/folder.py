"""A FLUX.1 model as a folder in diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler


class Part(Protocol):
    """A network, a tokenizer or a scheduler of diffusers or transformers."""

    def save_pretrained(self, folder: Path, /) -> object:
        """Write its files into the folder."""
        ...


def write_folder(folder: Path, parts: Mapping[str, Part], *, pipeline: str = "FluxPipeline") -> Path:
    """Write a model that `from_pretrained(folder)` of the library's class `pipeline` opens; returns `folder`. `model_index.json` is
    written last."""
    import diffusers

    index: dict[str, object] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    return folder


def build_scheduler(variant: str) -> FlowMatchEulerDiscreteScheduler:
    """Settings of the published models' `scheduler_config.json`, for `dev` or `schnell`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        shift=3.0 if variant == "dev" else 1.0,
        use_dynamic_shifting=variant == "dev",
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
