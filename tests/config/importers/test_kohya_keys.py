"""That every key which the reference tables name for kohya's scripts has an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.importers.answers import Table, find_answer, list_names
from weber.config.importers.kohya.data import SET
from weber.config.importers.kohya.gui import RENAMED, read_gui
from weber.config.importers.kohya.keys import COMMAND
from weber.config.importers.kohya.network import NETWORK
from weber.config.importers.kohya.read import spell_pairs
from weber.config.importers.kohya.samples import SAMPLES
from weber.config.importers.kohya.sets import SET_OPTIONS
from weber.config.importers.kohya.start import KOHYA
from weber.config.importers.load import import_run

OPTIONS = """
adaptive_noise_scale ae apply_t5_attn_mask async_upload base_weights base_weights_multiplier blocks_to_swap
blockwise_fused_optimizers bucket_no_upscale bucket_reso_steps cache_info cache_latents cache_latents_to_disk
cache_text_encoder_outputs cache_text_encoder_outputs_to_disk caption_dropout_every_n_epochs caption_dropout_rate caption_extension
caption_extention caption_prefix caption_separator caption_suffix caption_tag_dropout_rate ckpt clip_l clip_skip color_aug
conditioning_data_dir config_file console_log_file console_log_level console_log_simple controlnet_model_name_or_path
cpu_offload_checkpointing dataset_class dataset_config dataset_repeats ddp_gradient_as_bucket_view ddp_static_graph ddp_timeout
debiased_estimation_loss debug_dataset deepspeed dim_from_weights disable_mmap_load_safetensors discrete_flow_shift
double_blocks_to_swap dynamo_backend enable_bucket enable_wildcard face_crop_aug_range flip_aug fp16_master_weights_and_gradients
fp8_base fp8_base_unet full_bf16 full_fp16 fused_backward_pass fused_optimizer_groups gradient_accumulation_steps
gradient_checkpointing guidance_scale highvram huber_c huber_scale huber_schedule huggingface_path_in_repo huggingface_repo_id
huggingface_repo_type huggingface_repo_visibility huggingface_token in_json initial_epoch initial_step ip_noise_gamma
ip_noise_gamma_random_strength keep_tokens keep_tokens_separator learning_rate log_config log_prefix log_tracker_config
log_tracker_name log_with logging_dir logit_mean logit_std loss_type lowram lr_decay_steps lr_scheduler lr_scheduler_args
lr_scheduler_min_lr_ratio lr_scheduler_num_cycles lr_scheduler_power lr_scheduler_timescale lr_scheduler_type lr_warmup_steps
masked_loss max_bucket_reso max_data_loader_n_workers max_grad_norm max_timestep max_token_length max_train_epochs max_train_steps
max_validation_steps mem_eff_attn mem_eff_save metadata_author metadata_description metadata_is_negative_embedding metadata_license
metadata_merged_from metadata_preprocessor metadata_tags metadata_thumbnail metadata_title metadata_trigger_phrase
metadata_usage_hint min_bucket_reso min_snr_gamma min_timestep mixed_precision mode_scale model_prediction_type model_type
multires_noise_discount multires_noise_iterations network_alpha network_args network_dim network_dropout network_module
network_train_text_encoder_only network_train_unet_only network_weights no_half_vae no_metadata noise_offset
noise_offset_random_strength offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path
optimizer_args optimizer_schedulefree_wrapper optimizer_type output_config output_dir output_name perlin_noise
persistent_data_loader_workers pretrained_model_name_or_path prior_loss_weight random_crop reg_data_dir resize_interpolation
resolution resume resume_from_huggingface sample_at_first sample_every_n_epochs sample_every_n_steps sample_prompts sample_sampler
save_every_n_epochs save_every_n_steps save_last_n_epochs save_last_n_epochs_state save_last_n_steps save_last_n_steps_state
save_model_as save_n_epoch_ratio save_precision save_state save_state_on_train_end save_state_to_huggingface
scale_v_pred_loss_like_noise_pred scale_weight_norms schedulefree_wrapper_args sdpa secondary_separator seed shuffle_caption
sigmoid_scale single_blocks_to_swap skip_cache_check skip_latents_validity_check skip_until_initial_step split_mode t5xxl
t5xxl_max_token_length text_encoder_batch_size text_encoder_lr timestep_sampling token_warmup_min token_warmup_step
tokenizer_cache_dir torch_compile train_batch_size train_data_dir training_comment unet_lr use_8bit_adam use_lion_optimizer
use_safetensors v2 v_parameterization v_pred_like_loss vae vae_batch_size validate_every_n_epochs validate_every_n_steps
validation_seed validation_split wandb_api_key wandb_run_name weighted_captions weighting_scheme xformers zero3_init_flag
zero3_save_16bit_model zero_stage zero_terminal_snr
"""
"""What the scripts' parsers know, at 48d368f (2026-02-16)."""

