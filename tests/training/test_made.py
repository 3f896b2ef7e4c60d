"""What pictures of a run say of themselves, and those of a library: on the way, and afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import equal

import weber
from tests.comfyui import check_prompt, check_workflow, find
from tests.runs import BuildRun, build_watcher, write_pocket_lora
from tests.training.test_resume import read_losses
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.training.assemble import train
from weber.training.paint import Wish, build_file_names

SHORT = {"steps": 1, "batch_size": 1}
FULL = {"kind": "full", "rank": 16}
LIBRARY = """
cat = "a cat"
"red-apple" = {prompt = "red apple", seed = 7, width = 96, height = 64, steps = 2, guidance = 3.0, cfg = 2.0, negative_prompt = "a dog"}
weak = {prompt = "red apple", seed = 7, strength = 0.0}
strong = {prompt = "red apple", seed = 7, strength = 2.0}
"""
NAMES = ["00", "cat", "red-apple", "weak", "strong"]


def _train(config: RunConfig) -> Path:
    return train(config, resume=False, watcher=build_watcher()[0]).parent


def _read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Pixels, and the texts, those of JSON as trees."""
    with Image.open(path) as picture:
        texts: dict[str, Any] = dict(picture.text)  # type: ignore[attr-defined]
        pixels = np.asarray(picture).astype(int)
    for key in ("weber", "prompt", "workflow"):
        texts[key] = json.loads(texts[key])
    check_prompt(texts["prompt"])
    check_workflow(texts["workflow"], texts["prompt"])
    return pixels, texts


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.toml"
    path.write_text(LIBRARY, encoding="utf-8")
    return path


def test_pictures_of_a_run_say_what_made_them(tmp_path: Path, build_small: BuildRun) -> None:
    """And nothing that is nobody's business: folders, and what stands in addresses. Two runs write the same bytes."""
    other = write_pocket_lora(tmp_path / "other.safetensors")
    sections: dict[str, Any] = {
        "train": SHORT,
        "model": {"adapters": [{"path": str(other), "strength": 0.25}]},
        "sampling": {"prompts": ["red apple"], "steps": 1, "every": 1, "cfg": 2.0, "negative_prompt": "a dog"},
    }
    folders = [_train(build_small(f"{name}/hf_SECRET", **sections)) / "pictures" for name in ("one", "two")]
    files = [list(folder.rglob("*.png")) for folder in folders]
    written = [{path.relative_to(folder): path.read_bytes() for path in some} for folder, some in zip(folders, files, strict=True)]
    assert len(written[0]) == 2 + 2 and written[0] == written[1]
    _, base = _read(folders[0] / "step-000000" / "00.png")
    _, last = _read(folders[0] / "step-000001" / "00.png")
    assert "SECRET" not in json.dumps([base, last]) and str(tmp_path) not in json.dumps([base, last])
    said = {"prompt": "red apple", "negative": "a dog", "seed": 42, "steps": 1, "guidance": 2.0, "cfg": 2.0, "size": [64, 64]}
    assert last["weber"].items() >= (said | {"variant": "pocket", "step": 1}).items()
    assert last["weber"]["adapter"]["file"] == "adapter.safetensors" and last["weber"]["adapter"]["strength"] == 1
    assert base["weber"]["step"] == 0 and base["weber"]["adapter"]["strength"] == 0
    for texts, names in ((base, ["other.safetensors"]), (last, ["other.safetensors", "adapter.safetensors"])):
        assert [one["lora_name"] for one in find(texts["prompt"], "LoraLoaderModelOnly")] == names
        assert find(texts["prompt"], "UNETLoader")[0]["unet_name"] == "flux1-pocket.safetensors"
        assert find(texts["prompt"], "CFGGuider")[0]["cfg"] == 2.0
    assert last["parameters"].startswith("red apple <lora:other:0.25> <lora:adapter:1>\nNegative prompt: a dog\nSteps: 1, ")
    [again] = weber.sample(folders[0].parent, "red apple", progress=lambda *_: None)
    assert json.loads(again.info["prompt"]) == last["prompt"] and json.loads(again.info["weber"])["step"] == 1


def test_a_model_that_a_run_has_trained_is_the_one_that_is_loaded(build_small: BuildRun) -> None:
    folder = _train(build_small("run", adapter=FULL, train=SHORT, sampling={"prompts": ["a dog"], "steps": 1, "every": 1}))
    names = [
        find(_read(folder / "pictures" / f"step-{step:06d}" / "00.png")[1]["prompt"], "UNETLoader")[0]["unet_name"] for step in (0, 1)
    ]
    assert names == ["flux1-pocket.safetensors", "model.safetensors"]


