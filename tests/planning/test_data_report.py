"""What the plan says of pictures, captions, masks and steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.checkpoint.lock import LOCK_NAME
from weber.checkpoint.save import CONFIG_NAME
from weber.config.run import RunConfig
from weber.data import left_out
from weber.errors import ConfigError
from weber.families.family import Family
from weber.planning.data_report import save_list
from weber.planning.lengths import list_lengths
from weber.planning.plan import INDEX_NAME, build_plan
from weber.planning.prompt_options import check_options
from weber.planning.report import build_report, build_summary
from weber.track.jsonl import METRICS_NAME
from weber.training.assemble import encode_cache

LONG = "a very long caption " * 20

Write = Callable[..., Path]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Pictures of two sizes with captions."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number, width in enumerate((64, 64, 128)):
        pixels = np.random.default_rng(number).integers(0, 256, (64, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def _build(build_run: BuildRun, own: Path, *, data: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    return build_run(data=[{"path": str(own), "resolution": 64, **(data or {})}], **{"train": {"batch_size": 1, "steps": 2}, **sections})


def test_captions_are_counted_and_shown(build_run: BuildRun, own: Path) -> None:
    (own / "0.txt").write_text("one\ntwo\nthree")
    (own / "1.txt").write_text("one")
    (own / "2.txt").unlink()
    report = build_report(build_plan(_build(build_run, own, data={"caption_fallback": "none of its own"})))
    assert "own: 5 captions for 3 pictures in 2 files, 4 distinct; of a picture's captions one is drawn at each use" in report
    assert "1 picture with caption_fallback" in report
    drawn = [line.strip() for line in report.splitlines() if line.startswith("    drawn: ")]
    assert {line[:12] for line in drawn} == {"drawn: 0.png", "drawn: 1.png", "drawn: 2.png"} and len(drawn) == len(set(drawn)) == 5
    assert 'drawn: 1.png: "one"' in drawn and 'drawn: 2.png: "none of its own"' in drawn


def test_captions_above_the_limit_are_counted_for_each_part(build_run: BuildRun, own: Path) -> None:
    (own / "1.txt").write_text(LONG)
    (own / "2.txt").write_text("a cat " * 12)
    plan = build_plan(_build(build_run, own, sampling={"prompts": ["x"]}))
    report, summary = build_report(plan), build_summary(plan)
    assert "clip reads 77 tokens: 1 of 4 texts is longer, and the rest of it is not read; the longest has" in report
    assert "t5 reads 24 tokens: 2 of 4 texts are longer, and the rest of them is not read; the longest has" in report
    assert "clip reads 77 tokens: 1 of 4 texts" in summary and "t5 reads 24 tokens: 2 of 4" in summary
    assert report.count(f' (1.png): "{LONG[:100]} ..."') == 2
    (own / "1.txt").write_text("short")
    (own / "2.txt").write_text("short too")
    plan = build_plan(_build(build_run, own))
    assert "reads" not in build_summary(plan) and "t5 reads 24 tokens: no text is longer, the longest has" in build_report(plan)


def test_many_captions_are_measured_in_portions(build_run: BuildRun, own: Path) -> None:
    family: Family = build_plan(_build(build_run, own)).family
    said: list[tuple[str, int, int]] = []
    lengths = list_lengths(family, [f"{number}" for number in range(600)] + [LONG], progress=lambda *told: said.append(told))
    assert [(one.part, one.num_texts, one.num_cut, one.longest) for one in lengths] == [("clip", 601, 1, LONG), ("t5", 601, 1, LONG)]
    assert said[:2] == [("measuring the captions (clip)", 512, 601), ("measuring the captions (clip)", 601, 601)]
    assert list_lengths(family, [])[0].longest_tokens == 0


def test_ten_set_aside_are_shown_and_a_file_has_them_all(build_run: BuildRun, own: Path) -> None:
    for number in range(12):
        shutil.copyfile(own / "0.png", own / f"alone {number:02}.png")
    (own / "video.mp4").touch()
    plan = build_plan(_build(build_run, own))
    save_list(plan)
    report = build_report(plan)
    assert '12 no caption file (write one; or set captions = "instance"' in report
    shown = [line for line in report.splitlines() if "no caption file: alone" in line]
    path = plan.config.output.cache / "set-aside-run.txt"
    assert len(shown) == 10 and f"  and 2 more, in {path}" in report
    lines = path.read_text().splitlines()
    assert len(lines) == 13 and lines[11] == f"{own / 'alone 11.png'}: no caption file: alone 11.txt" and "video.mp4: video" in lines[12]
    assert "13 pictures set aside: 12 no caption file, 1 video" in build_summary(plan)
    for number in range(12):
        (own / f"alone {number:02}.png").unlink()
    save_list(build_plan(_build(build_run, own)))
    assert not path.exists()


def test_steps_have_as_many_pictures_as_are_left_of_a_bucket(build_run: BuildRun, own: Path) -> None:
    report = build_report(build_plan(_build(build_run, own, train={"batch_size": 2, "steps": 4})))
    assert "4 steps of 1 to 2 pictures (1.5 on average) = 2 epochs of 2 steps" in report and "no step has" not in report
    plan = build_plan(_build(build_run, own, train={"batch_size": 8, "steps": 1}))
    line = "no step has 8 pictures (train.batch_size x train.accumulation = 8): the largest bucket has 2, with repeats"
    assert line in build_report(plan) and line in build_summary(plan)
    (own / "1.png").unlink()
    summary = build_summary(build_plan(_build(build_run, own, train={"batch_size": 4, "steps": 1})))
    assert "2 pictures in 2 buckets" in summary and "1 step of 1 picture = 0.5 epochs of 2 steps" in summary


def test_the_plan_counts_what_training_encodes(build_run: BuildRun, own: Path, tmp_path: Path) -> None:
    (own / "masks").mkdir()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    for number in range(2):
        mask.save(own / "masks" / f"{number}.png")
    shutil.copyfile(own / "1.png", own / "copy.png")
    shutil.copyfile(own / "1.txt", own / "copy.txt")
    config = _build(build_run, own, data={"loss_masks": str(own / "masks")}, sampling={"prompts": ["a prompt"]})
    plan = build_plan(config)
    report, needs = build_report(plan), plan.needs
    # three distinct pictures, four texts for each of two text encoders, one mask that two pictures have
    assert "3 latents, " in report and "; 8 texts (4 for each of clip and t5), " in report and "1 mask for the loss, " in report
    assert f"to be encoded now: 3 latents and 8 texts and 1 mask, into the folder {config.output.cache}" in report
    watcher, said = build_watcher()
    store = Store(config.output.cache)
    missing = needs.count_missing(store)
    encoded = encode_cache(plan, store, watcher=watcher)
    assert (encoded.latents, encoded.texts) == (missing.latents, missing.texts) == (3, 8)
    assert "Read 1 mask for the loss" in said.getvalue()
    assert f"to be encoded now: 0 latents and 0 texts and 0 masks; all is in the folder {config.output.cache}" in build_report(plan)
    (own / "0.txt").write_text("another one")
    assert "to be encoded now: 0 latents and 2 texts and 0 masks, into" in build_report(build_plan(config))


def test_masks_say_how_much_they_cover(build_run: BuildRun, own: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 16, 64))
    mask.save(tmp_path / "masks" / "0.png")
    cutout = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    cutout.paste((30, 30, 30, 255), (0, 0, 64, 48))
    cutout.save(tmp_path / "masks" / "1.png")
    report = build_report(build_plan(_build(build_run, own, data={"loss_masks": str(tmp_path / "masks")})))
    assert (
        f"own: 2 of 3 pictures have a mask for the loss, from {tmp_path / 'masks'}: 50% of them on average (25% to 75%) is learned;"
        " 1 of them cut-outs in their own colors, of which all that is opaque counts; of the others all is learned"
    ) in report


def test_runs_below_the_pictures_are_said_once(build_run: BuildRun, own: Path) -> None:
    plan = build_plan(_build(build_run, own))
    (own / "run").mkdir()
    shutil.copyfile(own / "0.png", own / "run" / "painted.png")
    config = _build(build_run, own, output={"folder": str(own / "run")})
    summary = build_summary(build_plan(config))
    assert summary.count("own: runs, caches and pictures of weber below it are left out: run") == 1
    assert len(build_plan(config).dataset.examples) == len(plan.dataset.examples)


def test_runs_and_caches_are_known_by_what_they_have() -> None:
    assert (left_out.CONFIG_FILE, left_out.METRICS_FILE, left_out.LOCK_FILE) == (CONFIG_NAME, METRICS_NAME, LOCK_NAME)
    assert left_out.CACHE_FILE == INDEX_NAME


def test_colors_that_cannot_be_converted_are_said(build_run: BuildRun, own: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.open(own / "0.png").save(own / "0.png", icc_profile=lab)
    report = build_report(build_plan(_build(build_run, own)))
    assert "own: color profile cannot be used, so colors are taken as sRGB: 1 picture (0.png)" in report
    assert "converted to sRGB" not in report


@pytest.mark.parametrize(
    ("text", "got", "fix"),
    [
        ("a cat --w 96 --h 64 --d 7", "--w 96, --h 64, --d 7", "sampling.width = 96, sampling.height = 64, sampling.seed = 7"),
        ("a cat --n blurry, bad", "--n blurry,", "set sampling.negative_prompt"),
        ("a cat --ar 16:9", "--ar 16:9", "set sampling.width"),
        ("a cat <lora:sks:0.8>", "<lora:sks:0.8>", "model.adapters"),
    ],
)
def test_options_inside_of_prompts_are_refused(build_run: BuildRun, own: Path, text: str, got: str, fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_plan(_build(build_run, own, sampling={"prompts": ["a dog", text]}))
    assert error.value.what.startswith("sampling.prompts.1 holds options") and error.value.got == got and fix in error.value.fix
    with pytest.raises(ConfigError, match="--prompt holds options"):
        check_options([text], key="--prompt", is_run=False)


def test_words_with_dashes_are_words() -> None:
    check_options(["a well--known cat -- in the rain", "--x 3", "1 < 2 > 0", "--z 1"], key="--prompt", is_run=False)
