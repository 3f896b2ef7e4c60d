"""`[adapter.lycoris]`: the names of LyCORIS itself, so that a `lycoris_config.json` is read as it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from weber.config.section import Section


class LycorisConfig(Section):
    """What LyCORIS is to do."""

    algo: Literal["lora", "locon", "loha", "lokr", "full", "diag-oft", "boft", "ia3", "dylora", "glora", "tlora"] = "lokr"
    """The form of the change."""

    multiplier: Annotated[float, Field(gt=0)] = 1.0
    """Strength while training."""

    linear_dim: Annotated[int, Field(ge=1)] = 16
    """Rank; for `lokr` a large one (10000) keeps the second factor whole."""

    linear_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Scale: the change is multiplied by alpha / rank."""

    factor: int = -1
    """For `lokr`: the size of the first factor; -1: as near to a square as can be."""
