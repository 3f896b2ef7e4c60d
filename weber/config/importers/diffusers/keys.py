"""What becomes of each flag of diffusers' scripts, of accelerate, and of bitsandbytes' JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated, used
from weber.config.importers.diffusers import data, optim, run
from weber.config.importers.processes import DEVICES, OFFLOADED, SHARDED, STATE, STRATEGY, UNCUT, set_offload, set_strategy
from weber.config.importers.published import TOKEN, Names

_HUB = Names("hub_model_id", wish="push_to_hub", checkpoints="", is_whole=lambda keys: True)
_WORDS = "weber trains no embeddings of new words; write a made-up word into the captions, which is learned with the adapter"
_SPEED = "it changes speed or memory alone; memory.fit chooses what fits"
_CONTROL = "weber trains no ControlNet; a model that takes reference pictures (FLUX.1 Kontext, FLUX.2) learns from data.0.conditioning"
_FORK = "it is of a script that is not among the library's own; weber has no such thing"
_TABLE = "weber reads pictures, not a table of encoded texts; name the pictures (--instance_data_dir or --dataset_name)"
_FRACTION = "all parts are trained to the end"


KEYS: Table = {
    # the model
    "pretrained_model_name_or_path": used("model.path"),
    "revision": used("model.revision"),
    "variant": ignored("it names files of another precision; weber takes those that are there, and computes in memory.dtype"),
    "bnb_quantization_config_path": stated(lambda draft, keys, value: "as that file says, below", "the answers for the file"),
    "do_fp8_training": stated(run.set_fp8, 'memory.quantize = "fp8" with memory.fp8_matmul'),
    "max_sequence_length": stated(run.set_text_tokens, "model.text_tokens, for FLUX.1"),
    "text_encoder_out_layers": stated(run.answer_text_layers, "the model's own layers are read"),
    "quantized_model_path": refused("weber packs weights itself; set memory.quantize = \"nf4\" with the model in 16 bits"),
    "pretrained_vae_model_name_or_path": used("model.vae"),
    "tokenizer_name": used("model.tokenizer_path"),
    # pictures and captions
    "dataset_name": stated(data.set_dataset, "data.0.hub, or data.0.path with data.0.metadata for a folder"),
    "dataset_config_name": stated(data.set_configuration, "data.0.hub_split"),
    "instance_data_dir": stated(data.set_folder, "data.0.path"),
    "cache_dir": ignored("downloads are kept where the hub's library keeps them"),
    "image_column": stated(data.set_image_column, "data.0.image_column"),
    "cond_image_column": stated(data.set_reference_column, "data.0.conditioning_columns"),
    "caption_column": stated(data.set_caption_column, "data.0.caption_column"),
    "repeats": used("data.0.repeats"),
    "instance_prompt": stated(data.set_prompt, "data.0.instance_prompt, or data.0.caption_fallback beside captions"),
    "class_data_dir": stated(data.answer_class("class_data_dir", "path"), "data.1.path"),
    "class_prompt": stated(data.answer_class("class_prompt", "instance_prompt"), "data.1.instance_prompt"),
    "with_prior_preservation": stated(
        data.set_prior, "a second set with the class images, train.balance = \"sets\", and `weber data class-images` beforehand"
    ),
    "prior_loss_weight": stated(data.answer_class("prior_loss_weight", "loss_weight"), "data.1.loss_weight"),
    "num_class_images": stated(data.answer_num_class, "data.1.limit"),
    "prior_generation_precision sample_batch_size": stated(
        data.answer_generation, "`weber data class-images` paints one at a time, in the model's own precision"
    ),
    "resolution": stated(data.set_sizes, "data.0.resolution, with squares or the shapes that are asked for"),
    "aspect_ratio_buckets": stated(data.set_buckets, "data.0.buckets, width first"),
    "use_aspect_ratio_buckets": stated(data.answer_buckets, 'data.0.aspect = "closest" with the same shapes'),
    "center_crop": stated(data.set_window, 'data.0.crop = "center"; without it "random", drawn once for each repeat'),
    "random_flip": stated(data.set_mirror, "data.0.mirror"),
    "image_interpolation_mode": ignored("pictures are made smaller by averaging and larger by cubic curves, whatever it says"),
    "caption_dropout": used("data.0.caption_dropout", off=(0, None)),
    "max_train_samples": used("data.0.limit"),
    # the adapter
    "rank": stated(run.set_size("rank", "rank"), "adapter.rank"),
    "lora_alpha": stated(run.set_size("alpha", "lora_alpha"), "adapter.alpha"),
    "lora_dropout": stated(run.set_size("dropout", "lora_dropout"), "adapter.dropout", off=(0, None)),
    "lora_layers lora_blocks": stated(run.set_layers, "adapter.targets"),
    "init_lora_weights": used("adapter.init", "how the scripts start adapters"),
    "train_text_encoder": stated(run.set_text_encoder, "adapter.text_encoder"),
    "use_lora_bias train_norm_layers gaussian_init_lora": refused(_CONTROL),
    "train_text_encoder_ti": refused(_WORDS),
    "enable_t5_ti num_new_tokens_per_abstraction initializer_concept": ignored("of --train_text_encoder_ti, which is not had"),
    "token_abstraction": ignored("it stays in the captions as it is, a word like others"),
    "train_text_encoder_ti_frac": ignored("no words are added to the text encoders"),
    "train_text_encoder_frac train_transformer_frac": refused(_FRACTION, off=(None, 1, "")),
    # noise levels and the loss
    "weighting_scheme": stated(run.set_weighting, "objective.timesteps, or objective.weighting"),
    "logit_mean": stated(run.answer_law("logit_normal", "objective.logit_mean, with the other sign"), "objective.logit_mean"),
    "logit_std": stated(run.answer_law("logit_normal", "objective.logit_std"), "objective.logit_std"),
    "mode_scale": stated(run.answer_law("mode", "objective.mode_scale"), "objective.mode_scale"),
    "guidance_scale": stated(run.set_guidance, "objective.guidance"),
    # the optimizer
    "optimizer": stated(optim.set_optimizer, "optim.name"),
    "use_8bit_adam": stated(optim.answer_8bit, 'optim.name = "adamw_8bit"', off=(False, None)),
    "use_8bit_ademamix": refused('set optim.name = "bnb_ademamix_8bit"'),
    "use_adafactor": refused('set optim.name = "adafactor"'),
    "learning_rate": stated(optim.set_lr, "optim.lr"),
    "text_encoder_lr": stated(optim.set_text_lr, "optim.text_encoder_lr"),
    "scale_lr": stated(optim.answer_scale_lr, "optim.lr is multiplied by the pictures per step"),
    "adam_beta1 adam_beta2": stated(optim.set_betas, "optim.betas"),
    "adam_epsilon": used("optim.eps"),
    "adam_weight_decay": used("optim.weight_decay"),
    "adam_weight_decay_text_encoder": stated(optim.set_text_decay, "optim.weight_decay is that of all adapters"),
    "prodigy_beta3": stated(optim.answer_prodigy, "optim.options.beta3"),
    "prodigy_decouple prodigy_use_bias_correction prodigy_safeguard_warmup": stated(
        optim.answer_prodigy_switch, "optim.options, by the library's own names"
    ),
    "max_grad_norm": stated(optim.set_clip, "optim.clip_norm"),
    "lr_scheduler": stated(optim.set_schedule, "optim.schedule"),
    "lr_warmup_steps": stated(optim.answer_warmup, "optim.warmup_steps"),
    "lr_num_cycles": stated(optim.answer_cycles, "optim.cycles"),
    "lr_power": stated(optim.answer_power, "optim.power"),
    "set_grads_to_none": ignored("gradients are set to nothing after each step"),
    # steps
    "train_batch_size": stated(optim.set_batch, "train.batch_size"),
    "gradient_accumulation_steps": stated(optim.set_accumulation, "train.accumulation, times the processes"),
    "num_train_epochs": stated(optim.set_epochs, "train.epochs"),
    "max_train_steps": used("train.steps"),
    "seed": used("train.seed"),
    "resume_from_checkpoint": stated(run.answer_resume, "weber goes on with checkpoints of its own"),
    # memory
    "mixed_precision": stated(run.set_precision, "memory.dtype"),
    "gradient_checkpointing": stated(run.set_checkpointing, "memory.gradient_checkpointing"),
    "offload enable_model_cpu_offload": ignored("pictures and texts are encoded before the first step, and their encoders then put away"),
    "cache_latents": ignored("latents are always encoded once and kept in output.cache"),
    "vae_encode_mode": refused("latents are the mean of what the autoencoder says", off=(None, "", "mode")),
    "remote_text_encoder": ignored(
        "texts are encoded on this machine; memory.quantize_text_encoder makes that small, and model.text_encoder_url ="
        " https://remote-text-encoder-flux-2.huggingface.co/predict sends them there as before"
    ),
    "fsdp_text_encoder": ignored(
        "texts are encoded before the first step, each process a part of them; a text encoder that does not fit one device is sharded"
        " meanwhile, by parallel.text_encoders"
    ),
    "dataloader_num_workers": ignored("nothing is loaded while it trains"),
    "allow_tf32": ignored("products of fp32 are computed as precisely as the device has them"),
    "enable_xformers_memory_efficient_attention": ignored("memory.attention takes the fastest that is right on that GPU"),
    "enable_npu_flash_attention": refused("weber runs on processors and on GPUs of NVIDIA, AMD and Apple"),
    "local_rank": ignored("torchrun, Slurm and Kubernetes say it to weber themselves"),
    # files and pictures on the way
    "output_dir": used("output.folder"),
    "checkpointing_steps": used("output.save_every"),
    "checkpoints_total_limit": stated(run.set_keep, "output.keep_last"),
    "upcast_before_saving": ignored("files are in fp32; output.precision says another one"),
    "save_weight_dtype": used("output.precision"),
    "logging_dir": ignored("metrics are in the run folder"),
    "report_to": stated(run.set_report, "output.trackers"),
    "tracker_project_name": stated(run.set_tracker_project, "output.project, with wandb or trackio"),
    "log_dataset_samples": ignored("`weber plan` shows what is in the sets"),
    "push_to_hub": stated(_HUB.answer_wish, "publish.to, of hub_model_id"),
    "hub_model_id": stated(_HUB.set_place, "publish.to, where push_to_hub is given"),
    "hub_token": ignored(TOKEN),
    "validation_prompt": stated(run.set_validation, "sampling.prompts"),
    "validation_image": stated(run.answer_painting("sampling.conditioning"), "sampling.conditioning"),
    "num_validation_images": stated(run.answer_painting("so many entries of sampling.prompts"), "so many entries of sampling.prompts"),
    "validation_epochs": stated(run.set_painting_epochs, "sampling.every, in epochs"),
    "validation_steps": stated(run.set_painting_steps, "sampling.every"),
    "final_validation_prompt": stated(run.set_final_prompt, "sampling.prompts"),
    "skip_final_inference": stated(run.set_end, "sampling.at_end = false"),
    # of the library's other scripts, and of scripts that others made of them
    "data_df_path": refused(_TABLE),
    "conditioning_image_column controlnet_model_name_or_path num_double_layers num_single_layers only_target_transformer_blocks": refused(
        _CONTROL
    ),
    "jsonl_for_train": refused("weber reads such a table as data.0.metadata"),
    "proportion_empty_prompts": used("data.0.caption_dropout", off=(0, None)),
    "crops_coords_top_left_h crops_coords_top_left_w": ignored("it is for SDXL"),
    "num_validation_inference_steps": stated(
        lambda draft, keys, value: draft.set("sampling.steps", value, origin=keys.find("num_validation_inference_steps"))
        if "validation_prompt" in keys
        else "no effect: there is no --validation_prompt",
        "sampling.steps",
    ),
    "use_bucket_sampler": ignored("pictures of one size are put together in any case"),
    "blur_radius degradation_types hr_root jpeg_quality noise_level perceptual_loss prior_reflow_data_root structural_noise_radius"
    " instance_data_root": refused(_FORK),
}  # fmt: skip

DEFAULTS: Mapping[str, Any] = {
    "resolution": 512,
    "center_crop": False,
    "rank": 4,
    "lora_alpha": 4,
    "init_lora_weights": "gaussian",
    "weighting_scheme": "none",
    "guidance_scale": 3.5,
    "optimizer": "AdamW",
    "learning_rate": 1e-4,
    "text_encoder_lr": 5e-6,
    "adam_weight_decay": 1e-4,
    "prodigy_decouple": True,
    "prodigy_use_bias_correction": True,
    "prodigy_safeguard_warmup": True,
    "max_grad_norm": 1.0,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 500,
    "train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "validation_epochs": 50,
}
"""Of all scripts: `argparse` in examples/dreambooth."""

OF_FAMILY: Mapping[str, Mapping[str, Any]] = {
    "flux": {"output_dir": "flux-dreambooth-lora"},
    "kontext": {"output_dir": "flux-kontext-lora"},
    "flux2": {"output_dir": "flux-dreambooth-lora", "text_encoder_out_layers": ["10", "20", "30"]},
    "klein": {"output_dir": "flux-dreambooth-lora"},
}
ONLY_LORA = ("rank", "lora_alpha", "init_lora_weights")
OF_FULL: Mapping[str, Any] = {"output_dir": "flux-dreambooth", "max_sequence_length": 77}

EXAMPLE: Mapping[str, Any] = {
    "mixed_precision": "bf16",
    "train_batch_size": 1,
    "guidance_scale": 1,
    "gradient_accumulation_steps": 4,
    "report_to": "wandb",
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "max_train_steps": 500,
    "validation_epochs": 25,
    "seed": 0,
    "gradient_checkpointing": True,
    "cache_latents": True,
}
"""Of the commands in README_flux.md."""

_STARTED = "how processes are started and talk to each other changes nothing that is learned"

ACCELERATE: Table = {
    "config_file": ignored("read; what it says is answered below"),
    "num_processes nproc_per_node": stated(
        lambda draft, keys, value: _set_processes(draft, keys), "train.accumulation is multiplied by it: a step has as many pictures"
    ),
    "mixed_precision": stated(run.set_precision, "memory.dtype"),
    "use_cpu cpu": stated(
        lambda draft, keys, value: draft.set("memory.device", "cpu", origin=keys.find("use_cpu" if "use_cpu" in keys else "cpu")),
        'memory.device = "cpu"',
        off=(False, None, "false"),
    ),
    "fsdp_config.fsdp_activation_checkpointing fsdp_activation_checkpointing": stated(
        lambda draft, keys, value: draft.set("memory.gradient_checkpointing", "all", origin="fsdp_activation_checkpointing = true"),
        'memory.gradient_checkpointing = "all"',
        off=(False, None, "false"),
    ),
    "dynamo_backend dynamo_config dynamo_config.* dynamo_*": ignored(_SPEED + "; memory.compile = true compiles blocks"),
    "deepspeed_config.gradient_clipping": ignored("--max_grad_norm of the script is what is used here"),
    "deepspeed_config.gradient_accumulation_steps": ignored("--gradient_accumulation_steps of the script counts"),
    "gradient_accumulation_steps": ignored("--gradient_accumulation_steps of the script counts"),
    "distributed_type use_fsdp use_deepspeed fsdp_config.fsdp_sharding_strategy fsdp_sharding_strategy"
    " fsdp_config.fsdp_reshard_after_forward fsdp_reshard_after_forward deepspeed_config.zero_stage zero_stage": stated(
        set_strategy, STRATEGY
    ),
    "fsdp_config.fsdp_offload_params fsdp_offload_params deepspeed_config.offload_param_device offload_param_device": stated(
        set_offload, OFFLOADED
    ),
    "deepspeed_config.offload_optimizer_device offload_optimizer_device": ignored(STATE),
    "parallelism_config.parallelism_config_cp_size parallelism_config_cp_size": refused(UNCUT, off=(None, 0, 1, "0", "1")),
    "multi_gpu use_megatron_lm use_parallelism_config": ignored(SHARDED),
    "gpu_ids num_machines nnodes machine_rank node_rank same_network main_process_* rdzv_* master_* mpirun_* tpu* tp_* rank": ignored(
        _STARTED
    ),
    "fsdp_config fsdp_config.* fsdp_* deepspeed_config deepspeed_config.* deepspeed_* zero* offload_* megatron_lm_*": ignored(SHARDED),
    "parallelism_config* fp8_config* fp8_*": ignored(_STARTED),
    "compute_environment main_training_function downcast_bf16 debug enable_cpu_affinity num_cpu_threads_per_process env quiet module"
    " no_python log_dir monitor_interval max_restarts command* commands* use_xpu ipex* standalone": ignored(
        "it says how the script is started, and nothing of what it learns"
    ),
}  # fmt: skip


def _set_processes(draft: Any, keys: Any) -> str:
    num = keys.read_int("num_processes") or keys.read_int("nproc_per_node") or 1
    if "launch_processes" in keys.defaults:
        return "no effect: the command says another number"
    if num == 1:
        return "no effect: one process, as here"
    each = keys.read_int("script_accumulation") or 1
    line: str = draft.set("train.accumulation", each * num, origin=keys.find("num_processes"))
    return f"{line}: {num} processes x {each}; {DEVICES}"


BITSANDBYTES: Table = {
    "load_in_4bit load_in_8bit": stated(run.set_bits, "memory.quantize"),
    "bnb_4bit_quant_type": ignored("nf4 is that of memory.quantize; fp4 is not had, and nf4 stands for it"),
    "bnb_4bit_use_double_quant": ignored('the scales of "nf4" are packed too, in any case'),
    "bnb_4bit_compute_dtype": ignored("the script itself puts --mixed_precision in its place, which is memory.dtype here"),
    "bnb_4bit_quant_storage": ignored("how bytes are kept changes nothing"),
    "quant_method _load_in_4bit _load_in_8bit": ignored("a note of the library"),
    "llm_int8_threshold llm_int8_skip_modules llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight": ignored(
        "weber packs all weights of the blocks, each row with its scale, and leaves norms, embeddings and the last layer as they are"
    ),
}
