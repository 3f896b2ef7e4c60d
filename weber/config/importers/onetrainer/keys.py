"""OneTrainer's keys: what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated, used
from weber.config.importers.onetrainer import model, samples, train

_CACHED = "pictures and captions are encoded once into output.cache and found by their content, so that nothing stale is used"
_OTHER = "it is of other models"
_PAGES = "it is of OneTrainer's own pages and logs"
_PARTS = "memory and time alone; memory.fit chooses such settings here"
_DEVICES = "how devices talk to each other changes nothing that is learned"
_NOISE = "pictures are painted from standard normal noise, so that is what is trained on"
_RANGE = "noise levels are drawn by a law of the whole range; zeros in objective.cubic_weights leave parts of it out"
_READING = "these models answer with the velocity in any case"
_TOKENS = "weber trains no embeddings of new words; write a made-up word into the captions"
_CLOUD = "weber runs where it is started"
_MASKS = (
    "masks are a folder of their own here, with the names of the pictures: move each NAME-masklabel.png to masks/NAME.png and set"
    " data.N.loss_masks"
)
_WITH_MASKS = "it is for masked_training"
_OPTIMIZER = "of an optimizer's own arithmetic, which weber's has or does not need"
_LENGTH = "how captions are read is the model's own"
_STOP = "what learns, learns to the end of the run"
_FOLLOWS = "with the key whose unit it is"

_MODEL: Table = {
    "model_type": stated(model.set_type, "which model: `model.variant` and `model.path` say it; other models are refused"),
    "base_model_name": used("model.path"),
    "transformer.model_name": stated(model.set_part("transformer.model_name", "model.transformer"), "`model.transformer`"),
    "vae.model_name": stated(model.set_part("vae.model_name", "model.vae"), "`model.vae`"),
    "unet unet.* prior prior.* effnet_encoder effnet_encoder.* decoder decoder.* decoder_*": ignored(_OTHER),
    "unconditional_transformer unconditional_transformer.* text_encoder_3* text_encoder_4*": ignored(_OTHER),
    "text_encoder.model_name text_encoder_2.model_name": ignored("the text encoders are the model's own: model.text_encoder names others"),
    "*.include *.train_embedding": ignored("every part of the model takes part"),
    "text_encoder_2_sequence_length": stated(model.set_tokens, "`model.text_tokens` of FLUX.1; left out it is 77 there"),
    "text_encoder_sequence_length text_encoder_layer_skip text_encoder_2_layer_skip": ignored(_LENGTH),
    "transformer.attention_mask": refused("padding stays as T5 encodes it; objective.text_mask keeps the model from looking at it"),
    "*.attention_mask": ignored(_LENGTH),
    "force_circular_padding": refused("weber paints no tiles"),
    "huggingface_cache_dir offline_mode": ignored("with HF_HUB_OFFLINE=1 in the environment the hub is not asked"),
}

_ADAPTER: Table = {
    "training_method": stated(model.set_method, "`adapter.kind`; EMBEDDING and FINE_TUNE_VAE are refused"),
    "peft_type": stated(model.set_peft, "`adapter.kind`, and `[adapter.lycoris]` for LOHA, LOKR and OFT_2"),
    "lora_rank": stated(model.for_lora("lora_rank", "adapter.rank"), "`adapter.rank`"),
    "lora_alpha": stated(model.for_lora("lora_alpha", "adapter.alpha"), "`adapter.alpha`; left out it is 1.0 there"),
    "dropout_probability": stated(model.for_lora("dropout_probability", "adapter.dropout"), "`adapter.dropout`"),
    "lora_decompose": stated(model.set_dora, "`adapter.dora`"),
    "lora_decompose_norm_epsilon lora_decompose_output_axis": ignored("with lora_decompose: lengths are of outputs here"),
    "lora_weight_dtype": ignored("the weights of adapters are fp32"),
    "lora_model_name": stated(model.set_start, "`adapter.start_from`"),
    "layer_filter": stated(model.set_layers, "`adapter.targets`: each text as `*text*`; blocks are a set of their own"),
    "layer_filter_preset": stated(model.name_preset, "`adapter.targets`, where layer_filter is left out"),
    "layer_filter_regex": ignored("with layer_filter: regular expressions cannot be had"),
    "lokr_dim lokr_decompose_both lokr_decompose_factor lokr_weight_decompose lokr_dora_on_output lokr_full_matrix": stated(
        model.name_lycoris("lokr"), "`[adapter.lycoris]`"
    ),
    "lokr_use_tucker": ignored("it is for convolutions, which these models do not have"),
    "lokr_vec_trick": ignored(_OPTIMIZER),
    "oft_block_size oft_scaled": stated(model.name_lycoris("oft_2"), "`[adapter.lycoris]`"),
    "oft_block_share": refused("each layer turns by itself"),
    "transformer.train": ignored("the transformer learns"),
    "text_encoder.train": stated(train.set_clip_training, "`adapter.text_encoder` of FLUX.1"),
    "text_encoder.learning_rate": stated(train.set_clip_rate, "`optim.text_encoder_lr`"),
    "text_encoder_2.train": stated(train.refuse_t5, "T5 does not learn here"),
    "text_encoder_2.learning_rate vae.learning_rate vae.train": ignored("this part does not learn"),
    "*.stop_training_after *.stop_training_after_unit": ignored(_STOP),
    "text_encoder.dropout_probability text_encoder_2.dropout_probability": stated(train.set_dropout, "`data.N.caption_dropout`"),
    "*.dropout_probability": ignored(_OTHER),
    "embedding embedding.* additional_embeddings embedding_learning_rate embedding_weight_dtype": ignored(_TOKENS),
    "preserve_embedding_norm bundle_additional_embeddings": ignored(_TOKENS),
}

_MEMORY: Table = {
    "transformer.weight_dtype": stated(
        model.for_bits("transformer.weight_dtype", "memory.quantize"), "`memory.quantize`; of whole models `adapter.precision`"
    ),
    "text_encoder.weight_dtype": stated(
        model.for_bits("text_encoder.weight_dtype", "memory.quantize_text_encoder"), "`memory.quantize_text_encoder`"
    ),
    "text_encoder_2.weight_dtype": stated(
        model.for_bits("text_encoder_2.weight_dtype", "memory.quantize_text_encoder_2"), "`memory.quantize_text_encoder_2`"
    ),
    "vae.weight_dtype": ignored("the autoencoder runs in the precision that it needs"),
    "weight_dtype": ignored("it is for parts whose own weight_dtype is NONE"),
    "quantization.svd_dtype": refused("weber has no further branch beside packed weights", off=(None, "", "NONE", False)),
    "quantization quantization.*": ignored("the transformer's blocks are packed; norms, embeddings and the last layer stay as they are"),
    "train_dtype": stated(model.set_train_dtype, "`memory.dtype`"),
    "fallback_train_dtype enable_autocast_cache": ignored("adapters are fp32 and the frozen model is bf16 on GPUs that have it"),
    "train_device": stated(model.set_device, "`memory.device`"),
    "temp_device": ignored(_PARTS),
    "transformer.gradient_checkpointing gradient_checkpointing": stated(model.set_checkpointing, "`memory.gradient_checkpointing`"),
    "*.gradient_checkpointing": ignored(_PARTS),
    "transformer.activation_offloading": stated(model.set_offload, "`memory.offload_activations`"),
    "*.activation_offloading": ignored(_PARTS),
    "transformer.offload_fraction layer_offload_fraction": stated(model.set_swap, "`memory.swap_blocks`, a number of blocks"),
    "*.offload_fraction": ignored(_PARTS),
    "enable_activation_offloading async_offloading": ignored(_PARTS),
    "compile": stated(model.set_compile, "`memory.compile`"),
    "attention_mechanism": stated(model.set_attention, "`memory.attention`"),
    "multi_gpu": refused(
        "multiply train.accumulation by the number of GPUs, and a step has as many pictures; parallel.devices takes those that are here"
    ),
    "device_indexes gradient_reduce_precision fused_gradient_reduce async_gradient_reduce*": ignored(_DEVICES),
    "dataloader_threads": ignored("pictures and captions are encoded before the first step, so that nothing is loaded while it trains"),
    "latent_caching clear_cache_before_training": ignored(_CACHED),
    "cache_dir": used("output.cache"),
    "only_cache": ignored("`weber cache run.toml` fills the cache and stops"),
}

_TRAIN: Table = {
    "optimizer.optimizer optimizer": stated(train.set_optimizer, "`optim.name`"),
    "optimizer.beta1 optimizer.beta2": stated(train.set_betas, "`optim.betas`"),
    "optimizer.eps": stated(train.for_number("eps", "optim.eps"), "`optim.eps`"),
    "optimizer.weight_decay": stated(train.for_number("weight_decay", "optim.weight_decay"), "`optim.weight_decay`"),
    "optimizer.d0 optimizer.d_coef optimizer.growth_rate optimizer.decouple optimizer.use_bias_correction": stated(
        train.set_option, "`optim.options` of prodigy"
    ),
    "optimizer.safeguard_warmup optimizer.beta3 optimizer.momentum optimizer.dampening optimizer.nesterov": stated(
        train.set_option, "`optim.options` of prodigy and sgd"
    ),
    "optimizer.fused_back_pass": stated(train.set_fused, "`optim.fused_backward`"),
    "optimizer.*": ignored(_OPTIMIZER),
    "optimizer_defaults optimizer_defaults.*": ignored("kept for each optimizer, and read where `optimizer` leaves a setting out"),
    "learning_rate": stated(train.set_rate, "`optim.lr`; left out it is 3e-6 there"),
    "transformer.learning_rate": stated(train.name_own_rate, "`optim.lr`, before the common one"),
    "learning_rate_scaler": stated(train.set_scaler, "in `optim.lr`"),
    "learning_rate_scheduler": stated(train.set_schedule, "`optim.schedule`"),
    "learning_rate_warmup_steps": stated(train.set_warmup, "`optim.warmup_steps`; left out it is 200 there"),
    "learning_rate_cycles": ignored("with COSINE_WITH_HARD_RESTARTS: optim.cycles"),
    "learning_rate_min_factor": stated(train.set_end_rate, "`optim.end_lr`, that share of the rate"),
    "custom_learning_rate_scheduler scheduler_params": refused(
        "weber runs no code of others; optim.schedule says the course", off=(None, "", [])
    ),
    "epochs": stated(train.set_epochs, "`train.epochs`; left out it is 100 there"),
    "batch_size": used("train.batch_size"),
    "gradient_accumulation_steps": used("train.accumulation"),
    "clip_grad_norm": stated(train.set_clip, "`optim.clip_norm`"),
    "ema": stated(train.set_ema, "`optim.ema_decay`, `optim.ema_on`"),
    "ema_decay ema_update_step_interval": stated(train.name_ema, "`optim.ema_decay`, for every step"),
    "loss_scaler": refused("a scale of the loss changes nothing under an optimizer that divides by its gradients", off=("NONE", None, "")),
}

_OBJECTIVE: Table = {
    "timestep_distribution": stated(train.set_law, "`objective.timesteps` with its parameters"),
    "noising_weight noising_bias": stated(train.name_law, "`objective.logit_std`, `logit_mean`, `mode_scale`, `beta_shape`"),
    "timestep_shift": stated(train.set_shift, "`objective.shift`"),
    "dynamic_timestep_shifting": stated(train.set_dynamic, '`objective.shift = "tokens"`'),
    "min_noising_strength": refused(_RANGE),
    "max_noising_strength": refused(_RANGE, off=(1, None, "")),
    "transformer.guidance_scale": stated(train.set_guidance, "`objective.guidance`"),
    "*.guidance_scale": ignored(_OTHER),
    "mse_strength mae_strength log_cosh_strength huber_strength": stated(train.set_loss, "`objective.loss`, the strongest"),
    "huber_delta": stated(train.name_huber, "`objective.huber_c`"),
    "vb_loss_strength": ignored(_OTHER),
    "loss_weight_fn": stated(train.set_weighting, "`objective.weighting`; SIGMA cannot be had"),
    "loss_weight_strength": ignored("it is for weights that these models do not have"),
    "offset_noise_weight perturbation_noise_weight": refused(_NOISE),
    "generalized_offset_noise": ignored("it is for offset_noise_weight"),
    "rescale_noise_scheduler_to_zero_terminal_snr force_v_prediction force_epsilon_prediction": refused(_READING),
    "masked_training": refused(_MASKS),
    "unmasked_probability unmasked_weight normalize_masked_area_loss": ignored(_WITH_MASKS),
    "masked_prior_preservation_weight": refused("a set with regularization = true keeps the model as it is on its pictures"),
    "custom_conditioning_image": refused("references are a folder of their own here, with the names of the pictures: data.N.conditioning"),
}

_DATA: Table = {
    "concept_file_name concepts": ignored("the concepts, each of which is a [[data]] here"),
    "resolution": ignored("in each [[data]]: data.N.resolution, or data.N.buckets of a single size"),
    "aspect_ratio_bucketing": ignored('in each [[data]]: geometry = "onetrainer", with or without aspect = "square"'),
    "frames": ignored("it is for video"),
}

_OUTPUT: Table = {
    "sample_definition_file_name samples": ignored("the samples, each of which is one of sampling.prompts here"),
    "sample_after": stated(samples.set_sample_after, "`sampling.every`; minutes cannot be had"),
    "sample_after_unit backup_after_unit save_every_unit validate_after_unit": ignored(_FOLLOWS),
    "sample_skip_first": stated(samples.set_skip, "`sampling.at_start = false`"),
    "sample_image_format sample_video_format sample_audio_format samples_to_tensorboard": ignored("pictures are written as PNG"),
    "non_ema_sampling": ignored('the trained weights paint; sampling.weights = "ema" takes their running mean'),
    "backup_after": stated(samples.set_backup_after, "`output.save_every`; minutes cannot be had"),
    "save_every": stated(samples.set_save_every, "`output.save_every`"),
    "save_skip_first save_filename_prefix backup_before_save": ignored("every checkpoint holds all that a resume needs"),
    "rolling_backup": stated(samples.set_keep, "`output.keep_last`"),
    "rolling_backup_count": stated(samples.name_keep, "`output.keep_last`"),
    "continue_last_backup": ignored("`weber train RUN --resume` goes on with a run; a backup of OneTrainer holds no state that weber has"),
    "workspace_dir": used("output.folder"),
    "output_model_destination": stated(model.set_destination, "`output.name`, in output.folder"),
    "output_dtype": stated(model.set_precision, "`output.precision`"),
    "output_model_format": stated(model.set_format, "`output.formats`"),
    "prevent_overwrites": ignored("every result is written beside its name and put there when it is whole"),
    "include_train_config": ignored("weber writes into the header of a file what it knows: settings, data and base model"),
    "tensorboard": stated(samples.set_tensorboard, '`output.trackers = ["tensorboard"]`'),
    "tensorboard_*": ignored(_PAGES),
    "validation": ignored("concepts of the type VALIDATION are held out, data.N.evaluation = 1"),
    "validate_after": stated(samples.set_evaluation, "`evaluation.every`; minutes cannot be had"),
    "transformer text_encoder text_encoder_2 vae": ignored("an empty table"),
    "debug_mode debug_dir __version *.__version": ignored(_PAGES),
    "cloud cloud.* secrets secrets.*": ignored(_CLOUD),
}

GROUPS: Mapping[str, Table] = {
    "The model": _MODEL,
    "The adapter": _ADAPTER,
    "Memory and speed": _MEMORY,
    "The optimizer and the length": _TRAIN,
    "Noise levels, guidance and loss": _OBJECTIVE,
    "Concepts": _DATA,
    "Pictures on the way, and what is left behind": _OUTPUT,
}
_ALL = {name: answer for table in GROUPS.values() for name, answer in table.items()}
TABLE: Table = {
    **{name: answer for name, answer in _ALL.items() if "*" not in name},
    **{name: answer for name, answer in _ALL.items() if "*" in name and not name.startswith("*")},
    **{name: answer for name, answer in _ALL.items() if name.startswith("*")},
}
"""Names before patterns, and patterns of one part of the model before those of all."""

DEFAULTS: Mapping[str, Any] = {
    "training_method": "FINE_TUNE",
    "lora_rank": 16,
    "lora_alpha": 1.0,
    "layer_filter_preset": "full",
    "optimizer.optimizer": "ADAMW",
    "learning_rate": 3e-6,
    "learning_rate_scheduler": "CONSTANT",
    "learning_rate_warmup_steps": 200,
    "epochs": 100,
    "timestep_distribution": "UNIFORM",
    "text_encoder.train": True,
    "text_encoder_2.train": True,
    "text_encoder_2_sequence_length": 77,
    "workspace_dir": "workspace/run",
    "output_model_destination": "models/model.safetensors",
}
"""What OneTrainer takes for keys that are left out, where that differs from weber; presets leave out most of them."""
