"""What other trainers call our settings: kohya's scripts, ai-toolkit, OneTrainer, SimpleTuner and diffusers' scripts.

Only used to say which key was meant; nothing is translated in silence. A name is in lower case with `_` for `-`; `section.name` holds in
that section only; `*` stands for any text. Names may begin with that of a model, which is then left out here.
"""

from __future__ import annotations

_MEANT: dict[str, str] = {
    # the base model
    "model.variant": "arch model.is_* model_family model_flavor model_flavour model_type variant_name",
    "model.path": (
        "base_model base_model_name ckpt ckpt_path diffusers_path extras_name_or_path model.name model_name model_path name_or_path"
        " pretrained_model pretrained_model_name_or_path"
    ),
    "model.transformer": (
        "dit pretrained_transformer_model_name_or_path pretrained_unet_model_name_or_path quantized_model_path transformer_path"
        " unet_path"
    ),
    "model.vae": "ae pretrained_vae_model_name_or_path vae_model_name_or_path vae_path",
    "model.text_encoder": (
        "clip_l clip_path qwen_text_encoder_model_name_or_path te_name_or_path text_encoder_1 text_encoder_model_name_or_path"
        " text_encoder_path"
    ),
    "model.text_encoder_2": "pretrained_t5_model_name_or_path t5 t5_path t5xxl",
    "model.tokenizer_path": "tokenizer tokenizer_name tokenizer_name_or_path",
    "model.text_tokens": (
        "max_sequence_length t5xxl_max_token_length text_encoder_*_sequence_length text_encoder_sequence_length tokenizer_max_length"
    ),
    "model.assistant": "assistant_lora_path disable_assistant_lora",
    "model.assistant_strength": "assistant_lora_strength",
    "model.assistant_sample_strength": "assistant_lora_inference_strength",
    "model.adapters.0.path": "base_weights inference_lora_path lora_path",
    "model.adapters.0.strength": "base_weights_multiplier",
    # pictures and captions
    "data.0.path": (
        "aws_data_prefix data.folder data_dir dataset_path directory folder_path image_dir image_directory instance_data_dir"
        " instance_data_root train_data_dir"
    ),
    "data.0.hub": "dataset_name hf_dataset huggingface",
    "data.0.hub_split": "data.dataset_config data.split dataset_config_name",
    "data.0.name": "concept_name data.id dataset_id",
    "data.0.recursive": "include_subdirectories",
    "data.0.metadata": "csv_file data_df_path in_json jsonl_for_train metadata_backend metadata_file parquet",
    "data.0.image_column": "csv_url_column filename_column parquet_filename_column",
    "data.0.caption_column": "csv_caption_column parquet_caption_column",
    "data.0.conditioning_columns": "cond_image_column conditioning_image_column",
    "data.0.repeats": "balancing dataset_repeats image_variations num_repeats",
    "data.0.captions": (
        "caption_source caption_strategy caption_type only_instance_prompt prompt_path prompt_source"
    ),
    "data.0.caption_endings": "caption_ext caption_extension caption_extention",
    "data.0.caption_variants": "text_variations",
    "data.0.caption_steps.0.kind": "data.caption_steps.name data.caption_steps.step data.caption_steps.type",
    "data.0.caption_steps.0.text": "data.caption_steps.prompt data.caption_steps.trigger data.caption_steps.value data.caption_steps.word",
    "data.0.caption_steps.0.place": "data.caption_steps.at data.caption_steps.position data.caption_steps.where",
    "data.0.caption_steps.0.find": "data.caption_steps.from data.caption_steps.match data.caption_steps.pattern data.caption_steps.search",
    "data.0.caption_steps.0.replace_with": (
        "data.caption_steps.replace data.caption_steps.replacement data.caption_steps.to data.caption_steps.with"
    ),
    "data.0.caption_steps.0.keep": "data.caption_steps.keep_first data.caption_steps.keep_tags_count data.caption_steps.keep_tokens",
    "data.0.caption_steps.0.keep_separator": "data.caption_steps.keep_tokens_separator data.caption_steps.mark",
    "data.0.caption_steps.0.separator": (
        "data.caption_steps.caption_separator data.caption_steps.delimiter data.caption_steps.join data.caption_steps.tag_delimiter"
    ),
    "data.0.caption_steps.0.rate": "data.caption_steps.dropout data.caption_steps.p data.caption_steps.probability",
    "data.0.caption_steps.0.most": "data.caption_steps.count data.caption_steps.limit data.caption_steps.max data.caption_steps.max_tags",
    "data.0.caption_steps.0.folder": "data.caption_steps.directory data.caption_steps.path data.caption_steps.wildcards",
    "data.0.caption_fallback": "class_tokens default_caption fallback_caption fallback_caption_column",
    "data.0.caption_per": "disable_multiline_split",
    "data.0.instance_prompt": "data.prompt",
    "data.0.resolution": "image_size resize resolutions",
    "data.0.aspect": (
        "aspect_ratio_bucketing bucketing crop_aspect enable_ar_bucket enable_bucket square_crop"
        " use_aspect_ratio_buckets use_bucket_sampler"
    ),
    "data.0.buckets": "aspect_ratio_buckets",
    "data.0.limit": "max_num_samples max_train_samples",
    "data.0.crop": "center_crop crop_style enable_crop_jitter face_crop_aug_range random_crop",
    "data.0.share": "probability",
    "data.0.start_after": "data.start_step start_epoch",
    "data.0.stop_after": "end_epoch end_step",
    "train.balance": "data_backend_sampling",
    "data.0.mirror": "enable_random_flip flip_aug flip_x hflip horizontal_flip random_flip",
    "data.0.color_jitter": (
        "color_aug enable_random_brightness enable_random_contrast enable_random_hue enable_random_saturation"
        " random_brightness_max_strength random_contrast_max_strength random_hue_max_strength random_saturation_max_strength"
    ),
    "data.0.upscale": "bucket_no_upscale max_upscale_threshold",
    "data.0.bucket_step": "aspect_bucket_alignment bucket_divisibility bucket_reso_steps bucket_tolerance",
    "data.0.minimum_edge": "minimum_image_size",
    "data.0.aspects": "crop_aspect_buckets",
    "data.0.shortest_side": "min_bucket_reso",
    "data.0.longest_side": "max_bucket_reso",
    "data.0.downsample_to": "target_downsample_size",
    "data.0.downsample_above": "maximum_image_size",
    "data.0.aspect_range": "maximum_aspect_ratio minimum_aspect_ratio",
    "data.0.max_aspect": "max_ar max_aspect_ratio",
    "data.0.conditioning": (
        "cond_image_dir conditioning_data conditioning_data_dir control_directory control_from_same_folder control_path"
        " control_path_* custom_conditioning_image num_controls_from_same_folder reference_dir"
    ),
    "data.0.conditioning_type": "control_resize_mode full_size_control_images",
    "data.0.masks": "inpaint_path",
    "data.0.loss_masks": "mask_dir mask_path masked_loss masked_training",
    "data.0.caption_dropout": (
        "caption_dropout_every_n_epochs caption_dropout_probability caption_dropout_rate prompt_dropout_prob proportion_empty_prompts"
        " uncond_p"
    ),
    "data.0.loss_weight": "is_reg loss_multiplier network_weight prior_loss_weight reg_weight",
    "data.0.regularization": "is_regularisation is_regularisation_data is_regularization_data prior_reg",
    # the adapter
    "adapter.kind": (
        "adapter.algo adapter.lora_type adapter.type lora_type model.training_method network_module network_type peft_type"
        " train_method training_method tuner_type"
    ),
    "adapter.rank": "dim linear lora_dim lora_r lora_rank network_dim network_rank r",
    "adapter.alpha": "linear_alpha lora_alpha network_alpha",
    "adapter.dropout": "lora_dropout network_dropout rank_dropout",
    "adapter.targets": (
        "all_layers layer_filter layer_filter_preset lora_layers lora_target lora_target_modules only_target_transformer_blocks"
        " peft_lora_target_modules slider_lora_target target target_modules"
    ),
    "adapter.exclude": "exclude_modules ignore_if_contains",
    "adapter.blocks": (
        "layers_to_transform num_double_layers num_single_layers only_if_contains train_blocks train_double_block_indices"
        " train_single_block_indices"
    ),
    "adapter.rules": (
        "alpha_pattern img_attn_dim img_mlp_dim img_mod_dim in_dims loraplus_lr_ratio loraplus_text_encoder_lr_ratio"
        " loraplus_unet_lr_ratio network_reg_dims network_reg_lrs rank_pattern single_dim single_mod_dim txt_attn_dim txt_mlp_dim"
        " txt_mod_dim"
    ),
    "adapter.init": "gaussian_init_lora init_lora_weights lora_init_type",
    "adapter.start_from": "init_from_existing init_lora init_lora_model lora_model_name network_weights pretrained_lora_path",
    "adapter.resize_start": "dim_from_weights",
    "adapter.text_encoder": "network_train_text_encoder train_text_encoder",
    "adapter.dora": "dora_wd lora_decompose use_dora",
    "adapter.rslora": "rs_lora use_rslora",
    "adapter.precision": "full_bf16 lora_weight_dtype",
    "adapter.lycoris": "init_lokr_norm loha_* lokr_* lycoris_config oft_block_share oft_block_size oft_scaled old_lokr_format",
    # memory
    "memory.device": "accelerator train_device",
    "memory.dtype": "base_model_default_dtype mixed_precision model_dtype torch_dtype train_dtype train_precision weight_dtype",
    "memory.fit": "auto_memory low_vram lowram vram",
    "memory.quantize": (
        "base_model_precision bnb_quantization_config_path do_fp8_training fp8 fp8_base fp8_base_unet fp8_scaled load_in_4bit"
        " load_in_8bit qtype quantization quantization_config quantize_transformer transformer_dtype transformer_precision"
    ),
    "memory.quantize_text_encoder": (
        "fp8_text_encoder qtype_te quantize_te te_dtype text_encoder_1_precision text_encoder_bits text_encoder_dtype"
        " text_encoder_precision"
    ),
    "memory.quantize_text_encoder_2": "fp8_t5 text_encoder_2_precision",
    "memory.quantize_on": "quantize_via",
    "memory.int8_matmul": "quantize_activations sdnq_quantized_matmul_dtype sdnq_use_quantized_matmul",
    "memory.attention": (
        "attention_backend attention_implementation attention_mechanism attention_mode attn_implementation attn_mode"
        " enable_xformers_memory_efficient_attention flash_attention flash_attn mem_eff_attn sage_attn sageattn sdp sdpa"
        " use_flash_attention use_sage_attention xformers"
    ),
    "memory.compile": "block_compile compile_model compile_transformer dynamo_backend torch_compile torch_compile_transformer",
    "memory.gradient_checkpointing": (
        "activation_checkpointing gradient_checkpointing_backend gradient_checkpointing_interval"
        " gradient_checkpointing_segment_stride use_gradient_checkpointing"
    ),
    "parallel.strategy": "distributed_type fsdp_enable fsdp_sharding_strategy sharding_strategy use_fsdp",
    "parallel.reshard": "fsdp_reshard_after_forward reshard_after_forward",
    "parallel.offload": "fsdp_cpu_offload fsdp_offload_params parallel.cpu_offload",
    "parallel.text_encoders": "fsdp_text_encoder",
    "memory.offload_activations": (
        "activation_offloading cpu_offload_checkpointing gradient_checkpointing_cpu_offload gradient_checkpointing_offload_*"
    ),
    "memory.swap_blocks": (
        "block_swap blocks_to_swap cpu_offload double_blocks_to_swap enable_group_offload enable_model_cpu_offload"
        " layer_offload_fraction layer_offloading layer_offloading_* memory.offload musubi_blocks_to_swap num_blocks_to_swap"
        " offload_fraction ramtorch ramtorch_* single_blocks_to_swap split_mode"
    ),
    "memory.swap_to": (
        "group_offload_to_disk_path musubi_block_swap_device offload_param_device offload_param_nvme_path offload_param_path"
        " temp_device"
    ),
    "memory.vae_tiling": "enable_vae_tiling vae_enable_slicing vae_enable_tiling vae_slicing vae_tile*",
    "memory.encode_batch_size": "text_encoder_batch_size vae_batch_size",
    # the objective
    "objective.timesteps": (
        "fast_schedule flow_use_beta_schedule flow_use_uniform_schedule linear_timesteps linear_timesteps2 timestep_distribution"
        " timestep_sample_method timestep_sampling timestep_type use_beta_schedule use_uniform_schedule"
    ),
    "objective.timesteps objective.weighting": "weighting_scheme",
    "objective.sigmoid_scale": "flow_sigmoid_scale",
    "objective.sigmoid_offset": "timestep_sampling_offset",
    "objective.logit_std": "noising_weight",
    "objective.logit_mean": "noising_bias",
    "objective.beta_shape": "beta_schedule_alpha beta_schedule_beta flow_beta_schedule_alpha flow_beta_schedule_beta",
    "objective.cubic_weights": "flow_cubic_schedule_weights",
    "objective.timestep_list": "flow_custom_timesteps",
    "objective.timestep_order": "flow_timesteps_mode",
    "objective.shift": (
        "discrete_flow_shift dynamic_timestep_shifting flow_schedule_auto_shift flow_schedule_shift flow_shift schedule_auto_shift"
        " schedule_shift timestep_shift"
    ),
    "objective.guidance": "guidance_value use_cfg",
    "objective.guidance sampling.guidance": "guidance_scale",
    "objective.guidance_range": "guidance_max guidance_min guidance_mode",
    "objective.text_mask": "apply_t5_attn_mask attention_mask attention_masked_training attn_masking t5_attention_mask",
    "objective.loss": "huber_strength loss_fn loss_type mae_strength mse_strength",
    "objective.huber_c": "huber_delta huber_scale",
    "objective.weighting": "loss_weight_fn",
    "objective.mask_mean": "normalize_masked_area_loss",
    "objective.mask_minimum": "mask_min_value unmasked_weight",
    "objective.tread": "tread_config",
    "objective.rollout": "scheduled_sampling",
    "objective.rollout.max_steps": "scheduled_sampling_max_step_offset",
    "objective.rollout.probability": "scheduled_sampling_prob_end scheduled_sampling_probability",
    "objective.rollout.start_probability": "scheduled_sampling_prob_start",
    "objective.rollout.start_step": "scheduled_sampling_start_step",
    "objective.rollout.ramp_steps": "scheduled_sampling_ramp_steps",
    "objective.rollout.ramp": "scheduled_sampling_ramp_shape",
    "objective.rollout.strategy": "scheduled_sampling_strategy",
    # the optimizer
    "optim.name": "optim.type optimizer optimizer_type use_8bit_adam use_8bit_ademamix use_adafactor use_lion_optimizer",
    "optim.options": (
        "accelerated_ns adam_debias adam_w_mode adanorm alpha_grad ams_bound amsgrad approx_mars auto_kappa_p beta2_normuon"
        " bias_correction block_wise capturable cautious cautious_wd centered clip_threshold d0 d_coef d_limiter dampening decay_rate"
        " decouple decoupled_decay degenerated_to_sgd differentiable factored factored_fp32 fixed_decay foreach fused growth_rate"
        " initial_accumulator initial_accumulator_value is_paged kourkoutas_beta low_rank_ortho lr_decay max_unorm maximize"
        " min_8bit_size momentum muon_* muonwithauxadam n_sma_threshold nesterov nnmf_factor no_prox normuon_variant ns_steps"
        " optim_bits optimizer_args optimizer_config optimizer_defaults optimizer_params ortho_rank orthogonal_gradient"
        " percentile_clipping prodigy_* quant_block_size rectify relative_step rms_rescaling safeguard_warmup scale_parameter"
        " schedulefree_c simplified_ademamix slice_p split_groups split_groups_mean use_ademamix use_adopt use_atan2"
        " use_bias_correction use_cautious use_grams use_orthograd use_schedulefree use_speed use_stableadamw use_triton warmup_init"
        " weight_decay_by_lr"
    ),
    "optim.lr": "adapter_lr initial_lr learning_rate lr_unet transformer_lr unet_lr",
    "optim.text_encoder_lr": "learning_rate_te lr_te te_lr text_encoder_learning_rate text_encoder_lr_1",
    "optim.betas": "adam_beta1 adam_beta2 beta1 beta2 beta3 optimizer_beta1 optimizer_beta2",
    "optim.eps": "adam_epsilon eps1 eps2 epsilon",
    "optim.weight_decay": "adam_weight_decay adam_weight_decay_text_encoder wd",
    "optim.clip_norm": "clip_grad_norm grad_clip gradient_clip gradient_clipping max_grad_norm",
    "optim.fused_backward": (
        "blockwise_fused_optimizers fuse_optimizer fused_back_pass fused_backward_pass fused_optimizer_groups"
        " optimizer_release_gradients"
    ),
    "optim.state_on": (
        "offload_optimizer offload_optimizer_device offload_optimizer_nvme_path optimizer_cpu_offload_method"
        " optimizer_offload_gradients"
    ),
    "optim.ema_decay": "ema ema_rate use_ema",
    "optim.ema_on": "ema_cpu_only ema_device",
    "optim.ema_warmup": "ema_warmup_steps",
    "optim.schedule": "learning_rate_scheduler lr_schedule lr_scheduler lr_scheduler_type scheduler",
    "optim.cycles": "learning_rate_cycles lr_num_cycles lr_scheduler_num_cycles",
    "optim.warmup_steps": "learning_rate_warmup_steps lr_warmup lr_warmup_steps num_warmup_steps warmup warmup_ratio",
    "optim.end_lr": "eta_min learning_rate_min_factor lr_end lr_min lr_scheduler_min_lr_ratio min_lr min_lr_ratio",
    "optim.power": "lr_power lr_scheduler_power",
    # how long
    "train.steps": "iterations max_num_steps max_steps max_train_steps num_steps num_train_steps total_steps training_steps",
    "train.epochs": "max_epochs max_train_epochs num_epochs num_train_epochs",
    "train.batch_size": "data.batch_size micro_batch_size micro_batch_size_per_gpu per_device_train_batch_size train_batch_size",
    "train.accumulation": "grad_accum gradient_accumulation gradient_accumulation_steps",
    "train.seed": "training_seed",
    # pictures on the way
    "sampling.prompts": (
        "final_validation_prompt prompt sample_definition_file_name sample_prompts samples user_prompt_library validation_prompt"
        " validation_prompt_file validation_prompt_library validation_prompts"
    ),
    "sampling.every": (
        "eval_every sample_after sample_every sample_every_n_epochs sample_every_n_steps validation_epoch_interval validation_epochs"
        " validation_step_interval validation_steps"
    ),
    "sampling.steps": "num_inference_steps num_validation_inference_steps sample_steps validation_num_inference_steps",
    "sampling.guidance": "guidance_distilled validation_guidance",
    "sampling.cfg": "cfg_scale guidance_real true_cfg_scale validation_guidance_real",
    "sampling.no_cfg_until": "validation_no_cfg_until_timestep",
    "sampling.at_start": (
        "disable_benchmark force_first_sample sample_at_first sample_skip_first skip_first_sample validation_on_startup"
    ),
    "sampling.at_end": "skip_final_inference",
    "sampling.strengths": "network_multiplier validation_lycoris_strength",
    "sampling.negative_prompt": "neg negative validation_negative_prompt",
    "sampling.conditioning": "ctrl_img ctrl_img_* validation_image validation_images validation_input validation_using_datasets",
    "sampling.weights": "ema_validation non_ema_sampling",
    "sampling.attention": "sageattention_usage",
    "sampling.width sampling.height": "sample_size sampling.resolution sampling.size validation_resolution",
    "sampling.seed": "sample_seed validation_seed",
    "sampling.seeds": "num_validation_images num_validation_images_per_prompt",
    # pictures that are held out
    "data.0.evaluation": "data.validation_seed validation_split",
    "evaluation.every": "eval_epoch_interval eval_steps_interval validate_after validate_every_n_epochs validate_every_n_steps",
    "evaluation.pictures": "num_eval_images",
    "evaluation.levels": "eval_timesteps",
    # what is left behind
    "output.cache": "cache_dir cache_dir_text cache_dir_vae cache_directory latent_cache_dir",
    "output.folder": (
        "logging_dir model_output_dir output_dir output_model_destination output_path save_dir save_root training_folder"
        " workspace_dir"
    ),
    "output.name": "lora_name output_name save_filename_prefix",
    "output.precision": "output.dtype output_dtype save_dtype save_precision save_weight_dtype",
    "output.save_every": (
        "backup_after checkpoint_epoch_interval checkpoint_every checkpoint_step_interval checkpointing_rolling_steps"
        " checkpointing_steps save_every_epochs save_every_n_epochs save_every_n_steps save_n_epoch_ratio save_steps"
    ),
    "output.keep_last": (
        "checkpointing_limit checkpoints_rolling_total_limit checkpoints_total_limit max_step_saves_to_keep rolling_backup_count"
        " save_last_n_epochs save_last_n_epochs_state save_last_n_steps save_last_n_steps_state save_total_limit"
    ),
    "output.formats": "lora_format output_model_format save_format save_model_as",
    "output.trackers": "log_with report_to tensorboard tensorboard_logging",
    "output.project": "log_tracker_name project_name tracker_project_name wandb_project",
    "output.run_name": "tracker_run_name wandb_run_name",
}

