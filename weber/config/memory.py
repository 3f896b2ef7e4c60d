"""`[memory]`: where bytes live and how many bits they have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from weber.config.section import Section


class MemoryConfig(Section):
    """Where bytes live and how many bits they have."""

    device: str = "auto"
    """Where the model runs. `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""

    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the frozen base model. `auto`: bf16 on GPUs that have it, otherwise fp32 (bf16 convolutions on CPUs without
    bf16 units are 15-20 times slower)."""

    gradient_checkpointing: bool = True
    """Recompute each block in the backward pass instead of keeping its activations: far less memory, about a third more time."""

    encode_batch_size: Annotated[int, Field(ge=1)] = 4
    """Pictures or captions per batch while the cache is filled."""
