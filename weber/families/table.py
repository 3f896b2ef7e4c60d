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
from weber.families.source import Source


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognized and built. `variants` maps names to (hub id, summary)."""

    transformer_class: str
    variants: dict[str, tuple[str | None, str]]
    targets: tuple[str, ...]
    build: Callable[[Source, str | None], Family]


FAMILIES = (
    FamilyRow(
        flux1.TRANSFORMER_CLASS,
        {row.name: (row.repo, row.summary) for row in FLUX1_VARIANTS},
        tuple(FLUX1_TARGETS),
        flux1.build_flux1,
    ),
)


def build_family(config: ModelConfig) -> Family:
    """The family of a model, from configuration files only. Raises ConfigError or ModelError in words."""
    variants = {name: (repo, row) for row in FAMILIES for name, (repo, _) in row.variants.items()}
    name = config.variant
    if name is None and config.path is None:
        name = next(iter(variants))
    if name is None:
        assert config.path is not None
        source = Source(config.path, config.revision)
        return _recognize(source).build(source, None)
    if name not in variants:
        near = difflib.get_close_matches(name, variants, n=1, cutoff=0.3)
        raise ConfigError(
            "There is no such model variant.",
            got=f"model.variant = {name!r}",
            expected=", ".join(variants),
            fix=f"did you mean {near[0]!r}?" if near else "run `weber variants`",
        )
    repo, row = variants[name]
    path = config.path or repo
    if path is None:
        raise ConfigError(
            f"The variant {name} has no home on the hub.",
            got="no model.path",
            fix="set model.path to its folder",
        )
    return row.build(Source(path, config.revision), name)


def _recognize(source: Source) -> FamilyRow:
    source.check_part("transformer", weights=True)
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
