"""Files of kohya's scripts, whole: what the documents print, and ten in the manner of real ones."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.commented import write_commented
from weber.config.importers.load import find_start, find_tool, import_run
from weber.config.importers.outcome import Imported
from weber.config.importers.report import write_report
from weber.config.importers.tool import open_source
from weber.config.load import build_config

FILES = Path(__file__).parent / "files" / "kohya"
ALL = (
    "seed/FLUX_finetune.sh", "fluxgym", "lokr.bat", "blocks.ps1", "boat.ipynb", "lantern.toml", "settings.sh", "settings.toml", "whole.sh",
    "gui_whole.json", "gui_lora.json", "regexes.sh",
)

FIRST_LINE = {"kind": "regex", "find": r"(?s)\n.*"}


def read(name: str) -> Imported:
    return import_run(FILES / name, tool="kohya")


def plain(place: Any) -> Any:
    """Settings with paths as texts."""
    if isinstance(place, dict):
        return {key: plain(value) for key, value in place.items()}
    return [plain(value) for value in place] if isinstance(place, list) else str(place) if isinstance(place, Path) else place


@pytest.mark.parametrize("name", ALL)
def test_a_file_is_recognized_and_makes_a_run(name: str) -> None:
    assert find_tool(open_source(find_start(FILES / name)), None).name == "kohya"
    imported = read(name)
    assert build_config(imported.tree) == imported.config


@pytest.mark.parametrize("name", ALL)
def test_every_key_has_one_answer_in_words(name: str) -> None:
    outcomes = read(name).outcomes
    places = Counter((one.given.spelled, one.given.where, str(one.given.value)) for one in outcomes)
    assert [place for place, count in places.items() if count > 1] == []
    assert [one.given.spelled for one in outcomes if len(one.line) < 2] == []


@pytest.mark.parametrize("name", ALL)
def test_every_setting_says_where_it_came_from(name: str) -> None:
    imported = read(name)

    def list_keys(place: Any, key: str) -> list[str]:
        if isinstance(place, dict) and key != "optim.options":
            return [found for part, value in place.items() for found in list_keys(value, f"{key}.{part}" if key else part)]
        if isinstance(place, list) and place and isinstance(place[0], dict):
            return [found for number, value in enumerate(place) for found in list_keys(value, f"{key}.{number}")]
        return [] if key == "optim.options" else [key]

    assert [key for key in list_keys(imported.tree, "") if not imported.origins.get(key)] == []


@pytest.mark.parametrize("name", ALL)
def test_the_settings_are_read_back_equal(name: str) -> None:
    imported = read(name)
    text = write_commented(imported)
    assert build_config(tomllib.loads(text)) == imported.config
    assert text.startswith("# Made by `weber import`")


@pytest.mark.parametrize("name", ALL)
def test_the_report_names_every_key_that_was_given(name: str) -> None:
    imported = read(name)
    told, ours = write_report(imported), [one for one in imported.outcomes if not one.given.is_default and not one.is_example]
    assert [one.given.spelled for one in ours if one.given.spelled not in told] == []


def test_the_document_on_whole_models() -> None:
    imported = read("seed/FLUX_finetune.sh")
    assert plain(imported.tree) == {
        "model": {
            "path": "/Local path/flux1-dev.safetensors",
            "text_encoder": "/Local path/clip_l.safetensors",
            "text_encoder_2": "/Local path/t5xxl_fp16.safetensors",
            "vae": "/Local path/ae.safetensors",
        },
        "data": [
            {
                "path": "/Local path",
                "recursive": False,
                "repeats": 10,
                "geometry": "kohya",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "resolution": 1024.0,
                "shortest_side": 256,
                "longest_side": 1024,
                "bucket_step": 64,
                "captions": ["textfile", "none"],
                "caption_endings": [".txt"],
                "caption_per": "file",
                "caption_steps": [FIRST_LINE],
            }
        ],
        "adapter": {"kind": "full"},
        "memory": {"dtype": "bf16", "gradient_checkpointing": "all", "swap_blocks": 53},  # 35: 17 blocks with two streams, 36 with one
        "objective": {"timesteps": "shift", "shift": 3.1582, "guidance": 1.0},
        "optim": {
            "name": "adafactor",
            "lr": 5e-5,
            "eps": 1e-15,
            "weight_decay": 0.0,
            "clip_norm": "off",
            "schedule": "constant",
            "fused_backward": True,
        },
        "train": {"epochs": 10, "batch_size": 1, "seed": 1024},
        "output": {
            "folder": "/Local path/Model save address",
            "name": "FLUX_model",
            "formats": ["merged-bfl"],
            "save_every": "1 epochs",
            "keep_last": "all",
        },
    }
    assert [one.given.spelled for one in imported.outcomes if one.kind == "refused"] == []
    told = "\n".join(imported.faults)
    said = ("fp8_base did nothing", "keep_tokens = 1 did nothing", '"|||" in a caption reached T5', "max_bucket_reso = 1024", "or blur")
    assert [words for words in said if words not in told] == []


def test_the_document_s_dataset_alone_asks_for_its_script() -> None:
    imported = import_run(FILES / "seed" / "data_config.toml", tool="kohya", weber_defaults=True)
    assert imported.tree["data"][0]["repeats"] == 10
    assert imported.tree["data"][0]["geometry"] == "kohya"
    assert set(imported.tree) == {"data", "train"}


def test_fluxgym() -> None:
    imported = read("fluxgym")
    assert plain(imported.tree) == {
        "model": {
            "path": "/srv/fluxgym/models/unet/flux1-dev.sft",
            "text_encoder": "/srv/fluxgym/models/clip/clip_l.safetensors",
            "text_encoder_2": "/srv/fluxgym/models/clip/t5xxl_fp16.safetensors",
            "vae": "/srv/fluxgym/models/vae/ae.sft",
        },
        "data": [
            {
                "path": "/srv/fluxgym/datasets/lantern",
                "recursive": False,
                "repeats": 6,
                "resolution": 768.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "caption_endings": [".txt"],
                "caption_per": "file",
                "caption_fallback": "a LNTRN lantern",
                "caption_steps": [FIRST_LINE],
            }
        ],
        "adapter": {
            "rank": 4,
            "alpha": 1.0,
            "targets": "ai-toolkit",
            "blocks": ["single_transformer_blocks"],
            "text_encoder": True,
        },
        "memory": {"dtype": "bf16", "quantize": "fp8", "gradient_checkpointing": "all", "swap_blocks": 27},
        "objective": {"timesteps": "shift", "shift": 3.1582, "guidance": 1.0},
        "optim": {"name": "adafactor", "lr": 8e-4, "eps": 1e-15, "weight_decay": 0.0, "clip_norm": "off", "schedule": "constant"},
        "train": {"epochs": 12, "batch_size": 1, "seed": 7},
        "sampling": {
            "prompts": ["a LNTRN lantern on a pier at dusk", "a LNTRN lantern in the snow"],
            "every": 120,
            "width": 992,
            "height": 768,
            "steps": 24,
            "seed": 11,
        },
        "output": {
            "folder": "/srv/fluxgym/outputs/lantern",
            "name": "lantern",
            "formats": ["diffusers", "kohya"],
            "precision": "bf16",
            "save_every": "3 epochs",
            "keep_last": "all",
        },
    }
    assert "1 / 4 = 0.25" in imported.faults[0]
    assert [Path(name).name for name in imported.files] == ["train.sh", "dataset.toml", "sample_prompts.txt"]


def test_a_batch_file_with_lokr_and_prodigy() -> None:
    tree = plain(read("lokr.bat").tree)
    assert tree["adapter"] == {
        "kind": "lycoris",
        "targets": "ai-toolkit",
        "lycoris": {"algo": "lokr", "linear_dim": 10000, "linear_alpha": 1.0, "factor": 8, "full_matrix": True},
    }
    assert tree["optim"] == {
        "name": "prodigy",
        "lr": 1.0,
        "weight_decay": 0.01,
        "betas": [0.9, 0.99],
        "options": {"d_coef": 2, "decouple": True},
        "clip_norm": 1.0,
        "schedule": "cosine_with_restarts",
        "cycles": 3,
    }
    assert tree["model"]["path"] == r"D:\models\flux1-dev.safetensors"
    assert tree["data"][0]["path"] == r"D:\dog pictures\img"
    assert tree["data"][0]["caption_steps"] == [FIRST_LINE, {"kind": "shuffle", "keep": 1}]
    assert tree["train"] == {"epochs": 12, "batch_size": 2}
    assert tree["objective"]["timesteps"] == "token_shift"


def test_powershell_with_numbers_of_blocks_and_a_metadata_file() -> None:
    tree = plain(read("blocks.ps1").tree)
    assert tree["adapter"] == {
        "targets": "ai-toolkit", "rank": 16, "alpha": 16.0, "blocks": ["single_transformer_blocks.10-15"], "text_encoder": True,
    }
    assert tree["data"] == [
        {
            "path": "D:/data/img",
            "recursive": False,
            "metadata": "D:/data/meta.jsonl",
            "image_column": "image_path",
            "resolution": 1024.0,
            "geometry": "kohya",
            "upscale": False,
            "minimum_edge": 1,
            "max_aspect": 16.0,
        }
    ]
    assert tree["optim"]["lr"] == 2e-4
    assert tree["optim"]["text_encoder_lr"] == 5e-5
    assert tree["optim"]["warmup_steps"] == 150
    assert tree["objective"] == {"timesteps": "logit_normal", "logit_mean": -0.5, "shift": 3.0, "guidance": 1.0}


def test_a_notebook_with_two_datasets() -> None:
    imported = read("boat.ipynb")
    first, second, third = plain(imported.tree["data"])
    assert (first["path"], first["repeats"], first["resolution"], first["mirror"]) == ("/content/boat", 2, 512.0, True)
    assert (second["path"], second["caption_fallback"], "captions" in second) == ("/content/ships", "a ship", False)
    assert third == {
        "path": "/content/boat",
        "recursive": False,
        "name": "boat-2",
        "resolution": "832x1216",
        "geometry": "kohya",
        "upscale": True,
        "minimum_edge": 1,
        "max_aspect": 16.0,
        "captions": ["textfile", "none"],
        "caption_endings": [".txt"],
        "caption_per": "file",
        "caption_dropout": 0.05,
        "caption_steps": [
            FIRST_LINE,
            {"kind": "prefix", "text": "photo,"},
            {"kind": "shuffle", "keep_separator": "|||"},
            {"kind": "drop", "rate": 0.1, "keep_separator": "|||"},
        ],
    }
    assert imported.tree["adapter"] == {"targets": "ai-toolkit", "rank": 16, "alpha": 16.0}
    assert imported.tree["objective"] == {
        "timesteps": "sigmoid", "sigmoid_scale": 0.5, "guidance": 1.0,
        "loss": "huber", "huber_c": 0.2, "huber_schedule": "exponential",
    }


def test_a_save_of_lora_scripts() -> None:
    tree = plain(read("lantern.toml").tree)
    lycoris = {"algo": "loha", "linear_dim": 8, "linear_alpha": 4.0}
    assert tree["adapter"] == {"kind": "lycoris", "targets": "ai-toolkit", "lycoris": lycoris}
    assert tree["data"][0]["resolution"] == "768x1024"
    assert (tree["data"][0]["shortest_side"], tree["data"][0]["longest_side"]) == (192, 2048)
    assert tree["sampling"] == {
        "prompts": ["a paper lantern"], "negative_prompt": "blurry", "width": 512, "height": 768, "cfg": 4.0, "seed": 2333, "steps": 24,
        "every": "2 epochs",
    }
    assert tree["output"]["keep_last"] == 3
    assert tree["train"] == {"epochs": 20, "batch_size": 1, "accumulation": 4, "seed": 1337}


def test_a_settings_file_behind_a_script() -> None:
    imported = read("settings.sh")
    tree = plain(imported.tree)
    assert tree["train"] == {"steps": 900, "accumulation": 2, "seed": 4}
    assert tree["output"]["folder"] == "/mnt/läufe/图"
    assert tree["model"]["assistant"] == "off"
    assert "guidance" not in tree["objective"]
    assert tree["model"]["adapters"] == [{"path": "/mnt/style.safetensors", "strength": 0.5}, {"path": "/mnt/look.safetensors"}]
    assert tree["memory"]["swap_blocks"] == 26
    assert tree["optim"] == {
        "name": "lion", "lr": 2e-4, "betas": [0.95, 0.98], "weight_decay": 0.0, "schedule": "polynomial", "power": 2.0, "end_lr": 1e-7,
        "clip_norm": 1.0,
    }
    assert [rule["match"] for rule in tree["adapter"]["rules"]][-2:] == ["x_embedder", "context_embedder"]
    assert [rule["rank"] for rule in tree["adapter"]["rules"]] == [4, 4, 4, 4, 4, 2]
    assert tree["adapter"]["exclude"][0] == "transformer_blocks.*.attn.add_q_proj"
    lines = {one.given.text: one.line for one in imported.outcomes}
    assert "counts" in lines["--seed = 3"]
    assert "not read" in lines["not_an_option = true"]


def test_a_whole_model_with_masks() -> None:
    imported = read("whole.sh")
    tree = plain(imported.tree)
    assert tree["adapter"] == {"kind": "full", "precision": "fp32"}
    assert tree["optim"]["warmup_steps"] == 200
    assert tree["optim"]["end_lr"] == 1e-6
    assert tree["data"][0]["loss_masks"] == "/pictures/chair masks"
    assert tree["objective"]["mask_mean"] == "picture"
    assert tree["data"][0]["caption_endings"] == [".caption"]
    assert "swap_blocks" not in tree["memory"]
    assert "quantize" not in tree["memory"]


def test_a_save_of_the_gui_for_a_whole_model() -> None:
    tree = plain(read("gui_whole.json").tree)
    assert tree["adapter"] == {"kind": "full"}
    assert tree["train"] == {"epochs": 5, "batch_size": 1, "seed": 1}
    assert tree["memory"]["swap_blocks"] == 53
    assert tree["optim"] == {
        "name": "adafactor", "lr": 1e-5, "eps": 1e-15, "weight_decay": 0.01, "schedule": "constant", "fused_backward": True,
    }


def test_a_save_of_the_gui_for_a_lora() -> None:
    imported = read("gui_lora.json")
    tree = plain(imported.tree)
    assert tree["adapter"]["rank"] == 32
    assert tree["adapter"]["alpha"] == 16.0
    assert {rule["match"]: rule["rank"] for rule in tree["adapter"]["rules"]} == {
        "single_transformer_blocks.*.attn.to_q": 16,
        "single_transformer_blocks.*.attn.to_k": 16,
        "single_transformer_blocks.*.attn.to_v": 16,
        "single_transformer_blocks.*.proj_mlp": 16,
        "single_transformer_blocks.*.proj_out": 16,
    }
    assert "text_encoder" not in tree["adapter"]
    assert tree["optim"] == {
        "name": "adamw_8bit", "lr": 4e-4, "weight_decay": 0.1, "betas": [0.9, 0.95], "schedule": "cosine", "warmup_steps": 200,
        "clip_norm": 1.0,
    }
    assert tree["train"] == {"steps": 2000, "batch_size": 2, "accumulation": 2}
    assert tree["sampling"]["prompts"] == ["a cat", "a dog"]
    assert tree["objective"]["sigmoid_scale"] == 1.2
    told = "\n".join(imported.faults)
    assert "gradients were clipped at 1.0" in told
    assert "rank_dropout and module_dropout were not passed on" in told


def test_expressions_for_layers() -> None:
    tree = plain(read("regexes.sh").tree)
    assert tree["adapter"]["rules"] == [
        {"match": "single_transformer_blocks.*.norm.linear", "rank": 4},
        {"match": "transformer_blocks.*.attn.to_q", "rank": 8},
        {"match": "transformer_blocks.*.attn.to_k", "rank": 8},
        {"match": "transformer_blocks.*.attn.to_v", "rank": 8},
        {"match": "transformer_blocks.*.attn.to_out.0", "rank": 8},
        {"match": "single_transformer_blocks.0.*", "lr": 1e-3},
        {"match": "single_transformer_blocks.10.*", "lr": 1e-3},
        {"match": "transformer_blocks.*", "lr": 2e-3},
    ]