_CLASSES = (
    'make class images a set of their own: [[data]] with path = "class/images", captions = "instance", instance_prompt = "a dog" and'
    " loss_weight = 1.0 (what others call prior_loss_weight)"
)
_NETWORK = (
    "write each under its own key: train_blocks and block indices as adapter.blocks, *_dim as [[adapter.rules]], algo and factor as"
    " [adapter.lycoris], rank_dropout as adapter.dropout"
)
_STEP = "write [[data.caption_steps]] with "
_SHORT = (
    'write both captions into NAME.json, and data.0.captions = "json", data.0.caption_key = ["caption", "caption_short"],'
    " data.0.caption_weights = [1.0, 1.0]; of text files, data.0.caption_endings names both"
)
_STEPS: dict[str, str] = {
    _STEP + 'kind = "trigger" and text = the word; it is added where a caption lacks it': "trigger trigger_word",
    _STEP + 'kind = "prefix" and text = what comes before each caption': "caption_prefix",
    _STEP + 'kind = "prefix" and text = what instance_prompt says': "prepend_instance_prompt",
    _STEP + 'kind = "suffix" and text = what comes behind each caption': "caption_suffix",
    _STEP + 'kind = "shuffle", and keep = 1 if the first tag is to stay': (
        "caption_shuffle enable_tag_shuffling shuffle_caption shuffle_tags shuffle_tokens"
    ),
    _STEP + 'kind = "shuffle" and keep = the number of tags that stay; kind = "drop" takes it too': "keep_tags_count keep_tokens",
    _STEP + 'kind = "shuffle" and keep_separator = the mark; it holds for all steps': "keep_tokens_separator",
    _STEP + 'kind = "drop" and rate = how likely each tag is left out; keep, keep_tags or keep_separator say which never are': (
        "caption_tag_dropout_rate tag_dropout_* token_dropout_rate"
    ),
    "write it as separator in each of [[data.caption_steps]] that has to do with tags; left out it is a comma": (
        "caption_separator tag_delimiter"
    ),
    _STEP + 'kind = "wildcards"; a line of a caption file is drawn in any case': "enable_wildcard",
    _STEP + 'kind = "regex" or "replace" and find, or with kind = "filter" and tags': "caption_filter_list",
    _STEP + 'kind = "replace", find and replace_with, one for each': "replacements",
    _STEP + 'kind = "suffix" and text = "{a|b|c}", and one with kind = "wildcards" behind it': "random_triggers random_triggers_max",
    _SHORT: "short_and_long_captions* use_short_captions",
}
"""Names that are steps of captions."""

