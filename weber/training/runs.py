"""Where a run's adapter is, given the run folder, one of its checkpoints, or a file in either."""

from __future__ import annotations

from pathlib import Path

from weber.checkpoint.resume import load_latest
from weber.config.load import load_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError

CONFIG_NAME = "config.toml"
ADAPTER_NAME = "adapter.safetensors"


def find_run(place: Path) -> tuple[RunConfig, Path]:
    """The settings of a run and its adapter. Raises CheckpointError."""
    place = place.expanduser().absolute()
    config = find_config(place.parent if place.is_file() else place)
    if config is None:
        raise CheckpointError(
            "This is not a run folder.",
            got=str(place),
            expected=f"a folder with {CONFIG_NAME}, one of its checkpoints, or an adapter file in either",
            fix="give output.folder of a run",
        )
    return config, find_adapter(place)


def find_adapter(place: Path) -> Path:
    """The adapter file of a run: the finished one, else that of the latest whole checkpoint. Raises CheckpointError."""
    place = place.expanduser().absolute()
    if place.is_file():
        return place
    latest = load_latest(place).folder if (place / CONFIG_NAME).is_file() else None
    for one in (place, latest):
        if one is not None and (one / ADAPTER_NAME).is_file():
            return one / ADAPTER_NAME
    raise CheckpointError(
        "The run has no adapter yet.", got=f"{place} without {ADAPTER_NAME} or a whole checkpoint", fix="train it first, or resume it"
    )


def find_config(folder: Path) -> RunConfig | None:
    """The settings of the run that a folder belongs to: a run folder or one of its checkpoints."""
    home = next((one for one in (folder, folder.parent) if (one / CONFIG_NAME).is_file()), None)
    return None if home is None else load_config(home / CONFIG_NAME)
