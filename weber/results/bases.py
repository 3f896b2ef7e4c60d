"""Which model a file belongs to: the one that is named, that of the run it lies in, or the family that its layers tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weber.adapters.files import AdapterFile
from weber.config.model import ModelConfig
from weber.errors import AdapterError, ConfigError
from weber.families.pairing import Pairing
from weber.families.table import FAMILIES, list_near_variants, open_transformer
from weber.results.files import Model
from weber.results.runs import find_config


def read_base(text: str) -> ModelConfig:
    """A model in one word: a variant's name, a folder, a hub id or a single file. Raises ConfigError for what is none of them."""
    names = [name for row in FAMILIES for name in row.variants]
    if text in names:
        return ModelConfig(variant=text)
    if "/" not in text and not Path(text).exists():
        near = list_near_variants(text)
        raise ConfigError(
            "There is no such model.",
            got=text,
            expected="a variant (`weber variants`), a folder, a *.safetensors file, or a hub id such as owner/name",
            fix=f"did you mean {' or '.join(map(repr, near))}?" if near else "correct it",
        )
    return ModelConfig(path=text)


def find_base(path: Path, base: str | None) -> ModelConfig:
    """The model that was named, or that of the run whose folder (or checkpoint) the file lies in."""
    if base is not None:
        return read_base(base)
    run = find_config(path.parent)
    if run is None:
        raise ConfigError(
            "The model to merge into is not known.",
            got=f"no --base, and {path} lies in no run folder",
            fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
        )
    return run.model


def open_model(config: ModelConfig, *, architecture: str) -> Model:
    opened = open_transformer(config)
    return Model(opened.weights, opened.config, opened.row.pairings, architecture)


def find_pairings(*adapters: AdapterFile) -> Sequence[Pairing]:
    """The makers' names for adapters whose model is not at hand: their layers say which family they are of."""
    fitting = [row for row in FAMILIES if all(row.transformer_class in adapter.classes for adapter in adapters)]
    if not fitting:
        raise AdapterError(
            "These are not adapters of one model that weber knows.",
            got="; ".join(", ".join(list(adapter.modules)[:2]) for adapter in adapters),
            expected=", ".join(row.transformer_class for row in FAMILIES),
            fix="give adapters of one family",
        )
    return fitting[0].pairings


def find_architecture(adapter: AdapterFile) -> str:
    said = adapter.facts.get("architecture") or adapter.metadata.get("modelspec.architecture", "").removesuffix("/lora")
    return str(said)
