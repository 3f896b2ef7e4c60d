"""What becomes of the files of other trainers is a run that can be planned, with pictures and a model where the files say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.config.importers.test_load import FILES
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.config.load import build_config
from weber.errors import ConfigError
from weber.planning.old_run import describe_old_run
from weber.planning.plan import Plan, build_plan

ELSEWHERE = (
    "path", "hub", "hub_revision", "hub_split", "metadata", "image_column", "caption_column", "conditioning_columns", "conditioning",
    "conditioning_type", "reference_optional", "reference_sizes", "reference_dropout", "reference_order", "masks", "loss_masks",
    "alpha_mask", "captions", "caption_endings", "caption_key", "caption_weights", "caption_per", "instance_prompt", "recursive", "name",
)  # fmt: skip
"""What a set says of places on another machine, and of what lies there."""

VARIANTS = {
    "klein": "flux2-klein-base-4b",
    "kontext": "flux1-kontext",
    "fill": "flux1-fill",
    "schnell": "flux1-schnell",
    "flux2": "flux2-dev",
    "flux.2": "flux2-dev",
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a megapixel and more, with captions; beside them masks, half white."""
    folder = tmp_path_factory.mktemp("imported") / "pictures"
    (folder.parent / "masks").mkdir(parents=True)
    folder.mkdir()
    for number, (width, height) in enumerate([(1100, 1100), (1600, 1080), (1024, 1400), (1300, 1040)]):
        pixels = np.random.default_rng(number).integers(0, 255, (height // 20, width // 20, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(folder / f"{number}.jpg")
        Image.fromarray(np.repeat([[0], [255]], height // 2, 0).astype(np.uint8)).resize((width, height)).save(
            folder.parent / "masks" / f"{number}.jpg"
        )
        (folder / f"{number}.txt").write_text(f"a picture, number {number}, of a harbor")
    return folder


def _plan_here(imported: Imported, pictures: Path, folder: Path) -> Plan:
    """The same settings with pictures that are here, for a card that is not, and a model of which only the sizes are known."""
    tree: dict[str, Any] = copy.deepcopy(dict(imported.tree))
    said = f"{tree['model'].get('variant', '')} {tree['model'].get('path', '')}".lower()
    variant = next((name for word, name in VARIANTS.items() if word in said), "flux1-dev")
    tree["model"] = {"variant": variant} | {key: one for key, one in tree["model"].items() if key == "text_tokens"}
    if variant == "flux1-schnell":
        tree["model"]["assistant"] = "off"  # a file of the hub
    for number, one in enumerate(tree["data"]):
        has_masks, has_references = one.get("loss_masks") or one.get("alpha_mask"), "conditioning" in one or "conditioning_columns" in one
        here = {key: value for key, value in one.items() if key not in ELSEWHERE} | {"path": str(pictures), "name": f"set {number}"}
        here |= {"loss_masks": str(pictures.parent / "masks")} if has_masks else {}
        here |= {"conditioning": [str(pictures.parent / "masks")]} if has_references or variant == "flux1-kontext" else {}
        here |= {"crop": "center"} if one.get("crop") == "face" else {}  # needs a package
        tree["data"][number] = here
    tree["adapter"].pop("start_from", None)
    tree["train"] = {key: one for key, one in tree["train"].items() if key != "epochs"} | {"steps": 5000}
    tree["output"] = tree.get("output", {}) | {"folder": str(folder / "run"), "cache": str(folder / "cache")}
    tree["sampling"] = {}
    tree["memory"] = {key: one for key, one in tree.get("memory", {}).items() if key != "device"}
    return build_plan(build_config(tree), card="H100")


def _list_starts() -> list[str]:
    """Every file of ours that a trainer is started with."""
    found = []
    for path in sorted(FILES.rglob("*")):
        if path.is_file() and path.name != "multidatabackend.json":
            try:
                import_run(path)
            except ConfigError:
                continue
            found.append(path.relative_to(FILES).as_posix())
    return found


def test_there_are_forty_files_and_five_of_each_trainer() -> None:
    starts = _list_starts()
    assert len(starts) >= 40
    for folder in ("ai_toolkit", "diffusers", "kohya", "onetrainer", "simpletuner"):
        assert sum(name.startswith(folder) for name in starts) >= 5, folder


@pytest.mark.parametrize("name", _list_starts())
def test_the_plan_accepts_it(name: str, large: Path, tmp_path: Path) -> None:
    imported = import_run(FILES / name)
    plan = _plan_here(imported, large, tmp_path)
    assert plan.num_steps > 0
    lines = "\n".join(describe_old_run(imported, plan))
    assert "steps of" in lines and "noise levels by" in lines
    for cut in [line for line in lines.splitlines() if "is cut away in the mean" in line] if imported.tool != "diffusers" else []:
        # windows of another trainer stand beside ours; a single size is the same in both
        assert "by weber's own rule" in cut or any(one.buckets or one.aspect == "square" for one in imported.config.data), name
