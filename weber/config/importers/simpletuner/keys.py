"""SimpleTuner's options: what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated, used
from weber.config.importers.processes import (
    MULTIPLIED,
    OFFLOADED,
    SHARDED,
    STRATEGY,
    UNCUT,
    set_accumulation,
    set_offload,
    set_processes,
    set_strategy,
)
from weber.config.importers.published import BESIDE, CARD, IS_PRIVATE, Names, answer_private
from weber.config.importers.simpletuner import memory, model, objective, optim, sampling, webhooks
from weber.config.importers.simpletuner.facts import is_full
from weber.config.importers.simpletuner.sets import set_balance, set_dropout

_SENT = Names("hub_model_id", wish="push_to_hub", checkpoints="push_checkpoints_to_hub", is_whole=is_full)
_TRACKED = "weber writes metrics.jsonl into the run folder, and to output.trackers the same numbers"
_DEVICES = "how processes are started and talk to each other changes nothing that is learned"
_CACHED = "pictures and captions are encoded once into output.cache and found by their content, so that nothing stale is used"
_WORKERS = "pictures and captions are encoded before the first step, so that nothing is loaded while it trains"
_PARTS = "memory and time alone; memory.fit chooses such settings here"
_COMPILED = "memory.compile = true compiles the blocks and has no such setting"
_OTHER = "it is for other models"
_NOT_FLOW = "SimpleTuner does not read it for models of straight lines between noise and picture, such as these"
_METHOD = "weber has no such method; remove it, or train without it"
_TEACHER = "weber has no such loss; a set with regularization = true keeps the model as it is on its pictures"
_CLIP = "pictures on the way get no CLIP score; data.N.evaluation measures the loss on pictures that are held out"
_FILTER = "`weber plan` lists pictures that are set aside, and why; nothing is deleted"
_TEXT = "weber trains the transformer, and CLIP with adapter.text_encoder = true"
_PAINTED = "pictures on the way are painted in weber's own way, the base model's beside them"
_OF_SET = "it is for sets that say nothing of it"
_SDNQ = "of SDNQ's packing; memory.quantize has one scale per row or group"
_ADAM = "SimpleTuner reads it with DeepSpeed alone"
_CONTROL = "weber trains no ControlNets; a reference picture belongs to [[data]] as conditioning, for models that take one"

_MODEL: Table = {
    "model_family": stated(model.set_family, "which model: `model.variant` and `model.path` say it; other families are refused"),
    "model_flavour model_flavor": stated(model.set_flavour, "`model.variant`: dev is `flux1-dev` or `flux2-dev`, and so on"),
    "pretrained_model_name_or_path": stated(model.set_model, "`model.path`; GGUF files are refused"),
    "pretrained_transformer_model_name_or_path": stated(model.set_transformer, "`model.transformer`, with its subfolder"),
    "pretrained_transformer_subfolder": ignored("in model.transformer, where a transformer of its own is named"),
    "pretrained_unet_model_name_or_path pretrained_unet_subfolder": ignored(_OTHER),
    "pretrained_vae_model_name_or_path": stated(model.set_vae, "`model.vae`, unless it is the model's own"),
    "pretrained_t5_model_name_or_path": stated(model.set_t5, "`model.text_encoder_2` of FLUX.1"),
    "pretrained_gemma_model_name_or_path pretrained_grounding_model_name_or_path qwen_text_encoder_model_name_or_path": ignored(_OTHER),
    "revision": used("model.revision"),
    "variant": ignored("weber takes the files that are there, in any precision"),
    "trust_remote_code": ignored("no code of a model is run"),
    "vae_dtype": ignored("the autoencoder runs in the precision that it needs"),
    "fuse_qkv_projections fused_qkv_projections": ignored("queries, keys and values are one product where that is quicker"),
    "custom_text_encoder_intermediary_layers": refused(
        "which layers of the text encoder are read is the model's own", off=([10, 20, 30], [9, 18, 27], "[10, 20, 30]", "[9, 18, 27]")
    ),
    "tokenizer_max_length": ignored("SimpleTuner itself takes 512 tokens (schnell: 256) whatever it says; model.text_tokens takes fewer"),
    "flux_attention_masked_training": stated(model.set_text_mask, "`objective.text_mask`, for FLUX.1"),
    "t5_padding": refused("weber leaves padding as T5 encodes it, which is what programs that paint do", off=("unmodified",)),
    "max_grounding_entities": refused(_METHOD),
    "i_know_what_i_am_doing": ignored("it unlocks choices; here each is checked by itself"),
    "prediction_type": ignored("these models answer with the velocity in any case"),
    "output_dir": used("output.folder"),
    "resume_from_checkpoint": stated(sampling.refuse_resume, "`latest` asks for nothing here; another checkpoint cannot be resumed"),
    "controlnet control": refused(_CONTROL),
    "controlnet_custom_config controlnet_model_name_or_path": refused(_CONTROL, off=(None, "")),
    "diffusion_blocks_config": refused(_METHOD),
}

_ADAPTER: Table = {
    "model_type": stated(model.set_kind, "`adapter.kind`: full, lora or lycoris"),
    "lora_type": stated(model.set_lora_type, "`adapter.kind`"),
    "lora_rank": stated(model.for_standard("adapter.rank"), "`adapter.rank`; LyCORIS has its own"),
    "lora_alpha": stated(model.for_standard("adapter.alpha"), "`adapter.alpha`; left out it is the rank, there as here"),
    "lora_dropout": stated(model.for_standard("adapter.dropout"), "`adapter.dropout`; left out it is 0.1 there"),
    "lora_init_type": stated(model.set_init, "`adapter.init`"),
    "use_dora": stated(model.set_dora, "`adapter.dora`"),
    "peft_lora_mode": refused("weber has no SingLoRA; the nearest is a LoRA", off=("standard",)),
    "singlora_ramp_up_steps": ignored("it is for peft_lora_mode = singlora"),
    "flux_lora_target": stated(model.set_targets, "`adapter.targets`; ai-toolkit is `all+ffs+modulation`, FLUX.2 has one list"),
    "peft_lora_target_modules": stated(model.set_modules, "`adapter.targets`"),
    "slider_lora_target": refused("train a LoRA for each end; `weber merge a.safetensors b.safetensors:-1` makes a slider of them"),
    "init_lora": stated(model.set_start, "`adapter.start_from`"),
    "init_lora_step": ignored("it names the step of a file in init_lora"),
    "init_lora_ema init_lokr_norm": refused(_METHOD, off=(None, "", False, 0)),
    "lora_format": stated(model.set_format, "`output.formats`"),
    "lycoris_config": stated(model.set_lycoris, "`[adapter.lycoris]`, key by key"),
    "assistant_lora_path": stated(model.set_assistant, "`model.assistant`"),
    "assistant_lora_strength": stated(
        model.for_assistant("assistant_lora_strength", "model.assistant_strength"), "`model.assistant_strength`"
    ),
    "assistant_lora_inference_strength": stated(
        model.for_assistant("assistant_lora_inference_strength", "model.assistant_sample_strength"), "`model.assistant_sample_strength`"
    ),
    "disable_assistant_lora": stated(model.set_no_assistant, '`model.assistant = "off"`'),
    "train_text_encoder": refused(_TEXT),
    "text_encoder_lr": stated(optim.set_text_rate, "no text encoder learns there"),
    "text_encoder_limit save_text_encoder": ignored(_TEXT),
    "layer_freeze_strategy": refused("weber has no BitFit; adapter.targets says which layers learn", off=("none", None, "", "false")),
    "freeze_encoder*": ignored("it is for training CLIP of older models, which does not happen here"),
}

_MEMORY: Table = {
    "mixed_precision": stated(memory.set_precision, "`memory.dtype`: bf16 is the default on GPUs, no is fp32"),
    "base_model_default_dtype": stated(memory.set_default_dtype, "`memory.dtype`"),
    "base_model_precision": stated(memory.for_bits("base_model_precision", "memory.quantize"), "`memory.quantize`"),
    "text_encoder_1_precision": stated(
        memory.for_bits("text_encoder_1_precision", "memory.quantize_text_encoder"), "`memory.quantize_text_encoder`"
    ),
    "text_encoder_2_precision": stated(
        memory.for_bits("text_encoder_2_precision", "memory.quantize_text_encoder_2"), "`memory.quantize_text_encoder_2`"
    ),
    "text_encoder_3_precision text_encoder_4_precision": ignored("these models have two text encoders at most"),
    "quantize_via": stated(memory.set_quantize_on, "`memory.quantize_on`"),
    "quantization_config": refused("weber packs weights itself: set memory.quantize"),
    "quantize_activations sdnq_use_quantized_matmul": stated(memory.set_int8_matmul, "`memory.int8_matmul`"),
    "sdnq_*": ignored(_SDNQ),
    "gradient_checkpointing": stated(memory.set_checkpointing, "`memory.gradient_checkpointing`"),
    "gradient_checkpointing_interval": stated(memory.set_interval, "`memory.gradient_checkpointing = n`"),
    "gradient_checkpointing_backend": stated(memory.set_offload, "`memory.offload_activations` for unsloth"),
    "gradient_checkpointing_*": ignored(_PARTS),
    "enable_group_offload": stated(memory.set_swap, '`memory.swap_blocks = "all"`'),
    "group_offload_to_disk_path": stated(memory.set_swap_disk, '`memory.swap_to = "disk"`'),
    "group_offload_*": ignored(_PARTS),
    "musubi_blocks_to_swap": stated(memory.set_swap, "`memory.swap_blocks`"),
    "musubi_block_swap_device": ignored(_PARTS),
    "ramtorch": stated(memory.set_swap, '`memory.swap_blocks = "all"`'),
    "ramtorch_*": ignored(_PARTS),
    "offload_during_startup offload_during_save offload_param_path delete_model_after_load fully_unload_text_encoder": ignored(_PARTS),
    "keep_vae_loaded accelerator_cache_clear_interval enable_chunked_feed_forward feed_forward_chunk_size": ignored(_PARTS),
    "vae_enable_tiling": used("memory.vae_tiling"),
    "vae_enable_slicing vae_enable_patch_conv vae_enable_temporal_roll": ignored(_PARTS),
    "vae_batch_size": used("memory.encode_batch_size"),
    "unet_attention_slice": ignored("attention is never cut into slices; it needs no memory for scores"),
    "attention_mechanism": stated(memory.set_attention, "`memory.attention`; SageAttention paints only: `sampling.attention`"),
    "sageattention_usage": ignored("with attention_mechanism: SageAttention paints and does not train"),
    "enable_xformers_memory_efficient_attention": stated(memory.set_xformers, '`memory.attention = "efficient"`'),
    "sla_config": refused(_METHOD),
    "dynamo_backend": stated(memory.set_compile, "`memory.compile`"),
    "dynamo_mode dynamo_fullgraph dynamo_dynamic dynamo_use_regional_compilation validation_torch_compile*": ignored(_COMPILED),
    "disable_tf32 allow_tf32": ignored("products in fp32 are exact"),
    "pure_bf16": ignored("adapters are trained in fp32, and the frozen model is bf16 on GPUs that have it"),
    "set_grads_to_none": ignored("gradients are set to nothing after each step"),
    "fsdp_enable fsdp_reshard_after_forward": stated(set_strategy, STRATEGY),
    "fsdp_cpu_offload": stated(set_offload, OFFLOADED),
    "fsdp_* deepspeed_config": ignored(SHARDED),
    "num_processes": stated(set_processes, MULTIPLIED, off=(1, "1")),
    "num_machines": ignored("`weber launch` starts a run on several machines"),
    "context_parallel_size": refused(UNCUT, off=(1,)),
    "context_parallel_comm_strategy find_unused_parameters main_process_ip main_process_port machine_rank same_network": ignored(_DEVICES),
    "local_rank seed_for_each_device accelerate_config accelerate_extra_args enable_multiprocessing": ignored(_DEVICES),
    "max_workers aws_max_pool_connections torch_num_threads dataloader_prefetch dataloader_prefetch_qlen": ignored(_WORKERS),
    "image_processing_batch_size write_batch_size read_batch_size text_encoder_batch_size aspect_bucket_worker_count": ignored(_WORKERS),
    "tokenizers_parallelism": ignored(_WORKERS),
}

_OPTIM: Table = {
    "optimizer": stated(optim.set_optimizer, "`optim.name`, with the settings that SimpleTuner gives it"),
    "optimizer_config": stated(optim.set_optimizer_config, "`optim.eps`, `optim.weight_decay`, `optim.options`"),
    "optimizer_beta1 optimizer_beta2": stated(optim.set_betas, "`optim.betas`"),
    "adam_beta1 adam_beta2 adam_weight_decay adam_epsilon": ignored(_ADAM),
    "adam_bfloat16": ignored("optimizer = adamw_bf16 says so"),
    "prodigy_steps": refused("weber's prodigy goes on finding its rate to the end"),
    "learning_rate": stated(optim.set_rate, "`optim.lr`; left out it is 4e-7 there"),
    "lr_scale lr_scale_sqrt": stated(optim.set_scale, "in `optim.lr`"),
    "lr_end": stated(optim.set_end_rate, "`optim.end_lr`, for polynomial and cosine"),
    "lr_scheduler": stated(optim.set_schedule, "`optim.schedule`"),
    "lr_warmup_steps": stated(optim.set_warmup, "`optim.warmup_steps`, but for cosine, which takes it for its wave"),
    "lr_num_cycles": ignored("no schedule of SimpleTuner reads it for these names"),
    "lr_power": stated(optim.set_power, "`optim.power`, for polynomial"),
    "train_batch_size": used("train.batch_size"),
    "gradient_accumulation_steps": stated(set_accumulation, "train.accumulation, times the processes"),
    "num_train_epochs": stated(optim.set_epochs, "`train.epochs`, where max_train_steps is 0 or left out"),
    "max_train_steps": stated(optim.set_steps, "`train.steps`"),
    "strict_epoch_limit ignore_final_epochs": ignored("a run ends after its last step, or epoch"),
    "max_grad_norm": stated(optim.set_clip, "`optim.clip_norm`; SimpleTuner clips single numbers unless grad_clip_method = norm"),
    "grad_clip_method": ignored("with max_grad_norm: norm is optim.clip_norm, value clips single numbers"),
    "gradient_precision": ignored("the gradients of adapters are fp32"),
    "fuse_optimizer optimizer_release_gradients optimizer_offload_gradients": ignored(_PARTS),
    "optimizer_cpu_offload_method": stated(optim.set_state_place, "`optim.state_on`"),
    "use_ema": stated(optim.set_ema, "`optim.ema_decay`"),
    "ema_decay": stated(optim.set_ema_decay, "`optim.ema_decay`"),
    "ema_device": stated(optim.set_ema_device, "`optim.ema_on`"),
    "ema_cpu_only ema_foreach_disable": ignored("with ema_device: where the running mean lies"),
    "ema_update_interval": refused("the running mean moves at every step", off=(None, "", 1)),
    "ema_warmup_steps": refused("the running mean forgets its start by (1 + step) / (10 + step), there as here"),
    "seed": stated(optim.set_seed, "`train.seed`"),
}

_OBJECTIVE: Table = {
    "flow_sigmoid_scale flow_matching_sigmoid_scale": stated(objective.set_sigmoid, "`objective.timesteps`, `objective.sigmoid_scale`"),
    "flow_use_uniform_schedule flux_use_uniform_schedule": stated(objective.set_uniform, '`objective.timesteps = "uniform"`'),
    "flow_use_beta_schedule flux_use_beta_schedule": stated(objective.set_beta, '`objective.timesteps = "beta"`'),
    "flow_beta_schedule_alpha flow_beta_schedule_beta flux_beta_schedule_*": stated(objective.name_beta, "`objective.beta_shape`"),
    "flow_cubic_schedule_weights": stated(objective.set_cubic, "`objective.cubic_weights`"),
    "flux_fast_schedule": stated(objective.set_fast, '`objective.timesteps = "fast"`'),
    "flow_custom_timesteps": stated(objective.set_list, "`objective.timestep_list`"),
    "flow_timesteps_mode": stated(objective.name_list_order, "`objective.timestep_order`"),
    "flow_schedule_shift flux_schedule_shift": stated(objective.set_shift, "`objective.shift`; left out it is 3.0 there"),
    "flow_schedule_auto_shift flux_schedule_auto_shift": stated(objective.set_auto_shift, '`objective.shift = "tokens"`'),
    "flow_matching_loss": ignored("the answer is the velocity in any case"),
    "audio_flow_schedule_shift": ignored(_OTHER),
    "mixflow_enabled": refused(_METHOD),
    "mixflow_gamma": ignored("it is for mixflow_enabled"),
    "flux_guidance_value": stated(objective.set_guidance, "`objective.guidance`"),
    "flux_guidance_mode": stated(objective.set_guidance_mode, "`objective.guidance_range` for random-range"),
    "flux_guidance_min flux_guidance_max": stated(objective.name_guidance, "`objective.guidance_range`"),
    "caption_dropout_probability": stated(set_dropout, "`data.N.caption_dropout` of every set; left out it is 0.1 there"),
    "loss_type": stated(objective.set_loss, "`objective.loss`"),
    "huber_schedule": stated(objective.set_huber_schedule, "`objective.huber_schedule`"),
    "huber_c": stated(objective.set_huber_bend, "`objective.huber_c`"),
    "masked_loss_probability": refused("masks count in every step", off=(1, None, "")),
    "input_perturbation": refused("[objective.rollout] trains on inputs with the model's own errors"),
    "input_perturbation_steps": ignored("it is for input_perturbation"),
    "snr_gamma snr_weight use_soft_min_snr soft_min_snr_sigma_data rescale_betas_zero_snr": ignored(_NOT_FLOW),
    "offset_noise noise_offset noise_offset_probability": ignored(_NOT_FLOW),
    "timestep_bias_* disable_segmented_timestep_sampling training_scheduler_timestep_spacing": ignored(_NOT_FLOW),
    "inference_scheduler_timestep_spacing": ignored(_NOT_FLOW),
    "refiner_training*": ignored(_OTHER),
    "tread_config": stated(objective.set_tread, "`[[objective.tread]]`"),
    "scheduled_sampling_max_step_offset": stated(objective.set_rollout, "`[objective.rollout]`"),
    "scheduled_sampling_prob* scheduled_sampling_ramp* scheduled_sampling_st*": stated(objective.name_rollout, "`[objective.rollout]`"),
    "scheduled_sampling_sampler scheduled_sampling_order": ignored("the steps of [objective.rollout] are Euler's"),
    "scheduled_sampling_reflexflow": refused(_METHOD, off=(None, False, "", "none", "auto")),
    "scheduled_sampling_reflexflow_*": ignored("it is for scheduled_sampling_reflexflow"),
    "crepa_enabled irepa_enabled urepa_enabled layersync_enabled internal_guidance_enabled nextlat_enabled": refused(_TEACHER),
    "xm_enabled twinflow_enabled diff2flow_enabled diff2flow_loss": refused(_TEACHER),
    "crepa_* irepa_* urepa_* layersync_* internal_guidance_* nextlat_* xm_* twinflow_*": ignored("it is for a method that is off"),
    "distillation_method": refused("weber distills no models"),
    "distillation_config": ignored("it is for distillation_method"),
    "deepfloyd_* wan_* sdxl_* pixart_* ltx2_*": ignored(_OTHER),
}

_SAMPLING: Table = {
    "validation_prompt": stated(sampling.set_prompts, "`sampling.prompts`"),
    "user_prompt_library": stated(sampling.set_prompts, "`sampling.prompts`, read from that file"),
    "validation_prompt_library": refused("the prompts that come with SimpleTuner stay there; write them into sampling.prompts"),
    "validation_step_interval validation_steps": stated(sampling.set_every, "`sampling.every`"),
    "validation_epoch_interval": stated(sampling.set_every_epochs, '`sampling.every = "2 epochs"`'),
    "validation_num_inference_steps": stated(
        sampling.for_pictures("validation_num_inference_steps", "sampling.steps"), "`sampling.steps`"
    ),
    "validation_guidance": stated(sampling.set_guidance, "`sampling.guidance`; of klein `sampling.cfg`"),
    "validation_guidance_real": stated(sampling.set_cfg, "`sampling.cfg`"),
    "validation_negative_prompt": stated(sampling.set_negative, "`sampling.negative_prompt`, where `sampling.cfg` is above 1"),
    "validation_resolution": stated(sampling.set_size, "`sampling.width` and `sampling.height`; several: `sampling.sizes`"),
    "validation_seed": stated(sampling.set_picture_seed, "`sampling.seed`"),
    "num_validation_images": stated(sampling.set_num, "`sampling.seeds`, so many from validation_seed on"),
    "validation_no_cfg_until_timestep": stated(sampling.set_no_cfg, "`sampling.no_cfg_until`, where `sampling.cfg` is above 1"),
    "validation_lycoris_strength": stated(sampling.set_strength, "`sampling.strengths`"),
    "disable_benchmark": stated(sampling.set_base, "`sampling.at_start = false`, without validation_on_startup"),
    "validation_guidance_skip_*": ignored(
        "neither SimpleTuner's pipelines for FLUX nor those of diffusers have skip-layer guidance, so it had no effect there either"
    ),
    "validation_disable": ignored("with true there are no sampling.prompts"),
    "ema_validation": stated(sampling.set_weights, "`sampling.weights`"),
    "validation_adapter_path validation_adapter_config validation_input validation_using_datasets": refused(
        "`weber sample RUN --strength 0.8 --prompt ...` paints with any strength and with references", off=(None, "", False)
    ),
    "validation_external_script": refused("weber runs no programs", off=(None, "")),
    "eval_steps_interval": stated(sampling.set_evaluation, "`evaluation.every`, where a set has the type eval"),
    "eval_epoch_interval": stated(sampling.set_evaluation_epochs, '`evaluation.every = "2 epochs"`'),
    "num_eval_images": stated(sampling.set_num_evaluated, "`evaluation.pictures`"),
    "eval_timesteps": ignored("evaluation.levels names the noise levels that are measured"),
    "eval_*": ignored("every set that is held out is measured together, as evaluation/held_out"),
    "evaluation_type": refused(_CLIP, off=("none", None, "", False)),
    "pretrained_evaluation_model_name_or_path": ignored(_CLIP),
    "validation_* validate_after_*": ignored(_PAINTED),
}

_OUTPUT: Table = {
    "checkpoint_step_interval checkpointing_steps": stated(sampling.set_save, "`output.save_every`"),
    "checkpoint_epoch_interval": stated(sampling.set_save_epochs, '`output.save_every = "2 epochs"`'),
    "checkpoints_total_limit save_total_limit": stated(sampling.set_keep, "`output.keep_last`"),
    "checkpointing_rolling_steps checkpoints_rolling_total_limit checkpointing_use_tempdir delete_invalid_checkpoints": ignored(
        "checkpoints appear whole or not at all, and are checked when they are read"
    ),
    "report_to": stated(sampling.set_report, "`output.trackers`"),
    "tracker_project_name": stated(sampling.set_tracker_project, "`output.project`, with wandb or trackio"),
    "tracker_run_name": stated(sampling.set_tracker_run, "`output.run_name`, with wandb or trackio"),
    "tracker_* logging_dir custom_tracker merge_environment_config": ignored(_TRACKED),
    "push_to_hub": stated(_SENT.answer_wish, "`publish.to`, of `hub_model_id`"),
    "hub_model_id": stated(_SENT.set_place, "`publish.to`, where `push_to_hub` is given"),
    "push_checkpoints_to_hub": stated(_SENT.answer_checkpoints, '`publish.when = "checkpoints"`'),
    "push_to_hub_background": ignored(BESIDE),
    "publishing_config": refused(
        "`publish.to` takes s3:// and other storages; their keys stand in the environment", off=(None, "", "{}", "[]")
    ),
    "model_card_private": stated(answer_private, IS_PRIVATE),
    "model_card_*": ignored(CARD),
    "post_checkpoint_script post_upload_script": ignored("weber runs no programs"),
    "webhook_config": stated(webhooks.set_webhooks, "`[[output.webhooks]]`, one for each; values are in no report"),
    "webhook_reporting_interval": stated(webhooks.set_interval, "`output.webhooks.0.every`, of raw ones, as there"),
    "modelspec_comment": ignored("weber writes into the header of a file what it knows: settings, data and base model"),
    "enable_watermark framerate": ignored(_OTHER),
    "disk_low_*": ignored("`weber plan` says how much a run writes, and refuses a full disk"),
    "configs_dir __disabled_fields__ __active_tab__ ez_model_type debug_extra_args": ignored("it is of SimpleTuner's own pages and logs"),
}

_DATA: Table = {
    "data_backend_config": ignored("the file with the sets, each of which is a [[data]] here"),
    "data_backend_sampling": stated(set_balance, '`train.balance = "sets"` for uniform'),
    "resolution resolution_type minimum_image_size maximum_image_size target_downsample_size": ignored(_OF_SET),
    "caption_strategy instance_prompt prepend_instance_prompt only_instance_prompt disable_multiline_split": ignored(_OF_SET),
    "parquet_caption_column parquet_filename_column": ignored(_OF_SET),
    "aspect_bucket_rounding": refused("sides follow aspects of two digits, as SimpleTuner rounds them by default", off=(2, None, "")),
    "aspect_bucket_alignment": ignored("SimpleTuner itself takes 64 pixels for FLUX.1 and 16 for FLUX.2 whatever it says"),
    "aspect_ratio_bucketing aspect_ratio_bucket_min aspect_ratio_bucket_max repeats": ignored("SimpleTuner reads it in sets alone"),
    "max_upscale_threshold": ignored("SimpleTuner never reads it, so that small pictures are enlarged, as here in its sets"),
    "conditioning_multidataset_sampling": ignored("with several sets of references, each picture shows all of its own"),
    "disable_bucket_pruning allow_dataset_oversubscription": ignored("the last, smaller group of a bucket is trained on too"),
    "delete_unwanted_images delete_problematic_images ignore_missing_files print_filenames print_sampler_statistics": ignored(_FILTER),
    "enable_nsfw_check": refused("weber does not look at what is in pictures; sort them before"),
    "nsfw_check_* delete_nsfw_images debug_aspect_buckets debug_dataset_loader data_aesthetic_score": ignored(_FILTER),
    "cache_dir cache_dir_text cache_dir_vae text_cache_* text_embed_full_cache vae_cache_* compress_disk_cache": ignored(_CACHED),
    "aspect_bucket_disable_rebuild skip_file_discovery preserve_data_backend_cache override_dataset_config": ignored(_CACHED),
    "metadata_update_interval": ignored(_CACHED),
    "audio_*": ignored(_OTHER),
}

GROUPS: Mapping[str, Table] = {
    "The model": _MODEL,
    "The adapter": _ADAPTER,
    "Memory and speed": _MEMORY,
    "The optimizer and the length": _OPTIM,
    "Noise levels, guidance and loss": _OBJECTIVE,
    "Pictures on the way": _SAMPLING,
    "What is left behind": _OUTPUT,
    "Sets, for all at once": _DATA,
}
TABLE: Table = {name: answer for table in GROUPS.values() for name, answer in table.items()}

DEFAULTS: Mapping[str, Any] = {
    "model_type": "full",
    "lora_type": "standard",
    "lora_rank": 16,
    "lora_dropout": 0.1,
    "lycoris_config": "config/lycoris_config.json",
    "flux_lora_target": "all",
    "optimizer": "adamw_bf16",
    "learning_rate": 4e-7,
    "lr_end": 4e-7,
    "lr_scheduler": "constant_with_warmup",
    "lr_power": 0.8,
    "train_batch_size": 4,
    "num_train_epochs": 1,
    "max_grad_norm": 2.0,
    "ema_decay": 0.995,
    "flow_sigmoid_scale": 1.0,
    "flow_schedule_shift": 3.0,
    "huber_schedule": "snr",
    "caption_dropout_probability": 0.1,
    "validation_step_interval": 100,
    "validation_num_inference_steps": 30,
    "validation_guidance": 7.5,
    "validation_negative_prompt": "blurry, cropped, ugly",
    "validation_no_cfg_until_timestep": 2,
    "validation_resolution": "256",
    "output_dir": "simpletuner-results",
    "checkpoint_step_interval": 500,
    "checkpoints_total_limit": 5,
}
"""What SimpleTuner takes for keys that are left out, where that differs from weber."""

EXAMPLE: Mapping[str, Any] = {
    "resume_from_checkpoint": "latest",
    "data_backend_config": "config/multidatabackend.json",
    "aspect_bucket_rounding": 2,
    "seed": 42,
    "minimum_image_size": 0,
    "output_dir": "output/models",
    "lora_type": "lycoris",
    "lycoris_config": "config/lycoris_config.json",
    "max_train_steps": 10000,
    "num_train_epochs": 0,
    "checkpoint_step_interval": 500,
    "checkpoints_total_limit": 5,
    "hub_model_id": "simpletuner-lora",
    "push_to_hub": True,
    "push_checkpoints_to_hub": True,
    "tracker_project_name": "lora-training",
    "tracker_run_name": "simpletuner-lora",
    "report_to": "wandb",
    "model_type": "lora",
    "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "model_family": "flux",
    "train_batch_size": 1,
    "gradient_checkpointing": True,
    "caption_dropout_probability": 0.1,
    "resolution_type": "pixel_area",
    "resolution": 1024,
    "validation_seed": 42,
    "validation_step_interval": 500,
    "validation_resolution": "1024x1024",
    "validation_guidance": 3.0,
    "validation_guidance_rescale": 0.0,
    "validation_num_inference_steps": 20,
    "mixed_precision": "bf16",
    "optimizer": "adamw_bf16",
    "learning_rate": 1e-4,
    "lr_scheduler": "polynomial",
    "lr_warmup_steps": 100,
    "validation_torch_compile": False,
    "disable_benchmark": False,
}
"""What SimpleTuner's own config.json.example says."""
