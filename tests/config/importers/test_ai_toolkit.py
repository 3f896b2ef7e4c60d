"""ai-toolkit's jobs: what each key becomes, by hand; what it does in silence; and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.ai_toolkit.keys import DATASET, KEYS
from weber.config.importers.answers import find_answer
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.errors import ConfigError

KEYS_IN_FILES = (
    "config.name device job meta.name meta.version model.name_or_path save.dtype save.max_step_saves_to_keep train.batch_size"
    " train.dtype train.gradient_checkpointing train.lr train.noise_scheduler train.optimizer train.steps train.train_text_encoder"
    " train.train_unet training_folder type model.is_flux train.ema_config.ema_decay train.ema_config.use_ema save.save_every"
    " network.linear network.linear_alpha network.type model.quantize sample.guidance_scale sample.height sample.neg sample.prompts"
    " sample.sample_every sample.sample_steps sample.sampler sample.seed sample.walk_seed sample.width"
    " train.gradient_accumulation_steps save.push_to_hub trigger_word model.assistant_lora_path sample.sample_start_step"
    " performance_log_every train.bypass_guidance_embedding train.gradient_accumulation train.linear_timesteps train.timestep_type"
    " model.quantize_kwargs.exclude model.low_vram train.disable_sampling train.skip_first_sample adapter.clip_layer"
    " adapter.image_encoder_arch adapter.image_encoder_path adapter.name_or_path adapter.test_img_path adapter.train adapter.type"
    " sqlite_db_path network.network_kwargs.only_if_contains network.network_kwargs.ignore_if_contains network.lokr_full_rank"
    " network.lokr_factor network.pretrained_lora_path model.compile model.block_compile train.validation_config training_seed log_dir"
)
"""peers-2026-11-29.md B.3 and peers.md 3.1."""

SET_KEYS_IN_FILES = (
    "caption_dropout_rate caption_ext folder_path resolution shuffle_tokens cache_latents_to_disk"
)
"""The same of a set."""

KEYS_IN_CODE = (
    "save.dtype save.hf_private save.hf_repo_id save.max_step_saves_to_keep save.push_to_hub save.save_every save.save_format"
    " logging.log_every logging.project_name logging.run_name logging.use_ui_logger logging.use_wandb logging.verbose"
    " sample.adapter_conditioning_scale sample.do_cfg_norm sample.extra_values sample.format sample.fps sample.guidance_rescale"
    " sample.guidance_scale sample.height sample.neg sample.network_multiplier sample.num_frames sample.prompts"
    " sample.refiner_start_at sample.sample_every sample.sample_start_step sample.sample_steps sample.sampler sample.samples"
    " sample.seed sample.walk_seed sample.width network.all_layers network.alpha network.conv network.conv_alpha network.dropout"
    " network.layer_offloading network.linear network.linear_alpha network.lokr_factor network.lokr_full_rank network.lorm"
    " network.network_kwargs network.old_lokr_format network.pretrained_lora_path network.rank network.split_multistage_loras"
    " network.transformer_only network.type train.adapter_assist_name_or_path train.adapter_assist_type train.adapter_lr"
    " train.adaptive_scaling_factor train.attention_backend train.audio_loss_multiplier train.batch_noise_correction_scale"
    " train.batch_size train.blank_prompt_preservation train.blank_prompt_preservation_multiplier train.blended_blur_noise"
    " train.bypass_guidance_embedding train.cache_text_embeddings train.cfg_rescale train.cfg_scale train.content_or_style"
    " train.correct_pred_norm train.correct_pred_norm_multiplier train.diff_output_preservation train.diff_output_preservation_class"
    " train.diff_output_preservation_multiplier train.differential_guidance_scale train.diffusion_feature_extractor_path"
    " train.diffusion_feature_extractor_weight train.disable_sampling train.do_batch_noise_correction train.do_blank_stabilization"
    " train.do_cfg train.do_differential_guidance train.do_fft_loss train.do_fft_velocity_equiv_weight train.do_guidance_loss"
    " train.do_guidance_loss_cfg_zero train.do_paramiter_swapping train.do_prior_divergence train.do_random_cfg"
    " train.do_signal_amplification train.do_signal_correction_noise train.dtype train.dynamic_noise_offset train.ema_config"
    " train.embedding_lr train.force_consistent_noise train.force_first_sample train.free_u train.gradient_accumulation"
    " train.gradient_accumulation_steps train.gradient_checkpointing train.guidance_loss_schedule train.guidance_loss_target"
    " train.img_multiplier train.inverted_mask_prior train.inverted_mask_prior_multiplier train.latent_feature_extractor_path"
    " train.latent_feature_loss_weight train.latent_multiplier train.learnable_snr_gos train.linear_timesteps train.linear_timesteps2"
    " train.loss_target train.loss_type train.lr train.lr_scheduler train.lr_scheduler_params train.match_adapter_assist"
    " train.match_adapter_chance train.match_noise_norm train.max_cfg_scale train.max_denoising_steps train.max_grad_norm"
    " train.max_loss train.max_loss_debug train.max_negative_prompts train.merge_network_on_save train.merge_network_on_save_strength"
    " train.min_denoising_steps train.min_snr_gamma train.negative_prompt train.next_sample_timesteps train.noise_multiplier"
    " train.noise_offset train.noise_scheduler train.noisy_latent_multiplier train.num_train_timesteps"
    " train.optimal_noise_pairing_samples train.optimizer train.optimizer_params train.paramiter_swapping_factor train.pred_scaler"
    " train.prompt_dropout_prob train.prompt_saturation_chance train.random_noise_multiplier train.random_noise_shift train.refiner_lr"
    " train.reg_weight train.sdp train.short_and_long_captions train.short_and_long_captions_encoder_split train.show_turbo_outputs"
    " train.signal_amplification_strength train.signal_correction_noise_scale train.single_item_batching train.skip_first_sample"
    " train.snr_gamma train.standardize_images train.standardize_latents train.start_step train.steps train.switch_boundary_every"
    " train.t0_loss_target train.t0_velocity_equiv_weight train.target_noise_multiplier train.target_norm_std"
    " train.target_norm_std_value train.text_encoder_lr train.timestep_type train.train_refiner train.train_text_encoder"
    " train.train_turbo train.train_unet train.unconditional_prompt train.unet_lr train.unload_text_encoder train.validation_config"
    " train.weight_jitter train.xformers model.accuracy_recovery_adapter model.arch model.assistant_lora_path model.attn_masking"
    " model.auto_memory model.block_compile model.cache_size_limit model.compile model.compile_dynamic model.compile_fullgraph"
    " model.compile_mode model.dtype model.experimental_xl model.extras_name_or_path model.ignore_if_contains model.in_context"
    " model.inference_lora_path model.is_auraflow model.is_flux model.is_lumina2 model.is_pixart model.is_pixart_sigma model.is_ssd"
    " model.is_v2 model.is_v3 model.is_v_pred model.is_vega model.is_xl model.latent_space_version model.layer_offloading"
    " model.layer_offloading_text_encoder_percent model.layer_offloading_transformer_percent model.lora_path model.low_vram"
    " model.model_kwargs model.model_paths model.name_or_path model.only_if_contains model.qtype model.qtype_te model.quantize"
    " model.quantize_kwargs model.quantize_te model.refiner_name_or_path model.refiner_start_at"
    " model.split_model_other_module_param_count_scale model.split_model_over_gpus model.te_device model.te_dtype"
    " model.te_name_or_path model.text_encoder_bits model.unconditional_lora_path model.unet_path model.unet_sample_size"
    " model.use_flux_cfg model.use_text_encoder_1 model.use_text_encoder_2 model.vae_device model.vae_dtype model.vae_path"
    " train.ema_config.ema_decay train.ema_config.param_multiplier train.ema_config.use_ema train.ema_config.use_feedback"
)
"""Every key that toolkit/config_modules.py reads (27a03a91), but those of adapters, embeddings and sliders."""

SET_KEYS_IN_CODE = (
    "alpha_mask audio_normalize audio_preserve_pitch augmentations augments auto_frame_count batch_size bucket_tolerance buckets"
    " cache_clip_vision_to_disk cache_latents cache_latents_num_workers cache_latents_to_disk cache_tensors_to_disk"
    " cache_text_embeddings caption_dropout_rate caption_ext caption_type clip_image_augmentations clip_image_from_same_folder"
    " clip_image_path clip_image_shuffle_augmentations control_from_same_folder control_path control_path_1 control_path_2"
    " control_path_3 control_transparent_color controls dataset_path debug default_caption diff_output_preservation"
    " diff_output_preservation_class do_audio do_i2v extra_values fast_image_size flip_x flip_y folder_path fps"
    " full_size_control_images guidance_type inpaint_path invert_mask is_reg keep_tokens load_image_when_caching_latents"
    " loss_multiplier mask_min_value mask_path network_weight num_controls_from_same_folder num_frames num_repeats num_workers poi"
    " prefetch_factor prior_reg random_crop random_scale random_triggers random_triggers_max replacements replay_transforms resolution"
    " scale shrink_video_to_frames shuffle_augmentations shuffle_tokens square_crop standardize_images token_dropout_rate trigger_word"
    " trim_auto_frame_count_tail type unconditional_path use_short_captions"
)
"""The same of `DatasetConfig`."""



def build_job(**changes: Any) -> dict[str, Any]:
    """A job with a model and pictures; `section={...}` is added to it, `sets` and `process` replace."""
    process: dict[str, Any] = {
        "type": "sd_trainer",
        "training_folder": "out",
        "network": {"type": "lora", "linear": 16},
        "datasets": [{"folder_path": "pics"}],
        "train": {"steps": 100, "lr": "1e-4", "dtype": "bf16"},
        "model": {"name_or_path": "black-forest-labs/FLUX.1-dev", "arch": "flux"},
    }
    for name, value in changes.items():
        if name == "sets":
            process["datasets"] = value
        elif isinstance(value, dict):
            process[name] = {**process.get(name, {}), **value}
        else:
            process[name] = value
    return {"job": "extension", "config": {"name": "one", "process": [process]}}


def write(folder: Path, tree: Any, name: str = "job.json") -> Path:
    """A file with a job."""
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
    return path


def import_job(folder: Path, **changes: Any) -> Imported:
    """A job with these changes, imported."""
    return import_run(write(folder, build_job(**changes)))


def find_line(imported: Imported, spelled: str) -> tuple[str, str]:
    """What became of a key."""
    [one] = [one for one in imported.outcomes if one.given.spelled == spelled]
    return one.kind, one.line


def has_fault(imported: Imported, words: str) -> bool:
    """Whether that is said of the old run."""
    return any(words in fault for fault in imported.faults)


def test_every_key_has_an_answer() -> None:
    assert [name for name in f"{KEYS_IN_FILES} {KEYS_IN_CODE}".split() if find_answer(KEYS, name) is None] == []
    assert [name for name in f"{SET_KEYS_IN_FILES} {SET_KEYS_IN_CODE}".split() if find_answer(DATASET, name) is None] == []


# ---- numbers, by hand


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sigmoid", {"timesteps": "sigmoid"}),
        ("linear", {"timesteps": "uniform"}),
        ("flux_shift", {"timesteps": "uniform", "shift": "tokens"}),
        ("one_step", {"timesteps": "list", "timestep_list": [1.0]}),
        ("four_step", {"timesteps": "list", "timestep_list": [1.0, 0.75, 0.5, 0.25]}),
    ],
)
def test_noise_levels(tmp_path: Path, kind: str, expected: dict[str, Any]) -> None:
    assert import_job(tmp_path, train={"timestep_type": kind}).tree["objective"] == expected


def test_weighted_levels_are_drawn_by_their_weights(tmp_path: Path) -> None:
    weights = import_job(tmp_path, train={"timestep_type": "weighted"}).config.objective.cubic_weights
    assert len(weights) == 21
    assert sum(weights[1:-1]) + (weights[0] + weights[-1]) / 2 == pytest.approx(20, rel=0.01)  # their mean there is 1
    assert max(weights) == weights[17] == weights[18]  # at t = 0.85 and 0.9


def test_content_is_a_beta_law(tmp_path: Path) -> None:
    # The index is 1000 u^3, so t = 1 - u^3, whose density is (1 - t)^(-2/3) / 3: Beta(1, 1/3).
    train = {"timestep_type": "linear", "content_or_style": "content"}
    assert import_job(tmp_path, train=train).tree["objective"] == {"timesteps": "beta", "beta_shape": [1.0, 0.3333]}
    refused = import_job(tmp_path, train={"content_or_style": "style"})
    assert find_line(refused, "train.timestep_type")[0] == "refused"
    assert "objective" not in refused.tree


def test_alpha_is_not_read(tmp_path: Path) -> None:
    imported = import_job(tmp_path, network={"linear_alpha": 1})
    assert "alpha" not in imported.tree["adapter"]
    assert imported.config.adapter.alpha is None
    assert find_line(imported, "network.linear_alpha")[0] == "no effect"
    assert has_fault(imported, "the scale was rank / rank = 1, not 0.0625")
    assert not has_fault(import_job(tmp_path, network={"linear_alpha": "16"}), "linear_alpha")


def test_old_accumulation_counts_pictures(tmp_path: Path) -> None:
    imported = import_job(
        tmp_path, train={"steps": 2000, "gradient_accumulation_steps": 4}, save={"save_every": 250}, sample={"prompts": ["a"]}
    )
    assert imported.tree["train"] == {"steps": 500, "accumulation": 4}
    assert imported.tree["output"]["save_every"] == 62
    assert imported.tree["sampling"]["every"] == 25
    assert has_fault(imported, "throws the gradients of all but the last batch")


def test_new_accumulation_counts_steps(tmp_path: Path) -> None:
    imported = import_job(tmp_path, train={"steps": 2000, "gradient_accumulation": 4, "gradient_accumulation_steps": 1})
    assert imported.tree["train"] == {"steps": 2000, "accumulation": 4}
    assert has_fault(imported, "added and not averaged")
    assert find_line(import_job(tmp_path, train={"gradient_accumulation_steps": -1}), "train.gradient_accumulation_steps")[0] == "refused"


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"optimizer": "adamw8bit"}, {"name": "adamw_8bit", "eps": 1e-6}),
        ({"optimizer": "adamw"}, {"name": "adamw", "eps": 1e-6}),
        ({"optimizer": "lion8bit"}, {"name": "lion_8bit", "weight_decay": 0.0}),
        ({"optimizer": "adafactor"}, {"name": "adafactor", "weight_decay": 0.0, "clip_norm": "off"}),
        ({"optimizer": "adam", "optimizer_params": {"weight_decay": "0.1"}}, {"name": "torch_adam", "eps": 1e-6, "weight_decay": 0.1}),
        ({"optimizer": "Prodigy", "lr": 1e-4}, {"name": "prodigy", "eps": 1e-6, "lr": 1.0}),
        ({"optimizer": "prodigy8bit", "lr": 1}, {"name": "prodigy", "eps": 1e-6, "lr": 1.0}),
        ({"optimizer": "adam8bit", "max_grad_norm": 0.5}, {"name": "bnb_adam_8bit", "eps": 1e-6, "clip_norm": 0.5}),
        (
            {"optimizer": "prodigy", "lr": 1, "optimizer_params": {"d_coef": "0.5", "betas": ["0.9", 0.99]}},
            {"name": "prodigy", "eps": 1e-6, "lr": 1.0, "options": {"d_coef": 0.5}, "betas": [0.9, 0.99]},
        ),
    ],
)
def test_optimizers(tmp_path: Path, train: dict[str, Any], expected: dict[str, Any]) -> None:
    assert import_job(tmp_path, train=train).tree["optim"] == {"lr": 1e-4, "clip_norm": 1.0} | expected


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"lr_scheduler": "constant"}, {"schedule": "constant"}),
        ({"lr_scheduler": "cosine"}, {"schedule": "cosine"}),
        ({"lr_scheduler": "cosine", "lr_scheduler_params": {"eta_min": "1e-6"}}, {"schedule": "cosine", "end_lr": 1e-6}),
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_params": {"T_0": 10}}, {"schedule": "cosine"}),
        ({"lr_scheduler": "constant_with_warmup"}, {"schedule": "constant", "warmup_steps": 1000}),
        (
            {"lr_scheduler": "constant_with_warmup", "lr_scheduler_params": {"num_warmup_steps": 20}},
            {"schedule": "constant", "warmup_steps": 20},
        ),
        ({"lr_scheduler": "linear"}, {}),
        (
            {"lr_scheduler": "linear", "lr_scheduler_params": {"start_factor": 1, "end_factor": 0.1}},
            {"schedule": "linear", "end_lr": 1e-5},
        ),
        ({"lr_scheduler": "step"}, {}),
    ],
)
def test_schedules(tmp_path: Path, train: dict[str, Any], expected: dict[str, Any]) -> None:
    optim = import_job(tmp_path, train=train).tree["optim"]
    found = {name: optim[name] for name in ("schedule", "warmup_steps", "end_lr") if name in optim}
    assert found.keys() == expected.keys()
    assert all(found[name] == pytest.approx(expected[name]) if name == "end_lr" else found[name] == expected[name] for name in found)


def test_linear_schedule_rises_there(tmp_path: Path) -> None:
    imported = import_job(tmp_path, train={"lr_scheduler": "linear"})
    assert find_line(imported, "train.lr_scheduler")[0] == "refused"
    assert has_fault(imported, "rises from a third of the rate")


def test_files_hold_the_running_mean(tmp_path: Path) -> None:
    imported = import_job(tmp_path, train={"ema_config": {"use_ema": True}}, sample={"prompts": ["a cat"]})
    assert imported.config.optim.ema_decay == 0.999
    assert imported.config.sampling.weights == "ema"
    assert has_fault(imported, "running mean (ema_decay 0.999)")
    assert import_job(tmp_path, train={"ema_config": {"use_ema": False, "ema_decay": 0.99}}).config.optim.ema_decay is None


def test_dropped_captions_keep_the_trigger_word(tmp_path: Path) -> None:
    imported = import_job(tmp_path, trigger_word="zork", sets=[{"folder_path": "pics", "caption_dropout_rate": 0.1}])
    data = imported.config.data[0]
    assert (data.captions, data.caption_weights, data.instance_prompt, data.caption_dropout) == (
        ["textfile", "instance"], [0.9, 0.1], "zork", 0.0,
    )  # fmt: skip
    assert has_fault(imported, "the trigger word is put back")
    plain = import_job(tmp_path, sets=[{"folder_path": "pics", "caption_dropout_rate": "0.1"}])
    assert (plain.config.data[0].captions, plain.config.data[0].caption_dropout) == (["textfile", "none"], 0.1)
    assert not has_fault(plain, "trigger")


def test_order_of_caption_steps(tmp_path: Path) -> None:
    sets = [{"folder_path": "pics", "shuffle_tokens": True, "trigger_word": "zork", "token_dropout_rate": 0.2, "keep_tokens": 1}]
    kinds = [step.kind for step in import_job(tmp_path, sets=sets).config.data[0].caption_steps]
    assert kinds == ["drop", "shuffle", "trigger", "shuffle"]


def test_unloaded_text_encoder_reads_no_captions(tmp_path: Path) -> None:
    imported = import_job(tmp_path, train={"unload_text_encoder": True}, sets=[{"folder_path": "pics", "caption_ext": "txt"}])
    assert imported.config.data[0].captions == "none"
    assert has_fault(imported, "no caption is read")
    cached = import_job(tmp_path, train={"unload_text_encoder": True, "cache_text_embeddings": True})
    assert cached.config.data[0].captions == ["textfile", "none"]


def test_mirrored_copies_count_twice(tmp_path: Path) -> None:
    data = import_job(tmp_path, sets=[{"folder_path": "pics", "flip_x": True, "num_repeats": 3}]).config.data[0]
    assert (data.mirror, data.repeats) == (True, 6)


def test_every_second_step_is_regularization(tmp_path: Path) -> None:
    sets = [{"folder_path": "a"}, {"folder_path": "b"}, {"folder_path": "c", "is_reg": True, "loss_multiplier": 0.5}]
    imported = import_job(tmp_path, sets=sets, train={"reg_weight": 0.5})
    assert imported.config.train.balance == "sets"
    assert [one.share for one in imported.config.data] == [1.0, 1.0, 2.0]
    assert imported.config.data[2].loss_weight == 0.25


def test_references(tmp_path: Path) -> None:
    sets = [{"folder_path": "a", "control_path": ["x", "y"], "resolution": 768}]
    model = {"name_or_path": "black-forest-labs/FLUX.2-dev", "arch": "flux2"}
    flux2 = import_job(tmp_path, sets=sets, model=model)
    assert flux2.tree["data"][0]["conditioning"] == ["x", "y"]
    assert flux2.config.data[0].conditioning_type == "reference_loose"
    matched = import_job(tmp_path, sets=sets, model=model | {"model_kwargs": {"match_target_res": True}})
    assert matched.config.data[0].reference_sizes == [768.0, 768.0]
    dev = import_job(tmp_path, sets=sets)
    assert find_line(dev, "datasets[0].control_path") == ("no effect", "that model takes no reference pictures")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"quantize": True}, {"quantize": "fp8", "quantize_text_encoder_2": "fp8"}),
        ({"quantize": True, "quantize_te": False}, {"quantize": "fp8"}),
        ({"quantize": True, "qtype": "int8", "qtype_te": "qfloat8"}, {"quantize": "int8", "quantize_text_encoder_2": "int8"}),
        ({"quantize": "true", "qtype": "uint4|a/b/c.safetensors", "quantize_te": False}, {"quantize": "int4"}),
        ({"quantize": False, "quantize_te": True}, {"quantize_text_encoder_2": "fp8"}),
        ({"layer_offloading": True, "layer_offloading_transformer_percent": 0.5}, {"swap_blocks": 28}),
        ({"layer_offloading": True}, {"swap_blocks": "all"}),
    ],
)
def test_memory(tmp_path: Path, model: dict[str, Any], expected: dict[str, Any]) -> None:
    assert import_job(tmp_path, model=model).tree["memory"] == {"dtype": "bf16"} | expected


def test_schnell_without_an_assistant(tmp_path: Path) -> None:
    imported = import_job(tmp_path, model={"name_or_path": "black-forest-labs/FLUX.1-schnell"})
    assert imported.config.model.assistant == "off"
    assert imported.config.objective.timesteps == "sigmoid"
    assert has_fault(imported, "without an assistant LoRA")


def test_prompts_lose_their_flags(tmp_path: Path) -> None:
    prompts = ["[trigger] in a well-lit room --w 512 --seed 3", "a dog"]
    imported = import_job(tmp_path, trigger_word="zork", sample={"prompts": prompts, "neg": "blur", "guidance_scale": "3.5"})
    assert imported.config.sampling.prompts == ["zork in a well-lit room", "a dog"]
    assert imported.config.sampling.guidance == 3.5
    assert find_line(imported, "sample.neg") == ("no effect", "the model paints without a negative prompt")
    assert "seed, w of single ones are not had" in find_line(imported, "sample.prompts")[1]


def test_no_pictures_on_the_way(tmp_path: Path) -> None:
    imported = import_job(tmp_path, sample={"prompts": ["a"], "width": 512}, train={"disable_sampling": True})
    assert "sampling" not in imported.tree
    assert find_line(imported, "sample.width") == ("no effect", "no pictures are painted")


def test_weber_defaults(tmp_path: Path) -> None:
    imported = import_run(write(tmp_path, build_job(train={"steps": 5})), weber_defaults=True)
    assert imported.tree == {
        "adapter": {"kind": "lora", "rank": 16},
        "output": {"name": "one", "folder": "out/one"},
        "train": {"steps": 5},
        "optim": {"lr": 1e-4},
        "memory": {"dtype": "bf16"},
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [{"path": "pics"}],
    }


def test_weber_defaults_keep_the_trigger_word(tmp_path: Path) -> None:
    job = build_job(trigger_word="zork", sets=[{"folder_path": "a", "caption_dropout_rate": 0.1}])
    data = import_run(write(tmp_path, job), weber_defaults=True).config.data[0]
    assert [step.text for step in data.caption_steps] == ["zork"]
    assert (data.captions, data.caption_dropout) == (None, 0.1)


def test_steps_of_sides_are_the_models(tmp_path: Path) -> None:
    sets = [{"folder_path": "a", "bucket_tolerance": 64}]
    dev = import_job(tmp_path, sets=sets)
    assert dev.config.data[0].bucket_step == 32
    assert find_line(dev, "datasets[0].bucket_tolerance")[0] == "no effect"
    kontext = import_job(tmp_path, sets=sets, model={"arch": "flux_kontext"}, train={"timestep_type": "shift", "batch_size": 2})
    assert kontext.config.data[0].bucket_step == 16
    # 16384 tokens on the line through (256, 0.5) and (4096, 1.15): exp(3.2302) = 25.28
    assert has_fault(kontext, "shifted by 25.3 and not by 3.16")
    assert has_fault(kontext, "filled up with copies")


SANE: tuple[dict[str, Any], ...] = (
    {"network": {"type": "dora"}},
    {"network": {"type": "lokr", "lokr_full_rank": False, "linear": 8}},
    {"network": {"dropout": 0.2, "network_kwargs": {"ignore_if_contains": ["proj_out", "transformer.transformer_blocks.0."]}}},
    {"network": {"pretrained_lora_path": "/x/a.safetensors", "conv": 16, "conv_alpha": 16}},
    {"train": {"optimizer": "dadaptation", "lr": 1}},
    {"train": {"optimizer": "ademamix8bit"}},
    {"train": {"optimizer": "automagic3"}},
    {"train": {"optimizer": "lion", "optimizer_params": {"betas": [0.95, 0.98], "weight_decay": 0.1}}},
    {"train": {"optimizer": "adafactor", "optimizer_params": {"scale_parameter": False, "relative_step": True}}},
    {"train": {"optimizer": "adagrad", "optimizer_params": {"betas": [0.9, 0.95]}}},
    {"train": {"optimizer": "ademamix8bit", "optimizer_params": {"betas": [0.9, 0.95], "eps": 1e-7}}},
    {"train": {"loss_type": "pseudo_huber", "cfg_scale": 3.5, "linear_timesteps2": True}},
    {"train": {"loss_type": "wavelet", "max_grad_norm": 0, "lr_scheduler": "polynomial"}},
    {"train": {"gradient_checkpointing": False, "do_cfg": True, "train_text_encoder": True}, "model": {"layer_offloading": True}},
    {"train": {"min_denoising_steps": 100, "noise_scheduler": "ddpm", "timestep_type": "lognorm_blend"}},
    {"train": {"diff_output_preservation": True, "diff_output_preservation_class": "man"}, "trigger_word": "zork"},
    {"model": {"attn_masking": True, "lora_path": "/x/b.safetensors", "qtype": "orbit3", "quantize": True}},
    {"model": {"arch": "flux_kontext", "extras_name_or_path": "black-forest-labs/FLUX.1-Kontext-dev", "name_or_path": "/x/k"}},
    {"model": {"arch": "flux2_klein_9b:base", "name_or_path": "/x/k9"}, "sample": {"prompts": ["a"], "neg": "b", "guidance_scale": 1}},
    {"save": {"dtype": "float8", "save_every": 0, "max_step_saves_to_keep": -1, "push_to_hub": True}, "device": "cpu", "log_dir": "l"},
    {"sample": {"prompts": ["a"], "sample_every": 0, "seed": -1, "walk_seed": False, "format": "webp", "width": 1000}},
    {"sets": [{"folder_path": "a", "square_crop": True, "random_crop": True, "bucket_tolerance": 8, "alpha_mask": True}]},
    {"sets": [{"folder_path": "a", "prior_reg": True}, {"folder_path": "b", "mask_path": "m", "mask_min_value": 0.1, "alpha_mask": True}]},
    {"sets": [{"folder_path": "a", "is_reg": True}]},
    {"sets": [{"folder_path": "a", "prior_reg": True}]},
    {"sets": [{"dataset_path": "a", "caption_ext": "json", "default_caption": "x", "caption_dropout_rate": 0.1}], "trigger_word": "zork"},
    {"sets": [{"folder_path": "a", "caption_dropout_rate": 1, "token_dropout_rate": "0.0"}, {"folder_path": "a"}], "trigger_word": "zork"},
    {"sets": [{"folder_path": "a", "loss_multiplier": 0, "network_weight": 0.5, "controls": ["depth"], "flip_y": True, "num_frames": 33}]},
)


@pytest.mark.parametrize(
    ("changes", "sampling"),
    [
        ({"train": {"skip_first_sample": True}}, {"at_start": False}),
        ({"train": {"skip_first_sample": True, "force_first_sample": True}}, {}),
        ({"sample": {"network_multiplier": 0.8}}, {"strengths": [0.8]}),
        ({"sample": {"walk_seed": False, "seed": 5}}, {"seeds": [5]}),
        ({"sample": {"walk_seed": True, "seed": 5}}, {"seed": 5}),
    ],
)
def test_when_and_how_pictures_are_painted(tmp_path: Path, changes: dict[str, Any], sampling: dict[str, Any]) -> None:
    sample = {"prompts": ["a", "b"], "walk_seed": True, "seed": 42} | changes.get("sample", {})
    found = import_job(tmp_path, **changes | {"sample": sample}).tree["sampling"]
    names = ("at_start", "strengths", "seeds")
    assert {name: found[name] for name in names if name in found} == {name: sampling[name] for name in names if name in sampling}
    assert found.get("seed") == (None if "seeds" in sampling else sampling.get("seed", 42))


@pytest.mark.parametrize("changes", SANE)
def test_what_may_stand_in_a_job(tmp_path: Path, changes: dict[str, Any]) -> None:
    imported = import_job(tmp_path, **changes)
    given = [one.given.spelled for one in imported.outcomes if not one.given.is_default]
    assert len(given) == len(set(given))


# ---- wrong files


def test_misspelled_keys_are_named(tmp_path: Path) -> None:
    imported = import_job(tmp_path, train={"learning_rat": 1}, sets=[{"folder_path": "a", "caption_dropout_rte": 0.1}])
    assert find_line(imported, "datasets[0].caption_dropout_rte") == (
        "no effect", "no such key there, and it was not read; was caption_dropout_rate meant?",
    )  # fmt: skip
    assert find_line(imported, "train.learning_rat")[0] == "no effect"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"arch": "sdxl"}}, "another model than FLUX"),
        ({"model": {"arch": None, "is_xl": True}}, "another model than FLUX"),
        ({"model": {"arch": "chroma"}}, "another model than FLUX"),
        ({"model": {"arch": "wan21"}}, "another model than FLUX"),
        ({"model": {"name_or_path": ""}}, "does not say which model"),
        ({"type": "concept_slider"}, "concept_slider"),
        ({"type": "textual_inversion_trainer"}, "textual_inversion_trainer"),
        ({"sets": []}, "has no pictures"),
        ({"sets": [{"resolution": 512}]}, "names no folder"),
        ({"sets": [{"dataset_path": "a/captions.json"}]}, "JSON of captions"),
        ({"training_folder": "${OUTPUT}/x"}, "a variable of the machine"),
        ({"train": {"lr": "fast"}}, "train.lr is no number"),
        ({"train": {"steps": 1.5}}, "train.steps is no whole number"),
        ({"train": {"gradient_accumulation": 2, "gradient_accumulation_steps": 2}}, "both set"),
    ],
)
def test_wrong_jobs(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as found:
        import_job(tmp_path, **changes)
    assert words in str(found.value)
    assert found.value.fix


def test_several_processes(tmp_path: Path) -> None:
    job = build_job()
    job["config"]["process"] *= 2
    with pytest.raises(ConfigError, match="holds 2 processes, and an import is one run"):
        import_run(write(tmp_path, job))


def test_other_jobs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains nothing"):
        import_run(write(tmp_path, build_job() | {"job": "generate"}))


def test_adapters_for_picture_encoders(tmp_path: Path) -> None:
    job = build_job(adapter={"type": "redux", "train": True})
    del job["config"]["process"][0]["network"]
    with pytest.raises(ConfigError, match="picture encoder"):
        import_run(write(tmp_path, job))


def test_half_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_run(write(tmp_path, json.dumps(build_job())[:200]))
    with pytest.raises(ConfigError, match="not valid YAML"):
        import_run(write(tmp_path, "job: extension\nconfig:\n  name: a\n   process: [", "job.yaml"))
