"""The published models at their real size, without their weights, as folders that a `Family` can be built from.

The tokenizers are the small ones of the random models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from weber.families.flux1.variants import VARIANTS as FLUX1_VARIANTS
from weber.families.flux2.variants import SCHEDULER
from weber.families.flux2.variants import VARIANTS as FLUX2_VARIANTS
from weber.families.flux3.variants import VARIANTS as FLUX3_VARIANTS
from weber.pocket.folder import Part, build_scheduler, write_folder
from weber.pocket.published import KLEINS, TRANSFORMERS, list_encoders
from weber.pocket.random_flux2 import build_mistral_tokenizer, build_qwen_tokenizer
from weber.pocket.words import build_clip_tokenizer, build_t5_tokenizer


def build_full_size(folder: Path, variant: str, *, changes: Mapping[str, object] | None = None) -> Path:
    """Write a published model without its weights, in diffusers layout, with empty files in their place; returns `folder`.

    A `Family` can be built from it and asked for everything but weights. `changes` replace entries of the transformer's configuration
    (`num_layers`, `num_single_layers`), for a model that is less deep.
    """
    others, pipeline = _list_others(variant)
    write_folder(folder, others, pipeline=pipeline)
    encoders = list_encoders(variant)
    configs = {"transformer": {**TRANSFORMERS[variant], **(changes or {})}, "vae": encoders.vae, **encoders.texts}
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name, config in configs.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
        (folder / name / "model.safetensors").touch()
        index[name] = ["weber", config.get("_class_name") or config["model_type"]]
    if variant in KLEINS:
        index["is_distilled"] = next(row.is_distilled for row in FLUX2_VARIANTS if row.name == variant)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    return folder


def build_stand_in(home: str) -> str:
    """A folder with the sizes of the model whose own place on the hub that is; what is here already is itself."""
    variant = next((row.name for row in (*FLUX1_VARIANTS, *FLUX2_VARIANTS, *FLUX3_VARIANTS) if row.home == home), None)
    return home if variant is None or variant not in TRANSFORMERS else _build_folder(variant).name


@cache
def _build_folder(variant: str) -> TemporaryDirectory[str]:
    """Kept as long as the program runs."""
    folder = TemporaryDirectory(prefix="weber-")
    build_full_size(Path(folder.name), variant)
    return folder


def _list_others(variant: str) -> tuple[dict[str, Part], str]:
    """Tokenizers and scheduler, by their folders, and the library's class that paints with the variant."""
    for row in FLUX1_VARIANTS:
        if row.name == variant:
            tokenizers: dict[str, Part] = {"tokenizer": build_clip_tokenizer(), "tokenizer_2": build_t5_tokenizer()}
            return {**tokenizers, "scheduler": build_scheduler("dev" if row.is_shifted else "schnell")}, row.pipeline
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(SCHEDULER)
    if variant == FLUX2_VARIANTS[0].name:
        return {"scheduler": scheduler, "tokenizer": build_mistral_tokenizer()}, "Flux2Pipeline"
    return {"scheduler": scheduler, "tokenizer": build_qwen_tokenizer()}, "Flux2KleinPipeline" if variant in KLEINS else "Flux3Pipeline"
