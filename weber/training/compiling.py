"""Blocks that are compiled, and what a person is told of them: how long it took, and whether they keep what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from weber.config.memory import MemoryConfig
from weber.families.family import Family, Predictor
from weber.memory.compiled import CompiledBlocks
from weber.memory.rates import GIB

_LEAST_SECONDS = 1.0
_TOLERANCE = 1.05


def compile_blocks(memory: MemoryConfig, predictor: Predictor, *, family: Family, is_dynamic: bool) -> CompiledBlocks | None:
    """Have a network's blocks compiled, if they are to be: each kind when it first runs. `is_dynamic`: they will see several sizes."""
    if not memory.compile:
        return None
    compiled = CompiledBlocks(memory.gradient_checkpointing, blocks=family.blocks(predictor), is_dynamic=is_dynamic)
    predictor.run = compiled
    return compiled


@dataclass
class Compiling:
    """Compiled blocks, and the most bytes that the plan says they keep for a backward pass."""

    blocks: CompiledBlocks
    planned_bytes: int
    said_seconds: float = 0.0
    is_counted: bool = False

    def list_news(self) -> Iterator[str]:
        """After a step: what has been compiled in it, if anything was, and what blocks keep, once it is known."""
        seconds, kept = self.blocks.seconds - self.said_seconds, self.blocks.kept_bytes
        if seconds < _LEAST_SECONDS:
            return
        self.said_seconds += seconds
        if self.is_counted or kept is None:
            yield f"Compiled blocks in {seconds:.0f} s."
            return
        self.is_counted = True
        yield (
            f"Compiled blocks in {seconds:.0f} s; they keep {_describe_bytes(kept)} for the backward pass, at most"
            f" {_describe_bytes(self.planned_bytes)} were planned."
        )
        if kept > _TOLERANCE * self.planned_bytes:
            yield "Warning: that is more than was planned, so the run takes more memory; remove memory.compile if it is not enough."


def _describe_bytes(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB // 10 else f"{num_bytes / 2**20:.1f} MiB"