SEEN = """
ae apply_t5_attn_mask blocks_to_swap cache_latents cache_latents_to_disk cache_text_encoder_outputs
cache_text_encoder_outputs_to_disk ckpt_path clip_l cpu_offload_checkpointing custom_tokens dataset_config discrete_flow_shift
double_blocks_to_swap fp8_base full_bf16 fused_backward_pass gradient_accumulation_steps gradient_checkpointing guidance_scale
highvram huggingface_repo_id jsonl_for_train learning_rate lora_weights loss_type lr_scheduler lr_warmup_steps
max_data_loader_n_workers max_grad_norm max_train_epochs max_train_steps mixed_precision model_prediction_type model_type
network_alpha network_args network_dim network_module network_train_unet_only num_cpu_threads_per_process
num_validation_images_per_prompt offload optimizer_args optimizer_type output_dir output_name persistent_data_loader_workers
pretrained_model_name_or_path prompt rank report_to sample_every_n_epochs sample_every_n_steps sample_prompts save_every_n_epochs
save_model_as save_precision save_token_embeddings sdpa seed split_mode steps t5xxl t5xxl_max_token_length timestep_sampling
token_init_words train_batch_size use_custom_tokens vae_batch_size validation_prompt_file validation_steps xformers
"""
"""peers-2026-11-29.md B.2a: what files of users hold."""

SET_KEYS = """
alpha_mask batch_size bucket_no_upscale bucket_reso_steps cache_directory cache_info caption_dropout_every_n_epochs
caption_dropout_rate caption_extension caption_prefix caption_separator caption_suffix caption_tag_dropout_rate class_tokens
color_aug conditioning_data_dir custom_attributes enable_bucket enable_wildcard face_crop_aug_range flip_aug image_dir
image_directory is_reg keep_tokens keep_tokens_separator max_bucket_reso metadata_file min_bucket_reso multiple_target
network_multiplier num_repeats random_crop resize_interpolation resolution secondary_separator shuffle_caption token_warmup_min
token_warmup_step validation_seed validation_split
"""
"""peers-2026-11-29.md B.2b and peers.md 1.7."""

NETWORK_KEYS = """
algo block_size bypass_mode constraint conv_alpha conv_dim decompose_both dora_wd dropout enable_all_linear factor full_matrix
ggpo_beta ggpo_sigma img_attn_dim img_mlp_dim img_mod_dim in_dims loraplus_lr_ratio loraplus_text_encoder_lr_ratio
loraplus_unet_lr_ratio module_dropout network_reg_dims network_reg_lrs preset rank_dropout rank_dropout_scale rescaled rs_lora
single_dim single_mod_dim split_qkv train_blocks train_double_block_indices train_norm train_single_block_indices train_t5xxl
txt_attn_dim txt_mlp_dim txt_mod_dim unbalanced_factorization use_cp use_scalar use_tucker verbose wd_on_output
"""
"""peers.md 1.3, and those of LyCORIS."""

