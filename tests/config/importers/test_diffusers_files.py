"""Scripts of diffusers, imported: the settings that come out of each, written out in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run
from weber.config.load import load_config

FOLDER = Path(__file__).parent / "files" / "diffusers"

EXPECTED: dict[str, dict[str, Any]] = {
    "seed-dog-adamw.sh": {
        "model": {"path": "black-forest-labs/FLUX.2-dev"},
        "data": [
            {
                "path": "dog",
                "captions": "instance",
                "instance_prompt": "a photo of sks dog",
                "resolution": 1024.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "memory": {"quantize": "fp8", "fp8_matmul": True, "gradient_checkpointing": "all"},
        "objective": {"guidance": 1.0, "timesteps": "uniform"},
        "optim": {"name": "adamw_8bit", "lr": 0.0001, "schedule": "constant", "weight_decay": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 1, "accumulation": 4, "steps": 500, "seed": 0},
        "sampling": {
            "prompts": [
                "A photo of sks dog in a bucket", "A photo of sks dog in a bucket", "A photo of sks dog in a bucket",
                "A photo of sks dog in a bucket",
            ],
            "width": 1024,
            "height": 1024,
            "seed": 0,
            "every": "25 epochs",
        },
        "output": {"folder": "trained-flux2", "trackers": ["wandb"]},
    },
    "seed-dog-prodigy.sh": {
        "model": {"path": "black-forest-labs/FLUX.2-dev"},
        "data": [
            {
                "path": "dog",
                "captions": "instance",
                "instance_prompt": "a photo of sks dog",
                "resolution": 512.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "memory": {"quantize": "fp8", "fp8_matmul": True, "gradient_checkpointing": "all"},
        "objective": {"guidance": 1.0, "timesteps": "uniform"},
        "optim": {
            "name": "prodigy",
            "options": {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True},
            "lr": 1.0,
            "schedule": "constant",
            "warmup_steps": 100,
            "weight_decay": 0.0001,
            "clip_norm": 1.0,
        },
        "train": {"batch_size": 1, "accumulation": 4, "steps": 500, "seed": 0},
        "sampling": {
            "prompts": [
                "A photo of sks dog in a bucket", "A photo of sks dog in a bucket", "A photo of sks dog in a bucket",
                "A photo of sks dog in a bucket",
            ],
            "width": 1024,
            "height": 1024,
            "seed": 0,
            "every": "25 epochs",
        },
        "output": {"folder": "trained-flux2-lora", "trackers": ["wandb"]},
    },
    "seed-relighting.sh": {
        "model": {"path": "black-forest-labs/FLUX.2-dev"},
        "data": [
            {
                "hub": "kontext-community/relighting",
                "image_column": "output",
                "conditioning_columns": ["file_name"],
                "caption_column": "instruction",
                "resolution": 1024.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 16,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "memory": {"quantize": "fp8", "fp8_matmul": True, "gradient_checkpointing": "all"},
        "objective": {"guidance": 1.0, "timesteps": "uniform"},
        "optim": {
            "name": "adamw_8bit",
            "lr": 0.0001,
            "schedule": "constant",
            "warmup_steps": 200,
            "weight_decay": 0.0001,
            "clip_norm": 1.0,
        },
        "train": {"batch_size": 1, "accumulation": 4, "steps": 1000, "seed": 0},
        "output": {"folder": "flux2-i2i"},
    },
    "twocards.sh": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "path": "/data/ceramics",
                "captions": "instance",
                "instance_prompt": "a zwx vase, studio light",
                "resolution": 768.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "center",
                "mirror": True,
                "repeats": 5,
            },
        ],
        "adapter": {
            "rank": 64,
            "alpha": 64.0,
            "init": "gaussian",
            "targets": [
                "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
                "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
            ],
        },
        "memory": {"dtype": "bf16", "gradient_checkpointing": "all"},
        "objective": {"timesteps": "uniform", "guidance": 3.5},
        "optim": {"name": "adamw", "lr": 0.0002, "schedule": "cosine", "warmup_steps": 50, "weight_decay": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 2, "accumulation": 4, "steps": 1500, "seed": 7},
        "output": {"folder": "/data/out/ceramics", "save_every": 250, "keep_last": 3},
    },
    "prior.bat": {
        "model": {"path": "C:\\models\\FLUX.1-dev"},
        "data": [
            {
                "path": "D:\\bilder\\mein hund",
                "captions": "instance",
                "instance_prompt": "a photo of ohwx dog",
                "resolution": 512.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
            {
                "path": "D:\\bilder\\hunde",
                "name": "class",
                "resolution": 512.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
                "captions": "instance",
                "instance_prompt": "a photo of a dog",
                "loss_weight": 0.5,
                "limit": 60,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": [
                "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
                "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
            ],
        },
        "memory": {"dtype": "bf16"},
        "objective": {"guidance": 1.0, "timesteps": "logit_normal", "logit_mean": 0.5, "logit_std": 1.2},
        "optim": {
            "name": "prodigy",
            "options": {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True},
            "lr": 1.0,
            "weight_decay": 0.0001,
            "clip_norm": 1.0,
            "schedule": "constant",
        },
        "train": {"balance": "sets", "batch_size": 2, "steps": 800, "accumulation": 1},
        "output": {"folder": "D:\\out\\hund"},
    },
    "klein.ps1": {
        "model": {"path": "black-forest-labs/FLUX.2-klein-base-4B"},
        "data": [
            {
                "path": "E:\\sets\\posters",
                "captions": "instance",
                "instance_prompt": "a qzv poster",
                "resolution": 1024.0,
                "aspect": "closest",
                "minimum_edge": 1,
                "aspects": [1.0, 0.8, 1.25, 0.6667, 1.5, 0.75, 1.3333, 0.5625, 1.7778, 0.5, 2.0],
                "bucket_step": 16,
                "caption_dropout": 0.1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 16,
            "alpha": 16.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "memory": {"quantize": "nf4"},
        "objective": {"timesteps": "uniform"},
        "optim": {
            "lr": 5e-05,
            "schedule": "cosine_with_restarts",
            "cycles": 3,
            "name": "adamw",
            "weight_decay": 0.0001,
            "clip_norm": 1.0,
        },
        "train": {"batch_size": 1, "epochs": 40, "accumulation": 1},
        "output": {"folder": "E:\\out\\posters"},
    },
    "kontext.ipynb": {
        "model": {"path": "black-forest-labs/FLUX.1-Kontext-dev"},
        "data": [
            {
                "path": "pairs",
                "metadata": "pairs/metadata.jsonl",
                "conditioning_columns": ["source"],
                "caption_column": "edit",
                "buckets": [[1024, 1024], [1248, 832], [832, 1248]],
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": [
                "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
                "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp",
            ],
        },
        "memory": {"dtype": "bf16"},
        "objective": {"guidance": 1.0, "timesteps": "uniform"},
        "optim": {"name": "adamw_8bit", "lr": 0.0001, "schedule": "constant", "weight_decay": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 1, "accumulation": 4, "steps": 1200, "seed": 0},
        "output": {"folder": "/content/out"},
    },
    "clip.sh": {
        "model": {"path": "black-forest-labs/FLUX.1-dev", "text_tokens": 256},
        "data": [
            {
                "hub": "linoyts/Tuxemon",
                "caption_column": "prompt",
                "hub_split": "default/train",
                "caption_fallback": "a tuxemon",
                "resolution": 1024.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "repeats": 2,
                "crop": "random",
                "num_crops": 2,
            },
        ],
        "adapter": {
            "text_encoder": True,
            "targets": ["attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"],
            "rank": 8,
            "alpha": 16.0,
            "dropout": 0.1,
            "init": "gaussian",
        },
        "memory": {"dtype": "bf16"},
        "objective": {"guidance": 1.0, "timesteps": "uniform"},
        "optim": {
            "text_encoder_lr": 1e-05,
            "betas": [0.9, 0.99],
            "eps": 1e-06,
            "weight_decay": 0.01,
            "clip_norm": 0.5,
            "schedule": "polynomial",
            "power": 2.0,
            "end_lr": 1e-07,
            "warmup_steps": 10,
            "name": "adamw",
            "lr": 0.0001,
        },
        "train": {"batch_size": 1, "steps": 700, "accumulation": 1},
        "output": {"folder": "tux", "trackers": ["tensorboard"]},
    },
    "whole.sh": {
        "model": {"path": "/models/flux-dev", "text_tokens": 77},
        "data": [
            {
                "path": "/data/mural",
                "captions": "instance",
                "instance_prompt": "mural by kvx",
                "resolution": 1000.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "bucket_step": 16,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {"kind": "full", "precision": "fp32"},
        "memory": {"dtype": "bf16"},
        "objective": {"guidance": 1.0, "timesteps": "uniform", "weighting": "sigma_sqrt"},
        "optim": {"lr": 8e-06, "schedule": "constant", "warmup_steps": 500, "name": "adamw", "weight_decay": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 1, "accumulation": 8, "epochs": 3, "seed": 3},
        "sampling": {"prompts": ["a mural"], "width": 1024, "height": 1024, "seed": 3, "every": "1 epoch"},
        "output": {"folder": "/out/mural"},
    },
    "schnell.sh": {
        "model": {"path": "black-forest-labs/FLUX.1-schnell"},
        "data": [
            {
                "path": "toys",
                "captions": "instance",
                "instance_prompt": "toy",
                "resolution": 512.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": [
                "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
                "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
            ],
        },
        "objective": {"timesteps": "mode", "mode_scale": 1.0},
        "optim": {
            "name": "prodigy",
            "options": {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True},
            "clip_norm": "off",
            "weight_decay": 0.0001,
            "schedule": "constant",
        },
        "train": {"batch_size": 1, "epochs": 2, "accumulation": 1},
        "output": {"folder": "o"},
    },
    "edit-klein.sh": {
        "model": {"path": "black-forest-labs/FLUX.2-klein-base-9B"},
        "data": [
            {
                "hub": "acme/before-after",
                "image_column": "after",
                "conditioning_columns": ["before"],
                "caption_column": "text",
                "resolution": 512.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 4,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "objective": {"timesteps": "uniform", "weighting": "cosmap"},
        "optim": {"name": "adamw", "lr": 0.0001, "schedule": "linear", "warmup_steps": 500, "weight_decay": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 1, "steps": 2000, "seed": 1, "accumulation": 2},
        "sampling": {"prompts": ["make it snow", "make it snow"], "width": 1024, "height": 1024, "seed": 1, "every": "50 epochs"},
        "output": {"folder": "out-edit"},
    },
    "buckets.sh": {
        "model": {"path": "black-forest-labs/FLUX.2-dev"},
        "data": [
            {
                "path": "/srv/ink",
                "captions": "instance",
                "instance_prompt": "ink drawing",
                "buckets": [[1568, 672], [1024, 1024], [672, 1568]],
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 16,
            "alpha": 16.0,
            "init": "gaussian",
            "targets": ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"],
        },
        "memory": {"gradient_checkpointing": "all", "dtype": "bf16", "quantize": "int8"},
        "objective": {"timesteps": "uniform", "guidance": 3.5},
        "optim": {"lr": 0.0001, "name": "adamw", "weight_decay": 0.0001, "clip_norm": 1.0, "schedule": "constant"},
        "train": {"steps": 400, "batch_size": 1, "accumulation": 1},
        "output": {"folder": "/srv/out"},
    },
    "pivotal.cmd": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "hub": "acme/two-sisters",
                "hub_split": "v2/train",
                "caption_fallback": "photo of TOK",
                "caption_column": "prompt",
                "image_column": "file",
                "resolution": 1024.0,
                "aspect": "square",
                "upscale": True,
                "minimum_edge": 1,
                "repeats": 1,
                "crop": "random",
                "num_crops": 1,
            },
        ],
        "adapter": {
            "rank": 8,
            "alpha": 4.0,
            "init": "gaussian",
            "targets": [
                "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
                "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
            ],
        },
        "memory": {"dtype": "bf16", "gradient_checkpointing": "all"},
        "objective": {"timesteps": "uniform", "guidance": 3.5},
        "optim": {
            "lr": 1.0,
            "name": "prodigy",
            "options": {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True},
            "schedule": "constant",
            "weight_decay": 0.0001,
            "clip_norm": 1.0,
        },
        "train": {"batch_size": 1, "accumulation": 1, "steps": 700, "seed": 0},
        "output": {"folder": "sisters-lora", "save_every": 2000, "trackers": ["wandb"]},
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_of_each_file(name: str) -> None:
    imported = import_run(FOLDER / name)
    assert imported.tool == "diffusers"
    assert imported.tree == EXPECTED[name]
    assert imported.config.data[0].resolution == imported.tree["data"][0].get("resolution")


@pytest.mark.parametrize("name", EXPECTED)
def test_each_key_has_one_answer(name: str) -> None:
    imported = import_run(FOLDER / name)
    given = [(one.given.name, one.given.where) for one in imported.outcomes if not one.given.is_default]
    assert len(given) == len(set(given)) > 0
    assert all(one.line for one in imported.outcomes)
    assert imported.origins.keys() >= {f"data.0.{name}" for name in imported.tree["data"][0]}


@pytest.mark.parametrize("name", EXPECTED)
def test_written_as_toml_it_is_the_same_run(name: str, tmp_path: Path) -> None:
    imported = import_run(FOLDER / name)
    path = tmp_path / "run.toml"
    path.write_text(write_commented(imported), encoding="utf-8")
    assert load_config(path) == imported.config
