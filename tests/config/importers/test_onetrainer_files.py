"""Ten saves and presets in the manner of those that users of OneTrainer have, as runs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.config.importers.test_simpletuner_files import get
from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.config.load import load_config

FILES = Path(__file__).parent / "files" / "onetrainer"
NAMES = ("save", "preset", "klein", "finetune", "lokr", "prodigy", "loha", "masked", "tags", "fill")

CONCEPT: dict[str, Any] = {
    "path": "pictures/dog",
    "recursive": False,
    "crop": "random",
    "num_crops": 1,
    "captions": ["textfile", "none"],
    "resolution": 512.0,
    "bucket_step": 64,
    "geometry": "onetrainer",
    "upscale": True,
    "minimum_edge": 1,
    "max_aspect": 16.0,
}


@cache
def run(name: str) -> Imported:
    return import_run(FILES / name / "config.json")


EXPECTED: dict[str, dict[str, Any]] = {
    "save": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "name": "ohwx",
                "path": "D:/pictures/ohwx",
                "recursive": True,
                "repeats": 4,
                "mirror": True,
                "captions": "instance",
                "instance_prompt": ["ohwx man", "a photo of ohwx man"],
                "resolution": 1024.0,
                "bucket_step": 64,
                "geometry": "onetrainer",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
            }
        ],
        "adapter": {"kind": "lora", "rank": 16, "alpha": 1.0, "targets": ["*"]},
        "memory": {"quantize": "nf4", "quantize_text_encoder_2": "nf4", "offload_activations": True, "swap_blocks": 20},
        "objective": {"loss": "l2", "timesteps": "logit_normal", "logit_mean": 0.5, "logit_std": 1.25, "shift": 3.0},
        "optim": {
            "name": "adamw_8bit",
            "lr": 4e-4,
            "schedule": "cosine",
            "warmup_steps": 50,
            "end_lr": pytest.approx(4e-5),
            "ema_decay": pytest.approx(0.9998, abs=1e-6),
        },
        "train": {"epochs": 40, "batch_size": 2, "accumulation": 2},
        "sampling": {
            "prompts": ["ohwx man in a suit", "ohwx man on a horse"],
            "width": 832,
            "height": 1024,
            "seed": 7,
            "steps": 25,
            "guidance": 3.5,
            "every": "5 epochs",
        },
        "output": {
            "folder": "D:/training/ohwx",
            "cache": "D:/training/cache",
            "trackers": ["tensorboard"],
            "precision": "bf16",
            "name": "ohwx_v3",
            "keep_last": 2,
            "save_every": "10 epochs",
        },
    },
    "preset": {
        "adapter": {"kind": "lora", "rank": 16, "alpha": 16.0, "targets": ["*attn*", "*ff.net*"]},
        "model": {"path": "black-forest-labs/FLUX.1-dev", "text_tokens": 77},
        "memory": {"quantize": "nf4"},
        "objective": {"timesteps": "uniform", "shift": 3.1582},
        "optim": {"lr": 3e-4, "name": "adamw", "schedule": "constant", "warmup_steps": 200},
        "train": {"batch_size": 4, "epochs": 100},
        "output": {"formats": ["diffusers", "kohya"], "name": "dog", "folder": "workspace/run"},
    },
    "klein": {
        "data": [CONCEPT],
        "adapter": {"kind": "lora", "targets": "blocks", "rank": 32, "alpha": 32.0},
        "memory": {"quantize_text_encoder": "fp8", "compile": True, "quantize": "int8", "int8_matmul": True},
        "objective": {"timesteps": "logit_normal", "shift": "tokens"},
        "sampling": {
            "prompts": ["a dog", "two dogs"],
            "cfg": 4.0,
            "negative_prompt": "blurry",
            "width": 992,
            "height": 1024,
            "every": 250,
        },
    },
    "finetune": {
        "adapter": {"kind": "full", "precision": "bf16"},
        "memory": {"swap_blocks": 19},
        "optim": {
            "lr": 1e-6,
            "name": "adafactor",
            "fused_backward": True,
            "clip_norm": "off",
            "weight_decay": 0.0,
            "schedule": "constant",
        },
        "train": {"epochs": 10},
        "output": {"formats": ["merged-bfl"], "folder": "workspace/run", "name": "model"},
    },
    "lokr": {
        "adapter": {
            "kind": "lycoris",
            "targets": ["*"],
            "lycoris": {"algo": "lokr", "linear_dim": 8, "linear_alpha": 4.0, "factor": 4, "full_matrix": True},
        },
        "optim": {"lr": 8e-3, "schedule": "cosine_with_restarts", "cycles": 3, "warmup_steps": 20, "name": "adamw"},
    },
    "prodigy": {
        "optim": {
            "name": "prodigy",
            "betas": [0.9, 0.99],
            "options": {"d0": 1e-6, "d_coef": 0.8, "use_bias_correction": True, "safeguard_warmup": True},
            "lr": 1.0,
            "ema_decay": pytest.approx(0.9998, abs=1e-6),
            "ema_on": "device",
            "clip_norm": 0.5,
            "schedule": "constant",
            "warmup_steps": 200,
        },
        "objective.timesteps": "cubic",
        "objective.loss": "huber",
        "objective.huber_c": 0.2,
        "memory": {"attention": "flash", "device": "cuda:1"},
        "output.trackers": ["tensorboard"],
    },
    "loha": {
        "data.0.resolution": [512.0, 768.0],
        "data.0.share": 0.5,
        "data.0.color_jitter": 0.2,
        "data.1.buckets": [[832, 1216]],
        "data.1.share": 0.5,
        "adapter.lycoris": {"algo": "loha", "linear_dim": 8, "linear_alpha": 8.0},
        "objective": {"timesteps": "mode", "mode_scale": 1.2},
    },
    "masked": {
        "data.0.aspect": "square",
        "data.0.resolution": 512.0,
        "data.0.caption_dropout": 0.1,
        "adapter": {"kind": "lora", "dora": True, "rank": 16, "alpha": 1.0, "targets": ["*"]},
        "objective": {"timesteps": "beta", "beta_shape": [2.0, 1.0]},
    },
    "tags": {
        "data.0.caption_steps": [
            {"kind": "drop", "rate": 0.2, "keep": 2, "separator": "|", "keep_tags": ["dog", "cat"]},
            {"kind": "shuffle", "keep": 2, "separator": "|"},
        ],
        "data.0.caption_variants": 20,
        "data.1.regularization": True,
        "data.1.loss_weight": 0.5,
        "data.1.captions": "filename",
        "data.2.name": "counted",
        "objective": {"timesteps": "cosmap"},
    },
    "fill": {
        "model": {"path": "black-forest-labs/FLUX.1-Fill-dev", "variant": "flux1-fill", "text_tokens": 77},
        "adapter": {"kind": "lora", "text_encoder": True, "rank": 16, "alpha": 1.0, "targets": ["*"]},
        "optim.text_encoder_lr": 1e-5,
        "data.1.name": "dogs-2",
        "objective.timesteps": "cubic",
    },
}

REFUSED: dict[str, set[str]] = {
    "save": {"output_model_format"},
    "preset": {"backup_after"},
    "klein": {"cfg_scale"},
    "masked": {"masked_training"},
    "tags": {"type", "balancing"},
    "fill": {"text_encoder_2.train", "learning_rate_warmup_steps", "prompt"},
}

FAULTS: dict[str, tuple[str, ...]] = {
    "save": ("alpha 1 and rank 16", "0.0625", "do not fill a batch", "text_variations = 1"),
    "preset": ("200 where it is left out", "77 where it is left out"),
    "klein": ("1.88 instead of 3.16",),
    "tags": ("image_variations = 1",),
}


@pytest.mark.parametrize("name", NAMES)
def test_settings(name: str) -> None:
    imported = run(name)
    assert {key: get(imported.tree, key) for key in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_refused(name: str) -> None:
    assert {one.given.name for one in run(name).outcomes if one.kind == "refused"} == REFUSED.get(name, set())


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults(name: str) -> None:
    lines = "\n".join(run(name).faults)
    assert [one for one in FAULTS[name] if one not in lines] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_one_outcome(name: str) -> None:
    counts = Counter((one.given.where, one.given.spelled) for one in run(name).outcomes if not one.given.is_default)
    assert [key for key, number in counts.items() if number > 1] == []


def test_every_key_of_a_whole_save_is_answered() -> None:
    imported = run("save")
    own = [one for one in imported.outcomes if one.given.where == "config.json"]
    assert len(own) == 400
    assert not any("no such key there" in one.line for one in own)


def test_unknown_keys_are_not_read_there() -> None:
    [found] = [one for one in run("prodigy").outcomes if one.given.name == "custom_extra"]
    assert (found.kind, found.line.startswith("no such key there")) == ("no effect", True)


@pytest.mark.parametrize("name", NAMES)
def test_toml_reads_back_equal(name: str, tmp_path: Path) -> None:
    imported = run(name)
    path = tmp_path / "run.toml"
    path.write_text(write_commented(imported))
    assert load_config(path) == imported.config


def test_no_secret_is_shown() -> None:
    assert not any("hf_very_secret" in one.given.text + one.line for one in run("save").outcomes)


def test_files_that_were_read() -> None:
    assert [Path(one).name for one in run("save").files] == ["config.json", "ohwx.json", "ohwx.txt", "ohwx.json"]
