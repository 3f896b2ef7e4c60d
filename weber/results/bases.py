"""Which model a file belongs to: the one that is named, that of the run it lies in, or the family that its layers tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from weber.adapters.files import AdapterFile
from weber.config.model import ModelConfig
from weber.errors import AdapterError, ConfigError, WeberError
from weber.families.pairing import Pairing
from weber.families.table import FAMILIES, list_near_variants, open_transformer
from weber.results.files import Model
from weber.results.runs import find_config

_KEY = re.compile(r"model\.(?:path|variant)(?: = (?='))?")
_OTHER_KEY = re.compile(r"[;,] or set model\.(?!path\b|variant\b)\w+(?: to [^;,]*)?")


@contextmanager
def speaking_of(word: str) -> Iterator[None]:
    """What errors say of settings of [model], said of the word of a command line that names a model, such as `--base`."""
    try:
        yield
    except WeberError as error:
        error.rewrite(lambda text: _KEY.sub(lambda key: word + " " * key[0].endswith("= "), _OTHER_KEY.sub("", text)))
        raise


def read_base(text: str) -> ModelConfig:
    """A model in one word: a variant's name, a folder, a hub id or a single file. Raises ConfigError for what is none of them."""
    names = [name for row in FAMILIES for name in row.variants]
    if text in names:
        return ModelConfig(variant=text)
    if "/" not in text and not Path(text).exists():
        near = list_near_variants(text)
        raise ConfigError(
            "There is no such model.",
            got=f"model.path = {text!r}",
            expected="a variant (`weber variants`), a folder, a *.safetensors file, or a hub id such as owner/name",
            fix=f"did you mean {' or '.join(map(repr, near))}?" if near else "correct model.path",
        )
    return ModelConfig(path=text)


def open_base(path: Path, base: str | None, *, architecture: str) -> Model:
    """The model that was named with --base, or that of the run whose folder (or checkpoint) the file lies in."""
    if base is None:
        return _open_model(_find_base(path), architecture=architecture)
    with speaking_of("--base"):
        return _open_model(read_base(base), architecture=architecture)


def open_whole(path: Path) -> Model:
    """A model that a run has trained."""
    return _open_model(ModelConfig(path=str(path)), architecture="")


def _find_base(path: Path) -> ModelConfig:
    run = find_config(path.parent)
    if run is None:
        raise ConfigError(
            "The model to merge into is not known.",
            got=f"no --base, and {path} lies in no run folder",
            fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
        )
    return run.model


def _open_model(config: ModelConfig, *, architecture: str) -> Model:
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
