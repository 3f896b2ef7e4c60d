"""What other trainers can do and weber does not, and what it does in any case: each with the sentence that says so.

Names are written as in `foreign_names.py`.
"""

from __future__ import annotations

_VELOCITY = "these models answer with the velocity as it is, and any other reading of their answer trains toward something else"
_SCHEDULE = "it belongs to diffusion with a table of signal and noise, and these models have a straight line between picture and noise"
_NOISE = "pictures are painted from standard normal noise, so that is what is trained on"
_INPUT = "it noises the input without changing the wanted answer; [objective.rollout] trains on inputs with the model's own errors"
_RANGE = "noise levels are drawn by a law of the whole range; zeros in objective.cubic_weights leave parts of it out"
_CASE = 'weber changes no case of letters; `[[data.caption_steps]]` with kind = "regex" does what else is wanted'
_WARMUP = 'captions are as they are from the first step on; `[[data.caption_steps]]` with kind = "drop" leaves tags out at any time'
_JOINED = "what is in brackets is one tag, (a, b), for all steps of data.0.caption_steps"
_EMPHASIS = "weber weighs no words of a caption; all are read alike"
_FREQUENCY = "weber counts no tags; `weber plan` shows drawn captions"
_CHANGES = "pictures are encoded once, as they are, and kept in the cache; put changed copies beside them"
_DEVICES = "[parallel] says which devices train, and what each holds; a step has the same pictures on any number of them"
_COMPILE = "memory.compile = true compiles the blocks as they should be, and has no such setting"
_UPLOAD = "publish.to = owner/name sends the result to the hub, publish.when = checkpoints each checkpoint too; the token is in no settings"
_TRACKERS = "weber writes metrics.jsonl into the run folder, and to output.trackers: tensorboard, trackio, wandb"
_MODELS = "it is for other models"
_LOSSES = "weber has no such further loss"
_TEACHER = "weber has no such loss; a set with regularization = true keeps the model as it is on its pictures"
_EVAL = "pictures that data.0.evaluation holds out are measured in one way, as [evaluation] says; pictures on the way get no score"
_SAMPLER = "pictures are painted with Euler's steps along the model's own noise levels"
_VIDEO = "weber trains on still pictures"
_TOKENS = "weber trains no embeddings of new words; write a made-up word into the captions"
_LENGTH = "how captions are read is the model's own"
_TEXT = "weber trains no such part"
_WORKERS = "pictures and captions are encoded before the first step, so that nothing is loaded while it trains"
_CURRICULUM = "all sets are trained on from the first step to the last"
_CLOUD = "pictures are in a folder (data.0.path) or a dataset of the hub (data.0.hub)"
_FILTER = "`weber plan` lists pictures that are set aside, and why; nothing is deleted"
_QUALITY = "pictures are written as PNG"
_HEADER = "weber writes into the header of a file what it knows: settings, data and base model"
_PARTS = "weber has another way to save memory: leave settings of [memory] out and set memory.fit"
_METHOD = "weber has no such method"
_OPTIMIZER = "weber's optimizers and schedules have no such setting"
_SIZES = "the size that is trained is data.0.resolution, whatever the size of the file; data.0.minimum_edge sets small ones aside"
_CONVOLUTIONS = "these models have no convolutions"
_OTHER_DEVICES = "weber runs on processors and on GPUs of NVIDIA, AMD and Apple"
_SCALE = "optim.lr is the rate that is used, whatever the size of a step"

