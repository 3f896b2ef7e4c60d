"""What a run has learned and where it lies, given the run folder, one of its checkpoints, or a file or model in either."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from weber.checkpoint.resume import load_latest
from weber.config.load import load_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError

CONFIG_NAME = "config.toml"
ADAPTER_NAME = "adapter.safetensors"
TRAINED_NAME = "trained.safetensors"
"""The trained tensors of a checkpoint, where the model itself is trained."""
EXACT_NAME = "exact.safetensors"
"""Numbers of a checkpoint that its adapter file rounds: tensors under the names of the parameters."""
EMA_NAME = "ema.safetensors"
"""The running mean in a checkpoint: tensors under the names of the parameters."""
MODEL_FOLDER, MODEL_NAME = "transformer", "model.safetensors"
"""The finished model: a folder in the library's layout, and a file with the makers' names."""
EMA_ENDING = "-ema"
"""Before the file ending of finished results that are the running mean."""

_NAMES = {"lora": (ADAPTER_NAME,), "lycoris": (ADAPTER_NAME,), "full": (MODEL_FOLDER, MODEL_NAME, TRAINED_NAME)}
"""What a run or a checkpoint has, by what is trained; the first that is there counts."""


@dataclass(frozen=True)
class Saved:
    """What a run has learned, as files. `ema`: the running mean of a checkpoint, which takes the place of the numbers in `path`."""

    config: RunConfig
    path: Path
    ema: Path | None = None


def find_run(place: Path, *, weights: str | None = None) -> Saved:
    """What a run has learned: the finished result, else what its latest whole checkpoint holds.

    `weights`: `trained` or `ema`; left out, what the run's settings paint with. Raises CheckpointError.
    """
    place = place.expanduser().absolute()
    config = find_config(place.parent if place.is_file() else place)
    if config is None:
        raise CheckpointError(
            "This is not a run folder.",
            got=str(place),
            expected=f"a folder with {CONFIG_NAME}, one of its checkpoints, or an adapter file in either",
            fix="give output.folder of a run",
        )
    weights = weights or config.sampling.weights
    if place.is_file() and place.name == EMA_NAME:
        place, weights = place.parent, "ema"
    if place.is_file() or (place / "config.json").is_file():
        return Saved(config, place)
    for folder in (place, load_latest(place).folder if (place / CONFIG_NAME).is_file() else None):
        saved = None if folder is None else _find_saved(folder, config, is_mean=weights == "ema")
        if saved is not None:
            return saved
    what = {"full": "trained weights"}.get(config.adapter.kind, "adapter") if weights == "trained" else "running mean of its weights"
    raise CheckpointError(
        f"The run has no {what} yet.", got=f"{place} without a finished one or a whole checkpoint", fix="train it first, or resume it"
    )


def find_adapter(place: Path) -> Path:
    """The adapter file of a run: the finished one, else that of the latest whole checkpoint. Raises CheckpointError."""
    place = place.expanduser().absolute()
    if place.is_file() or (place / ADAPTER_NAME).is_file():
        return place if place.is_file() else place / ADAPTER_NAME
    config = find_config(place)
    if config is None:
        raise CheckpointError("There is no adapter.", got=f"{place} without {ADAPTER_NAME}", fix="give a run folder or an adapter file")
    if config.adapter.kind == "full":
        raise CheckpointError(
            "The run has trained the model itself, so it has no adapter.",
            got=f'{place}, whose settings say adapter.kind = "{config.adapter.kind}"',
            fix=f"set model.transformer to its model ({MODEL_FOLDER} in the run folder), or take a LoRA out of that with `weber extract`",
        )
    return find_run(place, weights="trained").path


def find_config(folder: Path) -> RunConfig | None:
    """The settings of the run that a folder belongs to: a run folder or one of its checkpoints."""
    home = next((one for one in (folder, folder.parent) if (one / CONFIG_NAME).is_file()), None)
    return None if home is None else load_config(home / CONFIG_NAME)


def build_mean_path(path: Path) -> Path:
    """Where the running mean of a finished result goes."""
    return path.with_stem(path.stem + EMA_ENDING)


def remove_finished(run_folder: Path, kind: str) -> None:
    """Delete the finished results of a shorter run, which would be taken for those of the run that goes on."""
    for name in _NAMES[kind]:
        for path in (run_folder / name, build_mean_path(run_folder / name)):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


def _find_saved(folder: Path, config: RunConfig, *, is_mean: bool) -> Saved | None:
    paths = [folder / name for name in _NAMES[config.adapter.kind]]
    finished = [build_mean_path(path) for path in paths] if is_mean else paths
    for path in finished:
        if path.exists():
            return Saved(config, path)
    mean = folder / EMA_NAME
    return Saved(config, next(path for path in paths if path.exists()), mean) if is_mean and mean.is_file() else None