GUI_KEYS = """
LoRA_type LyCORIS_preset adaptive_noise_scale additional_parameters ae anima_checkbox apply_t5_attn_mask async_upload base_weights
base_weights_multiplier block_alphas block_dims block_lr_zero_threshold blocks_to_swap blockwise_fused_optimizers
bucket_no_upscale bucket_reso_steps bypass_mode cache_latents cache_latents_to_disk caption_dropout_every_n_epochs
caption_dropout_rate caption_extension clip_g clip_g_dropout_rate clip_l clip_skip color_aug constrain conv_alpha
conv_block_alphas conv_block_dims conv_dim cpu_offload_checkpointing dataset_config debiased_estimation_loss decompose_both
dim_from_weights discrete_flow_shift dora_wd double_blocks_to_swap down_lr_weight dynamo_backend dynamo_mode dynamo_use_dynamic
dynamo_use_fullgraph enable_all_linear enable_bucket epoch extra_accelerate_launch_args factor flip_aug
flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk flux1_checkbox fp8_base fp8_base_unet full_bf16
full_fp16 fused_backward_pass ggpo_beta ggpo_sigma gpu_ids gradient_accumulation_steps gradient_checkpointing guidance_scale
headless highvram huber_c huber_scale huber_schedule huggingface_path_in_repo huggingface_repo_id huggingface_repo_type
huggingface_repo_visibility huggingface_token hunyuan_image_checkbox img_attn_dim img_mlp_dim img_mod_dim in_dims ip_noise_gamma
ip_noise_gamma_random_strength keep_tokens learning_rate log_config log_tracker_config log_tracker_name log_with logging_dir
logit_mean logit_std loraplus_lr_ratio loraplus_text_encoder_lr_ratio loraplus_unet_lr_ratio loss_type lowvram lr_scheduler
lr_scheduler_args lr_scheduler_num_cycles lr_scheduler_power lr_scheduler_type lr_warmup lr_warmup_steps lumina_checkbox
main_process_port masked_loss max_bucket_reso max_data_loader_n_workers max_grad_norm max_resolution max_timestep max_token_length
max_train_epochs max_train_steps mem_eff_attn mem_eff_save metadata_author metadata_description metadata_license metadata_tags
metadata_title mid_lr_weight min_bucket_reso min_snr_gamma min_timestep mixed_precision mode_scale model_list
model_prediction_type model_type module_dropout multi_gpu multires_noise_discount multires_noise_iterations network_alpha
network_dim network_dropout network_weights noise_offset noise_offset_random_strength noise_offset_type
num_cpu_threads_per_process num_machines num_processes optimizer optimizer_args output_dir output_name
persistent_data_loader_workers pos_emb_random_crop_rate pretrained_model_name_or_path print_only prior_loss_weight random_crop
rank_dropout rank_dropout_scale reg_data_dir rescaled resume resume_from_huggingface sample_every_n_epochs sample_every_n_steps
sample_prompts sample_sampler save_as_bool save_clip save_every_n_epochs save_every_n_steps save_last_n_epochs
save_last_n_epochs_state save_last_n_steps save_last_n_steps_state save_model_as save_precision save_state save_state_on_train_end
save_state_to_huggingface save_t5xxl scale_v_pred_loss_like_noise_pred scale_weight_norms sd3_checkbox sdxl
sdxl_cache_text_encoder_outputs sdxl_no_half_vae seed show_timesteps show_timesteps_resolution shuffle_caption
single_blocks_to_swap single_dim single_mod_dim skip_cache_check split_mode split_qkv stop_text_encoder_training t5xxl
t5xxl_device t5xxl_dtype t5xxl_lr t5xxl_max_token_length text_encoder_lr timestep_sampling train_batch_size train_blocks
train_data_dir train_double_block_indices train_inpainting train_lora_ggpo train_norm train_on_input train_single_block_indices
train_t5xxl training_comment txt_attn_dim txt_mlp_dim txt_mod_dim unet_lr unit up_lr_weight use_cp use_scalar use_tucker v2
v_parameterization v_pred_like_loss vae vae_batch_size wandb_api_key wandb_run_name weighted_captions weighting_scheme xformers
"""
"""What a save of the kohya_ss GUI holds."""

