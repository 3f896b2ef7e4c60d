"""Every key of OneTrainer's saves, presets, concepts and samples has an answer."""

from __future__ import annotations

from weber.config.importers.answers import Answer, find_answer, list_names
from weber.config.importers.onetrainer.concepts import CONCEPT_TABLE
from weber.config.importers.onetrainer.keys import DEFAULTS, GROUPS, TABLE
from weber.config.importers.onetrainer.read import OLD_NAMES
from weber.config.importers.onetrainer.samples import SAMPLE_TABLE

# fmt: off
KEYS = """
__version additional_embeddings aspect_ratio_bucketing async_gradient_reduce async_gradient_reduce_buffer async_offloading
attention_mechanism backup_after backup_after_unit backup_before_save base_model_name batch_size bundle_additional_embeddings cache_dir
clear_cache_before_training clip_grad_norm cloud compile concept_file_name concepts continue_last_backup custom_conditioning_image
custom_learning_rate_scheduler dataloader_threads debug_dir debug_mode decoder decoder_text_encoder decoder_vqgan device_indexes
dropout_probability dynamic_timestep_shifting effnet_encoder ema ema_decay ema_update_step_interval embedding embedding_learning_rate
embedding_weight_dtype enable_activation_offloading enable_async_offloading enable_autocast_cache epochs fallback_train_dtype
force_circular_padding force_epsilon_prediction force_v_prediction frames fused_gradient_reduce generalized_offset_noise
gradient_accumulation_steps gradient_checkpointing gradient_reduce_precision huber_delta huber_strength huggingface_cache_dir
include_train_config latent_caching layer_filter layer_filter_preset layer_filter_regex layer_offload_fraction learning_rate
learning_rate_cycles learning_rate_min_factor learning_rate_scaler learning_rate_scheduler learning_rate_warmup_steps log_cosh_strength
lokr_decompose_both lokr_decompose_factor lokr_dim lokr_dora_on_output lokr_full_matrix lokr_use_tucker lokr_vec_trick
lokr_weight_decompose lora_alpha lora_decompose lora_decompose_norm_epsilon lora_decompose_output_axis lora_layer_preset lora_layers
lora_model_name lora_rank lora_weight_dtype loss_scaler loss_weight_fn loss_weight_strength mae_strength masked_prior_preservation_weight
masked_training max_noising_strength min_noising_strength model_type mse_strength multi_gpu noising_bias noising_weight non_ema_sampling
normalize_masked_area_loss offline_mode offset_noise_weight oft_block_share oft_block_size oft_scaled only_cache optimizer
optimizer_defaults output_dtype output_model_destination output_model_format peft_type perturbation_noise_weight preserve_embedding_norm
prevent_overwrites prior quantization rescale_noise_scheduler_to_zero_terminal_snr resolution rolling_backup rolling_backup_count
sample_after sample_after_unit sample_audio_format sample_definition_file_name sample_image_format sample_skip_first sample_video_format
samples samples_to_tensorboard save_every save_every_unit save_filename_prefix save_skip_first scheduler_params secrets temp_device
tensorboard tensorboard_always_on tensorboard_expose tensorboard_port text_encoder text_encoder_2 text_encoder_2_layer_skip
text_encoder_2_sequence_length text_encoder_3 text_encoder_3_layer_skip text_encoder_4 text_encoder_4_layer_skip text_encoder_layer_skip
text_encoder_sequence_length timestep_distribution timestep_shift train_device train_dtype training_method transformer
unconditional_transformer unet unmasked_probability unmasked_weight vae validate_after validate_after_unit validation vb_loss_strength
weight_dtype workspace_dir
""".split()  # noqa: SIM905
"""Of a run."""

