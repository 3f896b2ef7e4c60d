"""Runs with references, masks, an assistant or an adapter to start from: what the network is told, nothing stale, resume bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import equal

from tests.comfyui import check_prompt, find
from tests.runs import BuildRun, build_watcher, write_lora
from tests.training.test_resume import read_losses, run_interrupted, run_whole
from weber.cache.store import Store
from weber.config.run import RunConfig
from weber.errors import CheckpointError, ConfigError
from weber.planning.plan import build_plan
from weber.planning.report import build_hint, build_report
from weber.pocket.random import build_random_model
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.track.scores import HELD_OUT
from weber.training.assemble import Encoded, encode_cache, train
from weber.training.batch import Loader
from weber.training.paint import Wish, sample

EDGE = 32
NUM_PAIRS = 4

Build = Callable[..., RunConfig]


@pytest.fixture
def pairs(tmp_path: Path, pictures: Path) -> dict[str, Path]:
    """Pictures with captions of different lengths, their references of two sizes, and masks."""
    folders = {name: tmp_path / "pairs" / name for name in ("after", "before", "masks")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for number, source in enumerate(sorted(pictures.glob("*.png"))[:NUM_PAIRS]):
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        picture.resize((EDGE, EDGE)).save(folders["after"] / source.name)
        picture.convert("L").resize((EDGE, EDGE) if number % 2 else (2 * EDGE, EDGE)).save(folders["before"] / source.name)
        mask = np.zeros((EDGE, EDGE), np.uint8)
        mask[8:24, 4 + number : 20] = 255
        Image.fromarray(mask).save(folders["masks"] / source.name)
        (folders["after"] / f"{source.stem}.txt").write_text("make it bright " * (1 + 12 * number))
    return folders


@pytest.fixture
def build(build_run: BuildRun, tmp_path: Path, pairs: dict[str, Path]) -> Build:
    """Settings of a run of six steps on a tiny model of a kind."""
    makers: dict[str, Callable[[Path], Path]] = {
        "flux1-kontext": lambda folder: build_random_model(folder, variant="kontext"),
        "flux1-fill": lambda folder: build_random_model(folder, variant="fill"),
        "flux1-schnell": lambda folder: build_random_model(folder, variant="schnell"),
        "flux2-klein-base-4b": lambda folder: build_random_flux2(folder, "klein-base"),
        "flux3-klein-base": build_random_flux3,
    }

    def make(variant: str, name: str = "run", *, data: dict[str, Any] | None = None, **sections: dict[str, Any]) -> RunConfig:
        folder = tmp_path / variant
        if not folder.exists():
            makers[variant](folder)
        model = {"path": str(folder), "variant": variant} | sections.pop("model", {})
        own = {"path": str(pairs["after"]), "resolution": EDGE, "bucket_step": 16} | (data or {})
        train_section = {"steps": 6, "batch_size": 4} | sections.pop("train", {})
        return build_run(name, model=model, data=[own], train=train_section, **sections)

    return make


def _encode(config: RunConfig) -> Encoded:
    return encode_cache(build_plan(config), Store(config.output.cache), watcher=build_watcher()[0])


@pytest.mark.parametrize("variant", ["flux1-kontext", "flux2-klein-base-4b", "flux3-klein-base"])
def test_references_of_different_sizes_are_separate_batches_of_one_step(build: Build, pairs: dict[str, Path], variant: str) -> None:
    """And a step of such batches is the step of the same samples one by one."""
    loose = {"conditioning": [str(pairs["before"])], "conditioning_type": "reference_loose"}
    if variant == "flux1-kontext":
        loose["conditioning_type"] = "reference_strict"  # its own sizes are of a megapixel
    together = build(variant, "together", data=loose, train={"steps": 2})
    alone = build(variant, "alone", data=loose, train={"steps": 2, "batch_size": 1, "accumulation": 4})
    _encode(together)
    with Loader(build_plan(together), Store(together.output.cache)) as loader:
        batches = loader.load(0)
    assert sorted(place for batch in batches for place in batch.places) == [0, 1, 2, 3]
    assert all("reference_0" in batch.condition for batch in batches)
    assert len(batches) > 1 or variant == "flux1-kontext"
    for (_, one, _), (_, other, _) in zip(read_losses(run_whole(together)), read_losses(run_whole(alone)), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_exactly_what_changed_is_encoded_again(build: Build, pairs: dict[str, Path]) -> None:
    edit = build("flux2-klein-base-4b", data={"conditioning": [str(pairs["before"])]})
    assert _encode(edit).latents == 2 * NUM_PAIRS
    assert _encode(edit) == Encoded(0, 0)
    reference = sorted(pairs["before"].iterdir())[1]
    Image.fromarray(255 - np.asarray(Image.open(reference))).save(reference)
    assert _encode(edit) == Encoded(1, 0)

    fill = build("flux1-fill", data={"masks": str(pairs["masks"])})
    assert _encode(fill).latents == 2 * NUM_PAIRS
    mask = sorted(pairs["masks"].iterdir())[2]
    Image.fromarray(np.full((EDGE, EDGE), 255, np.uint8)).save(mask)
    assert _encode(fill) == Encoded(1, 0)
    assert _encode(build("flux1-fill")).latents > NUM_PAIRS  # masks are drawn: several of each picture


@pytest.mark.parametrize("variant", ["flux1-kontext", "flux1-fill", "flux1-schnell"])
def test_four_and_two_are_six(build: Build, pairs: dict[str, Path], tmp_path: Path, variant: str) -> None:
    sections: dict[str, Any] = {"output": {"save_every": 4}, "adapter": {"dropout": 0.1}}
    if variant == "flux1-kontext":
        sections["data"] = {"conditioning": [str(pairs["before"])], "crop": "random", "aspect": "square"}
        sections["objective"] = {"reference_timestep": "zero"}
    if variant == "flux1-schnell":
        sections["model"] = {"assistant": str(write_lora(tmp_path / "assistant.safetensors"))}
        start = write_lora(tmp_path / "start.safetensors")
        sections["adapter"] = {"rank": 4, "start_from": str(start), "targets": ["attn.to_q"]}
    whole = run_whole(build(variant, "whole/run", **sections))
    parts, _ = run_interrupted(build(variant, "parts/run", **sections), 4)
    train(build(variant, "parts/run", **sections), resume=True, watcher=build_watcher()[0])
    assert read_losses(whole) == read_losses(parts)
    assert (whole / "adapter.safetensors").read_bytes() == (parts / "adapter.safetensors").read_bytes()


def test_a_changed_reference_is_noticed_on_resume(build: Build, pairs: dict[str, Path]) -> None:
    config = build("flux2-klein-base-4b", data={"conditioning": [str(pairs["before"])]}, output={"save_every": 4})
    run_interrupted(config, 4)
    reference = sorted(pairs["before"].iterdir())[1]
    Image.fromarray(255 - np.asarray(Image.open(reference))).save(reference)
    watcher, said = build_watcher()
    train(config, resume=True, watcher=watcher)
    assert "not bit for bit the same run: the pictures or captions" in said.getvalue()


def test_the_noise_level_of_references_reaches_the_model(build: Build, pairs: dict[str, Path]) -> None:
    data = {"conditioning": [str(pairs["before"])]}
    shared = read_losses(run_whole(build("flux1-kontext", "shared", data=data, train={"steps": 1})))
    zero = read_losses(run_whole(build("flux1-kontext", "zero", data=data, train={"steps": 1}, objective={"reference_timestep": "zero"})))
    assert shared[0][1] != zero[0][1]


def test_the_assistant_takes_part_in_training_and_not_in_pictures(build: Build, tmp_path: Path) -> None:
    lora = str(write_lora(tmp_path / "assistant.safetensors"))
    runs = {}
    for name, model in {
        "off": {"assistant": "off"},
        "on": {"assistant": lora},
        "weak": {"assistant": lora, "assistant_strength": 0.5},
        "shown": {"assistant": lora, "assistant_sample_strength": 1.0},
    }.items():
        runs[name] = run_whole(
            build("flux1-schnell", name, model=model, train={"steps": 1}, optim={"lr": 1e-12}, sampling={"prompts": ["a dog"], "steps": 2})
        )
    losses = {name: read_losses(folder)[0][1] for name, folder in runs.items()}
    assert losses["on"] == losses["shown"] != losses["off"]
    assert len({losses["off"], losses["on"], losses["weak"]}) == 3
    pictures = {name: np.asarray(Image.open(folder / "pictures" / "step-000001" / "00.png")) for name, folder in runs.items()}
    assert np.array_equal(pictures["off"], pictures["on"])
    assert not np.array_equal(pictures["off"], pictures["shown"])
    [again] = sample(runs["shown"], Wish(["a dog"], steps=2), watcher=build_watcher()[0])
    assert np.abs(np.asarray(again).astype(int) - pictures["shown"]).max() <= 1


def test_pictures_of_a_run_with_references(build: Build, pairs: dict[str, Path]) -> None:
    first, second = sorted(pairs["before"].iterdir())[:2]
    config = build(
        "flux2-klein-base-4b",
        data={"conditioning": [str(pairs["before"])]},
        train={"steps": 1},
        sampling={"prompts": ["make it bright"] * 3, "conditioning": [str(first), [str(first), str(second)], []], "steps": 2, "cfg": 2.0},
    )
    folder = run_whole(config)
    painted = [np.asarray(Image.open(folder / "pictures" / "step-000001" / f"{number:02d}.png")) for number in range(3)]
    with Image.open(folder / "pictures" / "step-000001.png") as sheet:
        assert sheet.width > 4 * 192  # two columns of what was given, the base model, and now
    assert not any(np.array_equal(painted[one], painted[other]) for one, other in ((0, 1), (1, 2), (0, 2)))
    with Image.open(folder / "pictures" / "step-000001" / "01.png") as picture:
        graph = json.loads(picture.info["prompt"])
    check_prompt(graph)
    assert [one["image"] for one in find(graph, "LoadImage")] == [first.name, second.name]
    assert len(find(graph, "ReferenceLatent")) == 4 and find(graph, "Flux2Scheduler")[0]["steps"] == 2  # of both prompts
    shutil.rmtree(folder)


def test_pictures_after_those_of_the_sets_take_what_belongs_to_them(build: Build, pairs: dict[str, Path]) -> None:
    edit = build_plan(build("flux2-klein-base-4b", data={"conditioning": [str(pairs["before"])]}, sampling={"from_data": 2}))
    assert [one.references for one in edit.prompts] == [edit.dataset.examples[place].list_references(0) for place in range(2)]
    assert all(one.views and one.masked is None for one in edit.prompts)
    masks, asked = sorted(pairs["masks"].iterdir()), {"prompts": ["x"], "conditioning": [str(sorted(pairs["after"].glob("*.png"))[0])]}
    config = build(
        "flux1-fill",
        data={"masks": str(pairs["masks"])},
        train={"steps": 1},
        sampling={"from_data": 2, "steps": 1, **asked, "masks": [str(masks[0])], "sizes": ["32x32", "48x32"]},
    )
    folder, fill = run_whole(config), build_plan(config)
    cut, wide, *learned = fill.prompts
    assert [one.masked for one in learned] == [fill.dataset.examples[place].masked(0, 0) for place in range(2)]
    assert [one.masked and (one.masked.crop.width, one.masked.crop.height) for one in (cut, wide)] == [(32, 32), (48, 32)]
    sizes = {}
    for path in (folder / "pictures" / "step-000001").iterdir():
        with Image.open(path) as picture:
            sizes[path.stem] = picture.size
    assert sizes == {"00-32x32": (32, 32), "00-48x32": (48, 32), "data-00": (32, 32), "data-01": (32, 32)}
    shutil.rmtree(folder)


def test_the_plan_tells_of_references_and_masks(build: Build, pairs: dict[str, Path]) -> None:
    loose = {"conditioning": [str(pairs["before"])], "conditioning_type": "reference_loose"}
    edit = build_report(build_plan(build("flux2-klein-base-4b", data=loose)))
    assert "after: 4 pictures with 1 reference (reference_loose)" in edit
    assert "references of 64 x 32, 32 x 32: at most 8 tokens each beside 4 of the picture" in edit
    strict = build_report(build_plan(build("flux2-klein-base-4b", data={"conditioning": [str(pairs["before"])]})))
    assert "2 references are cut by more than 20%" in strict
    fill = build_report(build_plan(build("flux1-fill", data={"masks": str(pairs["masks"])})))
    assert "after: 4 masks, from files" in fill
    assert "drawn at random" in build_report(build_plan(build("flux1-fill")))


def test_the_hint_names_pictures_that_the_model_needs(build: Build, pairs: dict[str, Path]) -> None:
    edit = build_plan(build("flux2-klein-base-4b", data={"conditioning": [str(pairs["before"])]}))
    assert f"--conditioning {sorted(pairs['before'].iterdir())[0]}" in build_hint(edit, Path("run/adapter.safetensors"))
    fill = build_plan(build("flux1-fill", data={"masks": str(pairs["masks"])}))
    hint = build_hint(fill, Path("run/adapter.safetensors"))
    assert f"--mask {sorted(pairs['masks'].iterdir())[0]}" in hint and "--conditioning" in hint


def test_a_finished_run_refuses_settings_that_cannot_act_any_more(build: Build, pairs: dict[str, Path]) -> None:
    data = {"conditioning": [str(pairs["before"])]}
    folder = run_whole(build("flux1-kontext", data=data))
    before = (folder / "config.toml").read_bytes()
    with pytest.raises(CheckpointError, match="Nothing is left to train"):
        train(build("flux1-kontext", data=data, objective={"reference_timestep": "zero"}), resume=True, watcher=build_watcher()[0])
    assert (folder / "config.toml").read_bytes() == before


def test_a_changed_encoder_is_noticed_on_resume(build: Build, pairs: dict[str, Path]) -> None:
    config = build("flux1-kontext", output={"save_every": 4})
    run_interrupted(config, 4)
    file = Path(str(config.model.path)) / "vae" / "config.json"
    file.write_text(file.read_text().replace("0.3611", "0.3612"))
    watcher, said = build_watcher()
    train(config, resume=True, watcher=watcher)
    assert "the vae of the model" in said.getvalue()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "too many references": ("flux1-fill", {"sampling": {"prompts": ["a"], "conditioning": [["a.png", "b.png"]]}}, "repaints pictures"),
    "no mask": ("flux1-fill", {"sampling": {"prompts": ["a"]}}, "one picture and one mask"),
    "a mask for nothing": ("flux1-kontext", {"sampling": {"prompts": ["a"], "masks": ["a.png"]}}, "does not repaint"),
    "a model without references": (
        "flux1-schnell",
        {"model": {"assistant": "off"}, "sampling": {"prompts": ["a"], "conditioning": ["a.png"]}},
        "takes no references",
    ),
    "negative without cfg": ("flux1-kontext", {"sampling": {"prompts": ["a"], "negative_prompt": "b"}}, "needs classifier-free guidance"),
    "level without references": ("flux1-kontext", {"objective": {"reference_timestep": "zero"}}, "No picture has a reference"),
    "level for another model": ("flux2-klein-base-4b", {"objective": {"reference_timestep": "zero"}}, "no noise level of its own"),
    "an idle target": ("flux3-klein-base", {"adapter": {"targets": "all+ffs+references"}}, "only with reference pictures"),
    "strength of no assistant": ("flux1-schnell", {"model": {"assistant": "off", "assistant_strength": 0.5}}, "There is no assistant"),
    "scale of fast": ("flux1-schnell", {"model": {"assistant": "off"}, "objective": {"sigmoid_scale": 0.5}}, "sigmoid_scale has no effect"),
    "kohya for flux3": ("flux3-klein-base", {"output": {"formats": ["kohya"]}}, "No program reads"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_act_is_refused_before_anything_is_loaded(build: Build, case: str) -> None:
    variant, sections, words = REFUSED[case]
    with pytest.raises(Exception, match=words) as caught:
        build_plan(build(variant, **sections))
    assert type(caught.value).__module__ == ConfigError.__module__


def test_references_that_are_left_out_and_exchanged(build: Build, pairs: dict[str, Path]) -> None:
    """What the network is told is what was drawn, and a run goes on bit for bit."""
    data = {
        "conditioning": [str(pairs["before"]), str(pairs["masks"])],
        "reference_dropout": 0.4,
        "reference_order": "shuffled",
        "reference_own": "color",
        "mirror": True,
    }
    keys: dict[str, Any] = {"data": data, "output": {"save_every": 3}, "train": {"batch_size": 1}}
    config = build("flux2-klein-base-4b", "whole/run", **keys)
    whole, plan = run_whole(config), build_plan(config)
    with Loader(plan, Store(config.output.cache)) as loader:
        for step in range(6):
            [[draw]], [batch] = plan.batches.draw_step(step), loader.load(step)
            told = [batch.condition[f"reference_{number}"][0] for number in range(3) if f"reference_{number}" in batch.condition]
            example = plan.dataset.examples[draw.example]
            views = example.list_references(draw.crop)
            asked = [views[number] for number in draw.references or ()]
            assert len(told) == len(asked) and len(asked) in (0, 3)
            assert all(equal(one, loader._reader.read_latents(view)) for one, view in zip(told, asked, strict=True))
    parts, _ = run_interrupted(build("flux2-klein-base-4b", "parts/run", **keys), 3)
    train(build("flux2-klein-base-4b", "parts/run", **keys), resume=True, watcher=build_watcher()[0])
    assert (whole / "adapter.safetensors").read_bytes() == (parts / "adapter.safetensors").read_bytes()


def test_what_is_held_out_is_measured_with_its_references(build: Build, pairs: dict[str, Path]) -> None:
    """Other references are another number; the same ones are the same, and it is not that of no references."""
    found = {}
    for name, more in {"first": {}, "again": {}, "other": {"reference_own": "color"}, "none": None}.items():
        data = {"evaluation": 0.25} | ({} if more is None else {"conditioning": [str(pairs["before"])]} | more)
        config = build("flux2-klein-base-4b", name, data=data, train={"steps": 1, "batch_size": 1}, evaluation={"levels": [0.5]})
        folder = run_whole(config)
        found[name] = [json.loads(line)[HELD_OUT] for line in (folder / "readings.jsonl").read_text().splitlines() if HELD_OUT in line]
    assert found["first"] == found["again"] and len({numbers[0] for numbers in found.values()}) == 3
