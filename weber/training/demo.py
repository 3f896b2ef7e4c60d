"""`weber demo`: a style LoRA on the pictures in examples/, on the CPU, in minutes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.errors import DataError
from weber.sampling.grid import build_sheet
from weber.sampling.validate import save_picture
from weber.track.progress import Watcher
from weber.training.assemble import train

NUM_STEPS = 400
STYLE = ", 3d fluent style"
SUBJECTS = ("dog face", "tomato", "mushroom", "gem stone", "guitar", "spouting whale")
"""None of them is among the pictures that the LoRA is trained on: only the style can come from there."""


def run_demo(out: Path, watcher: Watcher) -> Path:
    """Train and paint; returns the sheet: before, during and after."""
    folder = _choose_folder(out)
    train(build_demo(folder), resume=False, watcher=watcher)
    sheet = folder.absolute() / "demo.png"
    save_picture(_build_sheet(folder / "pictures"), sheet)
    return sheet


def build_demo(folder: Path) -> RunConfig:
    """The settings of the demo."""
    return build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(find_examples())}],
            "memory": {"device": "cpu", "gradient_checkpointing": "none"},
            "optim": {"lr": 7e-4, "schedule": "cosine"},
            "train": {"steps": NUM_STEPS, "batch_size": 4},
            "sampling": {"prompts": [subject + STYLE for subject in SUBJECTS], "every": NUM_STEPS // 2},
            "output": {"folder": str(folder), "cache": str(folder / "cache"), "save_every": NUM_STEPS // 2},
        }
    )


def find_examples() -> Path:
    """The pictures that ship with weber: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "examples" / "fluent", package.parent / "examples" / "fluent"):
        if folder.is_dir():
            return folder
    raise DataError("The example pictures are not installed.", got=str(package), fix="install weber again, or run from a checkout")


def _build_sheet(pictures: Path) -> Image.Image:
    """One row per state of the adapter, one column per subject."""
    states = {"before: the base model": 0, f"during: {NUM_STEPS // 2} steps": NUM_STEPS // 2, f"after: {NUM_STEPS} steps": NUM_STEPS}
    rows = []
    for title, step in states.items():
        files = [pictures / f"step-{step:06d}" / f"{number:02d}.png" for number in range(len(SUBJECTS))]
        rows.append((title, [Image.open(file).convert("RGB") for file in files]))
    return build_sheet(SUBJECTS, rows)


def _choose_folder(out: Path) -> Path:
    number = 1
    while (folder := out / ("demo" if number == 1 else f"demo-{number}")).exists():
        number += 1
    return folder
