"""What other trainers call things: every name has an answer that is looked up, and every answer can be written."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, TypeAdapter

from weber.config.foreign import FOREIGN_SECTIONS, find_foreign, find_spelling, find_value, read_word
from weber.config.foreign_names import FOREIGN_ADVICE, FOREIGN_NAMES, FOREIGN_NOTES
from weber.config.foreign_refused import FOREIGN_ALWAYS, FOREIGN_NATURAL, FOREIGN_REFUSED
from weber.config.foreign_values import FOREIGN_VALUES, REFUSED_VALUES
from weber.config.load import build_config
from weber.config.settings import is_known, list_sections, list_settings
from weber.errors import ConfigError

FOLDER = Path(__file__).parent / "foreign"
TABLES = (FOREIGN_NAMES, FOREIGN_ADVICE, FOREIGN_REFUSED, FOREIGN_ALWAYS)
SETTINGS = {setting.key: setting for setting in list_settings()}
TOP_NAMES = {setting.name for setting in SETTINGS.values() if "." not in setting.section}
SECTIONS = ("", "model", "data", "adapter", "memory", "objective", "optim", "train", "sampling", "output")
PLAIN_WORDS = {"default", "image", "include", "k", "text", "train", "uuid", "xi", "debug", "verbose"}
"""Of nested tables; as keys of ours they would say nothing."""


def _set(key: str, value: object) -> dict[str, Any]:
    """A tree with one set of pictures and one further value."""
    tree: dict[str, Any] = {"data": [{"path": "a"}, {"path": "b"}]}
    place: Any = tree
    *above, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    for part in above:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    place[last] = value
    return tree


def _refuse(key: str, value: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build_config(_set(key, value))
    return caught.value


@pytest.mark.parametrize("trainer", ["kohya", "ai-toolkit", "onetrainer", "simpletuner", "diffusers"])
def test_every_option_of_a_trainer_has_an_answer_without_a_guess(trainer: str) -> None:
    names = (FOLDER / f"{trainer}.txt").read_text(encoding="utf-8").split()
    assert len(names) > 100
    known = TOP_NAMES | FOREIGN_SECTIONS.keys() | PLAIN_WORDS
    missing = [
        name
        for name in names
        if name not in known and not any(_is_found(name, section) for section in SECTIONS)
    ]
    assert missing == []


def _is_found(name: str, section: str) -> bool:
    spelled = find_spelling(TABLES, name, section=section)
    return spelled in TOP_NAMES or any(find_foreign(table, spelled, section=section) for table in TABLES)


def test_the_tables_point_to_settings_that_exist_and_say_each_name_once() -> None:
    assert {key for targets in FOREIGN_NAMES.values() for key in targets.split()} <= SETTINGS.keys() | _list_entries()
    assert set(FOREIGN_SECTIONS.values()) <= {section.name for section in list_sections()}
    names = [name for table in TABLES for name in table]
    assert len(names) == len(set(names)), "a name has one explanation"
    assert not TOP_NAMES & set(names), "a name of ours must not be explained as a foreign one"
    assert names == [name.lower().replace("-", "_") for name in names]
    assert FOREIGN_NATURAL.keys() <= FOREIGN_REFUSED.keys()
    assert all(fnmatch.filter([*FOREIGN_NAMES], name) for name in FOREIGN_NOTES), "a note belongs to a key"


def _list_entries() -> set[str]:
    return {key for key in SETTINGS if ".0." in key}


def test_every_key_in_an_answer_is_a_setting() -> None:
    texts = [*FOREIGN_ADVICE.values(), *FOREIGN_NOTES.values(), *FOREIGN_REFUSED.values(), *FOREIGN_ALWAYS.values()]
    texts += [text for table in (FOREIGN_VALUES, REFUSED_VALUES) for rows in table.values() for text in rows.values()]
    sections = "|".join(SECTIONS[1:])
    keys = {key for text in texts for key in re.findall(rf"\b(?:{sections})\.(?:0\.)?[a-z_0-9.]*[a-z_0-9]", text)}
    assert len(keys) > 30
    assert [key for key in sorted(keys) if not is_known(key)] == []


ROWS = [(name, patterns, text) for names, rows in FOREIGN_VALUES.items() for name in names.split("|") for patterns, text in rows.items()]


@pytest.mark.parametrize(("name", "patterns", "text"), ROWS, ids=[f"{name}-{patterns}"[:60] for name, patterns, _ in ROWS])
def test_what_a_value_means_can_be_written(name: str, patterns: str, text: str) -> None:
    is_setting = name in SETTINGS
    assert is_setting or find_foreign(FOREIGN_NAMES, name), name
    if name == "adapter.targets":
        return  # the name of a set, which belongs to the model
    line = f"{name} = {text.split('; ')[0]}" if is_setting else text.split("; ")[0].split(", ")[0]
    for key, value in re.findall(r'([a-z_0-9.]+) = ("[^"]*"|\S+)', line):
        setting = SETTINGS[key]
        annotated: Any = Annotated[setting.field.annotation, setting.field]
        written = tomllib.loads(f"value = {value}")["value"]
        written = [written] if key == "output.formats" else written
        TypeAdapter(annotated, config=ConfigDict(strict=True)).validate_python(written)


def test_no_value_of_ours_is_explained() -> None:
    for table in (FOREIGN_VALUES, REFUSED_VALUES):
        for setting in SETTINGS.values():
            for choice in setting.choices:
                found = find_value(table, setting.key, value=choice)
                assert found is None or found.startswith(f'"{choice}"'), (setting.key, choice)


@pytest.mark.parametrize(
    ("value", "word"),
    [(True, "true"), ("Cos-Map ", "cos_map"), (0, "0"), (1.5, "1.5"), (2.0, "2"), ([512, 768], "512,768"), ({"a": 1}, None), ([], None)],
)
def test_a_value_is_looked_up_as_a_word(value: object, word: str | None) -> None:
    assert read_word(value) == word


VALUES: list[tuple[str, object, str]] = [
    ("optim.schedule", "piecewise", "weber has no such course"),
    ("optim.schedule", "warmup", 'write optim.schedule = "constant", with optim.warmup_steps'),
    ("objective.timesteps", "shift_scale", 'write objective.timesteps = "shift", with objective.shift'),
    ("objective.timesteps", "balanced", "weber has no such law"),
    ("objective.loss", "MSE_LOSS", 'write objective.loss = "l2"'),
    ("objective.loss", "huber_scheduled", 'write objective.loss = "huber", with objective.huber_schedule = "exponential"'),
    ("objective.loss", "v-prediction", "these models answer with the velocity in any case"),
    ("objective.weighting", "flow", 'write objective.weighting = "none"'),
    ("objective.huber_schedule", "linear", 'the nearest is "exponential"'),
    ("memory.dtype", "mixed", 'write memory.dtype = "auto"'),
    ("memory.gradient_checkpointing", "ffn", "whole blocks are computed again"),
    ("memory.swap_blocks", "50%", "write a number of blocks"),
    ("memory.swap_blocks", "-1", 'every block is "all"'),
    ("adapter.kind", "T-LoRA", 'the nearest is "lora"'),
    ("adapter.kind", "lora+", "with a rule under [[adapter.rules]] that has lr"),
    ("adapter.kind", "sliders", "weber has no such adapter"),
    ("adapter.init", "kaiming_normal", 'write adapter.init = "default"'),
    ("data.0.crop", "smart", "weber does not look at what is in pictures"),
    ("data.0.crop", "letterbox", "weber adds no borders"),
    ("data.0.aspect", "16:9", 'one shape for all is "square"'),
    ("data.0.captions", "folder", 'write data.0.captions = "foldername"'),
    ("data.0.resolution_type", "longest_edge", "weber measures area or the shorter edge"),
    ("data.0.conditioning_type", "edit", 'write data.0.conditioning_type = "reference_strict"'),
    ("data.0.conditioning_type", "inpaint", "data.0.masks"),
    ("output.formats", ["DIFFUSERS", "KOHYA"], 'write output.formats = ["diffusers", "kohya"]'),
    ("output.formats", ["diffusers", "LEGACY_SAFETENSORS"], 'write output.formats = ["diffusers", "kohya"]'),
    ("output.formats", ["xlabs"], "weber does not write it"),
    ("output.precision", "fp8", 'the smallest is "bf16"'),
    ("output.save_every", "2epochs", 'write output.save_every = "2 epochs"'),
    ("output.save_every", "500 steps", "write output.save_every = 500"),
    ("output.save_every", "10 MINUTE", "so many steps, or epochs"),
    ("output.save_every", "NEVER", "set it to train.steps for no other"),
    ("sampling.every", "5 min", "set sampling.every to"),
    ("sampling.weights", "NON_EMA", 'write sampling.weights = "trained"'),
    ("sampling.weights", "both", "one of them is painted"),
    ("train.steps", "3 epochs", "set train.epochs, and remove train.steps"),
    ("train.epochs", "10 epochs", "write train.epochs = 10"),
    ("optim.state_on", "disk", 'the nearest is "host"'),
    ("data.0.resolution_type", "pixel", 'write data.0.resolution_type = "shorter_edge"'),
    ("data.1.resolution_type", "pixel_area", 'write data.1.resolution_type = "area"'),
    ("optim.schedule", "constant_with_warmup", 'write optim.schedule = "constant", with optim.warmup_steps'),
    ("optim.schedule", "cosine_with_min_lr", 'write optim.schedule = "cosine", with optim.end_lr'),
    ("optim.schedule", "adafactor:1e-3", 'write optim.schedule = "constant"'),
    ("optim.schedule", "rex", 'the nearest is "polynomial" with optim.power = 0.6'),
    ("optim.schedule", "sine", "weber has no such course"),
    ("optim.schedule", "COSINE", 'write optim.schedule = "cosine"'),
    ("optim.schedule", "cosin", 'write optim.schedule = "cosine"'),
    ("optim.schedule", "warm", 'set optim.schedule to one of "constant"'),
    ("objective.loss", "mse", 'write objective.loss = "l2"'),
    ("objective.loss", "mae", 'write objective.loss = "l1"'),
    ("objective.loss", "smooth-l1", 'write objective.loss = "smooth_l1"'),
    ("objective.loss", "log_cosh", 'the nearest is "huber"'),
    ("objective.timesteps", "flux_shift", 'write objective.timesteps = "token_shift"'),
    ("objective.timesteps", "sigma", 'write objective.timesteps = "uniform", with objective.shift = 3.0'),
    ("objective.timesteps", "weighted", "weber has no such law"),
    ("objective.timesteps", "HEAVY_TAIL", 'write objective.timesteps = "mode", with objective.mode_scale'),
    ("objective.weighting", "logit_normal", "how noise levels are drawn: objective.timesteps"),
    ("objective.huber_schedule", "snr", "needs a table of signal and noise"),
    ("objective.shift", "flux_shift", 'write objective.shift = "tokens"'),
    ("memory.gradient_checkpointing", True, 'write memory.gradient_checkpointing = "all"'),
    ("memory.gradient_checkpointing", False, 'write memory.gradient_checkpointing = "none"'),
    ("memory.gradient_checkpointing", "unsloth", 'write memory.gradient_checkpointing = "all", with memory.offload_activations = true'),
    ("memory.quantize", "fp8-torchao", 'write memory.quantize = "fp8"'),
    ("memory.attention", "flash_attention_3", 'write memory.attention = "flash3"'),
    ("memory.attention", "flash-attn", 'write memory.attention = "flash"'),
    ("memory.attention", "XFORMERS", 'write memory.attention = "efficient"'),
    ("memory.attention", "sdpa", 'write memory.attention = "auto"'),
    ("memory.attention", "_native_cudnn", 'write memory.attention = "cudnn"'),
    ("memory.attention", "sage", 'sampling.attention = "sage" paints with it'),
    ("memory.attention", "sageattn", "no backward pass"),
    ("memory.attention", "eager", "weber has no such way"),
    ("sampling.attention", "sageattention", 'write sampling.attention = "sage"'),
    ("sampling.attention", "auto", 'write sampling.attention = "same"'),
    ("memory.quantize", "qfloat8", 'write memory.quantize = "fp8"'),
    ("memory.quantize", "int8-quanto", 'write memory.quantize = "int8"'),
    ("memory.quantize", "nf4-bnb", 'write memory.quantize = "nf4"'),
    ("memory.quantize", "uint3", "weber has no such format"),
    ("memory.quantize", "int6", "weber has no such format"),
    ("memory.quantize", "INT_W8A8", 'write memory.quantize = "int8"; int8_matmul = true'),
    ("memory.dtype", "no", 'write memory.dtype = "fp32"'),
    ("memory.dtype", "fp16", "these models overflow in fp16"),
    ("memory.dtype", "bfloat16", 'write memory.dtype = "bf16"'),
    ("data.0.crop", "random_crop", 'write data.0.crop = "random"'),
    ("data.0.crop", False, 'write data.0.crop = "off"'),
    ("data.0.crop", "face_crop", 'write data.0.crop = "face"'),
    ("data.0.aspect", "preserve", 'write data.0.aspect = "bucket"'),
    ("data.0.captions", "parquet", 'write data.0.captions = "metadata"'),
    ("data.0.captions", "instanceprompt", 'write data.0.captions = "instance"'),
    ("data.0.repeats", 0, "write data.0.repeats = 1"),
    ("data.0.resolution", "1024*1024", "set data.0.resolution to"),
    ("data.0.resolution", "1024,1024", "write one number"),
    ("adapter.kind", "standard", 'write adapter.kind = "lora"'),
    ("adapter.kind", "networks.lora_flux", 'write adapter.kind = "lora"'),
    ("adapter.kind", "FINE_TUNE", 'write adapter.kind = "full"'),
    ("adapter.kind", "dreambooth", "a way to write captions"),
    ("adapter.kind", "lora_fa", "weber has no such adapter"),
    ("adapter.lycoris", {"algo": "OFT"}, 'write adapter.lycoris.algo = "diag-oft"'),
    ("adapter.lycoris", {"algo": "diag_oft"}, 'write adapter.lycoris.algo = "diag-oft"'),
    ("adapter.init", "pissa_niter_4", 'write adapter.init = "pissa"'),
    ("adapter.precision", "fp16", 'write "bf16" or "fp32"'),
    ("optim.clip_norm", 0, 'write optim.clip_norm = "off"'),
    ("optim.lr", 0, "write a rate above 0"),
    ("optim.lr", "1,5", "write optim.lr = 1.5"),
    ("optim.ema_decay", 1, "write optim.ema_decay = 0.999"),
    ("optim.ema_on", "accelerator", 'write optim.ema_on = "device"'),
    ("optim.cycles", 1, 'schedule = "cosine"'),
    ("train.steps", "auto", "remove the line for 2000"),
    ("train.epochs", 1.5, "write a whole number, or set train.steps"),
    ("sampling.every", 0, "leave sampling.prompts out"),
    ("sampling.prompts", "prompts.json", "no file is read there"),
    ("sampling.prompts", ["prompts.txt"], 'write the texts, prompts = ["a cat", "a dog"]'),
    ("output.formats", ["safetensors"], 'write output.formats = ["diffusers"]'),
    ("output.formats", ["comfy", "kohya"], 'write output.formats = ["comfyui", "kohya"]'),
    ("output.formats", "kohya-ss", 'write output.formats = ["kohya"]'),
    ("output.keep_last", 0, 'write output.keep_last = "all"'),
    ("output.save_every", "epoch", 'write output.save_every = "1 epochs"'),
    ("output.precision", "float", 'write output.precision = "fp32"'),
    ("output.precision", "float16", 'write output.precision = "fp16"'),
    ("data.0.captions", ".caption", 'write data.0.captions = "textfile"'),
    ("output.formats", ["ckpt"], "files are safetensors"),
]


@pytest.mark.parametrize(("key", "value", "fix"), VALUES)
def test_a_value_of_another_trainer_gets_the_right_word(key: str, value: object, fix: str) -> None:
    error = _refuse(key, value)
    assert fix in error.fix
    assert error.what.startswith(key) or error.what.startswith(key.rpartition(".")[0])


KEYS: list[tuple[str, object, str]] = [
    ("adapter.flux_lora_target", "all", "use adapter.targets (Which linear layers get an adapter)"),
    ("data.0.caption_extension", ".txt", 'write data.0.captions = "textfile"'),
    ("data.0.caption_extension", ".caption", 'write data.0.captions = "textfile"'),
    ("data.0.disable_multiline_split", True, 'write data.0.caption_per = "file"'),
    ("data.0.default_caption", "a cat", "data.0.caption_fallback"),
    ("data.0.bucket_no_upscale", True, "write data.0.upscale = false"),
    ("data.1.bucket_no_upscale", False, "write data.1.upscale = true"),
    ("data.0.cond_image_column", "source", 'use data.0.conditioning_columns (Columns of `metadata` or `hub` with reference pictures'),
    ("data.0.cond_image_column", "source", 'data.0.conditioning_columns = ["source"]'),
    ("data.0.min_bucket_reso", 256, "use data.0.shortest_side"),
    ("data.0.flip_aug", True, "write data.0.mirror = true"),
    ("data.0.probability", 0.5, "use data.0.share"),
    ("data.0.start_epoch", 2, "use data.0.start_after"),
    ("data.0.start_step", 200, "use data.0.start_after"),
    ("data.0.end_step", 200, "use data.0.stop_after"),
    ("data.0.validation_split", 0.1, "use data.0.evaluation"),
    ("train.validate_every_n_steps", 100, "use evaluation.every"),
    ("sampling.num_eval_images", 4, "use evaluation.pictures"),
    ("train.data_backend_sampling", "uniform", "use train.balance"),
    ("data.0.color_aug", True, "write data.0.color_jitter = 0.05"),
    ("data.0.face_crop_aug_range", [1.0, 3.0], "use data.0.crop"),
    ("data.0.maximum_image_size", 1536, "use data.0.downsample_above"),
    ("data.0.target_downsample_size", 1280, "use data.0.downsample_to"),
    ("data.0.crop_aspect_buckets", [1.0, 0.5], "use data.0.aspects"),
    ("data.0.max_bucket_reso", 1024, "use data.0.longest_side"),
    ("data.1.num_repeats", 4, "use data.1.repeats ("),
    ("data.0.with_prior_preservation", True, "make class images a set of their own: [[data]]"),
    ("data.0.is_reg", True, "use data.0.loss_weight"),
    ("data.0.is_regularisation_data", True, "use data.0.regularization"),
    ("data.0.enable_bucket", False, 'write data.0.aspect = "square"'),
    ("data.0.trigger_word", "zorb", 'write [[data.caption_steps]] with kind = "trigger" and text = the word'),
    ("data.0.shuffle_caption", True, 'write [[data.caption_steps]] with kind = "shuffle", and keep = 1'),
    ("data.0.shuffle_caption", False, "remove it; it is what weber does in any case"),
    ("data.0.keep_tokens", 2, 'kind = "shuffle" and keep = the number of tags that stay'),
    ("data.0.keep_tokens_separator", "|||", "keep_separator = the mark"),
    ("data.0.caption_prefix", "a photo of", 'kind = "prefix" and text'),
    ("data.0.caption_suffix", "a photo of", 'kind = "suffix" and text'),
    ("data.0.caption_tag_dropout_rate", 0.1, 'kind = "drop" and rate = how likely'),
    ("data.0.caption_separator", ";", "write it as separator in each of [[data.caption_steps]]"),
    ("data.0.enable_wildcard", True, 'kind = "wildcards"'),
    ("data.0.caption_extension", ".tags", "data.0.caption_endings"),
    ("data.0.caption_extension", ".json", 'write data.0.captions = "json"'),
    ("data.0.caption_ext", "txt", 'write data.0.captions = "textfile"'),
    ("data.0.class_tokens", "dog", "data.0.caption_fallback"),
    ("data.0.prepend_instance_prompt", True, 'kind = "prefix" and text = what instance_prompt says'),
    ("data.0.caption_strategy", "textfile", "data.0.captions"),
    ("data.0.shuffle_tokens", True, 'kind = "shuffle"'),
    ("data.0.tag_dropout_special_tags", "a", 'kind = "drop"'),
    ("model.max_sequence_length", 256, "use model.text_tokens"),
    ("train.t5xxl_max_token_length", 256, "use model.text_tokens"),
    ("train.tokenizer_max_length", 256, "use model.text_tokens"),
    ("model.text_encoder_2_sequence_length", 77, "use model.text_tokens"),
    ("data.0.text_variations", 4, "data.0.caption_variants"),
    ("output.report_to", "tensorboard", 'write output.trackers = ["tensorboard"]'),
    ("output.report_to", "wandb", 'write output.trackers = ["wandb"]'),
    ("output.report_to", "comet_ml", "weber writes metrics.jsonl"),
    ("output.tensorboard", True, 'write output.trackers = ["tensorboard"]'),
    ("output.save_precision", "fp16", "use output.precision ("),
    ("output.save_precision", "float", 'output.precision = "fp32"'),
    ("output.output_name", "zorb", "use output.name ("),
    ("output.save_every_n_epochs", 2, 'epochs are written "2 epochs"'),
    ("data.0.class_tokens", "a cat", "use data.0.caption_fallback ("),
    ("data.0.disable_multiline_split", True, 'write data.0.caption_per = "file"'),
    ("train.optimizer", "adamw", "use optim.name ("),
    ("optim.lr_scheduler", "constant_with_warmup", 'optim.schedule = "constant", with optim.warmup_steps'),
    ("optim.max_grad_norm", 0.0, 'optim.clip_norm = "off"'),
    ("optim.use_8bit_adam", True, 'write optim.name = "adamw_8bit"'),
    ("optim.use_ema", True, "write optim.ema_decay = 0.999"),
    ("train.weighting_scheme", "logit_normal", 'write objective.timesteps = "logit_normal"'),
    ("train.weighting_scheme", "cosmap", 'and objective.weighting = "cosmap"'),
    ("train.xformers", True, 'write memory.attention = "efficient"'),
    ("train.sdpa", True, 'write memory.attention = "auto"'),
    ("train.attn_mode", "flash", "use memory.attention ("),
    ("train.attention_mechanism", "SDP", 'memory.attention = "auto"'),
    ("memory.attention_mechanism", "sageattention", 'write sampling.attention = "sage", for pictures alone'),
    ("train.attn_mode", "_sage_qk_int8_pv_fp16_cuda", 'write sampling.attention = "sage"'),
    ("sampling.sageattention_usage", "training+inference", 'write sampling.attention = "sage", for pictures alone'),
    ("train.sageattn", True, 'write sampling.attention = "sage"'),
    ("sampling.sageattention_usage", "inference", 'sampling.attention = "sage"'),
    ("memory.fp8_base", True, 'write memory.quantize = "fp8"'),
    ("memory.split_mode", True, "write memory.swap_blocks = 18"),
    ("model.is_flux", True, "use model.variant"),
    ("model.base_model_precision", "int8-quanto", 'memory.quantize = "int8"'),
    ("train.dtype", "bf16", "use memory.dtype"),
    ("model.quantize", True, 'memory.quantize = "fp8"'),
    ("train.timestep_type", "weighted", "use objective.timesteps"),
    ("adapter.network_args", ["train_blocks=single"], "train_blocks and block indices as adapter.blocks"),
    ("train.resume_from_checkpoint", "latest", "weber train run.toml --resume"),
    ("data.0.repeat", 4, "use data.0.repeats"),
]


@pytest.mark.parametrize(("key", "value", "fix"), KEYS)
def test_a_key_of_another_trainer_gets_the_right_one(key: str, value: object, fix: str) -> None:
    error = _refuse(key, value)
    assert error.what == f"{key} is not a setting"
    assert fix in error.fix


REFUSED: list[tuple[str, object, str, str]] = [
    ("data.0.flip_y", True, "pictures are encoded once", "remove it"),
    ("memory.unet_attention_slice", True, "attention is never cut into slices", "remove it"),
    ("train.cache_latents", True, "always encoded once", "remove it"),
    ("train.crepa_lambda", 0.5, "no such further loss", "remove it"),
    ("output.push_to_hub", True, "publish.to = owner/name sends", "remove it"),
]


@pytest.mark.parametrize(("key", "value", "reason", "fix"), REFUSED)
def test_a_key_without_a_counterpart_says_why(key: str, value: object, reason: str, fix: str) -> None:
    error = _refuse(key, value)
    assert error.what.startswith(f"{key} is not a setting: ")
    assert reason in error.what
    assert fix in error.fix


@pytest.mark.parametrize("key", ["train.flubber", "optim.foo_bar", "data.0.text_encoder_3_x", "adapter.zork"])
def test_what_is_near_to_nothing_gets_no_guess(key: str) -> None:
    assert _refuse(key, 1).fix.startswith("remove it")


@pytest.mark.parametrize(
    ("key", "value"), [("memory.quantize", "nf9"), ("optim.schedule", "warm"), ("objective.loss", "l3"), ("adapter.init", "xavier")]
)
def test_a_value_near_to_nothing_gets_no_guess(key: str, value: str) -> None:
    assert _refuse(key, value).fix.startswith(f"set {key} to one of")


def test_the_set_of_simpletuner_that_ours_does_not_mean() -> None:
    """`ai-toolkit` is there what diffusers' document lists, and here what ai-toolkit trains."""
    assert _refuse("adapter.flux_lora_target", "ai-toolkit").fix == 'write adapter.targets = "all+ffs+modulation"'
    assert _refuse("flux_lora_target", "ai-toolkit").fix == 'write adapter.targets = "all+ffs+modulation"'
    assert _refuse("adapter.flux_lora_target", "mmdit").fix.startswith("use adapter.targets")
