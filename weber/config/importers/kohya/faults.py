"""What kohya's scripts really do with some settings, in silence: a row each, with the condition under which it is so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weber.config.importers.draft import Keys
from weber.config.importers.kohya.captions import draws, is_raw
from weber.config.importers.kohya.data import is_bucketed, read_size
from weber.config.importers.kohya.facts import is_adapter, is_lycoris, is_relative, moves_at_once, name_optimizer, trains_text
from weber.config.importers.kohya.gui import ZERO_TEXT_RATE
from weber.config.importers.kohya.lycoris import name_algo
from weber.config.importers.kohya.train import is_schnell

_NOISY_LR = 5e-5
_SCALED = ("lora", "locon", "loha", "glora")
_CAPTION_KEYS = (
    "caption_prefix", "caption_suffix", "enable_wildcard", "secondary_separator", "caption_dropout_every_n_epochs",
)


@dataclass(frozen=True)
class Fault:
    """A row: when it is so, and the sentence."""

    when: Callable[[Keys], bool]
    say: Callable[[Keys], str]


def _scale(keys: Keys) -> tuple[float, int]:
    alpha, rank = keys.read_float("network_alpha"), keys.read_int("network_dim")
    return (1.0 if alpha is None else alpha), rank or 4


def _say_scale(keys: Keys) -> str:
    alpha, rank = _scale(keys)
    said = "" if "network_alpha" in keys else ", because network_alpha is 1 if nothing is said"
    return f"What the adapter adds was multiplied by network_alpha / network_dim = {alpha:g} / {rank} = {alpha / rank:.4g}{said}."


def _say_shift(keys: Keys) -> str:
    shift, law = keys["discrete_flow_shift"], keys["timestep_sampling"]
    return f'discrete_flow_shift = {shift} had no part: with timestep_sampling = "{law}" nothing reads it.'


def _is_scaled(keys: Keys) -> bool:
    alpha, rank = _scale(keys)
    if not is_adapter(keys) or keys.read_bool("dim_from_weights") or (is_lycoris(keys) and name_algo(keys) not in _SCALED):
        return False
    return alpha not in (0, rank)


FAULTS: Sequence[Fault] = (
    Fault(_is_scaled, _say_scale),
    Fault(
        lambda keys: str(keys["model_prediction_type"]) != "raw",
        lambda keys: (
            f'model_prediction_type = "{keys["model_prediction_type"]}"'
            + ("" if "model_prediction_type" in keys else ", as it is if nothing is said,")
            + " compared something else with the velocity: the run learned toward the wrong quantity. Only raw fits FLUX."
        ),
    ),
    Fault(lambda keys: "discrete_flow_shift" in keys and keys["timestep_sampling"] in ("sigmoid", "uniform", "flux_shift"), _say_shift),
    Fault(
        lambda keys: "guidance_scale" not in keys and not is_schnell(keys),
        lambda keys: "The network was told guidance 3.5 in every step, as it is if nothing is said; 1.0 is what recipes have.",
    ),
    Fault(
        lambda keys: not is_adapter(keys) and (keys.read_bool("fp8_base") or keys.read_bool("fp8_base_unet")),
        lambda keys: "fp8_base did nothing: flux_train.py never reads it.",
    ),
    Fault(
        lambda keys: is_adapter(keys) and keys.read_bool("full_bf16"),
        lambda keys: "full_bf16 kept the adapter itself in bf16, where steps of usual rates are lost by rounding: it hardly moved.",
    ),
    Fault(
        lambda keys: (
            not is_adapter(keys)
            and str(keys["mixed_precision"]) == "bf16"
            and not (name_optimizer(keys) == "adafactor" and keys.read_bool("fused_backward_pass"))
        ),
        lambda keys: (
            f"The whole model was trained in bf16, and {keys['optimizer_type']} does not round stochastically there: steps smaller than the"
            " distance between two such numbers were lost. Adafactor with fused_backward_pass does."
        ),
    ),
    Fault(
        is_relative,
        lambda keys: (
            "Adafactor had relative_step = true, as it has if nothing is said: learning_rate and lr_scheduler were not used; the rate was"
            " 1 / sqrt(step), at most 0.01, times the size of each weight."
        ),
    ),
    Fault(
        lambda keys: name_optimizer(keys) == "adafactor" and not is_relative(keys) and keys["optimizer_args.scale_parameter"] is None,
        lambda keys: (
            "Adafactor had scale_parameter = true, as it has if nothing is said: learning_rate was multiplied by the size of each weight,"
            " for factors that start at zero by 0.001."
        ),
    ),
    Fault(
        lambda keys: moves_at_once(keys) and (keys.read_float("max_grad_norm") or 0) > 0,
        lambda keys: f"max_grad_norm = {keys['max_grad_norm']} was held by each weight alone, not by all together.",
    ),
    Fault(
        lambda keys: not is_adapter(keys) and not is_relative(keys) and (keys.read_float("learning_rate") or 0) >= _NOISY_LR,
        lambda keys: (
            f"Whole models at learning_rate = {keys['learning_rate']} are reported to end in noise or blur (sd-scripts issues 1579, 1587,"
            " 2039)."
        ),
    ),
    Fault(
        lambda keys: trains_text(keys) and "network_train_unet_only" not in keys,
        lambda keys: (
            "CLIP was trained too, because network_train_unet_only was not given; programs that load the transformer's part alone lose it."
        ),
    ),
    Fault(
        lambda keys: str(keys["loss_type"]) in ("huber", "smooth_l1") and str(keys["huber_schedule"] or "snr") == "snr",
        lambda keys: "The scripts stop with NotImplementedError at huber_schedule = snr, which is taken if nothing is said.",
    ),
    Fault(
        lambda keys: keys["lr_scheduler"] == "constant" and str(keys["lr_warmup_steps"] or 0) not in ("0", "0.0"),
        lambda keys: "The scripts stop at a warm-up with lr_scheduler = constant; constant_with_warmup has one.",
    ),
    Fault(
        lambda keys: is_adapter(keys) and "network_args.split_qkv" in keys and str(keys["network_args.split_qkv"]) == "True",
        lambda keys: "Versions of the scripts before July 2026 stop at split_qkv (issue 2220).",
    ),
    Fault(
        lambda keys: is_adapter(keys) and any(f"network_args.network_reg_{name}" in keys for name in ("dims", "lrs")),
        lambda keys: "Of several expressions that find a layer the first one counted; the documentation says the last.",
    ),
    Fault(
        lambda keys: bool(keys["run.is_cached"]),
        lambda keys: "A caption that was edited after its first encoding stayed as it was: the cache is found by the picture's name alone.",
    ),
    Fault(
        lambda keys: bool(keys["run.is_gui"]) and keys["run.zero_clip"] is True,
        lambda keys: "max_grad_norm = 0 was not passed on by the GUI, which leaves out what is 0: gradients were clipped at 1.0.",
    ),
    Fault(
        lambda keys: bool(keys["run.is_gui"]) and keys.find("network_train_unet_only").spelled == ZERO_TEXT_RATE,
        lambda keys: "text_encoder_lr = 0 made the GUI pass on network_train_unet_only: the file holds no part for CLIP.",
    ),
    Fault(
        lambda keys: bool(keys["run.is_gui"]) and keys["run.lost_dropout"] is True,
        lambda keys: "rank_dropout and module_dropout were not passed on: before July 2026 the GUI had none for LoRA_type = Flux1.",
    ),
)
"""Of the command."""


def _smaller(keys: Keys) -> bool:
    size = read_size(keys)
    longest = keys.read_int("max_bucket_reso") or 1024
    return is_bucketed(keys) and not keys.read_bool("bucket_no_upscale") and size is not None and size[0] == size[1] and longest <= size[0]


def _lost(keys: Keys) -> list[str]:
    return [name for name in _CAPTION_KEYS if keys[name] not in (None, "", False, 0)]


SET_FAULTS: Sequence[Fault] = (
    Fault(
        lambda keys: is_raw(keys) and bool(_lost(keys)),
        lambda keys: (
            f"{', '.join(_lost(keys))} did nothing for T5: with cached text encoder outputs captions are read as they stand in files."
        ),
    ),
    Fault(
        lambda keys: bool(keys["keep_tokens"]) and str(keys["keep_tokens"]) != "0" and not draws(keys),
        lambda keys: f"keep_tokens = {keys['keep_tokens']} did nothing: tags were neither shuffled nor left out.",
    ),
    Fault(
        lambda keys: bool(keys["keep_tokens_separator"]) and not draws(keys),
        lambda keys: (
            f'A "{keys["keep_tokens_separator"]}" in a caption reached T5 as it stands: it is read where tags are shuffled or left out.'
        ),
    ),
    Fault(
        lambda keys: "caption_extension" not in keys and "metadata_file" not in keys,
        lambda keys: (
            "Captions were read from .caption files, because caption_extension was not given; .txt files were not read"
            f", and their pictures had {'the caption ' + repr(keys['class_tokens']) if keys['class_tokens'] else 'no caption'}."
        ),
    ),
    Fault(
        _smaller,
        lambda keys: (
            f"max_bucket_reso = {keys.read_int('max_bucket_reso') or 1024} at a resolution of {keys['resolution']}: no side was longer than"
            " that of the square, so every picture that is not square lost pixels."
        ),
    ),
    Fault(
        lambda keys: not is_bucketed(keys) and read_size(keys) is not None,
        lambda keys: "Every picture was cut to one size, because enable_bucket was not on.",
    ),
    Fault(
        lambda keys: keys.read_bool("is_reg"),
        lambda keys: "Class images were repeated, or left out, until they were as many as the others.",
    ),
    Fault(
        lambda keys: keys.read_bool("alpha_mask") or bool(keys["run.masked_loss"] and keys["conditioning_data_dir"]),
        lambda keys: "The loss under a mask was not divided by the mask's area, so that pictures with small masks hardly counted.",
    ),
)
"""Of a set of pictures."""


def list_faults(rows: Sequence[Fault], keys: Keys) -> list[str]:
    """The sentences of those rows that are so."""
    return [row.say(keys) for row in rows if row.when(keys)]
