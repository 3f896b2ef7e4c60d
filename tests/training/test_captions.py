"""Captions that vary, in whole runs: what is encoded, what is drawn, and a run that goes on bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses, run_interrupted, run_whole
from weber.cache.store import Store
from weber.config.run import RunConfig
from weber.planning.plan import build_plan, list_keys
from weber.training.assemble import Encoded, encode_cache, train

STEPS: list[dict[str, Any]] = [
    {"kind": "wildcards"},
    {"kind": "shuffle"},
    {"kind": "drop", "rate": 0.3},
    {"kind": "trigger", "text": "zorb"},
]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Nothing is encoded before a test here."""
    return tmp_path / "cache"


@pytest.fixture
def own(tmp_path: Path, pictures: Path) -> Path:
    folder = Path(shutil.copytree(pictures, tmp_path / "own"))
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        path.write_text(f"tag {number}, {{red|blue}} b, c, d, e")
    return folder


def _build(build_run: BuildRun, own: Path, name: str = "run", **data: Any) -> RunConfig:
    return build_run(name, data=[{"path": str(own), "resolution": 64, "caption_steps": STEPS, **data}], output={"save_every": 4})


def _encode(config: RunConfig) -> Encoded:
    return encode_cache(build_plan(config), Store(config.output.cache), watcher=build_watcher()[0])


def test_one_caption_edited_is_one_picture_encoded(build_run: BuildRun, own: Path) -> None:
    config = _build(build_run, own)
    before = build_plan(config)
    texts = {one.path.name: set(one.captions) for one in before.dataset.examples}
    assert _encode(config).texts == 2 * len(set.union(*texts.values())) > 2 * 12 * 5
    assert _encode(config) == Encoded(0, 0)
    edited = sorted(own.glob("*.txt"))[0]
    edited.write_text("tag 0, green, c, d, e")
    after = build_plan(config)
    changed = {one.path.stem for one in after.dataset.examples if set(one.captions) != texts[one.path.name]}
    assert changed == {edited.stem}
    new = set(after.needs.texts) - set(before.needs.texts)
    assert 0 < len(new) <= 8 and _encode(config) == Encoded(0, 2 * len(new))
    assert _encode(_build(build_run, own, resolution=32)).texts == 0, "another size has the same texts"


def test_every_draw_is_in_the_cache(build_run: BuildRun, own: Path) -> None:
    plan = build_plan(_build(build_run, own, caption_dropout=0.2))
    draws = [draw for step in range(60) for batch in plan.batches.draw_step(step) for draw in batch]
    drawn = {plan.dataset.examples[draw.example].caption(draw.caption) for draw in draws}
    assert drawn <= set(plan.needs.texts) and "" in drawn and len(drawn) > 40
    assert all(text == "" or "zorb" in text for text in drawn) and not any("{" in text for text in drawn)
    assert len(list_keys(plan)) > 2 * len(set(plan.needs.texts))


def test_four_and_six_are_ten(build_run: BuildRun, own: Path) -> None:
    whole = run_whole(_build(build_run, own, "whole/run"))
    parts, _ = run_interrupted(_build(build_run, own, "parts/run"), 4)
    train(_build(build_run, own, "parts/run"), resume=True, watcher=build_watcher()[0])
    assert read_losses(whole) == read_losses(parts)
    assert (whole / "adapter.safetensors").read_bytes() == (parts / "adapter.safetensors").read_bytes()


def test_other_weights_of_captions_are_noticed_on_resume(build_run: BuildRun, own: Path) -> None:
    places = {"captions": "instance", "instance_prompt": ["a", "b"], "caption_steps": []}
    run_interrupted(_build(build_run, own, **places, caption_weights=[1.0, 3.0]), 4)
    watcher, said = build_watcher()
    train(_build(build_run, own, **places, caption_weights=[3.0, 1.0]), resume=True, watcher=watcher)
    assert "data.0.caption_weights: [1.0, 3.0] -> [3.0, 1.0]" in said.getvalue(), said.getvalue()
