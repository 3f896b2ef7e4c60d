"""Training as a picture: a style LoRA brings the style and leaves the subjects; a subject LoRA paints what the base cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from recipes.pocket.judge import JUDGED_STYLES, build_views, load_judge
from recipes.pocket.sheet import paint_prompts
from tests.runs import build_watcher
from weber.config.load import load_config
from weber.families.flux1.variants import POCKET
from weber.training.assemble import train
from weber.training.demo import SUBJECTS, build_demo

NUM_STEPS, FASTER = 60, {"lr": 2e-3}
PAINT_STEPS = 8
EXAMPLES = Path(__file__).parents[2] / "examples"
FLUENT = JUDGED_STYLES.index("fluent")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, cut short: fewer steps at a higher rate, and pictures of fewer steps."""
    config = build_demo(tmp_path_factory.mktemp("runs") / "demo")
    shorter = {"train": {"steps": NUM_STEPS}, "optim": FASTER, "sampling": {"steps": PAINT_STEPS}}
    config = config.model_copy(update={name: getattr(config, name).model_copy(update=one) for name, one in shorter.items()})
    train(config, resume=False, watcher=build_watcher()[0])
    return config.output.folder


def _load_painted(folder: Path, step: int) -> Tensor:
    files = [folder / "pictures" / f"step-{step:06d}" / f"{number:02d}.png" for number in range(len(SUBJECTS))]
    return build_views([Image.open(file) for file in files])


def test_the_style_changes(run_folder: Path) -> None:
    before, after = (load_judge()(_load_painted(run_folder, step))[0].softmax(dim=1)[:, FLUENT] for step in (0, NUM_STEPS))
    assert before.mean() < 0.25
    assert after.mean() > before.mean() + 0.25
    assert (after > before).sum() >= len(SUBJECTS) - 1


def test_the_subjects_stay(run_folder: Path) -> None:
    base = paint_prompts(POCKET, [f"{subject}, noto style" for subject in SUBJECTS], first_seed=1000)
    before, after = load_judge()(build_views(base))[1], load_judge()(_load_painted(run_folder, NUM_STEPS))[1]
    nearest = (after @ before.T).argmax(dim=1)
    assert (nearest == torch.arange(len(SUBJECTS))).sum() >= len(SUBJECTS) - 1


def test_a_thing_that_was_never_seen_is_learned(tmp_path: Path) -> None:
    places = [f"data.0.path={EXAMPLES / 'zorb'}", f"output.folder={tmp_path / 'run'}", f"output.cache={tmp_path / 'cache'}"]
    shorter = ["train.steps=40", "optim.lr=2e-3", 'sampling.prompts=["a photo of zorb"]', f"sampling.steps={PAINT_STEPS}"]
    config = load_config(EXAMPLES / "zorb.toml", ["memory.device=cpu", *shorter, *places])
    train(config, resume=False, watcher=build_watcher()[0])
    zorbs = [Image.open(file) for file in sorted(EXAMPLES.glob("zorb/*.png"))]
    judge = load_judge()
    known = judge(build_views(zorbs))[1].mean(dim=0)
    files = [tmp_path / "run" / "pictures" / f"step-{step:06d}" / "00.png" for step in (0, 40)]
    before, after = judge(build_views([Image.open(file) for file in files]))[1] @ known
    assert after > before + 0.2