OF_A_PART = """
activation_offloading attention_mask dropout_probability gradient_checkpointing guidance_scale include learning_rate model_name
offload_fraction stop_training_after stop_training_after_unit train train_embedding weight_dtype
""".split()  # noqa: SIM905
PARTS = (
    "unet", "prior", "transformer", "unconditional_transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4",
    "vae", "effnet_encoder", "decoder", "decoder_text_encoder", "decoder_vqgan",
)
OF_AN_OPTIMIZER = """
MuonWithAuxAdam Simplified_AdEMAMix accelerated_ns adam_debias adam_w_mode adanorm alpha alpha_grad ams_bound amsgrad approx_mars
auto_kappa_p beta1 beta1_warmup beta2 beta2_normuon beta3 beta3_ema bias_correction block_wise capturable cautious cautious_wd centered
clip_threshold compile d0 d_coef d_limiter dampening decay_rate decouple decoupled_decay degenerated_to_sgd differentiable eps eps2
factored factored_fp32 fixed_decay foreach fsdp_in_use fused fused_back_pass growth_rate initial_accumulator initial_accumulator_value
is_paged k kourkoutas_beta log_every low_rank_ortho lr_decay max_unorm maximize min_8bit_size min_beta1 momentum muon_adam_config
muon_adam_lr muon_adam_regex muon_hidden_layers muon_te1_adam_lr muon_te2_adam_lr n_sma_threshold nesterov nnmf_factor no_prox
normuon_variant ns_steps optim_bits optimizer ortho_rank orthogonal_gradient percentile_clipping prodigy_steps quant_block_size r rectify
relative_step rms_rescaling safeguard_warmup scale_parameter schedulefree_c slice_p split_groups split_groups_mean stochastic_rounding
use_AdEMAMix use_adopt use_atan2 use_bias_correction use_cautious use_grams use_orthograd use_schedulefree use_speed use_stableadamw
use_triton warmup_init weight_decay weight_decay_by_lr weight_lr_power xi
""".split()  # noqa: SIM905
OF_A_CONCEPT = """
__version name path seed enabled type include_subdirectories image_variations text_variations balancing balancing_strategy loss_weight
concept_stats image.enable_crop_jitter image.enable_random_flip image.enable_fixed_flip image.enable_random_rotate
image.enable_fixed_rotate image.random_rotate_max_angle image.enable_random_brightness image.enable_fixed_brightness
image.random_brightness_max_strength image.enable_random_contrast image.enable_fixed_contrast image.random_contrast_max_strength
image.enable_random_saturation image.enable_fixed_saturation image.random_saturation_max_strength image.enable_random_hue
image.enable_fixed_hue image.random_hue_max_strength image.enable_resolution_override image.resolution_override
image.enable_random_circular_mask_shrink image.enable_random_mask_rotate_crop text.prompt_source text.prompt_path
text.enable_tag_shuffling text.tag_delimiter text.keep_tags_count text.tag_dropout_enable text.tag_dropout_mode
text.tag_dropout_probability text.tag_dropout_special_tags_mode text.tag_dropout_special_tags text.tag_dropout_special_tags_regex
text.caps_randomize_enable text.caps_randomize_mode text.caps_randomize_probability text.caps_randomize_lowercase
""".split()  # noqa: SIM905
OF_A_SAMPLE = """
__version enabled prompt negative_prompt height width frames length seed random_seed diffusion_steps cfg_scale noise_scheduler
text_encoder_1_layer_skip text_encoder_1_sequence_length text_encoder_2_layer_skip text_encoder_2_sequence_length
text_encoder_3_layer_skip text_encoder_4_layer_skip transformer_attention_mask force_last_timestep sample_inpainting base_image_path
mask_image_path
""".split()  # noqa: SIM905

USERS = """
base_model_name learning_rate batch_size resolution vae.weight_dtype model_type training_method text_encoder.weight_dtype output_dtype
dataloader_threads layer_offload_fraction gradient_checkpointing output_model_format output_model_destination backup_after
text_encoder_2.weight_dtype optimizer.optimizer weight_dtype prior.weight_dtype workspace_dir cache_dir concept_file_name epochs lora_rank
sample_after lora_layers lora_layer_preset optimizer.beta2 optimizer.eps sample_after_unit tensorboard continue_last_backup
clear_cache_before_training learning_rate_scheduler learning_rate_warmup_steps gradient_accumulation_steps learning_rate_scaler
clip_grad_norm offset_noise_weight masked_training unmasked_probability lora_model_name optimizer.beta1 optimizer.clip_threshold
optimizer.decay_rate optimizer.eps2 optimizer.fused optimizer.fused_back_pass optimizer.stochastic_rounding optimizer.weight_decay
sample_definition_file_name backup_after_unit rolling_backup rolling_backup_count backup_before_save save_skip_first
dynamic_timestep_shifting sample_skip_first masked_prior_preservation_weight transformer.weight_dtype layer_filter layer_filter_preset
""".split()  # noqa: SIM905
"""Those that differ between the files of users."""
# fmt: on


def _is_known(name: str) -> bool:
    return find_answer(TABLE, OLD_NAMES.get(name, name)) is not None


def test_every_key_has_an_answer() -> None:
    assert [name for name in (*KEYS, *USERS) if not _is_known(name)] == []


def test_every_key_of_a_part_has_an_answer() -> None:
    assert [f"{part}.{name}" for part in PARTS for name in OF_A_PART if not _is_known(f"{part}.{name}")] == []


def test_every_setting_of_an_optimizer_has_an_answer() -> None:
    assert [name for name in OF_AN_OPTIMIZER if not _is_known(f"optimizer.{name}")] == []
    assert all(_is_known(f"optimizer_defaults.ADAMW.{name}") for name in OF_AN_OPTIMIZER)


def test_every_key_of_a_concept_and_a_sample_has_an_answer() -> None:
    assert [name for name in OF_A_CONCEPT if find_answer(CONCEPT_TABLE, name) is None] == []
    assert [name for name in OF_A_SAMPLE if find_answer(SAMPLE_TABLE, name) is None] == []


def test_every_answer_says_something() -> None:
    answers: list[Answer] = [answer for table in (*GROUPS.values(), CONCEPT_TABLE, SAMPLE_TABLE) for answer in table.values()]
    assert all(one.why or one.key for one in answers)
    assert not any(one.why.endswith(".") for one in answers)


def test_defaults_are_keys() -> None:
    assert [name for name in DEFAULTS if find_answer(TABLE, name) is None] == []


def test_no_key_stands_in_two_groups() -> None:
    names = [name for table in GROUPS.values() for name in list_names(table)]
    assert [name for name in set(names) if names.count(name) > 1] == []
