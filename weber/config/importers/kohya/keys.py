"""Every option of kohya's scripts for FLUX, and what becomes of it: the tables that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated
from weber.config.importers.kohya.data import SET
from weber.config.importers.kohya.network import ADAPTER, LORA
from weber.config.importers.kohya.optim import OPTIMIZER
from weber.config.importers.kohya.output import MEMORY, OUTPUT
from weber.config.importers.kohya.samples import SAMPLES, SAMPLING
from weber.config.importers.kohya.schedule import SCHEDULE
from weber.config.importers.kohya.train import LENGTH, MODEL, OBJECTIVE
from weber.config.importers.processes import DEVICES, MULTIPLIED, SHARDED, set_processes

_SHARED: Mapping[str, Any] = {
    "learning_rate": 2e-6,
    "optimizer_type": "AdamW",
    "max_grad_norm": 1.0,
    "lr_scheduler": "constant",
    "max_train_steps": 1600,
    "mixed_precision": "no",
    "timestep_sampling": "sigma",
    "weighting_scheme": "uniform",
    "discrete_flow_shift": 3.0,
    "model_prediction_type": "sigma_scaled",
    "guidance_scale": 3.5,
}
FULL_DEFAULTS: Mapping[str, Any] = {**_SHARED, "save_model_as": "safetensors"}
LORA_DEFAULTS: Mapping[str, Any] = {
    **_SHARED,
    "network_module": LORA,
    "network_dim": 4,
    "network_alpha": 1.0,
    "network_train_unet_only": False,
    "save_model_as": "safetensors",
}
"""What the scripts take for options that are left out, where weber takes something else. `network_module` has no default there; it is the
one that fits."""

EXAMPLE: Mapping[str, Any] = {
    "network_module": LORA,
    "save_model_as": "safetensors",
    "sdpa": True,
    "gradient_checkpointing": True,
    "cache_text_encoder_outputs": True,
    "cache_text_encoder_outputs_to_disk": True,
    "cache_latents": True,
    "cache_latents_to_disk": True,
    "fp8_base": True,
    "highvram": True,
    "persistent_data_loader_workers": True,
    "max_data_loader_n_workers": 2,
    "mixed_precision": "bf16",
    "save_precision": "bf16",
    "model_prediction_type": "raw",
    "discrete_flow_shift": 3.1582,
    "guidance_scale": 1.0,
    "loss_type": "l2",
}
"""Values of the command in the documentation of the scripts, which nearly all files have."""

_DATA = "the sets of pictures have answers of their own"
_OTHER_SCRIPT = "kohya's scripts for FLUX have no such option and would stop at it; it is of another trainer's script"

PICTURES: Table = {
    "dataset_config": ignored(_DATA),
    "train_data_dir reg_data_dir in_json": ignored(_DATA),
    "dataset_class": refused("weber loads no classes of other programs; name the pictures in a dataset TOML"),
    "conditioning_data_dir": ignored("is read in a dataset TOML alone"),
    "class_tokens is_reg image_dir": ignored("is read in a dataset TOML alone"),
}
"""Options that name pictures."""

INTERFACES: Table = {
    "model_train_type": ignored("says that lora-scripts trains FLUX with it"),
    "lycoris_algo lokr_factor conv_dim conv_alpha dropout train_norm prodigy_d_coef prodigy_d0 optimizer_args_custom "
    "network_args_custom": ignored("lora-scripts makes network_args and optimizer_args of it"),
    "train_t5xxl": ignored("the scripts read it in network_args alone"),
    "enable_preview randomly_choice_prompt prompt_file enable_base_weight enable_block_weights ui_custom_params": ignored(
        "is of the page alone"
    ),
    "positive_prompts negative_prompts sample_width sample_height sample_cfg sample_seed sample_steps": ignored(
        "lora-scripts makes sample_prompts of it"
    ),
    "down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold dylora_unit": ignored("is for Stable Diffusion"),
    "gpu_ids main_process_port num_cpu_threads_per_process extra_accelerate_launch_args": ignored("how the program is started"),
    "num_processes": stated(set_processes, MULTIPLIED, off=(None, 0, 1, "1")),
    "multi_gpu num_machines": ignored(DEVICES),
    "loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio": ignored("the scripts read it in network_args alone"),
}
"""Keys of the programs around the scripts."""

_FOREIGN: Table = {
    "custom_tokens token_init_words use_custom_tokens save_token_embeddings jsonl_for_train validation_prompt_file validation_steps "
    "num_validation_images_per_prompt rank report_to ckpt_path offload prompt steps lora_weights": refused(_OTHER_SCRIPT, off=()),
}

COMMAND: Table = {
    **MODEL,
    **ADAPTER,
    **OBJECTIVE,
    **SCHEDULE,
    **OPTIMIZER,
    **LENGTH,
    **MEMORY,
    **SAMPLING,
    **OUTPUT,
    **PICTURES,
    **INTERFACES,
    **_FOREIGN,
}
"""Options of flux_train.py and flux_train_network.py."""

LAUNCH: Table = {
    "mixed_precision": ignored("the script's own option counts"),
    "num_cpu_threads_per_process config_file num_machines main_process_port main_process_ip machine_rank m gpu_ids debug quiet": ignored(
        "how the program is started"
    ),
    "num_processes": stated(set_processes, MULTIPLIED, off=(1, "1")),
    "multi_gpu": ignored(DEVICES),
    "use_deepspeed use_fsdp": ignored(SHARDED),
    "dynamo_backend dynamo_mode dynamo_use_fullgraph dynamo_use_dynamic": ignored("memory.compile compiles blocks as they should be"),
    "*": ignored("how the program is started"),
}
"""Options of `accelerate launch`."""

TABLES: Mapping[str, Table] = {
    "Model": MODEL,
    "Adapter": ADAPTER,
    "Objective": OBJECTIVE,
    "Rates and schedule": SCHEDULE,
    "Optimizer": OPTIMIZER,
    "Length": LENGTH,
    "Memory": MEMORY,
    "Pictures on the way": SAMPLING,
    "Behind a prompt": SAMPLES,
    "What is kept": OUTPUT,
    "Sets of pictures": SET,
    "Options that name pictures": PICTURES,
    "Programs around the scripts": INTERFACES,
    "accelerate launch": LAUNCH,
}
