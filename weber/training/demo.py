"""`weber demo`: a LoRA on the pictures in examples/, on the CPU, in minutes."""

from __future__ import annotations

from pathlib import Path

import weber
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.errors import DataError
from weber.pocket.random import DEMO, build_random_model
from weber.track.progress import Watcher
from weber.training.assemble import train

NUM_STEPS = 300
PROMPTS = ("a red apple, 3d fluent style", "a dog face, 3d fluent style", "a sailboat, 3d fluent style")


def run_demo(out: Path, watcher: Watcher) -> Path:
    """Train and paint; returns the sheet with the base model's pictures beside the adapter's."""
    folder = _choose_folder(out)
    model = build_random_model(folder / "model", size=DEMO)
    config = build_demo(folder, model)
    train(config, resume=False, watcher=watcher)
    return folder.absolute() / "pictures" / f"step-{NUM_STEPS:06d}.png"


def build_demo(folder: Path, model: Path) -> RunConfig:
    """The settings of the demo."""
    return build_config(
        {
            "model": {"path": str(model), "variant": "pocket"},
            "data": [{"path": str(find_examples()), "resolution": 64, "bucket_step": 16}],
            "memory": {"device": "cpu", "gradient_checkpointing": False},
            "optim": {"lr": 1e-3},
            "train": {"steps": NUM_STEPS, "batch_size": 4},
            "sampling": {"prompts": list(PROMPTS), "every": NUM_STEPS // 2, "steps": 20},
            "output": {"folder": str(folder), "cache": str(folder / "cache"), "save_every": 100},
        }
    )


def find_examples() -> Path:
    """The pictures that ship with weber: inside the installed package, or beside it in a checkout."""
    package = Path(weber.__file__).parent
    for folder in (package / "examples" / "fluent", package.parent / "examples" / "fluent"):
        if folder.is_dir():
            return folder
    raise DataError("The example pictures are not installed.", got=str(package), fix="install weber again, or run from a checkout")


def _choose_folder(out: Path) -> Path:
    number = 1
    while (folder := out / ("demo" if number == 1 else f"demo-{number}")).exists():
        number += 1
    return folder
