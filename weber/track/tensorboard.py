"""TensorBoard events, when asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType

from weber.errors import MissingExtraError
from weber.track.jsonl import Numbers


def check_tensorboard() -> None:
    """Raise MissingExtraError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError(
            "TensorBoard is not installed.",
            got="output.tensorboard = true",
            fix="pip install 'weber[tensorboard]', or set output.tensorboard = false (metrics.jsonl is always written)",
        )


class TensorboardTracker:
    """Writes numbers under `<run>/tensorboard`; events after `done_steps` of a killed run are hidden (`purge_step`)."""

    def __init__(self, run_folder: Path, *, done_steps: int) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_folder / "tensorboard"), purge_step=done_steps + 1)

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        for name, value in numbers.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> TensorboardTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
