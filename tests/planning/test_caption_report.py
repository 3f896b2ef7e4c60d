"""What the plan says of captions that vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import BuildRun
from weber.config.run import RunConfig
from weber.errors import DataError
from weber.planning.plan import build_plan
from weber.planning.report import build_report


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Twelve pictures with tags, of which two have few."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        tags = [f"p{number}", "a", "b", "c", "d", "e"] if number > 1 else [f"p{number}", "a"]
        (folder / f"{number:02}.txt").write_text(", ".join(tags))
    return folder


def _build(build_run: BuildRun, own: Path, *steps: dict[str, Any], **data: Any) -> RunConfig:
    return build_run(data=[{"path": str(own), "resolution": 64, "caption_steps": list(steps), **data}], train={"steps": 2, "batch_size": 1})


def test_ten_drawn_captions_of_each_set_and_what_is_never_seen(build_run: BuildRun, own: Path) -> None:
    config = _build(build_run, own, {"kind": "shuffle"}, {"kind": "trigger", "text": "TOK"}, caption_variants=4)
    plan = build_plan(config)
    report = build_report(plan)
    num_texts = sum(len(one.captions) for one in plan.dataset.examples)
    assert 40 < num_texts <= 44
    assert f"own: {num_texts} texts for 12 pictures in 12 files, {num_texts} distinct; of a picture's texts one is drawn" in report
    assert "after the steps shuffle, trigger; each text is encoded once and kept" in report
    assert "of 2 pictures they are all that the steps can make, each as likely as without a cache" in report
    assert "of 10 pictures they are up to 4 of many, drawn by train.seed: the others are never seen (data.0.caption_variants = 8" in report
    drawn = [line.strip() for line in report.splitlines() if line.strip().startswith("drawn: ")]
    assert len(drawn) == len(set(drawn)) == 10 and all(': "TOK, ' in line for line in drawn)
    assert f"{2 * num_texts} texts ({num_texts} for each of clip and t5)" in report


def test_texts_above_77_and_512_tokens_are_counted_for_each_part(build_run: BuildRun, own: Path) -> None:
    (own / "02.txt").write_text("a cat " * 60)
    (own / "03.txt").write_text("a dog " * 600)
    report = build_report(build_plan(_build(build_run, own)))
    assert report.count("tokens of 12 texts: more than 77: 2; more than 512: 1") == 2
    assert "after the steps" not in report


def test_tokens_are_those_of_the_last_text_encoder(build_run: BuildRun, own: Path) -> None:
    plan = build_plan(_build(build_run, own, {"kind": "limit", "most": 12, "unit": "tokens"}))
    longest = max(plan.family.text_limits["t5"]().count([text for one in plan.dataset.examples for text in one.captions]))
    assert 9 < longest <= 12
    assert "t5 reads 24 tokens: no text is longer, the longest has" in build_report(plan)


def test_steps_that_change_no_caption_are_said(build_run: BuildRun, own: Path) -> None:
    steps = [{"kind": "replace", "find": "x y"}, {"kind": "shuffle"}, {"kind": "wildcards"}, {"kind": "filter", "tags": ["zebra"]}]
    notes = [note for note in build_plan(_build(build_run, own, *steps)).dataset.notes if "changed no caption" in note]
    assert [note[:32] for note in notes] == [f"own: data.0.caption_steps.{number}, of " for number in (0, 2, 3)]
    assert notes[0].endswith('of kind "replace", has changed no caption')


def test_captions_that_chance_empties_are_said(build_run: BuildRun, own: Path) -> None:
    report = build_report(build_plan(_build(build_run, own, {"kind": "limit", "most": 2}, {"kind": "drop", "rate": 0.5})))
    assert "captions are empty in 0.25 of the draws, where steps leave nothing" in report
    assert "of 12 pictures they are all that the steps can make" in report


def test_a_step_that_leaves_nothing_of_any_caption(build_run: BuildRun, own: Path) -> None:
    with pytest.raises(DataError) as caught:
        build_plan(_build(build_run, own, {"kind": "filter", "tags": ["*"]}))
    assert "12 x caption is empty after its steps" in str(caught.value) and "set caption_fallback" in str(caught.value)
