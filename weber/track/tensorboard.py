"""TensorBoard events, when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from weber.track.jsonl import Numbers
from weber.track.run_facts import RunFacts


class TensorboardTracker:
    """Writes numbers and pictures under `<run>/tensorboard`; events after `done_steps` of a killed run are hidden (`purge_step`)."""

    def __init__(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(facts.folder / "tensorboard"), purge_step=facts.done_steps + 1)
        if facts.done_steps == 0:
            settings = json.dumps(facts.settings, indent=1, default=str)
            for name, text in (("settings", settings), ("plan", facts.summary)):
                self._writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()), 0)  # Markdown's mark of code

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        for name, value in numbers.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, step)

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures; their prompts are beside them."""
        for number, (path, prompt) in enumerate(pictures.items(), start=1):
            with Image.open(path) as picture:
                self._writer.add_image(f"pictures/{number}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
            if step == 0:
                self._writer.add_text(f"pictures/{number}", prompt, step)

    def __enter__(self) -> TensorboardTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