def test_a_library_paints_beside_the_prompts_and_changes_no_loss(library: Path, build_small: BuildRun) -> None:
    sampling = {"prompts": ["red apple"], "library": str(library), "steps": 1, "every": 9, "seed": 5}
    sections: dict[str, Any] = {"train": {"steps": 2, "batch_size": 1}, "optim": {"lr": 1e-2}}
    config = build_small("run", **sections, sampling=sampling)
    report = build_report(build_plan(config))
    assert "5 pictures of 64 x 64, 96 x 64 and a sheet each" in report
    plain, folder = _train(build_small("plain", **sections)), _train(config)
    assert read_losses(plain) == read_losses(folder)
    first, second = (load_file(run / "adapter.safetensors") for run in (plain, folder))
    assert all(equal(first[name], second[name]) for name in first)
    painted = {name: _read(folder / "pictures" / "step-000002" / f"{name}.png") for name in NAMES}
    assert len(list((folder / "pictures" / "step-000002").iterdir())) == len(NAMES)
    said = {name: texts["weber"] for name, (_, texts) in painted.items()}
    assert said["cat"]["seed"] == 6 and said["cat"]["name"] == "cat" and "name" not in said["00"]
    own = {"prompt": "red apple", "negative": "a dog", "seed": 7, "steps": 2, "guidance": 3.0, "cfg": 2.0, "size": [96, 64]}
    assert said["red-apple"].items() >= own.items() and painted["red-apple"][0].shape == (64, 96, 3)
    weak, strong = (painted[name][0] for name in ("weak", "strong"))
    assert said["weak"]["adapter"]["strength"] == 0 and said["strong"]["adapter"]["strength"] == 2
    assert np.array_equal(weak, _read(folder / "pictures" / "step-000000" / "weak.png")[0]) and not np.array_equal(weak, strong)


def test_a_library_of_weber_sample(tmp_path: Path) -> None:
    """What a prompt says of itself goes before what is asked for all; each further picture of one has the next seed."""
    lora = write_pocket_lora(tmp_path / "style.safetensors")
    library = tmp_path / "prompts.json"
    library.write_text(json.dumps({"cat": "a cat", "strong": {"prompt": "red apple", "seed": 7, "strength": 2.0, "steps": 2}}))
    asked: dict[str, Any] = {"steps": 1, "strength": 0.5, "seed": 3, "num": 2, "progress": lambda *_: None}
    pictures = weber.sample(lora, ["a dog"], base="pocket", library=library, **asked)
    said = [json.loads(one.info["weber"]) for one in pictures]
    assert [one["seed"] for one in said] == [3, 4, 5, 6, 7, 8]
    assert [one["adapter"]["strength"] for one in said] == [0.5] * 4 + [2] * 2
    assert [one["steps"] for one in said] == [1] * 4 + [2] * 2
    assert [one.get("name") for one in said] == [None, None, "cat", "cat", "strong", "strong"]
    wish = Wish(["a dog"], strength=0.5, seed=3, num=2, library=library)
    assert build_file_names(wish, ending="-x")[1::2] == [
        "01-a-dog-strength0.5-seed3-x.png", "03-cat-strength0.5-seed3-x.png", "05-strong-strength2-seed7-x.png"
    ]
    [alone] = weber.sample(lora, "red apple", base="pocket", **(asked | {"strength": 2.0, "seed": 7, "steps": 2, "num": 1}))
    assert np.array_equal(np.asarray(alone), np.asarray(pictures[4]))
    with pytest.raises(ConfigError, match="nothing to paint"):
        weber.sample(lora, [], base="pocket", **asked)


@pytest.mark.parametrize(
    ("text", "sampling", "words"),
    [
        ('"00" = "a cat"', {"prompts": ["x"]}, ["would have the same name", "'00'"]),
        ('a = {prompt = "a cat", negative_prompt = "y"}', {}, ["needs classifier-free guidance", "library: a.negative_prompt"]),
        ('a = {prompt = "a cat", width = 33}', {}, ["multiples of", "library: a.width = 33"]),
        ('a = "a cat --w 512"', {}, ["the prompt 'a' of the library holds options", "width = 512"]),
        ('a = {prompt = "a cat", strength = inf}', {}, ["strength"]),
        ('a = {prompt = "a cat", strenght = 1.0}', {}, ["did you mean strength?"]),
    ],
)
def test_what_a_library_cannot_ask_of_a_run(tmp_path: Path, build_small: BuildRun, text: str, sampling: Any, words: list[str]) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        build_plan(build_small("run", sampling={"library": str(path), **sampling}))
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_model_that_is_trained_itself_has_no_strength(library: Path, build_small: BuildRun) -> None:
    with pytest.raises(ConfigError, match="no adapter here"):
        build_plan(build_small("run", adapter=FULL, sampling={"library": str(library)}))