FULL_GUI_KEYS = """
batch_size block_lr caption_metadata_filename dataset_repeats disable_mmap_load_safetensors flux1_clip_l flux1_t5xxl
flux_fused_backward_pass full_path fused_optimizer_groups generate_caption_database generate_image_buckets image_folder
latent_metadata_filename learning_rate_te learning_rate_te1 learning_rate_te2 no_token_padding sdxl_checkbox train_dir
train_text_encoder use_latent_files
"""
"""What its tabs for whole models hold beside it."""

PAGE_KEYS = """
ae base_weights base_weights_multiplier bucket_no_upscale bucket_reso_steps cache_latents cache_latents_to_disk
cache_text_encoder_outputs cache_text_encoder_outputs_to_disk caption_dropout_every_n_epochs caption_dropout_rate caption_extension
caption_tag_dropout_rate clip_l clip_skip color_aug contrastive_warmup_steps contrastive_weight conv_alpha conv_dim
ddp_gradient_as_bucket_view ddp_timeout discrete_flow_shift dropout enable_base_weight enable_bucket enable_contrastive
enable_preview flip_aug fp8_base fp8_base_unet full_bf16 full_fp16 gradient_accumulation_steps gradient_checkpointing guidance_scale
keep_tokens keep_tokens_separator learning_rate log_prefix log_tracker_name log_with logging_dir lokr_factor loss_type lowram
lr_scheduler lr_scheduler_num_cycles lr_warmup_steps lycoris_algo max_bucket_reso max_train_epochs min_bucket_reso min_snr_gamma
mixed_precision model_prediction_type model_train_type multires_noise_discount multires_noise_iterations negative_prompts
negative_sampling_method network_alpha network_args_custom network_dim network_dropout network_module network_scale
network_train_text_encoder_only network_train_unet_only network_weights no_half_vae noise_offset noise_strength
optimizer_args_custom optimizer_type output_dir output_name persistent_data_loader_workers positive_prompts
pretrained_model_name_or_path prior_loss_weight prodigy_d0 prodigy_d_coef random_crop randomly_choice_prompt reg_data_dir resolution
prompt_file resume sample_cfg sample_every_n_epochs sample_height sample_sampler sample_seed sample_steps sample_width save_every_n_epochs
save_last_n_epochs_state save_model_as save_precision save_state scale_weight_norms sdpa seed shuffle_caption sigmoid_scale t5xxl
t5xxl_max_token_length text_encoder_lr timestep_sampling train_batch_size train_data_dir train_norm train_t5xxl ui_custom_params
unet_lr vae_batch_size wandb_api_key weighted_captions
"""
"""What lora-scripts' page for FLUX has."""

PROMPT_FLAGS = ("n", "w", "h", "d", "s", "l", "g")


def is_answered(table: Table, name: str) -> bool:
    """Whether it has a row of its own, not only a pattern."""
    return name in list_names(table)


@pytest.mark.parametrize("names", [OPTIONS, SEEN], ids=["parsers", "users"])
def test_every_option_has_an_answer(names: str) -> None:
    assert [name for name in names.split() if not is_answered(COMMAND, name) and name not in SET_OPTIONS] == []


def test_options_that_hold_for_every_set_have_an_answer_there() -> None:
    assert [name for name, there in SET_OPTIONS.items() if not is_answered(SET, there)] == []


def test_every_key_of_a_set_has_an_answer() -> None:
    assert [name for name in SET_KEYS.split() if not is_answered(SET, name)] == []