_WHY: dict[str, str] = {
    _VELOCITY: "force_epsilon_prediction force_v_prediction model_prediction_type prediction_type v_parameterization",
    _SCHEDULE: (
        "debiased_estimation_loss inference_scheduler_timestep_spacing learnable_snr_gos min_snr min_snr_gamma num_train_timesteps"
        " rescale_betas_zero_snr rescale_noise_scheduler_to_zero_terminal_snr scale_v_pred_loss_like_noise_pred snr_gamma snr_weight"
        " soft_min_snr_* training_scheduler_timestep_spacing use_soft_min_snr v_pred_like_loss zero_terminal_snr"
    ),
    _NOISE: (
        "adaptive_noise_scale blended_blur_noise dynamic_noise_offset force_consistent_noise generalized_offset_noise"
        " match_noise_norm multires_noise_* noise_multiplier noise_offset noise_offset_* offset_noise offset_noise_weight"
        " optimal_noise_pairing_samples perturbation_noise_weight random_noise_* target_noise_multiplier"
    ),
    _INPUT: "input_perturbation input_perturbation_steps ip_noise_gamma ip_noise_gamma_random_strength",
    _RANGE: (
        "disable_segmented_timestep_sampling max_denoising_steps max_noising_strength max_timestep min_denoising_steps"
        " min_noising_strength min_timestep refiner_* timestep_bias_*"
    ),
    _CASE: "caps_randomize_*",
    _WARMUP: "token_warmup_*",
    _JOINED: "secondary_separator",
    _EMPHASIS: "weighted_captions",
    _FREQUENCY: "tag_frequency",
    _CHANGES: (
        "augmentations augments controls enable_fixed_* enable_random_circular_mask_shrink enable_random_mask_rotate_crop"
        " enable_random_rotate flip_y invert_mask poi random_scale random_rotate_max_* replay_transforms shuffle_augmentations"
        " standardize_images"
    ),
    _DEVICES: (
        "accelerate_* async_gradient_reduce* context_parallel_* data_parallel* ddp_* deepspeed deepspeed_* device_indexes"
        " enable_multiprocessing find_unused_parameters fsdp_* fused_gradient_reduce gradient_reduce_precision local_rank machine_rank"
        " main_process_* multi_gpu num_machines num_processes pipeline_stages seed_for_each_device split_model_* validation_multigpu"
        " world_size zero3_* zero_stage"
    ),
    _COMPILE: "cache_size_limit compile_* dynamo_* torch_compile_* validation_torch_compile",
    _UPLOAD: (
        "async_upload cloud hf_private hf_repo_id hub_model_id hub_model_name hub_token huggingface_* model_card_* post_*_script"
        " publishing_config push_* save_state_to_huggingface secrets use_ui_logger"
    ),
    _TRACKERS: (
        "custom_tracker log_config log_dataset_samples log_every log_prefix log_tracker_* logging_steps performance_log_every"
        " samples_to_tensorboard tensorboard_* track_* tracker_* use_wandb wandb wandb_*"
    ),
    _MODELS: (
        "clip_skip data_aesthetic_score decoder decoder_* effnet_encoder experimental_xl flow_map is_v_pred latent_space_version"
        " layer_skip max_grounding_entities pixart_* pretrained_gemma_model_name_or_path pretrained_grounding_model_name_or_path prior"
        " refiner_lr show_turbo_outputs split_multistage_loras text_encoder_*_layer_skip text_encoder_3* text_encoder_4*"
        " text_encoder_layer_skip text_encoder_limit unconditional_transformer unet v2"
    ),
    _LOSSES: (
        "audio_loss_* contrastive_loss* crepa_* diff2flow_* diffusion_blocks_* diffusion_feature_extractor_* distillation_*"
        " do_blank_stabilization do_fft_* do_guidance_loss* do_prior_divergence guidance_loss_* internal_guidance_* irepa_*"
        " latent_feature_* latent_perturb* layersync_* log_cosh_strength loss_target mixflow_* nextlat_* t0_* target_norm_* twinflow_*"
        " urepa_* validation_internal_guidance_scale vb_loss_strength xm_*"
    ),
    _TEACHER: (
        "blank_prompt_preservation* diff_output_preservation* inverted_mask_prior* masked_loss_probability"
        " masked_prior_preservation_weight unmasked_probability"
    ),
    _EVAL: (
        "eval_* evaluation_type max_validation_steps pretrained_evaluation_model_name_or_path validate_after_* validation"
        " validation_config"
    ),
    _SAMPLER: (
        "adapter_conditioning_scale ctrl_idx do_cfg_norm guidance_rescale max_negative_prompts noise_scheduler"
        " refiner_start_at sample_sampler sampler scheduled_sampling_order scheduled_sampling_reflexflow* scheduled_sampling_sampler"
        " validation_disable_unconditional validation_guidance_* validation_noise_scheduler"
    ),
    _VIDEO: (
        "audio_* auto_frame_count do_audio do_i2v fps framerate frames ltx* num_frames sample_audio_format sample_video_format"
        " shrink_video_to_frames trim_auto_frame_count_tail vae_enable_temporal_roll validation_num_video_frames video video_*"
    ),
    _TOKENS: (
        "additional_embeddings bundle_additional_embeddings custom_tokens embedding embedding_* enable_t5_ti initializer_concept"
        " num_new_tokens_per_abstraction placeholder preserve_embedding_norm save_token_embeddings token_abstraction token_count"
        " token_init_words train_text_encoder_frac train_text_encoder_ti train_text_encoder_ti_frac train_transformer_frac"
        " use_custom_tokens"
    ),
    _LENGTH: (
        "custom_text_encoder_intermediary_layers max_token_length t5_padding text_encoder_out_layers"
    ),
    _TEXT: (
        "clip_image_* control controlnet controlnet_* freeze_encoder_* ip_adapter layer_freeze_strategy lorm"
        " network_train_text_encoder_only peft_lora_mode singlora_* train_norm_layers train_refiner train_turbo train_unet_only"
        " use_lora_bias use_text_encoder_1 use_text_encoder_2"
    ),
    _WORKERS: (
        "aspect_bucket_worker_count aws_max_pool_connections cache_latents_num_workers dataloader_* image_processing_batch_size"
        " max_data_loader_n_workers max_workers num_cpu_threads_per_process num_workers persistent_data_loader_workers prefetch_factor"
        " read_batch_size torch_num_threads write_batch_size"
    ),
    _CURRICULUM: (
        "balancing_strategy conditioning_multidataset_sampling disable_after_epoch_step stop_training_after"
        " stop_training_after_unit"
    ),
    _CLOUD: "aws_* backend csv_cache_dir data.type dataset_type metadata_update_interval source_dataset_id",
    _FILTER: (
        "allow_dataset_oversubscription aspect_bucket_disable_rebuild debug_* delete_* disable_bucket_pruning disk_low_*"
        " enable_nsfw_check ignore_missing_files nsfw_check_* print_filenames print_sampler_statistics"
    ),
    _QUALITY: "image_format sample_image_format sampling.format validation_image_format validation_image_quality",
    _HEADER: "include_train_config metadata_* modelspec_comment no_metadata training_comment",
    _PARTS: (
        "accelerator_cache_clear_interval async_offloading delete_model_after_load fully_unload_text_encoder"
        " gradient_checkpointing_offload_prefetch group_offload_* highvram keep_vae_loaded mem_eff_save offload_during_*"
        " remote_text_encoder te_device unload_text_encoder vae_device"
    ),
    _METHOD: (
        "accuracy_recovery_adapter adapter_assist_* adaptive_scaling_factor batch_noise_correction_scale bypass_guidance_embedding"
        " cfg_rescale concept_stats content_or_style content_or_style_reg control_transparent_color correct_pred_norm*"
        " custom_attributes dataset_class differential_guidance_scale do_batch_noise_correction do_cfg do_differential_guidance"
        " do_paramiter_swapping do_random_cfg do_signal_* enable_watermark extra_values force_circular_padding free_u ggpo_*"
        " i_know_what_i_am_doing image_interpolation_mode img_multiplier in_context init_lora_ema init_lora_step latent_multiplier"
        " lora_decompose_norm_epsilon lora_decompose_output_axis loss_weight_strength match_adapter_* max_loss max_loss_debug"
        " merge_network_on_save* module_dropout next_sample_timesteps noisy_latent_multiplier paramiter_swapping_factor pred_scaler"
        " prompt_saturation_chance quantize_kwargs resize_interpolation same_network save_text_encoder scale_weight_norms sdnq_*"
        " short_steps signal_* single_item_batching sla_config standardize_latents svd_dtype svd_rank switch_boundary_every"
        " unconditional_path use_*_cfg validation_external_* validation_method validation_preview* validation_seed_source"
        " validation_stitch_input_location weight_jitter"
    ),
    _OPTIMIZER: (
        "custom_learning_rate_scheduler ema_foreach_disable ema_update_interval ema_update_step_interval grad_clip_method"
        " gradient_precision loss_scaler lr_decay_steps lr_scheduler_args lr_scheduler_params lr_scheduler_timescale param_multiplier"
        " scheduler_params stochastic_rounding use_feedback"
    ),
    _CONVOLUTIONS: "conv conv_alpha conv_dim conv_rank",
    _SIZES: "enable_resolution_override max_resolution resolution_override scale",
    _OTHER_DEVICES: "enable_npu_flash_attention",
    _SCALE: "learning_rate_scaler lr_scale lr_scale_sqrt scale_lr",
}

