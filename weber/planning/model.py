"""The model that a run is planned for: from its own files, or from the sizes that weber ships where those cannot be had."""

from __future__ import annotations

from dataclasses import dataclass

from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import ModelError, WeberError
from weber.families.family import Family
from weber.families.table import FAMILIES, build_family
from weber.planning.assistant import Frozen, load_frozen
from weber.pocket.full_size import build_stand_in


@dataclass(frozen=True)
class Model:
    """A family, and why it is one of sizes alone; None: its files are known."""

    family: Family
    lacking: ModelError | None = None

    def load_frozen(self, config: ModelConfig) -> tuple[Frozen, ...]:
        """The frozen adapters of the run; of a model of sizes alone, without the assistant that cannot be had either."""
        try:
            return load_frozen(config, self.family)
        except ModelError:
            if self.lacking is None or config.assistant is not None:
                raise
            return load_frozen(config.model_copy(update={"assistant": "off"}), self.family)


def find_model(config: RunConfig, *, is_run: bool) -> Model:
    """The model that the settings mean. Where it is not here and the hub does not give it, its sizes, unless it `is_run`.

    Raises ConfigError or ModelError as `build_family`.
    """
    hides_padding = config.objective.text_mask
    try:
        return Model(build_family(config.model, hides_padding=hides_padding))
    except ModelError as error:
        if is_run:
            raise
        try:
            return Model(build_family(_name_variant(config.model), hides_padding=hides_padding, stand_in=build_stand_in), error)
        except WeberError:
            raise error from None


def _name_variant(model: ModelConfig) -> ModelConfig:
    """The same, with a variant in place of its own hub id."""
    homes = {home: name for row in FAMILIES for name, (home, _) in row.variants.items()}
    variant = homes.get(model.path or "")
    if variant is None or model.revision is not None or model.variant not in (None, variant):
        return model
    return model.model_copy(update={"path": None, "variant": variant})
