"""Jobs of ai-toolkit, imported: the settings that come out of each, written out in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run
from weber.config.load import load_config

FOLDER = Path(__file__).parent / "files" / "ai_toolkit"

WEIGHTED = [
    0.447, 0.582, 0.716, 0.729, 0.716, 0.715, 0.731, 0.762, 0.805, 0.86, 0.925,
    1.0, 1.083, 1.172, 1.264, 1.355, 1.441, 1.507, 1.507, 1.375, 0.906,
]  # fmt: skip
BELL = [
    0.0, 0.243, 0.48, 0.707, 0.918, 1.108, 1.271, 1.403, 1.5, 1.56, 1.58,
    1.56, 1.5, 1.403, 1.271, 1.108, 0.918, 0.707, 0.48, 0.243, 0.0,
]  # fmt: skip

EXPECTED: dict[str, dict[str, Any]] = {
    "dev.yaml": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "path": "/workspace/sets/mira",
                "captions": ["textfile", "instance"],
                "caption_per": "file",
                "instance_prompt": "m1ra",
                "caption_weights": [0.95, 0.05],
                "resolution": [512.0, 768.0, 1024.0],
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "caption_steps": [{"kind": "trigger", "text": "m1ra", "separator": " ", "ignore_case": False}],
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 16},
        "memory": {"gradient_checkpointing": "all", "dtype": "bf16", "quantize": "fp8", "quantize_text_encoder_2": "fp8"},
        "objective": {"timesteps": "sigmoid"},
        "optim": {"name": "adamw_8bit", "eps": 1e-06, "lr": 0.0001, "ema_decay": 0.99, "clip_norm": 1.0},
        "train": {"batch_size": 1, "steps": 2000},
        "sampling": {
            "weights": "ema",
            "every": 500,
            "width": 1024,
            "height": 1024,
            "prompts": ["m1ra reading at a window", "portrait of m1ra, 85mm"],
            "seed": 42,
            "guidance": 4.0,
            "steps": 20,
        },
        "output": {
            "name": "mira_portrait_v2",
            "folder": "/workspace/out/mira_portrait_v2",
            "precision": "fp16",
            "save_every": 500,
            "keep_last": 4,
        },
    },
    "klein-ui.json": {
        "model": {"path": "black-forest-labs/FLUX.2-klein-base-4B", "variant": "flux2-klein-base-4b"},
        "data": [
            {
                "path": "/app/ai-toolkit/datasets/tin_toys",
                "captions": ["textfile", "none"],
                "caption_per": "file",
                "caption_dropout": 0.05,
                "resolution": [512.0, 768.0, 1024.0],
                "bucket_step": 16,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "repeats": 1,
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 32},
        "memory": {"gradient_checkpointing": "all", "dtype": "bf16", "quantize": "fp8", "quantize_text_encoder": "fp8"},
        "objective": {
            "timesteps": "cubic",
            "cubic_weights": WEIGHTED,
            "loss": "l2",
        },
        "optim": {"name": "adamw_8bit", "eps": 1e-06, "weight_decay": 0.0001, "lr": 0.0001, "clip_norm": 1.0},
        "train": {"batch_size": 1, "steps": 3000},
        "sampling": {
            "every": 250,
            "width": 1024,
            "height": 1024,
            "prompts": ["a tin robot on a shelf", "a tin car, macro photo"],
            "seed": 42,
            "cfg": 4.0,
            "steps": 30,
        },
        "output": {
            "name": "tin_toys",
            "folder": "/app/ai-toolkit/output/tin_toys",
            "precision": "bf16",
            "save_every": 250,
            "keep_last": 4,
        },
    },
    "kontext.yaml": {
        "model": {"path": "black-forest-labs/FLUX.1-Kontext-dev", "variant": "flux1-kontext"},
        "data": [
            {
                "path": "D:\\pairs\\photo",
                "conditioning": ["D:\\pairs\\sketch"],
                "captions": ["textfile", "none"],
                "caption_per": "file",
                "caption_dropout": 0.05,
                "resolution": [512.0, 768.0],
                "bucket_step": 16,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 32},
        "memory": {"device": "cuda:1", "gradient_checkpointing": "all", "dtype": "bf16", "quantize": "fp8"},
        "objective": {
            "timesteps": "cubic",
            "cubic_weights": WEIGHTED,
        },
        "optim": {
            "name": "prodigy",
            "eps": 1e-06,
            "options": {"decouple": True, "use_bias_correction": True, "d_coef": 0.8},
            "weight_decay": 0.01,
            "lr": 1.0,
            "clip_norm": 1.0,
        },
        "train": {"batch_size": 1, "steps": 750, "accumulation": 4},
        "sampling": {
            "every": 62,
            "width": 1024,
            "height": 1024,
            "prompts": ["make it a photo", "make it a photo at night"],
            "conditioning": [["D:\\pairs\\sketch\\a.png"], ["D:\\pairs\\sketch\\b.png"]],
            "seeds": [7],
            "guidance": 4.0,
            "steps": 20,
        },
        "output": {
            "name": "sketch_to_photo",
            "folder": "output/sketch_to_photo",
            "precision": "bf16",
            "save_every": 62,
            "keep_last": 6,
        },
    },
    "schnell.yaml": {
        "model": {"path": "black-forest-labs/FLUX.1-schnell", "assistant": "ostris/FLUX.1-schnell-training-adapter"},
        "data": [
            {
                "path": "logos",
                "resolution": 512.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "repeats": 6,
                "mirror": True,
                "crop": "random",
                "num_crops": 3,
                "caption_steps": [{"kind": "drop", "rate": 0.1, "keep": 2}, {"kind": "shuffle"}],
                "captions": ["textfile", "none"],
                "caption_per": "file",
            },
        ],
        "adapter": {
            "kind": "lora",
            "rank": 4,
            "targets": ["single_transformer_blocks.7.proj_out*", "single_transformer_blocks.20.proj_out*"],
        },
        "objective": {
            "timesteps": "cubic",
            "cubic_weights": BELL,
        },
        "optim": {"name": "lion_8bit", "weight_decay": 0.0, "lr": 5e-05, "schedule": "cosine", "end_lr": 1e-06, "clip_norm": 0.5},
        "train": {"steps": 600},
        "output": {"folder": "output/fast logo: 1", "save_every": 100, "keep_last": "all", "precision": "fp16"},
    },
    "lokr-9b.yaml": {
        "model": {"path": "black-forest-labs/FLUX.2-klein-base-9B", "variant": "flux2-klein-base-9b"},
        "data": [
            {
                "path": "/sets/ink",
                "caption_fallback": "an ink drawing",
                "conditioning": ["/sets/ink_a", "/sets/ink_b"],
                "conditioning_type": "reference_loose",
                "reference_sizes": [1024.0, 1024.0],
                "resolution": 1024.0,
                "bucket_step": 16,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "captions": "textfile",
                "caption_per": "file",
                "caption_steps": [{"kind": "trigger", "text": "inkx", "separator": " ", "ignore_case": False}],
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lycoris", "lycoris": {"algo": "lokr", "factor": 8, "full_matrix": True}},
        "memory": {"dtype": "bf16", "quantize": "int4", "quantize_text_encoder": "int8", "swap_blocks": 16},
        "objective": {"timesteps": "uniform", "shift": "tokens", "loss": "l1"},
        "optim": {"name": "adamw", "eps": 1e-06, "lr": 0.0003, "clip_norm": 1.0},
        "train": {"steps": 1000, "accumulation": 2},
        "sampling": {
            "every": 200,
            "prompts": ["inkx, a fox", "inkx, a hill"],
            "conditioning": [["/sets/ink_a/1.png", "/sets/ink_b/1.png"], []],
            "negative_prompt": "photo",
            "cfg": 4.0,
            "steps": 30,
            "width": 512,
            "height": 512,
            "seeds": [0],
        },
        "output": {"name": "lokr_ink", "folder": "/out/lokr_ink", "precision": "fp32", "save_every": 200, "keep_last": 2},
    },
    "full.yaml": {
        "model": {"path": "/models/flux-dev"},
        "data": [
            {
                "path": "/sets/style",
                "captions": ["textfile", "none"],
                "caption_per": "file",
                "caption_dropout": 0.05,
                "resolution": [512.0, 768.0, 1024.0],
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
            },
        ],
        "adapter": {"kind": "full", "targets": ["transformer_blocks.*", "single_transformer_blocks.*"]},
        "memory": {"gradient_checkpointing": "all", "dtype": "bf16", "quantize_text_encoder_2": "fp8"},
        "objective": {"timesteps": "sigmoid"},
        "optim": {"name": "adafactor", "weight_decay": 0.0, "lr": 3e-05, "ema_decay": 0.99, "clip_norm": "off"},
        "train": {"batch_size": 1, "steps": 2000},
        "output": {"name": "full_style", "folder": "output/full_style", "save_every": 250, "keep_last": 2},
    },
    "reg.yaml": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "path": "/sets/dog/img",
                "name": "img-1",
                "resolution": 768.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "loss_weight": 2.0,
                "captions": ["textfile", "instance"],
                "caption_per": "file",
                "instance_prompt": "ohwx",
                "caption_steps": [{"kind": "trigger", "text": "ohwx", "separator": " ", "ignore_case": False}],
            },
            {
                "path": "/sets/reg/img",
                "name": "img-2",
                "resolution": 768.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "share": 2.0,
                "loss_weight": 0.5,
                "captions": ["textfile", "none"],
                "caption_per": "file",
                "caption_endings": [".caption"],
            },
            {
                "path": "/sets/keep",
                "resolution": 768.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "regularization": True,
                "loss_masks": "/sets/keep_masks",
                "captions": ["textfile", "instance"],
                "caption_per": "file",
                "instance_prompt": "ohwx",
                "caption_steps": [{"kind": "trigger", "text": "ohwx", "separator": " ", "ignore_case": False}],
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 16},
        "memory": {"dtype": "bf16", "quantize": "int8"},
        "objective": {"timesteps": "beta", "beta_shape": [1.0, 0.3333], "mask_minimum": 0.2},
        "optim": {"lr": 0.0001, "name": "adamw_8bit", "eps": 1e-06, "clip_norm": 1.0},
        "train": {"steps": 1500, "balance": "sets"},
        "output": {"name": "dog_with_reg", "folder": "out/dog_with_reg", "precision": "fp16"},
    },
    "flux2.yaml": {
        "model": {"path": "black-forest-labs/FLUX.2-dev", "variant": "flux2-dev"},
        "data": [
            {
                "path": "/sets/zork",
                "captions": "instance",
                "instance_prompt": "zork",
                "resolution": 1024.0,
                "aspect": "square",
                "upscale": True,
                "bucket_step": 16,
                "geometry": "ai-toolkit",
                "minimum_edge": 1,
            },
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 64},
        "memory": {"dtype": "bf16", "quantize": "int8", "quantize_text_encoder": "int8"},
        "objective": {"guidance": 1.0, "timesteps": "sigmoid"},
        "optim": {"lr": 0.0002, "schedule": "constant", "warmup_steps": 200, "clip_norm": 1.0},
        "train": {"steps": 4000},
        "output": {"name": "f2", "folder": "out/f2", "precision": "fp16"},
    },
    "row.json": {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [
            {
                "path": "/d",
                "resolution": 512.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "captions": ["textfile", "none"],
                "caption_per": "file",
            }
        ],
        "adapter": {"targets": "ai-toolkit", "kind": "lora", "rank": 8},
        "memory": {"dtype": "bf16"},
        "objective": {"timesteps": "sigmoid"},
        "optim": {"lr": 0.0001, "name": "adamw", "eps": 1e-06, "clip_norm": 1.0},
        "train": {"steps": 10},
        "output": {"name": "row", "folder": "o/row", "precision": "fp16"},
    },
    "empty.yaml": {
        "model": {"path": "/models/dev", "adapters": [{"path": "/models/base.safetensors"}]},
        "data": [
            {
                "path": "/a/pics",
                "name": "pics-1",
                "alpha_mask": True,
                "resolution": 512.0,
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "captions": ["textfile", "none"],
                "caption_per": "file",
            },
            {
                "path": "/b/pics",
                "name": "pics-2",
                "resolution": [256.0, 512.0],
                "bucket_step": 32,
                "geometry": "ai-toolkit",
                "upscale": True,
                "minimum_edge": 1,
                "max_aspect": 16.0,
                "captions": ["textfile", "none"],
                "caption_per": "file",
            },
        ],
        "adapter": {"kind": "full"},
        "memory": {"dtype": "fp32"},
        "objective": {"timesteps": "list", "timestep_list": [1.0, 0.501]},
        "optim": {"lr": 1e-06, "name": "adamw", "eps": 1e-06, "clip_norm": 1.0},
        "train": {"steps": 1000},
        "output": {"name": "bare", "folder": "output/bare"},
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_of_each_file(name: str) -> None:
    imported = import_run(FOLDER / name)
    assert imported.tool == "ai-toolkit"
    assert imported.tree == EXPECTED[name]
    assert len(imported.config.data) == len(EXPECTED[name]["data"])


@pytest.mark.parametrize("name", EXPECTED)
def test_each_key_has_one_answer(name: str) -> None:
    imported = import_run(FOLDER / name)
    given = [one.given.spelled for one in imported.outcomes if not one.given.is_default]
    assert len(given) == len(set(given)) > 0
    assert all(one.line for one in imported.outcomes)


@pytest.mark.parametrize("name", EXPECTED)
def test_written_as_toml_it_is_the_same_run(name: str, tmp_path: Path) -> None:
    imported = import_run(FOLDER / name)
    path = tmp_path / "run.toml"
    path.write_text(write_commented(imported), encoding="utf-8")
    assert load_config(path) == imported.config
