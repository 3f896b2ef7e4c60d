"""Every block of settings that three guides to SimpleTuner print, as a run: the settings are written out in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported

PSEUDO_CAMERA: dict[str, Any] = {
    "id": "pseudo-camera-10k-flux",
    "type": "local",
    "crop": True,
    "crop_aspect": "square",
    "crop_style": "center",
    "resolution": 512,
    "minimum_image_size": 512,
    "maximum_image_size": 512,
    "target_downsample_size": 512,
    "resolution_type": "pixel_area",
    "cache_dir_vae": "cache/vae/flux/pseudo-camera-10k",
    "instance_data_dir": "datasets/pseudo-camera-10k",
    "disabled": False,
    "skip_file_discovery": "",
    "caption_strategy": "filename",
}
SUBJECT: dict[str, Any] = {
    "id": "dreambooth-subject",
    "type": "local",
    "crop": False,
    "resolution": 1024,
    "minimum_image_size": 1024,
    "maximum_image_size": 1024,
    "target_downsample_size": 1024,
    "resolution_type": "pixel_area",
    "cache_dir_vae": "cache/vae/flux/dreambooth-subject",
    "instance_data_dir": "datasets/dreambooth-subject",
    "caption_strategy": "instanceprompt",
    "instance_prompt": "the name of your subject goes here",
}
TEXTS = {
    "id": "text-embeds",
    "type": "local",
    "dataset_type": "text_embeds",
    "default": True,
    "cache_dir": "cache/text/flux/pseudo-camera-10k",
    "disabled": False,
    "write_batch_size": 128,
}
SETS_2024 = [PSEUDO_CAMERA | {"ignore_epochs": True, "metadata_backend": "json"}, SUBJECT | {"metadata_backend": "json"}, TEXTS]
SETS_NOW = [
    PSEUDO_CAMERA | {"metadata_backend": "discovery", "repeats": 0, "is_regularisation_data": True},
    SUBJECT | {"metadata_backend": "discovery", "repeats": 1000},
    SUBJECT
    | {
        "id": "dreambooth-subject-512",
        "resolution": 512,
        "minimum_image_size": 512,
        "maximum_image_size": 512,
        "target_downsample_size": 512,
        "cache_dir_vae": "cache/vae/flux/dreambooth-subject-512",
        "metadata_backend": "discovery",
        "repeats": 1000,
    },
    TEXTS | {"cache_dir": "cache/text/flux"},
]

SQUARES = {
    "name": "pseudo-camera-10k-flux",
    "aspect": "square",
    "crop": "center",
    "resolution": 512.0,
    "minimum_megapixels": 0.25,
    "path": "datasets/pseudo-camera-10k",
    "captions": "filename",
    "geometry": "simpletuner",
    "upscale": True,
    "minimum_edge": 1,
    "caption_dropout": 0.1,
}
OWN_SHAPES = {
    "name": "dreambooth-subject",
    "aspect": "bucket",
    "max_aspect": 16.0,
    "resolution": 1024.0,
    "minimum_megapixels": 1.0,
    "path": "datasets/dreambooth-subject",
    "captions": "instance",
    "instance_prompt": "the name of your subject goes here",
    "crop": "random",
    "num_crops": 1,
    "geometry": "simpletuner",
    "upscale": True,
    "minimum_edge": 1,
    "caption_dropout": 0.1,
}
OBJECTIVE = {"timesteps": "sigmoid", "shift": 3.0}
BASE = {"model_family": "flux", "model_type": "lora", "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev"}
LIBRARY = {
    "anime_<token>": "a breathtaking anime-style portrait of <token>, capturing her essence with vibrant colors and expressive features",
    "chef_<token>": "a high-quality, detailed photograph of <token> as a sous-chef, immersed in the art of culinary creation",
    "woman": "a beautifully crafted portrait of a woman, highlighting her natural beauty and unique features",
}


def run(folder: Path, config: dict[str, Any] | str, sets: Any = None, **files: Any) -> Imported:
    """Imports a config.json, or a config.env where it is a text, beside its other files."""
    (folder / "multidatabackend.json").write_text(json.dumps(SETS_NOW if sets is None else sets))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    if isinstance(config, str):
        path = folder / "config.env"
        path.write_text(config)
    else:
        path = folder / "config.json"
        path.write_text(json.dumps(config))
    return import_run(path)


def test_sets_of_2024(tmp_path: Path) -> None:
    imported = run(tmp_path, BASE | {"max_train_steps": 100, "num_train_epochs": 0}, SETS_2024)
    assert imported.tree["data"] == [SQUARES, OWN_SHAPES]


def test_sets_now(tmp_path: Path) -> None:
    imported = run(tmp_path, BASE | {"max_train_steps": 100, "num_train_epochs": 0})
    small = {"name": "dreambooth-subject-512", "resolution": 512.0, "minimum_megapixels": 0.25, "repeats": 1001}
    assert imported.tree["data"] == [SQUARES | {"regularization": True}, OWN_SHAPES | {"repeats": 1001}, OWN_SHAPES | small]
    assert imported.config.data[0].regularization


def test_list_of_sets_alone(tmp_path: Path) -> None:
    path = tmp_path / "multidatabackend.json"
    path.write_text(json.dumps(SETS_2024))
    imported = import_run(path)
    assert [one["name"] for one in imported.tree["data"]] == ["pseudo-camera-10k-flux", "dreambooth-subject"]
    assert set(imported.tree) == {"data"}


def test_simple_guide(tmp_path: Path) -> None:
    """The config.json that the guide to vast.ai goes through, line by line."""
    config = {
        "--resolution": 1024,
        "--resolution_type": "pixel_area",
        "--hub_model_id": "flux-lora-training",
        "--tracker_project_name": "flux-lora-training",
        "--tracker_run_name": "flux-lora-training",
        "--checkpointing_steps": 200,
        "--validation_steps": 100,
        "--learning_rate": "1e-4",
        "--validation_prompt": "A happy pizza.",
        "--train_batch_size": 4,
        "--base_model_precision": "fp8-quanto",
        "--model_family": "flux",
        "--model_type": "lora",
        "--lora_type": "standard",
        "--lora_rank": 16,
        "--flux_lora_target": "all+ffs",
        "--max_train_steps": 5000,
        "--num_train_epochs": 0,
        "--pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    }
    imported = run(tmp_path, config, SETS_2024)
    assert {name: value for name, value in imported.tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "adapter": {"kind": "lora", "rank": 16, "targets": "all+ffs", "dropout": 0.1},
        "memory": {"quantize": "fp8"},
        "objective": OBJECTIVE,
        "optim": {"lr": 1e-4, "name": "adamw_bf16", "eps": 1e-6, "schedule": "constant", "clip_norm": "off"},
        "train": {"batch_size": 4, "steps": 5000},
        "sampling": {"every": 100, "prompts": ["A happy pizza."], "steps": 30, "guidance": 7.5, "width": 256, "height": 256},
        "output": {"save_every": 200, "folder": "simpletuner-results", "keep_last": 5},
    }


@pytest.mark.parametrize(
    ("line", "targets"),
    [
        ("mmdit", ["to_k", "to_q", "to_v", "to_out.0"]),
        ("context", "context"),
        ("all", "all"),
    ],
)
def test_targets_of_the_simple_guide(tmp_path: Path, line: str, targets: Any) -> None:
    imported = run(tmp_path, BASE | {"flux_lora_target": line, "lora_rank": 4})
    assert imported.tree["adapter"]["targets"] == targets
    assert imported.tree["adapter"]["rank"] == 4


def test_lokr_of_the_simple_guide(tmp_path: Path) -> None:
    lycoris = {
        "algo": "lokr",
        "multiplier": 1.0,
        "linear_dim": 10000,
        "linear_alpha": 1,
        "factor": 16,
        "apply_preset": {
            "target_module": ["Attention", "FeedForward"],
            "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}},
        },
    }
    config = BASE | {"lora_type": "lycoris", "learning_rate": "8e-4", "lycoris_config": "config/lycoris_config.json", "lora_rank": 16}
    imported = run(tmp_path, config, lycoris_config=lycoris)
    del lycoris["multiplier"]
    assert imported.tree["adapter"] == {"kind": "lycoris", "lycoris": lycoris}
    assert imported.tree["optim"]["lr"] == 8e-4
    assert str(tmp_path / "lycoris_config.json") in imported.files


ENV = """
MODEL_TYPE=lora
FLUX=true
MODEL_NAME=black-forest-labs/FLUX.1-dev
OUTPUT_DIR=output/models
DATALOADER_CONFIG=config/multidatabackend.json
NUM_EPOCHS=0
MAX_NUM_STEPS=1000
"""


def test_variables_of_2024(tmp_path: Path) -> None:
    """What the guide says of the variables of config.env."""
    text = ENV + (
        'TRAIN_BATCH_SIZE=1\nVALIDATION_RESOLUTION="1024x1024,1280x768,2048x2048"\nVALIDATION_GUIDANCE=3.0\nVALIDATION_GUIDANCE_REAL=1.0\n'
        "VALIDATION_NUM_INFERENCE_STEPS=20\nVALIDATION_NO_CFG_UNTIL_TIMESTEP=2\nGRADIENT_ACCUMULATION_STEPS=1\nOPTIMIZER=adamw_bf16\n"
        "MIXED_PRECISION=bf16\nPURE_BF16=true\nVALIDATION_PROMPT='a photo of sks'\n"
        'export TRAINER_EXTRA_ARGS="--lora_rank=4"\n'
        'export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --user_prompt_library=config/user_prompt_library.json"\n'
    )
    imported = run(tmp_path, text, SETS_2024, user_prompt_library=LIBRARY)
    assert imported.tree["sampling"] == {
        "guidance": 3.0,
        "steps": 20,
        "sizes": ["1024x1024", "1280x768", "2048x2048"],
        "prompts": ["a photo of sks", *LIBRARY.values()],
        "every": 100,
    }
    assert imported.tree["adapter"] == {"kind": "lora", "rank": 4, "dropout": 0.1, "targets": "all"}
    assert imported.tree["train"] == {"steps": 1000, "batch_size": 1, "accumulation": 1}
    assert imported.tree["output"]["folder"] == "output/models"


QUANTISED = """
export TRAINER_EXTRA_ARGS="--base_model_precision=int8-quanto"