def test_every_network_argument_has_an_answer() -> None:
    assert [name for name in NETWORK_KEYS.split() if not is_answered(NETWORK, f"network_args.{name}")] == []


@pytest.mark.parametrize("kind", ["Flux1", "Flux1 OFT", "LyCORIS/LoKr", "LyCORIS/LoCon", "Kohya LoKr", "Standard"])
def test_every_key_of_the_gui_has_an_answer(kind: str) -> None:
    given, answered = read_gui(dict.fromkeys(GUI_KEYS.split(), "1") | {"LoRA_type": kind}, where="save.json", spell=spell_pairs)
    known = {one.given.name for one in answered} | {one.spelled.partition(" ")[0].rstrip(":") for one in given}
    assert set(GUI_KEYS.split()) - known <= {"additional_parameters", "optimizer_args", "lr_scheduler_args"}  # of which "1" is no entry
    assert [one.name for one in given if find_answer(COMMAND, one.name) is None and one.name not in SET_OPTIONS] == []
    assert [name for name in RENAMED.values() if not is_answered(COMMAND, name) and name not in SET_OPTIONS] == []


@pytest.mark.parametrize("value", ["1", 0, False, ""])
def test_every_key_of_its_tabs_for_whole_models_has_an_answer(value: object) -> None:
    names = [name for name in f"{GUI_KEYS} {FULL_GUI_KEYS}".split() if name != "LoRA_type"]
    given, answered = read_gui(dict.fromkeys(names, value), where="save.json", spell=spell_pairs)
    known = {one.given.name for one in answered} | {one.spelled.partition(" ")[0].rstrip(":") for one in given}
    assert set(names) - known <= {"additional_parameters", "optimizer_args", "lr_scheduler_args", "text_encoder_lr", "unet_lr"}
    assert [one.name for one in given if find_answer(COMMAND, one.name) is None and one.name not in SET_OPTIONS] == []


def test_every_key_of_lora_scripts_has_an_answer() -> None:
    assert [name for name in PAGE_KEYS.split() if not is_answered(COMMAND, name) and name not in SET_OPTIONS] == []


def test_every_flag_behind_a_prompt_has_an_answer(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat " + " ".join(f"--{flag} 2" for flag in PROMPT_FLAGS))
    (tmp_path / "train.sh").write_text(
        "python flux_train.py --pretrained_model_name_or_path m --train_data_dir p --sample_prompts prompts.txt --sample_every_n_steps 5"
    )
    spelled = {one.given.spelled for one in import_run(tmp_path / "train.sh", tool="kohya").outcomes}
    assert {f"--{flag}" for flag in PROMPT_FLAGS} <= spelled
    assert all(one.why for one in SAMPLES.values())


def test_every_row_says_something() -> None:
    silent = [name for table in KOHYA.tables.values() for name, answer in table.items() if not (answer.why or answer.key)]
    assert silent == []


def test_a_save_of_the_gui_with_all_its_keys(tmp_path: Path) -> None:
    """Empty, as the GUI writes what nobody touched, but for what a run needs."""
    tree = dict.fromkeys(GUI_KEYS.split(), "") | {
        "LoRA_type": "Flux1", "flux1_checkbox": True, "pretrained_model_name_or_path": "/m/flux1-dev.safetensors",
        "train_data_dir": "/pictures",
        "unet_lr": 1e-4, "max_train_steps": 100, "timestep_sampling": "shift", "model_prediction_type": "raw", "network_dim": 8,
    }
    (tmp_path / "save.json").write_text(json.dumps(tree))
    imported = import_run(tmp_path / "save.json")
    assert imported.tool == "kohya"
    told = [one.given.spelled.partition(" ")[0] for one in imported.outcomes if not one.given.is_default]
    assert sorted(set(told)) == sorted(GUI_KEYS.split())
    assert len(told) == len(set(told))
