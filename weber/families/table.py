"""The families and their variants. A new family is a folder and a row here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from weber.config.model import ModelConfig
from weber.errors import ConfigError, ModelError
from weber.families.family import Family
from weber.families.flux1 import components as flux1
from weber.families.flux1.keys import ADAPTER_TARGETS as FLUX1_TARGETS
from weber.families.flux1.variants import VARIANTS as FLUX1_VARIANTS
from weber.families.source import WEIGHTS, Source


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognized and built. `variants` maps names to (hub id or folder, summary)."""

    transformer_class: str
    variants: dict[str, tuple[str, str]]
    targets: tuple[str, ...]
    build: Callable[[Source, str | None], Family]


FAMILIES = (
    FamilyRow(
        flux1.TRANSFORMER_CLASS,
        {row.name: (row.home, row.summary) for row in FLUX1_VARIANTS},
        tuple(FLUX1_TARGETS),
        flux1.build_flux1,
    ),
)


def build_family(config: ModelConfig) -> Family:
    """The family of a model, from configuration files only. Raises ConfigError or ModelError in words."""
    homes = {name: home for row in FAMILIES for name, (home, _) in row.variants.items()}
    name = next(iter(homes)) if config.variant is None and config.path is None else config.variant
    if name is not None and name not in homes:
        near = difflib.get_close_matches(name, homes, n=1, cutoff=0.3)
        raise ConfigError(
            "There is no such model variant.",
            got=f"model.variant = {name!r}",
            expected=", ".join(homes),
            fix=f"did you mean {near[0]!r}?" if near else "run `weber variants`",
        )
    path = config.path or homes[str(name)]
    source = Source(path, config.revision)
    return _recognize(source).build(source, name)


def _recognize(source: Source) -> FamilyRow:
    source.check_part("transformer", holds=WEIGHTS)
    class_name = source.read_config("transformer").get("_class_name")
    for row in FAMILIES:
        if row.transformer_class == class_name:
            return row
    raise ModelError(
        "The model is of a family that weber does not train.",
        got=f"_class_name = {class_name!r} in transformer/config.json of {source.path}",
        expected=", ".join(row.transformer_class for row in FAMILIES),
        fix="choose another model.path",
    )