_ADVICE: dict[str, str] = {
    **_STEPS,
    "write [[output.webhooks]] and below it kind, url and what else it is to be, such as level and every": "webhook_*",
    _CLASSES: (
        "class_data_dir class_prompt num_class_images prior_generation_precision reg_data_dir sample_batch_size"
        " with_prior_preservation"
    ),
    _NETWORK: "network_args network_kwargs",
    "write [[data]] for each set of pictures in this file, and its keys below": (
        "concept_file_name concepts data_backend_config dataloader_config dataset_config subsets"
    ),
    "remove it; `weber train run.toml --resume` goes on from the latest checkpoint": (
        "continue_last_backup initial_epoch initial_step resume resume_from_* skip_until_initial_step start_step"
    ),
    "remove it; to leave a set out, remove its [[data]] or put # before its lines": "disable disabled enabled",
    "remove it; all that is encoded is kept in output.cache": "conditioning_image_embeds image_embeds text_embeds",
    "write each part under its own key: model.transformer, model.vae, model.text_encoder": "model_kwargs model_paths",
    "write the folder itself as model.transformer": "pretrained_transformer_subfolder pretrained_unet_subfolder",
    "remove it; `weber sample RUN --strength 0.8 --prompt ...` paints with any strength": "validation_adapter_*",
    "remove it; the file is named on the command line: weber train run.toml": "config_file",
    "remove it; `weber plan run.toml` shows what is trained on": "debug_dataset",
    "remove it; adapter.targets are ends of names, in which * stands for any text": "layer_filter_regex",
    "remove it; with HF_HUB_OFFLINE=1 in the environment the hub is not asked": "offline_mode",
    "remove it; `weber cache run.toml` fills the cache and stops": "only_cache",
    "train a LoRA for each end; `weber merge a.safetensors b.safetensors:-1` makes a slider of them": "slider_strength",
}

