"""A run that another trainer's file describes is the run that its settings mean, written by hand: equal losses, bit for bit."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import build_watcher
from weber.config.importers.load import load_any
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.families.flux1.variants import POCKET
from weber.planning.old_run import PAGE_NAME
from weber.training.assemble import train

OVERRIDES = ("model.variant=pocket", "memory.device=cpu", "memory.dtype=fp32", "memory.quantize=none")
"""What another machine has otherwise: the small model is no published one, and here is no GPU."""


def _write_simpletuner(folder: Path, pictures: Path) -> Path:
    options = {
        "--model_family": "flux",
        "--model_type": "lora",
        "--pretrained_model_name_or_path": str(POCKET),
        "--data_backend_config": "multidatabackend.json",
        "--output_dir": str(folder / "run"),
        "--max_train_steps": "3",
        "--num_train_epochs": 0,
        "--train_batch_size": 2,
        "--learning_rate": "1e-3",
        "--lora_rank": 4,
        "--lora_dropout": "0.0",
        "--flux_lora_target": "context",
        "--optimizer": "torch-adamw",
        "--lr_scheduler": "constant",
        "--caption_dropout_probability": "0",
        "--gradient_checkpointing": "false",
        "--disable_benchmark": "true",
        "--seed": 7,
        "--flow_schedule_shift": 2,
    }
    sets = [
        {
            "id": "pics",
            "type": "local",
            "instance_data_dir": str(pictures),
            "caption_strategy": "textfile",
            "resolution": 64,
            "resolution_type": "pixel",
            "crop": True,
            "crop_aspect": "square",
            "crop_style": "center",
            "repeats": 1,
            "cache_dir_vae": "cache/vae",
        },
        {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": True, "cache_dir": "cache/text"},
    ]
    (folder / "multidatabackend.json").write_text(json.dumps(sets))
    (folder / "config.json").write_text(json.dumps(options))
    return folder / "config.json"


def _write_kohya(folder: Path, pictures: Path) -> Path:
    (folder / "dataset.toml").write_text(
        textwrap.dedent(f"""\
        [general]
        caption_extension = ".txt"
        [[datasets]]
        resolution = 64
        batch_size = 2
          [[datasets.subsets]]
          image_dir = "{pictures}"
          num_repeats = 2
        """)
    )
    (folder / "train.sh").write_text(
        textwrap.dedent(f"""\
        accelerate launch flux_train_network.py
          --pretrained_model_name_or_path {POCKET} \\
          --dataset_config dataset.toml --output_dir "{folder / "run"}" --output_name adapter \\
          --network_module networks.lora_flux --network_dim 4 --network_alpha 2 --network_train_unet_only \\
          --optimizer_type AdamW --learning_rate 1e-3 --lr_scheduler constant --max_grad_norm 1.0 \\
          --max_train_steps 3 --seed 7 --timestep_sampling shift --discrete_flow_shift 2.0 \\
          --model_prediction_type raw --guidance_scale 1.0 --cache_latents --cache_text_encoder_outputs
        """)
    )
    return folder / "train.sh"


def _write_diffusers(folder: Path, pictures: Path) -> Path:
    (folder / "train.sh").write_text(
        textwrap.dedent(f"""\
        export MODEL_NAME="{POCKET}"
        export STEPS=3
        accelerate launch train_dreambooth_lora_flux.py \\
          --pretrained_model_name_or_path=$MODEL_NAME --instance_data_dir="{pictures}" --output_dir="{folder / "run"}" \\
          --instance_prompt="a photo of sks" --resolution=64 --center_crop --train_batch_size=2 --rank=4 \\
          --learning_rate=1e-3 --lr_scheduler="constant" --lr_warmup_steps=0 --max_train_steps=$STEPS --seed="7" \\
          --guidance_scale=1 --lora_layers="attn.to_q,attn.to_k"
        """)
    )
    return folder / "train.sh"


def _write_ai_toolkit(folder: Path, pictures: Path) -> Path:
    (folder / "job.yaml").write_text(
        textwrap.dedent(f"""\
        job: extension
        config:
          name: run
          process:
            - type: sd_trainer
              training_folder: "{folder}"
              network: {{type: lora, linear: 4, linear_alpha: 4}}
              save: {{dtype: float32, save_every: 100, max_step_saves_to_keep: 4}}
              datasets:
                - folder_path: "{pictures}"
                  caption_ext: txt
                  resolution: 64
              train:
                batch_size: 2
                steps: 3
                gradient_accumulation: 1
                gradient_checkpointing: false
                noise_scheduler: flowmatch
                optimizer: adamw
                lr: 1e-3
                dtype: bf16
              model: {{name_or_path: "{POCKET}", is_flux: true}}
        """)
    )
    return folder / "job.yaml"


def _write_onetrainer(folder: Path, pictures: Path) -> Path:
    concepts = [{"name": "pics", "path": str(pictures), "enabled": True, "balancing": 1.0, "balancing_strategy": "REPEATS",
                 "image": {"enable_crop_jitter": False}, "text": {"prompt_source": "sample"}}]
    (folder / "concepts.json").write_text(json.dumps(concepts))
    options = {
        "training_method": "LORA",
        "model_type": "FLUX_DEV_1",
        "base_model_name": str(POCKET),
        "concept_file_name": str(folder / "concepts.json"),
        "output_model_destination": str(folder / "run" / "adapter.safetensors"),
        "resolution": "64",
        "batch_size": 2,
        "epochs": 1,
        "learning_rate": 1e-3,
        "learning_rate_warmup_steps": 0,
        "lora_rank": 4,
        "lora_alpha": 2.0,
        "gradient_checkpointing": "OFF",
        "optimizer": {"optimizer": "ADAMW"},
        "text_encoder": {"train": False},
        "text_encoder_2": {"train": False},
        "text_encoder_2_sequence_length": 512,
        "timestep_distribution": "LOGIT_NORMAL",
    }
    (folder / "config.json").write_text(json.dumps(options))
    return folder / "config.json"


def _native(tool: str, pictures: Path) -> dict[str, Any]:
    """What a person would write for weber to get the same run."""
    plain: dict[str, Any] = {
        "model": {"variant": "pocket", "path": str(POCKET)},
        "memory": {"device": "cpu", "dtype": "fp32", "gradient_checkpointing": "none"},
        "adapter": {"rank": 4},
        "optim": {"name": "adamw", "lr": 1e-3},
        "train": {"steps": 3, "batch_size": 2, "seed": 7},
    }
    square = {"path": str(pictures), "resolution": 64, "aspect": "square", "crop": "center", "upscale": True}
    if tool == "simpletuner":
        return plain | {
            "adapter": {"rank": 4, "targets": "context"},
            "optim": plain["optim"] | {"clip_norm": "off"},
            "objective": {"timesteps": "sigmoid", "shift": 2.0},
            "data": [square | {"name": "pics", "resolution_type": "shorter_edge", "geometry": "simpletuner", "repeats": 2}],
        }
    if tool == "kohya":
        first_line = {"kind": "regex", "find": "(?s)\\n.*"}
        return plain | {
            "adapter": {"rank": 4, "alpha": 2.0, "targets": "ai-toolkit"},
            "objective": {"timesteps": "shift", "shift": 2.0, "guidance": 1.0},
            "data": [square | {"repeats": 2, "caption_per": "file", "caption_steps": [first_line]}],
        }
    if tool == "diffusers":
        return plain | {
            "adapter": {"rank": 4, "targets": ["attn.to_q", "attn.to_k"], "init": "gaussian"},
            "optim": plain["optim"] | {"weight_decay": 1e-4},
            "objective": {"timesteps": "uniform", "guidance": 1.0},
            "data": [square | {"captions": "instance", "instance_prompt": "a photo of sks"}],
        }
    if tool == "ai_toolkit":
        return plain | {
            "adapter": {"rank": 4, "targets": "ai-toolkit"},
            "optim": plain["optim"] | {"eps": 1e-6},
            "train": {"steps": 3, "batch_size": 2},
            "objective": {"timesteps": "sigmoid"},
            "data": [{"path": str(pictures), "resolution": 64, "bucket_step": 32, "caption_per": "file"}],
        }
    return plain | {
        "adapter": {"rank": 4, "alpha": 2.0, "targets": ["*"]},
        "train": {"epochs": 1, "batch_size": 2},
        "objective": {"timesteps": "logit_normal"},
        "data": [{"path": str(pictures), "name": "pics", "buckets": [[64, 64], [64, 128], [128, 64]], "upscale": True}],
    }


FILES: dict[str, Callable[[Path, Path], Path]] = {
    "simpletuner": _write_simpletuner,
    "kohya": _write_kohya,
    "diffusers": _write_diffusers,
    "ai_toolkit": _write_ai_toolkit,
    "onetrainer": _write_onetrainer,
}


@pytest.mark.parametrize("tool", FILES)
def test_an_imported_run_is_the_run_written_by_hand(tmp_path: Path, pictures: Path, cache: Path, tool: str) -> None:
    folders = tmp_path / "imported", tmp_path / "native"
    shorter = ["model.text_tokens=24"] if tool == "onetrainer" else []  # the small model has no 77
    overrides = [*OVERRIDES, *shorter, f"output.folder={folders[0]}", f"output.cache={cache}"]
    config, imported = load_any(FILES[tool](tmp_path, pictures), overrides)
    assert imported is not None
    native = build_config(_native(tool, pictures) | {"output": {"folder": str(folders[1]), "cache": str(cache)}})
    losses = []
    for one, found in ((config, imported), (native, None)):
        train(one, resume=False, watcher=build_watcher()[0], imported=found)
        losses.append(_read_losses(one))
    assert losses[0] == losses[1] and len(losses[0]) >= 3
    page = (folders[0] / PAGE_NAME).read_text(encoding="utf-8")
    assert "## What the old run really did" in page and "noise levels by" in page and "is cut away in the mean" in page
    assert not (folders[1] / PAGE_NAME).exists()


def _read_losses(config: RunConfig) -> list[tuple[float, float]]:
    lines = (config.output.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["loss"], line["grad_norm"]) for line in map(json.loads, lines)]
