"""Pictures that are looked at while they are painted, and scored afterwards: it changes nothing of a run, and finds what was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import equal

from tests.receiver import receiving
from tests.runs import BuildRun, build_watcher
from tests.sampling.test_scorers import write_clip, write_dino
from tests.training.test_resume import read_losses
from weber.cache.store import Store
from weber.config.run import RunConfig
from weber.data.views import read_pixels
from weber.errors import ConfigError, ModelError
from weber.planning.plan import build_plan
from weber.progress import ignore_progress
from weber.sampling.scores import CLIP, LEARNED, NEAREST, PAINTED
from weber.track.jsonl import read_readings
from weber.training.assemble import train
from weber.training.batch import Reader
from weber.training.scoring import build_scoring

SAMPLING: dict[str, Any] = {"prompts": ["a dog", "a cat"], "every": 2, "steps": 4}


def _build(build_run: BuildRun, name: str, **sampling: Any) -> RunConfig:
    return build_run(
        name, data=[{"resolution": 64}], train={"steps": 2, "batch_size": 1}, sampling=SAMPLING | sampling, output={"save_every": 2}
    )


def test_looking_changes_nothing(build_run: BuildRun, tmp_path: Path) -> None:
    clip, folders, said = write_clip(tmp_path / "clip"), [], []
    with receiving() as receiver:
        looked = _build(build_run, "looked", preview_every=1, clip_model=str(clip), likeness_model="vae")
        webhook = {"kind": "raw", "url": receiver.url, "level": "debug"}
        looked = looked.model_copy(update={"output": looked.output.model_validate(looked.output.model_dump() | {"webhooks": [webhook]})})
        for config in (_build(build_run, "plain"), looked):
            watcher, buffer = build_watcher()
            folders.append(train(config, resume=False, watcher=watcher).parent)
            said.append(buffer.getvalue())
        events = [one.json for one in receiver.received if one.json["type"] == "validation.preview"]
    assert read_losses(folders[0]) == read_losses(folders[1])
    finished = [load_file(folder / "adapter.safetensors") for folder in folders]
    assert all(equal(tensor, finished[1][name]) for name, tensor in finished[0].items())
    for step in (0, 2):
        pictures = [[Image.open(folder / f"pictures/step-{step:06d}/{number:02d}.png") for number in (0, 1)] for folder in folders]
        assert [one.tobytes() for one in pictures[0]] == [one.tobytes() for one in pictures[1]]
    with Image.open(folders[1] / "preview.webp") as preview:
        assert min(preview.size) >= 256 and len(preview.getcolors(2**24) or []) > 100
    assert events and events[-1]["data"]["progress"]["total"] == 4 and events[-1]["images"] and events[-1]["data"]["prompt"] == "a cat"
    (scores,) = [line for line in read_readings(folders[1]) if CLIP in line]
    assert scores["step"] == 2 and scores.keys() >= {CLIP, LEARNED, NEAREST, PAINTED} and -100 <= scores[CLIP] <= 100
    assert "Pictures of step 2: they fit their prompts by" in said[1] and "likeness to learned pictures" in said[1]
    assert not (folders[0] / "preview.webp").exists() and not [line for line in read_readings(folders[0]) if CLIP in line]


@pytest.mark.parametrize("model", ["vae", "dino"])
def test_a_copy_is_found_and_shown(build_run: BuildRun, tmp_path: Path, cache: Path, model: str) -> None:
    """A picture that is learned, a little blurred, in the place of a painted one."""
    place = "vae" if model == "vae" else str(write_dino(tmp_path / "dino"))
    plan = build_plan(_build(build_run, "run", likeness_model=place))
    scoring = build_scoring(plan, Reader(Store(cache), plan.encoders))
    assert scoring is not None
    example = plan.dataset.examples[0]
    learned = Image.fromarray(read_pixels(example.target(0)))
    files = [tmp_path / "00.png", tmp_path / "01.png"]
    learned.resize((60, 60)).resize(learned.size).save(files[0])
    Image.effect_noise((64, 64), 60).convert("RGB").save(files[1])
    scored = scoring.score(files, ignore_progress)
    assert [(one.file, one.learned) for one in scored.copies] == [(files[0], example.path)]
    sheet = scoring.save_copies(scored.copies, step=7)
    assert f"00.png is {example.path.name} (cosine " in scored.describe_copies(sheet)
    with Image.open(sheet) as picture:
        assert sheet.name == "step-000007.png" and picture.width > 2 * 64


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"preview_model": "taef1"}, r"preview_model has no effect without preview_every"),
        ({"preview_every": 2, "preview_model": "/nowhere/taef1"}, r"names no tiny decoder"),
        ({"clip_model": "/nowhere/clip"}, r"sampling.clip_model names no model"),
        ({"likeness_model": "/nowhere/dino"}, r"sampling.likeness_model names no model"),
    ],
)
def test_what_cannot_look(build_run: BuildRun, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=message):
        build_plan(_build(build_run, "run", **sampling))


def test_a_prompt_that_is_cut_is_said(build_run: BuildRun, tmp_path: Path, cache: Path) -> None:
    plan = build_plan(_build(build_run, "run", clip_model=str(write_clip(tmp_path / "clip")), prompts=["a dog", "a cat " * 60]))
    scoring = build_scoring(plan, Reader(Store(cache), plan.encoders))
    assert scoring is not None
    files = [tmp_path / "00.png", tmp_path / "01.png"]
    for file in files:
        Image.effect_noise((64, 64), 60).convert("RGB").save(file)
    scored = scoring.score(files, ignore_progress)
    assert scored.num_cut == 1 and "of 1 prompt the end is not read" in scored.describe() and not scored.copies
