"""Ten files in the manner of those that users of SimpleTuner have, as runs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.config.load import load_config

FILES = Path(__file__).parent / "files" / "simpletuner"
NAMES = ("webui", "kontext", "toml", "env", "klein", "hub", "tables", "masks", "schnell", "flux2")


@cache
def run(name: str) -> Imported:
    return import_run(next((FILES / name).glob("config.*")))


def get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


EXPECTED: dict[str, dict[str, Any]] = {
    "webui": {
        "model": {"variant": "flux1-dev"},
        "adapter": {"kind": "lora", "rank": 32, "alpha": 16.0, "dropout": 0.0, "targets": "all"},
        "memory": {"quantize": "int8", "quantize_on": "cpu"},
        "objective": {"timesteps": "sigmoid", "shift": "tokens"},
        "optim": {"lr": 2e-4, "schedule": "constant", "warmup_steps": 50, "name": "optimi_lion", "weight_decay": 0.0, "clip_norm": 1.0},
        "train": {"batch_size": 2, "accumulation": 2, "steps": 1200, "seed": 1234},
        "sampling": {
            "prompts": ["a brass lamp on a desk"],
            "width": 1024,
            "height": 768,
            "guidance": 3.5,
            "steps": 24,
            "every": 300,
            "seed": 7,
        },
        "output": {
            "folder": "/workspace/out/lamp",
            "save_every": 300,
            "keep_last": 3,
            "trackers": ["tensorboard"],
            "webhooks": [{"kind": "discord", "url": "https://discord.test/api/secret", "level": "info"}],
        },
        "data": [
            {
                "name": "lamp",
                "path": "D:\\pictures\\lamp",
                "captions": "textfile",
                "caption_per": "file",
                "resolution": 768.0,
                "aspect": "bucket",
                "max_aspect": 16.0,
                "crop": "center",
                "repeats": 10,
                "geometry": "simpletuner",
                "upscale": True,
                "minimum_edge": 1,
                "caption_dropout": 0.05,
            }
        ],
    },
    "kontext": {
        "model": {"variant": "flux1-kontext"},
        "data.0.conditioning": ["datasets/before"],
        "data.0.crop": "random",
        "data.0.num_crops": 1,
        "data.0.aspect": "square",
        "objective": {"timesteps": "sigmoid"},
        "optim": {"lr": 1e-5, "schedule": "constant", "name": "optimi_stableadamw"},
    },
    "toml": {
        "data.0.resolution": 0.5,
        "data.0.resolution_type": "megapixels",
        "data.0.aspects": [1.0, 0.75, 1.33],
        "data.0.aspect_range": [0.5, 16.0],
        "data.0.crop": "face",
        "data.0.start_after": "2 epochs",
        "data.0.stop_after": 900,
        "data.0.limit": 200,
        "data.1.resolution_type": "shorter_edge",
        "data.1.minimum_edge": 512,
        "data.1.share": 0.25,
        "data.1.instance_prompt": ["a photo", "a picture"],
        "objective": {
            "timesteps": "beta",
            "beta_shape": [4.0, 2.0],
            "guidance_range": [1.0, 3.5],
            "loss": "huber",
            "huber_c": 0.2,
            "shift": 3.0,
        },
        "optim": {"lr": 5e-5, "name": "adamw_schedulefree", "clip_norm": "off"},
        "train": {"epochs": 12, "batch_size": 1},
    },
    "env": {
        "data.0.caption_steps": [
            {"kind": "prefix", "text": "ohwx man,"},
            {"kind": "replace", "find": "in this image"},
            {"kind": "regex", "find": "photograph", "replace_with": "photo"},
            {"kind": "regex", "find": "the .* appears to be"},
        ],
        "data.0.repeats": 20,
        "data.0.crop": "corner",
        "adapter": {"dora": True, "kind": "lora", "rank": 32, "alpha": 32.0, "targets": "all+ffs+embedder", "dropout": 0.1},
        "memory": {"attention": "efficient", "quantize": "fp8"},
        "objective": {"timesteps": "sigmoid", "sigmoid_scale": 1.2, "shift": 3.0},
        "train": {"steps": 2000, "batch_size": 1},
        "output": {"folder": "/notebooks/ohwx/out", "save_every": 250, "keep_last": 2},
        "sampling.every": 250,
        "sampling.cfg": 2.0,
        "sampling.negative_prompt": "blurry",
    },
    "klein": {
        "model": {"variant": "flux2-klein-base-4b"},
        "adapter": {
            "kind": "lycoris",
            "lycoris": {
                "algo": "lokr",
                "full_matrix": True,
                "linear_dim": 10000,
                "linear_alpha": 1.0,
                "factor": 4,
                "apply_preset": {
                    "target_module": ["Flux2Attention", "Flux2FeedForward"],
                    "module_algo_map": {"Flux2Attention": {"factor": 2}},
                },
            },
        },
        "memory": {"quantize": "int8", "attention": "flash3"},
        "data.0.bucket_step": 16,
        "sampling.cfg": 4.0,
        "sampling.negative_prompt": "blurry, cropped, ugly",
        "optim": {"lr": 1e-3, "name": "bnb_adamw_8bit", "eps": 1e-6, "schedule": "cosine", "end_lr": 4e-7, "clip_norm": "off"},
    },
    "hub": {
        "data.0.hub": "someone/art",
        "data.0.hub_split": "large/train",
        "data.0.caption_column": ["detailed_caption", "title"],
        "data.0.image_column": "picture",
        "data.1.captions": "instance",
        "train.balance": "sets",
    },
    "tables": {
        "data.0.metadata": "/data/photos.parquet",
        "data.0.image_column": "id",
        "data.0.caption_column": ["cogvlm", "alt"],
        "data.0.downsample_to": 1280.0,
        "data.1.path": "s3:/my-pictures/train",
        "data.1.resolution_type": "megapixels",
        "data.2.metadata": "/data/list.csv",
        "data.2.image_column": "link",
        "data.2.captions": "metadata",
        "adapter": {"kind": "full"},
        "optim.ema_decay": 0.995,
        "optim.ema_on": "device",
    },
    "masks": {
        "data.0.loss_masks": "masks",
        "objective": {"mask_mean": "picture", "timesteps": "sigmoid", "shift": 3.0},
        "train": {"epochs": 4, "batch_size": 1},
    },
    "schnell": {
        "model": {"variant": "flux1-schnell", "assistant_strength": 0.8},
        "objective": {"timesteps": "fast"},
        "data.0.caption_steps": [{"kind": "shuffle", "keep": 1}],
        "data.0.caption_variants": 4,
        "sampling": {"prompts": ["a cat"], "steps": 4, "width": 512, "height": 512, "every": 100},
    },
    "flux2": {
        "data.0.conditioning": ["one", "two"],
        "data.0.conditioning_type": "reference_loose",
        "data.0.reference_sizes": [1024.0, 512.0],
        "adapter": {
            "kind": "lora",
            "rank": 16,
            "start_from": "old.safetensors",
            "targets": ["attn.to_q", "attn.to_k"],
            "dropout": 0.1,
        },
        "objective": {"shift": "tokens", "timesteps": "sigmoid"},
        "sampling.every": "2 epochs",
        "output.save_every": "1 epochs",
        "output.formats": ["diffusers", "comfyui"],
    },
}

REFUSED: dict[str, set[str]] = {
    "kontext": {"caption_strategy"},
    "klein": {"dynamo_backend"},
    "masks": {"dataset_type"},
    "schnell": {"lr_scheduler"},
}

FAULTS: dict[str, tuple[str, ...]] = {
    "webui": ("alpha / rank = 16 / 32 = 0.5",),
    "kontext": ("random windows are drawn once",),
    "toml": ("flow_schedule_shift is 3.0",),
    "env": ("s/a/b/",),
    "klein": ("cosine is a wave", "guidance of training is 1.0"),
    "hub": ("caption_column outside", "crop = false cuts all the same"),
    "tables": ("36 %", "kept by their stems"),
    "flux2": ("1.88 instead of 3.16", "hash()"),
}


@pytest.mark.parametrize("name", NAMES)
def test_settings(name: str) -> None:
    imported = run(name)
    assert {key: get(imported.tree, key) for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_refused(name: str) -> None:
    imported = run(name)
    assert {one.given.name for one in imported.outcomes if one.kind == "refused"} == REFUSED.get(name, set())


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults(name: str) -> None:
    lines = "\n".join(run(name).faults)
    assert [one for one in FAULTS[name] if one not in lines] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_one_outcome(name: str) -> None:
    counts = Counter((one.given.where, one.given.spelled) for one in run(name).outcomes if not one.given.is_default)
    assert [key for key, number in counts.items() if number > 1 and key[1] != "--lora_rank"] == []


@pytest.mark.parametrize("name", NAMES)
def test_toml_reads_back_equal(name: str, tmp_path: Path) -> None:
    imported = run(name)
    path = tmp_path / "run.toml"
    path.write_text(write_commented(imported))
    assert load_config(path) == imported.config


def test_no_secret_is_shown() -> None:
    texts = [one.given.text + one.line for name in ("webui", "tables") for one in run(name).outcomes]
    assert not any(secret in text for text in texts for secret in ("AKIA123456", "discord.test", "NO_SUCH_VARIABLE"))


def test_files_that_were_read() -> None:
    assert [Path(one).name for one in run("klein").files] == ["config.json", "multidatabackend.json", "lycoris_config.json"]


def test_keys_of_a_set_that_is_off_are_said() -> None:
    off = [one for one in run("env").outcomes if one.given.where.endswith(", men")]
    assert {one.line for one in off} == {"the set is turned off"}
    assert len(off) == 6