_NOTES: dict[str, str] = {
    "all in one list": "adam_beta1 adam_beta2 beta1 beta2 beta3 optimizer_beta1 optimizer_beta2",
    'epochs are written "2 epochs"': (
        "backup_after checkpoint_epoch_interval sample_after sample_every_n_epochs save_every_epochs save_every_n_epochs save_n_epoch_ratio"
        " validation_epoch_interval validation_epochs"
    ),
    "it counts steps": "warmup_ratio",
    "false paints none": "disable_benchmark sample_skip_first skip_final_inference skip_first_sample",
    "one for each picture: [42, 43]": "num_validation_images num_validation_images_per_prompt",
    "a list: [0.5, 1.0]": "network_multiplier validation_lycoris_strength",
    "it is a rate": "eta_min lr_min min_lr",
    "it is a rate: the ratio times optim.lr": "learning_rate_min_factor lr_scheduler_min_lr_ratio min_lr_ratio",
    'as a list, [".tags"]; .txt, or else .caption, is read in any case': "caption_ext caption_extension caption_extention",
    "both in one list, as width divided by height": "maximum_aspect_ratio minimum_aspect_ratio",
    'numbers alone, with aspect = "closest" or "random"; weights are data.0.aspect_weights': "crop_aspect_buckets",
    "0.5 is half as often as its number of pictures says": "probability",
    'a number of steps or "2 epochs"; it counts from 0, so that the first epoch of others is none here': "data.start_step start_epoch",
    'a number of steps or "2 epochs"': "end_epoch end_step",
    '"sets" gives each set the same weight, as uniform does': "data_backend_sampling",
    'faces are looked for in the pictures, with crop = "face"': "face_crop_aug_range",
    "in the unit of resolution_type; it has an effect with downsample_to": "maximum_image_size",
    'as names with ranges, such as blocks = ["transformer_blocks.0-9"]': (
        "num_double_layers num_single_layers train_double_block_indices train_single_block_indices"
    ),
    "each rule under its own [[adapter.rules]]": (
        "alpha_pattern img_*_dim in_dims network_reg_dims network_reg_lrs rank_pattern single_*_dim single_dim txt_*_dim"
    ),
    'a rule with match = "*" and lr holds for whole layers; their two halves have one rate': "loraplus_*",
    'one loss is chosen: mse is "l2", mae is "l1"': "huber_strength mae_strength mse_strength",
    "as a table, with what the optimizer takes: options = {d_coef = 0.8}": "optimizer_args optimizer_config optimizer_params",
    "it counts blocks": "layer_offload_fraction layer_offloading_* offload_fraction ramtorch_*",
    "it is a folder of masks; alpha_mask = true takes the pictures' own transparency": "masked_loss masked_training",
    'the texts themselves: prompts = ["a cat", "a dog"]': "sample_prompts user_prompt_library validation_prompt_file",
    "as [[width, height], ...]; diffusers' scripts write the height first": "aspect_ratio_buckets",
    "each under its own [[model.adapters]]": "base_weights base_weights_multiplier inference_lora_path lora_path",
    "it is a probability": "caption_dropout_every_n_epochs",
    "ema_decay = 0.999 keeps a running mean, and ema_on says where it lies": "ema",
    "it is a range, such as [1.0, 4.0]": "guidance_max guidance_min guidance_mode",
    "both in one list": "beta_schedule_alpha beta_schedule_beta flow_beta_schedule_alpha flow_beta_schedule_beta",
    "LoKr starts as LyCORIS does": "init_lokr_norm",
    "class images are a set of their own, and it is what others call prior_loss_weight": "is_reg",
    "true enlarges small pictures; otherwise they keep their size": "max_upscale_threshold",
    "in pixels of the shorter edge": "minimum_image_size",
    "of LOGIT_NORMAL": "noising_bias",
    "of LOGIT_NORMAL it is 1 more; of HEAVY_TAIL it is objective.mode_scale": "noising_weight",
    "in two keys; several are sampling.sizes": "sample_size validation_resolution",
}

FOREIGN_NAMES: dict[str, str] = {name: meant for meant, names in _MEANT.items() for name in names.split()}
"""Name -> the key or keys that mean the same."""

FOREIGN_ADVICE: dict[str, str] = {name: advice for advice, names in _ADVICE.items() for name in names.split()}
"""Name -> what to do, where no single key means the same."""

FOREIGN_NOTES: dict[str, str] = {name: note for note, names in _NOTES.items() for name in names.split()}
"""Name -> what else is to be known of the key that means the same: its value is written otherwise."""
