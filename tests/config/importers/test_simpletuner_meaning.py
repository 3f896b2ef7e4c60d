"""What options of SimpleTuner mean, computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported

BASE = {
    "model_family": "flux",
    "model_type": "lora",
    "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "learning_rate": "1e-4",
    "max_train_steps": 100,
    "num_train_epochs": 0,
}
SET = {"id": "cats", "type": "local", "instance_data_dir": "cats", "caption_strategy": "textfile"}


def run(folder: Path, config: dict[str, Any] | None = None, *sets: dict[str, Any], **options: Any) -> Imported:
    (folder / "multidatabackend.json").write_text(json.dumps(list(sets) or [SET]))
    path = folder / "config.json"
    path.write_text(json.dumps(BASE | (config or {}) | options))
    return import_run(path)


def outcome(imported: Imported, name: str) -> tuple[str, str]:
    found = [one for one in imported.outcomes if one.given.name == name and not one.given.is_default]
    assert len(found) == 1
    return found[0].kind, found[0].line


@pytest.mark.parametrize(("there", "here"), [(0, None), (1, 2), (9, 10), ("1000", 1001), ("", None), (None, None)])
def test_repeats_are_further_passes(tmp_path: Path, there: Any, here: int | None) -> None:
    assert run(tmp_path, None, SET | {"repeats": there}).tree["data"][0].get("repeats") == here


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({"max_train_steps": "3000"}, {"steps": 3000}),
        ({"max_train_steps": 0, "num_train_epochs": "7"}, {"epochs": 7}),
        ({"max_train_steps": "", "num_train_epochs": 2}, {"epochs": 2}),
        ({"max_train_steps": None, "num_train_epochs": None}, {"epochs": 1}),
        ({"max_train_steps": 50, "num_train_epochs": 3}, {"steps": 50}),
    ],
)
def test_length(tmp_path: Path, options: dict[str, Any], train: dict[str, int]) -> None:
    assert run(tmp_path, options, train_batch_size=1).tree["train"] == {"batch_size": 1, **train}


@pytest.mark.parametrize(
    ("options", "optim"),
    [
        ({"lr_scheduler": "constant", "lr_warmup_steps": "100"}, {"schedule": "constant", "warmup_steps": 100}),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 10}, {"schedule": "linear", "warmup_steps": 10}),
        (
            {"lr_scheduler": "polynomial", "lr_warmup_steps": 10},
            {"schedule": "polynomial", "warmup_steps": 10, "power": 0.8, "end_lr": 4e-7},
        ),
        ({"lr_scheduler": "polynomial", "lr_power": 1, "lr_end": "1e-8"}, {"schedule": "polynomial", "power": 1.0, "end_lr": 1e-8}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 50}, {"schedule": "cosine", "end_lr": 4e-7}),
        ({"lr_scheduler": "cosine_with_restarts", "lr_warmup_steps": 50}, {"schedule": "constant"}),
        ({}, {"schedule": "constant"}),
    ],
)
def test_schedules(tmp_path: Path, options: dict[str, Any], optim: dict[str, Any]) -> None:
    imported = run(tmp_path, options)
    rest = {"lr": 1e-4, "name": "adamw_bf16", "eps": 1e-6, "clip_norm": "off"}
    assert imported.tree["optim"] == rest | optim


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, {}),
        ({"validation_resolution": "1024, 1280x768,1024"}, {"sizes": ["1024x1024", "1280x768"]}),
        ({"validation_guidance_real": 4.0}, {"cfg": 4.0, "no_cfg_until": 2}),
        ({"validation_guidance_real": 4.0, "validation_no_cfg_until_timestep": "5"}, {"cfg": 4.0, "no_cfg_until": 5}),
        ({"validation_guidance_real": 4.0, "validation_no_cfg_until_timestep": 20}, {"cfg": 4.0}),
        ({"validation_seed": 7, "num_validation_images": 3}, {"seeds": [7, 8, 9]}),
        ({"disable_benchmark": True}, {"at_start": False}),
        ({"disable_benchmark": True, "validation_on_startup": True}, {}),
        ({"validation_lycoris_strength": 1.3, "lora_type": "lycoris"}, {"strengths": [1.3]}),
        ({"validation_lycoris_strength": 1.3}, {}),
    ],
)
def test_pictures_on_the_way(tmp_path: Path, options: dict[str, Any], sampling: dict[str, Any]) -> None:
    (tmp_path / "lycoris.json").write_text('{"algo": "lokr", "multiplier": 1.0, "linear_dim": 4, "linear_alpha": 1, "factor": 4}')
    basis = {"validation_prompt": "a cat", "validation_num_inference_steps": 20, "lycoris_config": str(tmp_path / "lycoris.json")}
    plain = run(tmp_path, basis).tree["sampling"]
    found = run(tmp_path, basis | options).tree["sampling"]
    expected = plain | {"negative_prompt": "blurry, cropped, ugly"} | sampling if "cfg" in sampling else plain | sampling
    for name in ("width", "height") if "sizes" in sampling else ("seed",) if "seeds" in sampling else ():
        expected.pop(name, None)
    assert found == expected


def test_cosine_says_what_it_really_was(tmp_path: Path) -> None:
    imported = run(tmp_path, lr_scheduler="cosine", lr_warmup_steps=50)
    assert "goes down in 50 steps" in outcome(imported, "lr_scheduler")[1]
    assert outcome(imported, "lr_warmup_steps")[0] == "no effect"
    assert any("wave" in line and "50 steps" in line for line in imported.faults)
    same = run(tmp_path, lr_scheduler="cosine", lr_warmup_steps=100, max_train_steps=100)
    assert outcome(same, "lr_scheduler")[1] == 'optim.schedule = "cosine"'


@pytest.mark.parametrize(
    ("options", "clip"),
    [
        ({}, "off"),
        ({"max_grad_norm": "1.0"}, "off"),
        ({"max_grad_norm": "1.0", "grad_clip_method": "norm"}, 1.0),
        ({"max_grad_norm": 0, "grad_clip_method": "norm"}, "off"),
        ({"max_grad_norm": 1, "grad_clip_method": "norm", "optimizer": "prodigy", "learning_rate": 1}, None),
    ],
)
def test_clipping(tmp_path: Path, options: dict[str, Any], clip: Any) -> None:
    assert run(tmp_path, options).tree["optim"].get("clip_norm") == clip


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"learning_rate": "1e-4"}, 1e-4),
        ({"learning_rate": ""}, 4e-7),
        ({"lr_scale": True, "train_batch_size": 4, "gradient_accumulation_steps": 4}, 16e-4),
        ({"lr_scale": True, "lr_scale_sqrt": "true", "train_batch_size": 4, "gradient_accumulation_steps": 4}, 4e-4),
    ],
)
def test_rates(tmp_path: Path, options: dict[str, Any], rate: float) -> None:
    assert run(tmp_path, options).tree["optim"]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("options", "optim"),
    [
        ({"optimizer": "optimi-adamw"}, {"name": "optimi_adamw", "weight_decay": 0.0}),
        ({"optimizer": "bnb-adamw8bit"}, {"name": "bnb_adamw_8bit", "eps": 1e-6}),
        (
            {"optimizer": "adamw_bf16", "optimizer_config": "weight_decay=0.05,eps=1e-8"},
            {"name": "adamw_bf16", "weight_decay": 0.05, "eps": 1e-8},
        ),
        (
            {"optimizer": "adamw_bf16", "optimizer_beta1": "0.8", "optimizer_beta2": 0.95},
            {"name": "adamw_bf16", "eps": 1e-6, "betas": [0.8, 0.95]},
        ),
        (
            {"optimizer": "prodigy", "learning_rate": 1.0, "optimizer_config": "d_coef=2"},
            {"name": "prodigy", "betas": [0.9, 0.99], "weight_decay": 0.0, "options": {"d_coef": 2}},
        ),
    ],
)
def test_optimizers(tmp_path: Path, options: dict[str, Any], optim: dict[str, Any]) -> None:
    tree = run(tmp_path, options).tree["optim"]
    assert {name: value for name, value in tree.items() if name not in ("lr", "schedule", "clip_norm")} == optim


def test_optimizer_that_cannot_be_had(tmp_path: Path) -> None:
    imported = run(tmp_path, optimizer="sdnq-adamw")
    assert outcome(imported, "optimizer")[0] == "refused"
    assert "adamw_8bit" in outcome(imported, "optimizer")[1]
    assert "name" not in imported.tree["optim"]


@pytest.mark.parametrize(
    ("options", "objective"),
    [
        ({}, {"timesteps": "sigmoid", "shift": 3.0}),
        ({"flow_schedule_shift": 0}, {"timesteps": "sigmoid"}),
        ({"flow_schedule_shift": "1.0"}, {"timesteps": "sigmoid"}),
        ({"flow_use_uniform_schedule": "true", "flow_schedule_shift": 2}, {"timesteps": "uniform", "shift": 2.0}),
        ({"flow_cubic_schedule_weights": "0.5, 1, 0.5"}, {"timesteps": "cubic", "cubic_weights": [0.5, 1.0, 0.5], "shift": 3.0}),
        ({"flow_custom_timesteps": "1000,750,250"}, {"timesteps": "list", "timestep_list": [1.0, 0.75, 0.25]}),
        (
            {"flow_custom_timesteps": "[0.5, 1.0]", "flow_timesteps_mode": "round-robin"},
            {"timesteps": "list", "timestep_list": [0.5, 1.0], "timestep_order": "cycle"},
        ),
        ({"flux_fast_schedule": True}, {"timesteps": "fast"}),
        ({"flux_guidance_value": 3.5}, {"timesteps": "sigmoid", "shift": 3.0, "guidance": 3.5}),
        ({"flux_guidance_value": 1.0}, {"timesteps": "sigmoid", "shift": 3.0}),
        ({"flux_guidance_mode": "random-range"}, {"timesteps": "sigmoid", "shift": 3.0, "guidance_range": [0.0, 4.0]}),
        ({"flux_attention_masked_training": True}, {"timesteps": "sigmoid", "shift": 3.0, "text_mask": True}),
        ({"loss_type": "smooth_l1", "huber_schedule": "exponential"}, {
            "timesteps": "sigmoid", "shift": 3.0, "loss": "smooth_l1", "huber_schedule": "exponential",
        }),
        (
            {"scheduled_sampling_max_step_offset": 2, "scheduled_sampling_probability": 0.3, "scheduled_sampling_strategy": "biased_early"},
            {"timesteps": "sigmoid", "shift": 3.0, "rollout": {"max_steps": 2, "probability": 0.3, "strategy": "early"}},
        ),
    ],
)
def test_noise_levels_and_guidance(tmp_path: Path, options: dict[str, Any], objective: dict[str, Any]) -> None:
    assert run(tmp_path, options).tree["objective"] == objective


def test_guidance_without_an_input_for_it(tmp_path: Path) -> None:
    imported = run(tmp_path, {"model_flavour": "schnell", "pretrained_model_name_or_path": ""}, flux_guidance_value=3.5)
    assert outcome(imported, "flux_guidance_value") == ("no effect", "the model has no guidance input")


@pytest.mark.parametrize(
    ("keys", "data"),
    [
        ({"resolution": 768}, {"resolution": 768.0, "aspect": "bucket", "max_aspect": 16.0, "crop": "random", "num_crops": 1}),
        (
            {"resolution": 1.0, "resolution_type": "area", "crop": True, "crop_style": "center"},
            {"resolution": 1.0, "resolution_type": "megapixels", "aspect": "square", "crop": "center"},
        ),
        (
            {"resolution": 512, "resolution_type": "pixel", "crop": True, "crop_aspect": "preserve", "crop_style": "random",
             "vae_cache_clear_each_epoch": True},
            {"resolution": 512.0, "resolution_type": "shorter_edge", "aspect": "bucket", "max_aspect": 16.0, "crop": "random"},
        ),
        (
            {"resolution": 1024, "crop": True, "crop_style": "center", "maximum_image_size": 1536, "target_downsample_size": 1280},
            {"resolution": 1024.0, "aspect": "square", "crop": "center", "downsample_to": 1280.0},
        ),
        (
            {"resolution": 1024, "crop": False, "crop_style": "center", "maximum_image_size": 1536, "target_downsample_size": 1280},
            {"resolution": 1024.0, "aspect": "bucket", "max_aspect": 16.0, "crop": "center"},
        ),
        (
            {"resolution": 0.5, "resolution_type": "area", "minimum_image_size": 0.25, "crop": True, "crop_style": "corner"},
            {
                "resolution": 0.5,
                "resolution_type": "megapixels",
                "minimum_megapixels": 0.25e6 / 2**20,
                "aspect": "square",
                "crop": "corner",
            },
        ),
    ],
)
def test_sizes_and_windows(tmp_path: Path, keys: dict[str, Any], data: dict[str, Any]) -> None:
    tree = run(tmp_path, None, SET | keys, caption_dropout_probability=0).tree["data"][0]
    own = ("name", "path", "captions", "geometry", "upscale", "minimum_edge")
    assert {name: value for name, value in tree.items() if name not in own} == data
    assert tree["geometry"] == "simpletuner"


def test_sizes_of_the_run_hold_for_sets_without_any(tmp_path: Path) -> None:
    imported = run(tmp_path, None, SET, SET | {"id": "dogs", "instance_data_dir": "dogs", "resolution": 768}, resolution=512)
    assert [one["resolution"] for one in imported.tree["data"]] == [512.0, 768.0]


def test_several_filters_and_texts_of_their_own(tmp_path: Path) -> None:
    texts = [
        {"id": "usual", "dataset_type": "text_embeds", "default": True, "cache_dir": "c"},
        {"id": "other", "dataset_type": "text_embeds", "cache_dir": "d", "caption_filter_list": "filters.txt"},
    ]
    (tmp_path / "filters.txt").write_text("bad words\n\nphoto\\d+\n")
    imported = run(tmp_path, None, SET, SET | {"id": "dogs", "instance_data_dir": "dogs", "text_embeds": "other"}, *texts)
    assert "caption_steps" not in imported.tree["data"][0]
    assert imported.tree["data"][1]["caption_steps"] == [{"kind": "replace", "find": "bad words"}, {"kind": "regex", "find": "photo\\d+"}]


def test_sets_of_other_kinds_are_refused(tmp_path: Path) -> None:
    others = [{"id": kind, "dataset_type": kind} for kind in ("eval", "caption", "grounding", "distillation_cache")]
    imported = run(tmp_path, None, SET, *others)
    assert [one.given.value for one in imported.outcomes if one.kind == "refused"] == [one["dataset_type"] for one in others]


def test_placeholders(tmp_path: Path) -> None:
    imported = run(tmp_path, None, SET | {"instance_data_dir": "{output_dir}/{model_family}/{id}"}, output_dir="/runs")
    assert imported.tree["data"][0]["path"] == "/runs/flux/cats"


def test_alpha_and_lycoris(tmp_path: Path) -> None:
    imported = run(tmp_path, lora_rank=16, lora_alpha="8")
    assert imported.tree["adapter"] == {"kind": "lora", "rank": 16, "alpha": 8.0, "dropout": 0.1, "targets": "all"}
    assert any("8 / 16 = 0.5" in line for line in imported.faults)


def test_weber_defaults(tmp_path: Path) -> None:
    (tmp_path / "multidatabackend.json").write_text(json.dumps([SET]))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BASE))
    imported = import_run(path, weber_defaults=True)
    assert {name: value for name, value in imported.tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "adapter": {"kind": "lora"},
        "optim": {"lr": 1e-4},
        "train": {"steps": 100},
    }
    assert not any(one.given.is_default for one in imported.outcomes)
