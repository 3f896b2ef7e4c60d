"""What the tests of checkpoints share: a run folder with whole checkpoints of two small files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from weber.checkpoint.save import save_checkpoint


@pytest.fixture
def save(tmp_path: Path) -> Callable[[int], Path]:
    """A function that saves the checkpoint of a step into the run folder `tmp_path`."""

    def save_step(step: int) -> Path:
        return save_checkpoint(
            tmp_path,
            step,
            files={
                "adapter.safetensors": lambda path: path.write_bytes(bytes(range(256)) * 40 + str(step).encode()),
                "state.json": lambda path: path.write_text(f'{{"step": {step}}}\n', encoding="utf-8"),
            },
        )

    return save_step
