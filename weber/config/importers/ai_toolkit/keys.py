"""What becomes of each key of ai-toolkit's jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.ai_toolkit import data, model, optim, sample, train
from weber.config.importers.answers import Answer, Table, ignored, refused, stated, used
from weber.config.importers.published import IS_PRIVATE, Names, answer_private

_HUB = Names("save.hf_repo_id", wish="save.push_to_hub", checkpoints="", is_whole=lambda keys: True)
_NOISE = "noise is drawn from the plain normal law"
_LOSS = "weber has no such further loss"
_KEEP = "weber has no such loss; a set with regularization = true keeps the model as it is on its pictures"
_OTHER = "it is for other models"
_VIDEO = "weber trains on still pictures"
_ALWAYS = "latents and texts are always encoded once and kept in output.cache"
_ADAPTER = "weber trains no adapters for picture encoders; FLUX.1 Kontext and FLUX.2 take reference pictures (data.0.conditioning)"
_CHANGES = "pictures are encoded once, as they are, and kept in the cache; put changed copies beside them"
_SPEED = "it changes speed or memory alone; memory.fit chooses what fits"
_LEVELS = "noise levels are drawn over the whole range; objective.timesteps says how"
_WORDS = "weber trains no embeddings of new words; write a made-up word into the captions"
_METHOD = "weber has no such method"
_SLIDER = "weber trains no sliders"


def _options(*names: str) -> dict[str, Answer]:
    """Rows for keys of `optimizer_params`, each of which is told its own name."""
    return {f"train.optimizer_params.{name}": _option(name) for name in names}


def _option(name: str) -> Answer:
    return stated(lambda draft, keys, value: optim.set_option(draft, keys, value=value, name=name), f"optim.{name}, or optim.options")


OPTIONS = (
    "weight_decay", "betas", "eps", "relative_step", "scale_parameter", "warmup_init", "decouple", "use_bias_correction",
    "safeguard_warmup", "d0", "d_coef", "growth_rate", "beta3", "slice_p", "amsgrad", "momentum", "min_8bit_size", "clip_threshold",
    "decay_rate", "beta1", "is_paged", "percentile_clipping", "block_wise", "foreach", "fused", "maximize", "capturable", "lr_decay",
)  # fmt: skip

KEYS: Table = {
    # the job
    "job type meta.* config.version version": ignored("it says what kind of job it is"),
    "config.name": stated(sample.set_name, "output.name, and the name of the run folder"),
    "name": ignored("the name of the run folder"),
    "training_folder": stated(sample.set_place, "output.folder, with the name of the job"),
    "device": stated(model.set_device, "memory.device"),
    "trigger_word": ignored("read for each set of pictures"),
    "training_seed": used("train.seed"),
    "sqlite_db_path performance_log_every torch_profiler": ignored("it is for ai-toolkit's own window"),
    "log_dir": stated(sample.set_log, 'output.trackers = ["tensorboard"]'),
    "logging.use_wandb": stated(sample.set_wandb, 'output.trackers = ["wandb"]'),
    "logging.project_name": stated(sample.set_wandb_project, "output.project, with wandb"),
    "logging.run_name": stated(sample.set_wandb_run, "output.run_name, with wandb"),
    "logging.*": ignored("weber writes metrics.jsonl into the run folder"),
    "adapter.* adapter": refused(_ADAPTER),
    "embedding.* embedding decorator.* decorator": refused(_WORDS),
    "slider.* slider": refused(_SLIDER),
    "guidance.* guidance first_sample.* first_sample do_lorm lorm_*": refused(_METHOD),
    "network train model save sample logging": ignored("asks for nothing"),
    # network
    "network.type": stated(train.set_network, "adapter.kind"),
    "network.linear network.rank": stated(train.set_rank, "adapter.rank"),
    "network.linear_alpha network.alpha": stated(train.answer_alpha, "no effect for these models: alpha is the rank"),
    "network.conv network.conv_alpha": ignored("these models have no convolutions"),
    "network.dropout": stated(train.set_dropout, "adapter.dropout"),
    "network.lokr_full_rank network.lokr_factor network.old_lokr_format": stated(train.answer_lokr, "[adapter.lycoris]"),
    "network.transformer_only": ignored("layers of the blocks only get adapters, as there"),
    "network.network_kwargs.only_if_contains": stated(train.set_only, "adapter.targets"),
    "network.network_kwargs.ignore_if_contains": stated(train.set_ignored, "adapter.exclude"),
    "network.network_kwargs": ignored("asks for nothing"),
    "network.network_kwargs.*": refused(_METHOD, off=(None, False, 0, "", [])),
    "network.pretrained_lora_path": used("adapter.start_from"),
    "network.split_multistage_loras": ignored(_OTHER),
    "network.all_layers network.lorm network.lorm.*": refused(_METHOD),
    "network.layer_offloading": ignored(_SPEED),
    # model
    "model.name_or_path": stated(model.set_path, "model.path"),
    "model.extras_name_or_path": stated(
        lambda draft, keys, value: "model.path, and name_or_path as model.transformer", "model.path, and name_or_path as model.transformer"
    ),
    "model.arch": stated(model.set_arch, "model.variant"),
    "model.is_flux": ignored("weber sees from the files of the model what it is"),
    "model.is_* model.use_flux_cfg model.latent_space_version model.experimental_xl model.use_text_encoder_1 model.use_text_encoder_2"
    " model.refiner_* model.unet_* model.text_encoder_bits": ignored(_OTHER),
    "model.vae_path": used("model.vae"),
    "model.te_name_or_path": used("model.text_encoder"),
    "model.lora_path": stated(model.set_adapters, "model.adapters"),
    "model.assistant_lora_path": used("model.assistant"),
    "model.inference_lora_path model.unconditional_lora_path": refused("set model.assistant_sample_strength, or model.adapters"),
    "model.quantize": stated(model.set_bits, "memory.quantize"),
    "model.quantize_te": stated(model.set_text_bits, "memory.quantize_text_encoder, for FLUX.1 memory.quantize_text_encoder_2"),
    "model.qtype": stated(model.answer_bits, "memory.quantize"),
    "model.qtype_te": stated(model.answer_text_bits, "memory.quantize_text_encoder"),
    "model.accuracy_recovery_adapter": refused("weber has no such adapters; int8 and fp8 need none"),
    "model.quantize_kwargs.exclude model.quantize_kwargs": ignored("norms, embeddings and the last layer are never packed"),
    "model.quantize_kwargs.*": ignored("all layers of the blocks are packed"),
    "model.low_vram model.auto_memory": ignored(_SPEED),
    "model.layer_offloading": stated(model.set_offload, "memory.swap_blocks"),
    "model.layer_offloading_transformer_percent": ignored("the share of model.layer_offloading"),
    "model.layer_offloading_text_encoder_percent": ignored("texts are encoded before the first step"),
    "model.attn_masking": stated(model.set_mask_of_text, "objective.text_mask"),
    "model.only_if_contains": stated(train.set_trained, "adapter.targets of a whole model"),
    "model.ignore_if_contains": refused("set adapter.targets to what is trained", off=(None, [], "")),
    "model.model_kwargs.match_target_res": stated(
        lambda draft, keys, value: "data.0.reference_sizes, where a set has one resolution", "data.0.reference_sizes", off=(False, None)
    ),
    "model.model_kwargs model.model_paths model.model_kwargs.* model.model_paths.*": ignored(_OTHER),
    "model.compile model.block_compile model.compile_* model.cache_size_limit": ignored(_SPEED + "; memory.compile = true compiles blocks"),
    "model.dtype": ignored("train.dtype goes before it"),
    "model.vae_device model.te_device model.vae_dtype model.te_dtype": ignored("the autoencoder and texts run where and as they need"),
    "model.split_model_*": refused('parallel.strategy = "fsdp" leaves each GPU a part of every block'),
    "model.in_context": refused(_METHOD),
    # train: steps and the optimizer
    "train.steps": stated(optim.set_steps, "train.steps"),
    "train.start_step": refused("weber goes on with checkpoints of its own"),
    "train.batch_size": used("train.batch_size"),
    "train.gradient_accumulation": stated(optim.set_accumulation, "train.accumulation"),
    "train.gradient_accumulation_steps": stated(optim.set_old_accumulation, "train.accumulation, and train.steps are fewer"),
    "train.lr train.unet_lr": stated(optim.set_lr, "optim.lr"),
    "train.text_encoder_lr train.refiner_lr train.embedding_lr train.adapter_lr": ignored("no such part is trained"),
    "train.optimizer": stated(optim.set_optimizer, "optim.name"),
    **_options(*OPTIONS),
    "train.optimizer_params train.lr_scheduler_params": ignored("asks for nothing"),
    "train.optimizer_params.*": refused("weber's optimizers have other settings: optim.options"),
    "train.lr_scheduler": stated(optim.set_schedule, "optim.schedule"),
    "train.lr_scheduler_params.num_warmup_steps train.lr_scheduler_params.eta_min train.lr_scheduler_params.start_factor"
    " train.lr_scheduler_params.end_factor": ignored("read with train.lr_scheduler"),
    "train.lr_scheduler_params.*": ignored("the schedule goes over the whole run"),
    "train.max_grad_norm": stated(optim.set_clip, "optim.clip_norm"),
    "train.ema_config.use_ema": stated(optim.set_ema, "optim.ema_decay, and sampling.weights = \"ema\""),
    "train.ema_config.ema_decay": stated(optim.answer_ema, "optim.ema_decay"),
    "train.ema_config.use_feedback train.ema_config.param_multiplier": refused(_METHOD, off=(None, False, 1)),
    "train.ema_config": ignored("asks for nothing"),
    # train: what is asked
    "train.train_unet": refused("without it nothing would learn; weber always trains the transformer", off=(True, None)),
    "train.train_text_encoder": refused("ai-toolkit's adapters of T5 are not had; adapter.text_encoder = true trains CLIP of FLUX.1"),
    "train.noise_scheduler": refused('FLUX is trained by flow matching in any case: "flowmatch"', off=("flowmatch", None)),
    "train.timestep_type": stated(train.set_timesteps, "objective.timesteps"),
    "train.linear_timesteps train.linear_timesteps2": stated(train.answer_linear, 'objective.timesteps = "cubic"'),
    "train.content_or_style": stated(train.answer_style, 'objective.timesteps = "beta"'),
    "train.content_or_style_reg": ignored("content_or_style counts for all sets"),
    "train.min_denoising_steps": refused(_LEVELS, off=(0, None)),
    "train.max_denoising_steps": refused(_LEVELS, off=(999, 1000, None)),
    "train.next_sample_timesteps train.num_train_timesteps": ignored("read with a timestep_type that is not had"),
    "train.loss_type": stated(train.set_loss, "objective.loss"),
    "train.cfg_scale": stated(train.set_guidance, "objective.guidance"),
    "train.bypass_guidance_embedding": stated(train.answer_bypass, "the guidance input stays"),
    "train.reg_weight": ignored("read for each set of regularization: data.0.loss_weight"),
    "train.prompt_dropout_prob": ignored("it is not read for these models; data.0.caption_dropout"),
    "train.loss_target": refused(_LOSS, off=("noise", None)),
    "train.noise_offset train.random_noise_* train.optimal_noise_pairing_samples train.force_consistent_noise train.blended_blur_noise"
    " train.dynamic_noise_offset train.match_noise_norm train.do_signal_* train.do_batch_noise_correction": refused(
        _NOISE, off=(None, False, 0, 1, "")
    ),
    "train.noise_multiplier train.target_noise_multiplier train.img_multiplier train.noisy_latent_multiplier train.latent_multiplier"
    " train.pred_scaler": refused(_METHOD, off=(None, 1)),
    "train.min_snr_gamma train.snr_gamma train.learnable_snr_gos": refused(
        "weights by signal to noise are for models that predict noise; objective.weighting", off=(None, False, 0)
    ),
    "train.diff_output_preservation train.blank_prompt_preservation train.inverted_mask_prior": refused(_KEEP),
    "train.diff_output_preservation_* train.blank_prompt_preservation_* train.inverted_mask_prior_*": ignored("of a loss that is not had"),
    "train.do_differential_guidance": refused(
        "it multiplies each gradient by differential_guidance_scale, which an Adam takes out again but for clipping; raise optim.lr"
    ),
    "train.differential_guidance_scale train.guidance_loss_* train.do_guidance_loss_cfg_zero train.batch_noise_correction_scale"
    " train.signal_* train.correct_pred_norm_multiplier train.cfg_rescale train.max_cfg_scale train.merge_network_on_save_strength"
    " train.paramiter_swapping_factor train.target_norm_std_value train.match_adapter_chance train.adapter_assist_type"
    " train.latent_feature_loss_weight train.diffusion_feature_extractor_weight train.negative_prompt train.unconditional_prompt"
    " train.max_negative_prompts train.audio_loss_multiplier train.max_loss_debug": ignored("of something that is not asked for"),
    "train.do_guidance_loss train.do_prior_divergence train.do_blank_stabilization train.do_fft_* train.t0_* train.target_norm_std"
    " train.latent_feature_extractor_path train.diffusion_feature_extractor_path train.max_loss": refused(_LOSS),
    "train.do_cfg train.do_random_cfg train.correct_pred_norm train.standardize_* train.adaptive_scaling_factor train.weight_jitter"
    " train.merge_network_on_save train.do_paramiter_swapping train.free_u train.match_adapter_assist train.adapter_assist_*"
    " train.short_and_long_captions* train.prompt_saturation_chance": refused(_METHOD),
    "train.single_item_batching": ignored("it changes memory alone"),
    "train.validation_config train.validation_config.*": refused(
        "data.N.evaluation = 0.05 holds pictures out, and [evaluation] says how often and at which noise levels they are measured"
    ),
    "train.switch_boundary_every train.train_refiner train.train_turbo train.show_turbo_outputs": ignored(_OTHER),
    # train: memory
    "train.dtype": stated(model.set_dtype, "memory.dtype"),
    "train.gradient_checkpointing": stated(model.set_checkpointing, "memory.gradient_checkpointing"),
    "train.attention_backend train.sdp train.xformers": ignored("memory.attention takes the fastest that is right on that GPU"),
    "train.unload_text_encoder": ignored("text encoders are put away before the first step"),
    "train.cache_text_embeddings": ignored(_ALWAYS),
    "train.disable_sampling": ignored("with true there are no sampling.prompts"),
    "train.skip_first_sample": stated(sample.set_first, "sampling.at_start = false, unless force_first_sample is there"),
    "train.force_first_sample": ignored("pictures are painted at the start, if there are sampling.prompts"),
    # save
    "save.dtype": stated(sample.set_precision, "output.precision"),
    "save.save_every": stated(sample.set_save_every, "output.save_every"),
    "save.max_step_saves_to_keep": stated(sample.set_keep, "output.keep_last"),
    "save.save_format": ignored("adapters are safetensors; output.formats has their layouts"),
    "save.push_to_hub": stated(_HUB.answer_wish, "publish.to, of save.hf_repo_id"),
    "save.hf_repo_id": stated(_HUB.set_place, "publish.to, where save.push_to_hub is set"),
    "save.hf_private": stated(answer_private, IS_PRIVATE),
    # sample
    "sample.prompts sample.samples": stated(sample.set_prompts, "sampling.prompts"),
    "sample.sample_every": stated(sample.set_every, "sampling.every"),
    "sample.sample_steps": stated(sample.set_plain("steps", "sample.sample_steps"), "sampling.steps"),
    "sample.seed": stated(sample.set_seed, "sampling.seed, or sampling.seeds"),
    "sample.width": stated(sample.set_side("width", "sample.width"), "sampling.width"),
    "sample.height": stated(sample.set_side("height", "sample.height"), "sampling.height"),
    "sample.guidance_scale": stated(sample.set_guidance, "sampling.guidance, for klein sampling.cfg"),
    "sample.neg": stated(sample.set_negative, "sampling.negative_prompt, for klein"),
    "sample.walk_seed": stated(sample.answer_walk, "each further prompt adds 1 to the seed; with false all have the same, sampling.seeds"),
    "sample.sampler": refused("pictures are painted with Euler's steps of flow matching", off=("flowmatch", None)),
    "sample.sample_start_step": ignored("pictures are painted from the start on"),
    "sample.format sample.ext": ignored("pictures are written as PNG"),
    "sample.network_multiplier": stated(sample.set_strength, "sampling.strengths"),
    "sample.guidance_rescale": refused("pictures are painted with the adapter as it is", off=(1, 0, None)),
    "sample.num_frames sample.fps sample.adapter_conditioning_scale sample.refiner_start_at sample.extra_values"
    " sample.do_cfg_norm": ignored(_OTHER),
}  # fmt: skip

DATASET: Table = {
    "folder_path dataset_path": stated(data.set_folder, "data.0.path"),
    "type": ignored("pictures are what there is"),
    "resolution": stated(data.set_sizes, "data.0.resolution"),
    "square_crop": ignored('read with resolution: data.0.aspect = "square"'),
    "buckets": refused("pictures of one size are always put together", off=(True, None)),
    "bucket_tolerance": ignored("it is overwritten by what the model needs: 32 for FLUX.1, 16 for the others (data.0.bucket_step)"),
    "random_crop": stated(data.set_crop, 'data.0.crop = "random", drawn once'),
    "random_scale": refused("pictures are cut at one size; name several: data.0.resolution = [512, 768]"),
    "scale": refused("the size is that of data.0.resolution", off=(1, None)),
    "num_repeats": stated(data.set_repeats, "data.0.repeats"),
    "flip_x": stated(data.set_mirror, "data.0.mirror, and twice the repeats"),
    "flip_y": refused("weber mirrors left for right only; put turned copies beside the pictures"),
    "caption_ext caption_type": stated(data.set_captions, "data.0.captions"),
    "default_caption": stated(data.set_default_caption, "data.0.caption_fallback"),
    "trigger_word": stated(data.set_trigger, "a step of data.0.caption_steps"),
    "caption_dropout_rate": stated(data.set_dropout, "data.0.caption_dropout, or data.0.caption_weights with a trigger word"),
    "shuffle_tokens": stated(data.set_shuffle, "a step of data.0.caption_steps"),
    "token_dropout_rate": stated(data.set_token_dropout, "a step of data.0.caption_steps"),
    "keep_tokens": stated(data.answer_keep, "keep of the step that drops"),
    "random_triggers": refused("write {a|b} into the captions, with a step of kind wildcards", off=(None, "", [])),
    "random_triggers_max": ignored("of random_triggers"),
    "replacements": ignored("ai-toolkit does not read it where captions are files"),
    "use_short_captions": refused("name the file endings of the short captions: data.0.caption_endings"),
    "is_reg": stated(data.set_regularization, 'train.balance = "sets", and data.0.loss_weight'),
    "prior_reg": stated(data.set_prior, "data.0.regularization"),
    "loss_multiplier": stated(data.set_weight, "data.0.loss_weight"),
    "network_weight": refused("the adapter has strength 1 for all sets", off=(1, None)),
    "control_path control_path_1 control_path_2 control_path_3": stated(data.set_references, "data.0.conditioning"),
    "control_from_same_folder": refused("name the folder of the references: data.0.conditioning"),
    "num_controls_from_same_folder": ignored("of control_from_same_folder"),
    "control_transparent_color full_size_control_images": ignored("references are read as they are"),
    "controls": refused("weber makes no depth maps, lines or poses; put them into a folder: data.0.conditioning", off=(None, "", [])),
    "inpaint_path": stated(data.set_repainted, "data.0.masks"),
    "mask_path": stated(data.set_mask, "data.0.loss_masks"),
    "alpha_mask": stated(data.set_alpha, "data.0.alpha_mask"),
    "mask_min_value": stated(data.answer_minimum, "objective.mask_minimum"),
    "invert_mask": refused("write the masks the other way round: white is learned"),
    "augments augmentations": refused(_CHANGES, off=(None, "", [])),
    "shuffle_augmentations replay_transforms": ignored("of augmentations"),
    "standardize_images": refused("pictures are encoded as the model was made for"),
    "cache_latents cache_latents_to_disk cache_text_embeddings cache_tensors_to_disk cache_clip_vision_to_disk fast_image_size"
    " load_image_when_caching_latents": ignored(_ALWAYS),
    "num_workers prefetch_factor cache_latents_num_workers": ignored("nothing is loaded while it trains"),
    "batch_size": refused("all sets have the same batch: train.batch_size"),
    "unconditional_path guidance_type extra_values": refused(_METHOD, off=(None, "", [], "targeted")),
    "clip_image_*": refused(_ADAPTER),
    "poi": refused("ai-toolkit itself stops with it"),
    "num_frames": refused(_VIDEO, off=(1, None)),
    "shrink_video_to_frames fps auto_frame_count trim_auto_frame_count_tail do_i2v do_audio audio_*": ignored(_VIDEO),
    "debug diff_output_preservation diff_output_preservation_class": ignored("set by ai-toolkit itself"),
}  # fmt: skip

DEFAULTS: Mapping[str, Any] = {
    "train.steps": 1000,
    "train.lr": 1e-6,
    "train.optimizer": "adamw",
    "train.timestep_type": "sigmoid",
    "train.max_grad_norm": 1.0,
    "train.dtype": "fp32",
    "save.dtype": "float16",
}
OF_NETWORK: Mapping[str, Any] = {"network.type": "lora", "network.linear": 4}
OF_SAMPLES: Mapping[str, Any] = {
    "sample.sample_every": 100,
    "sample.width": 512,
    "sample.height": 512,
    "sample.seed": 0,
    "sample.guidance_scale": 7,
    "sample.sample_steps": 20,
}
OF_DATASET: Mapping[str, Any] = {"resolution": 512, "caption_ext": ".txt"}
"""toolkit/config_modules.py."""

EXAMPLE: Mapping[str, Any] = {
    "job": "extension",
    "device": "cuda:0",
    "training_folder": "output",
    "meta.name": "[name]",
    "meta.version": "1.0",
    "network.type": "lora",
    "network.linear": 16,
    "network.linear_alpha": 16,
    "save.dtype": "float16",
    "save.save_every": 250,
    "save.max_step_saves_to_keep": 4,
    "save.push_to_hub": False,
    "train.batch_size": 1,
    "train.steps": 2000,
    "train.gradient_accumulation_steps": 1,
    "train.gradient_accumulation": 1,
    "train.train_unet": True,
    "train.train_text_encoder": False,
    "train.gradient_checkpointing": True,
    "train.noise_scheduler": "flowmatch",
    "train.optimizer": "adamw8bit",
    "train.lr": 1e-4,
    "train.ema_config.use_ema": True,
    "train.ema_config.ema_decay": 0.99,
    "train.dtype": "bf16",
    "model.is_flux": True,
    "model.quantize": True,
    "sample.sampler": "flowmatch",
    "sample.sample_every": 250,
    "sample.sample_start_step": 0,
    "sample.width": 1024,
    "sample.height": 1024,
    "sample.neg": "",
    "sample.seed": 42,
    "sample.walk_seed": True,
    "sample.guidance_scale": 4,
    "sample.sample_steps": 20,
}
DATASET_EXAMPLE: Mapping[str, Any] = {
    "caption_ext": "txt",
    "caption_dropout_rate": 0.05,
    "shuffle_tokens": False,
    "cache_latents_to_disk": True,
    "resolution": [512, 768, 1024],
}
"""config/examples/train_lora_flux_24gb.yaml."""
