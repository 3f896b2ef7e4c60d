"""`[adapter]`: which numbers learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from weber.config.section import PathText, Section


class AdapterConfig(Section):
    """Which numbers learn."""

    kind: Literal["lora"] = "lora"
    """Kind of adapter. `lora`: low-rank adapters; their weights are fp32 whatever the base model's precision."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    """Scale of the adapters: their output is multiplied by alpha / rank. Left out: equal to `rank`, so a factor of 1."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that an input of an adapter is dropped while training."""

    targets: str | list[str] = "blocks"
    """Which linear layers get an adapter. The name of a set (`weber variants` lists them), or a list of patterns; a pattern is the
    end of a module's name (`attn.to_q`) or holds `*` for any text (`single_transformer_blocks.*.proj_out`). `blocks` is attention and
    feed-forward of every block, which every file layout can carry."""

    start_from: PathText | None = None
    """An adapter file to start from, in any layout that weber writes (diffusers, kohya, ComfyUI). Ranks may be lower than `rank`;
    layers that it lacks start at zero."""
