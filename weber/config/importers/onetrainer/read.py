"""OneTrainer's saved JSON as plain keys: nested tables by dots, old names by their names now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weber.config.importers.draft import Draft, Keys
from weber.config.importers.outcome import Given
from weber.errors import ConfigError

FLUX_TYPES = ("FLUX_DEV_1", "FLUX_FILL_DEV_1", "FLUX_2")
LISTS = ("concepts", "samples", "additional_embeddings", "scheduler_params")
"""Keys whose values are lists of tables, read elsewhere."""

OLD_NAMES: Mapping[str, str] = {
    "lora_layers": "layer_filter",
    "lora_layer_preset": "layer_filter_preset",
    "lora_layers_regex": "layer_filter_regex",
    "save_after": "save_every",
    "save_after_unit": "save_every_unit",
    "train_text_encoder": "text_encoder.train",
    "text_encoder_learning_rate": "text_encoder.learning_rate",
    "text_encoder_weight_dtype": "text_encoder.weight_dtype",
    "train_text_encoder_2": "text_encoder_2.train",
    "text_encoder_2_learning_rate": "text_encoder_2.learning_rate",
    "text_encoder_2_weight_dtype": "text_encoder_2.weight_dtype",
    "train_prior": "transformer.train",
    "prior_learning_rate": "transformer.learning_rate",
    "prior_weight_dtype": "transformer.weight_dtype",
    "vae_model_name": "vae.model_name",
    "vae_weight_dtype": "vae.weight_dtype",
    "enable_async_offloading": "async_offloading",
}
"""What keys were called before -> their names now."""

_HIDDEN = "(not shown)"
_SECRET = "secrets."
_LAST_PRIOR = 8
"""Before this version the transformer of FLUX stood under `prior`."""


def read_config(tree: Mapping[str, Any], draft: Draft, *, where: str) -> list[Given]:
    """Every key of a save or a preset, once; of two that mean the same the newer name counts."""
    version = tree.get("__version")
    is_old = isinstance(version, int) and version < _LAST_PRIOR
    flat = list(_flatten(tree))
    names = {name for name, _ in flat}
    has_transformer = any(name.startswith("transformer.") for name in names) and not is_old
    given: dict[str, Given] = {}
    for spelled, value in flat:
        name = _rename(spelled, has_transformer=has_transformer)
        one = Given(name, _HIDDEN if spelled.startswith(_SECRET) and value else value, spelled, where)
        if name not in given:
            given[name] = one
            continue
        is_newer = spelled == name and not (is_old and name.startswith("transformer."))
        loser, given[name] = (given[name], one) if is_newer else (one, given[name])
        draft.note(loser, "no effect", line=f"{given[name].spelled} says it")
    return list(given.values())


def _rename(name: str, *, has_transformer: bool) -> str:
    part, dot, rest = name.partition(".")
    if part == "prior" and dot and not has_transformer:
        return f"transformer.{rest}"
    return OLD_NAMES.get(name, name)


def _flatten(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def flatten_table(tree: Mapping[str, Any], where: str) -> list[Given]:
    """The keys of a concept or a sample."""
    return [Given(name, value, name, where) for name, value in _flatten(tree)]


def adopt_defaults(given: Sequence[Given]) -> list[Given]:
    """What is kept for optimizers of the chosen name takes the place of what `optimizer` leaves out."""
    values = {one.name: one.value for one in given}
    chosen = str(values.get("optimizer.optimizer") or values.get("optimizer") or "ADAMW").upper()
    prefix = f"optimizer_defaults.{chosen}."
    found: list[Given] = []
    for one in given:
        name = f"optimizer.{one.name.removeprefix(prefix)}"
        is_needed = one.name.startswith(prefix) and name not in values
        found.append(replace(one, name=name) if is_needed else one)
    return found


def find_type(keys: Keys) -> str:
    """The model, in OneTrainer's word."""
    return (keys.read_text("model_type") or "FLUX_DEV_1").upper()


def is_flux2(keys: Keys) -> bool:
    """Whether it is one of the second generation."""
    return find_type(keys) == "FLUX_2"


def is_klein(keys: Keys) -> bool:
    """Whether it has no guidance input."""
    return is_flux2(keys) and "klein" in (keys.read_text("base_model_name") or "").lower()


def is_full(keys: Keys) -> bool:
    """Whether the model itself is trained."""
    return (keys.read_text("training_method") or "FINE_TUNE").upper() == "FINE_TUNE"


def find_form(keys: Keys) -> str:
    """What is trained: `full`, `lora`, `loha`, `lokr` or `oft_2`."""
    return "full" if is_full(keys) else (keys.read_text("peft_type") or "LORA").lower()


def check_model(keys: Keys, where: str) -> None:
    """Raise ConfigError for another model, or a training that weber does not have."""
    if "model_type" in keys and find_type(keys) not in FLUX_TYPES:
        raise ConfigError(
            f"{where} is for a model that weber does not train.",
            got=keys.find("model_type").text,
            expected=f"model_type {', '.join(FLUX_TYPES)}",
            fix="use a save or a preset of a FLUX model",
        )
    method = (keys.read_text("training_method") or "FINE_TUNE").upper()
    if method not in ("FINE_TUNE", "LORA"):
        raise ConfigError(
            f"training_method = {method} is a training that weber does not have.",
            got=keys.find("training_method").text,
            expected="LORA or FINE_TUNE",
            fix="choose LoRA in OneTrainer and save again; a made-up word in the captions takes the place of an embedding",
        )
