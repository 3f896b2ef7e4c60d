"""What a run has learned and where it lies, given the run folder, one of its checkpoints, or a file or model in either."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from weber.checkpoint.resume import load_latest
from weber.checkpoint.save import CONFIG_NAME, MANIFEST, list_checkpoints
from weber.config.load import load_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError
from weber.track.jsonl import METRICS_NAME

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
SUFFIX = ".safetensors"

_STEP_FOLDER = re.compile(r"(?:checkpoint|result)-(\d{6,})(?:-.+)?")
"""What a run has of one step: a checkpoint, one that is no longer gone on from, or an older result."""


@dataclass(frozen=True)
class Home:
    """The run folder that something lies in, and the step that it is of, where it lies in a folder of that step."""

    folder: Path
    step: int | None

    @property
    def ending(self) -> str:
        """Said in the names of what is made from a step, because it stays when the step's folder is deleted."""
        return "" if self.step is None else f"-step-{self.step:06d}"


@dataclass(frozen=True)
class Saved:
    """What a run has learned, as files. `ema`: the running mean of a checkpoint, which takes the place of the numbers in `path`."""

    config: RunConfig
    path: Path
    home: Home
    ema: Path | None = None


def find_run(place: Path, *, weights: str | None = None) -> Saved:
    """What a run has learned: the finished result, else what its latest whole checkpoint holds.

    `weights`: `trained` or `ema`; left out, what the run's settings paint with. Raises CheckpointError.
    """
    place = place.expanduser().absolute()
    home = find_home(place)
    if home is None:
        raise CheckpointError(
            "This is not a run folder." if place.exists() else "There is no such run.",
            got=str(place),
            expected=f"a folder with {CONFIG_NAME}, one of its checkpoints, or an adapter file in either",
            fix="give output.folder of a run",
        )
    if place.is_file() and place.suffix != SUFFIX:
        raise CheckpointError(
            "The file holds nothing that was learned.",
            got=str(place),
            expected=f"a run folder, one of its checkpoints, or a *{SUFFIX} file in either",
            fix=f"give {place.parent if home.step is not None else home.folder}",
        )
    config = load_config(home.folder / CONFIG_NAME)
    weights = weights or config.sampling.weights
    if place.is_file() and place.name == EMA_NAME:
        place, weights = place.parent, "ema"
    if place.is_file() or (place / "config.json").is_file():
        return Saved(config, place, home)
    for folder in (place, load_latest(place).folder if place == home.folder else None):
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


def find_home(place: Path) -> Home | None:
    """The run that a run folder, a folder of one of its steps, or a file or model in either belongs to."""
    for folder in (place, *place.absolute().parents[:2]):
        match = _STEP_FOLDER.fullmatch(folder.name)
        if match and (folder.parent / CONFIG_NAME).is_file():
            return Home(folder.parent, int(match[1]))
    inner = place.parent if place.is_file() else place
    home = next((one for one in (inner, inner.parent) if (one / CONFIG_NAME).is_file()), None)
    return None if home is None else Home(home, None)


def find_config(folder: Path) -> RunConfig | None:
    """The settings of the run that a folder belongs to: a run folder or one of its checkpoints."""
    home = find_home(folder)
    return None if home is None else load_config(home.folder / CONFIG_NAME)


def choose_target(path: Path) -> tuple[Path, str]:
    """The folder for files that are made from an adapter, and how their names begin: beside it; of a step of a run, in the run folder."""
    home = find_home(path)
    return (path.parent, path.stem) if home is None or home.step is None else (home.folder, path.stem + home.ending)


def build_adapter_name(config: RunConfig) -> str:
    """Name of the finished adapter's file."""
    return ADAPTER_NAME if config.output.name is None else config.output.name + SUFFIX


def build_mean_path(path: Path) -> Path:
    """Where the running mean of a finished result goes."""
    return path.with_stem(path.stem + EMA_ENDING) if path.suffix == SUFFIX else path.with_name(path.name + EMA_ENDING)


def _find_saved(folder: Path, config: RunConfig, *, is_mean: bool) -> Saved | None:
    """The finished result, or what a checkpoint holds: the first that is there counts."""
    home, name = find_home(folder), config.output.name
    assert home is not None
    adapters, models = [build_adapter_name(config), ADAPTER_NAME], [name or MODEL_FOLDER, name + SUFFIX if name else MODEL_NAME]
    paths = [folder / one for one in ([*models, TRAINED_NAME] if config.adapter.kind == "full" else adapters)]
    finished = [build_mean_path(path) for path in paths] if is_mean else paths
    for path in finished:
        if path.exists():
            return Saved(config, path, home)
    mean = folder / EMA_NAME
    return Saved(config, next(path for path in paths if path.exists()), home, mean) if is_mean and mean.is_file() else None


def is_run(folder: Path) -> bool:
    """Whether a run has been trained in a folder."""
    has_config = (folder / CONFIG_NAME).is_file()
    return (has_config and (folder / METRICS_NAME).is_file()) or any((one / MANIFEST).is_file() for _, one in list_checkpoints(folder))