# text encoders
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --text_encoder_1_precision=no_change --text_encoder_2_precision=no_change"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --lora_rank=16"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --max_grad_norm=1.0"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --base_model_default_dtype=bf16"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --flux_lora_target=all"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --lora_init_type=loftq"
export OPTIMIZER="adamw_bf16"
#export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --base_model_default_dtype=fp32"
#export OPTIMIZER="optimi-ranger" # or maybe optimi-lion
"""


def test_quantised_block_of_2024(tmp_path: Path) -> None:
    imported = run(tmp_path, ENV + QUANTISED, SETS_2024)
    assert {name: value for name, value in imported.tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "adapter": {"kind": "lora", "rank": 16, "targets": "all", "dropout": 0.1},
        "memory": {"quantize": "int8"},
        "objective": OBJECTIVE,
        "optim": {"name": "adamw_bf16", "eps": 1e-6, "lr": 4e-7, "schedule": "constant", "clip_norm": "off"},
        "train": {"steps": 1000, "batch_size": 4},
        "output": {"folder": "output/models", "save_every": 500, "keep_last": 5},
    }
    lines = {one.given.spelled: one for one in imported.outcomes}
    assert lines["--lora_init_type"].kind == "no effect"
    assert "starts as by default" in lines["--lora_init_type"].line
    assert any("LoftQ is dropped" in line for line in imported.faults)


X_FLUX = """
TRAIN_BATCH_SIZE=1
GRADIENT_ACCUMULATION_STEPS=2
LEARNING_RATE=1e-5
LR_SCHEDULER="constant"
LR_WARMUP_STEPS=10
CHECKPOINTING_STEPS=2500
OPTIMIZER="optimi-adamw" # the only one with DeepSpeed
MIXED_PRECISION="bf16"
PURE_BF16=false
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --i_know_what_i_am_doing"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --lora_rank=16"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --max_grad_norm=1.0 --gradient_precision=fp32"
export TRAINER_EXTRA_ARGS="${TRAINER_EXTRA_ARGS} --base_model_default_dtype=bf16 --lora_init_type=default --flux_lora_target=mmdit"
"""


def test_x_flux_block_of_2024(tmp_path: Path) -> None:
    imported = run(tmp_path, ENV + X_FLUX, SETS_2024)
    assert {name: value for name, value in imported.tree.items() if name != "data"} == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "adapter": {"kind": "lora", "rank": 16, "targets": ["to_k", "to_q", "to_v", "to_out.0"], "dropout": 0.1},
        "objective": OBJECTIVE,
        "optim": {
            "lr": 1e-5,
            "warmup_steps": 10,
            "name": "optimi_adamw",
            "weight_decay": 0.0,
            "schedule": "constant",
            "clip_norm": "off",
        },
        "train": {"steps": 1000, "batch_size": 1, "accumulation": 2},
        "output": {"folder": "output/models", "save_every": 2500, "keep_last": 5},
    }
    lines = {one.given.spelled: one.line for one in imported.outcomes}
    assert "LR_SCHEDULE" in lines["LR_SCHEDULER"]


def test_libraries(tmp_path: Path) -> None:
    library = {"nickname": "the prompt goes here", "another_nickname": {"prompt": "another prompt goes here", "adapter_strength": 0.8}}
    config = BASE | {"--user_prompt_library": "config/user_prompt_library.json"}
    imported = run(tmp_path, config, user_prompt_library=library)
    assert imported.tree["sampling"]["prompts"] == ["the prompt goes here", "another prompt goes here"]


def test_fragments_of_the_guide_now(tmp_path: Path) -> None:
    """Its short blocks together, and the flags that it has for less memory."""
    config = BASE | {
        "validation_preview": True,
        "validation_preview_steps": 1,
        "base_model_precision": "int8-quanto",
        "text_encoder_1_precision": "no_change",
        "text_encoder_2_precision": "no_change",
        "lora_rank": 16,
        "max_grad_norm": 1.0,
        "base_model_default_dtype": "bf16",
        "--flux_lora_target": "all",
        "--lora_init_type": "loftq",
        "tread_config": {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]},
        "enable_group_offload": True,
        "group_offload_type": "block_level",
        "group_offload_blocks_per_group": 1,
        "group_offload_use_stream": True,
    }
    imported = run(tmp_path, config)
    assert imported.tree["objective"] == {"tread": [{"ratio": 0.5, "first": 2, "last": -2}], **OBJECTIVE}
    assert imported.tree["memory"] == {"quantize": "int8", "swap_blocks": "all"}
    assert imported.tree["adapter"] == {"kind": "lora", "rank": 16, "targets": "all", "dropout": 0.1}


def test_group_offload_flags_with_a_remark_between(tmp_path: Path) -> None:
    text = ENV + (
        'TRAINER_EXTRA_ARGS="--enable_group_offload \\\n --group_offload_type block_level \\\n --group_offload_blocks_per_group 1 \\\n'
        ' --group_offload_use_stream --group_offload_to_disk_path /fast-ssd/simpletuner-offload"\n'
    )
    imported = run(tmp_path, text)
    assert imported.tree["memory"] == {"swap_blocks": "all", "swap_to": "disk"}


def test_smallest_memory_of_the_guide_now(tmp_path: Path) -> None:
    config = BASE | {
        "base_model_precision": "nf4-bnb",
        "optimizer": "bnb-lion8bit-paged",
        "quantize_via": "cpu",
        "attention_mechanism": "sageattention",
        "gradient_checkpointing": True,
        "vae_enable_tiling": "true",
        "offload_during_startup": "true",
        "max_grad_norm": 0.01,
        "train_batch_size": 1,
    }
    imported = run(tmp_path, config)
    assert imported.tree["memory"] == {"quantize": "nf4", "quantize_on": "cpu", "vae_tiling": True}
    assert imported.tree["optim"]["name"] == "bnb_paged_lion_8bit"
    assert {one.given.name for one in imported.outcomes if one.kind == "refused"} == {"max_grad_norm"}


DEV_2_PRO = """{
    "model_family": "flux",
    "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "pretrained_transformer_model_name_or_path": "ashen0209/Flux-Dev2Pro",
    "pretrained_vae_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "pretrained_transformer_subfolder": "none",
}
"""


def test_block_with_a_comma_behind_its_last_key(tmp_path: Path) -> None:
    (tmp_path / "multidatabackend.json").write_text(json.dumps(SETS_2024))
    path = tmp_path / "config.json"
    path.write_text(DEV_2_PRO)
    imported = import_run(path)
    assert imported.tree["model"] == {"path": "black-forest-labs/FLUX.1-dev", "transformer": "ashen0209/Flux-Dev2Pro"}
    assert imported.tree["adapter"] == {"kind": "full"}
    assert any("model_type is full" in line for line in imported.faults)


@pytest.mark.parametrize(
    ("flavour", "variant"),
    [
        ("krea", "flux1-krea"),
        ("dev", "flux1-dev"),
        ("schnell", "flux1-schnell"),
        ("kontext", "flux1-kontext"),
        ("fluxbooru", "fluxbooru"),
        ("libreflux", "libreflux"),
    ],
)
def test_flavours_of_the_guide_now(tmp_path: Path, flavour: str, variant: str) -> None:
    imported = run(tmp_path, {"model_type": "lora", "model_family": "flux", "model_flavour": flavour})
    assert imported.tree["model"] == {"variant": variant}
    assert imported.tree.get("objective", {}) == ({} if flavour == "schnell" else OBJECTIVE)


@pytest.mark.parametrize(("shift", "expected"), [({}, 3.0), ({"flow_schedule_shift": 0.1}, 0.1), ({"flow_schedule_shift": "4.0"}, 4.0)])
def test_shifts_of_the_guide_now(tmp_path: Path, shift: dict[str, Any], expected: float) -> None:
    assert run(tmp_path, BASE | shift).tree["objective"]["shift"] == expected


def test_automatic_shift_of_the_guide_now(tmp_path: Path) -> None:
    imported = run(tmp_path, BASE | {"--flow_schedule_auto_shift": "true"})
    assert imported.tree["objective"] == {"timesteps": "sigmoid", "shift": "tokens"}