FOREIGN_REFUSED: dict[str, str] = {name: why for why, names in _WHY.items() for name in names.split()}
"""What other trainers can do and weber does not -> the reason."""

FOREIGN_NATURAL: dict[str, str] = {"model_prediction_type": "raw", "prediction_type": "flow_matching", "noise_scheduler": "flowmatch"}
"""Values of these that say what is done in any case."""

_FUSED = "queries, keys and values are one product where that is quicker"
_NO_SLICES = "attention is never cut into slices; it needs no memory for scores"
_CACHED = "latents and texts are always encoded once and kept in output.cache"
_SAFETENSORS = "files are always safetensors"
_STATE = "every checkpoint holds all that a resume needs"
_HALF = "the autoencoder runs in the precision that it needs"
_FRESH = "what is in the cache is found by its content, so that nothing stale is used"

_ALWAYS: dict[str, str] = {
    _FUSED: "fuse_qkv_projections fused_qkv_projections",
    _NO_SLICES: "unet_attention_slice",
    _CACHED: (
        "cache_clip_vision_to_disk cache_info cache_latents cache_latents_to_disk cache_tensors_to_disk cache_text_embeddings"
        " cache_text_encoder_outputs cache_text_encoder_outputs_to_disk fast_image_size latent_caching load_image_when_caching_latents"
        " precompute_* text_embed_full_cache"
    ),
    _FRESH: (
        "cache_file_suffix clear_cache_before_training compress_disk_cache hash_filenames ignore_epochs override_dataset_config"
        " preserve_data_backend_cache skip_cache_check skip_file_discovery skip_latents_validity_check text_cache_* vae_cache_*"
        " vae_encode_mode"
    ),
    _SAFETENSORS: "disable_mmap_load_safetensors use_safetensors",
    _STATE: "backup_before_save checkpointing_use_tempdir rolling_backup save_state save_state_on_train_end",
    _HALF: "allow_tf32 disable_tf32 force_upcast no_half_vae vae_dtype vae_enable_patch_conv",
    "pictures are painted at the start, every sampling.every steps and at the end, if there are sampling.prompts": (
        "disable_sampling sample_start_step save_skip_first validation_disable validation_randomize walk_seed"
    ),
    "only adapters learn, and CLIP's with adapter.text_encoder = true": "network_train_unet_only train_unet transformer_only",
    'a number counts steps, and epochs are written "2 epochs"': "backup_after_unit sample_after_unit save_every_unit",
    "the settings of a run, defaults included, are written into its folder": "output_config print_config",
    "no code of a model is run": "trust_remote_code",
    "every result is written beside its name and put there when it is whole": "prevent_overwrites",
    "attention layers are split into queries, keys and values": "split_qkv",
    "adapters are trained in fp32": (
        "enable_autocast_cache fallback_train_dtype fp16_master_weights_and_gradients full_fp16 upcast_before_saving"
    ),
    "gradients are set to nothing after each step": "optimizer_zero_grad_set_to_none set_grads_to_none",
    "the last, smaller group of a bucket is trained on too": "aspect_bucket_rounding drop_last strict_epoch_limit",
}

FOREIGN_ALWAYS: dict[str, str] = {name: what for what, names in _ALWAYS.items() for name in names.split()}
"""What weber does in any case -> the sentence that says so."""
