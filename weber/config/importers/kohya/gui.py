"""Saves of the kohya_ss GUI: which option of the scripts each key becomes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from weber.config.importers.kohya.models import build_other_model
from weber.config.importers.outcome import Given, Outcome
from weber.config.importers.shell import read_flags

Spell = Callable[..., Iterator[Given]]

RENAMED: Mapping[str, str] = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "flux1_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "flux1_cache_text_encoder_outputs_to_disk": "cache_text_encoder_outputs_to_disk",
    "flux1_clip_l": "clip_l",
    "flux1_t5xxl": "t5xxl",
    "flux_fused_backward_pass": "fused_backward_pass",
    "image_folder": "train_data_dir",
    "lr_warmup": "lr_warmup_percent",
    "lora_network_weights": "network_weights",
}
"""Key of the GUI -> option of the scripts, where the names differ."""

_FLUX_NAMES: Mapping[str, str] = {
    "clip_l": "flux1_clip_l", "t5xxl": "flux1_t5xxl", "fused_backward_pass": "flux_fused_backward_pass",
}
"""Where whole models are trained: what is for other models -> the same for FLUX.1."""

_FLUX_ARGS = (
    "img_attn_dim", "img_mlp_dim", "img_mod_dim", "single_dim", "txt_attn_dim", "txt_mlp_dim", "txt_mod_dim", "single_mod_dim", "in_dims",
    "train_double_block_indices", "train_single_block_indices", "split_qkv", "train_t5xxl",
)
_GGPO = ("ggpo_beta", "ggpo_sigma")
_RATIOS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
_DROPOUTS = ("rank_dropout", "module_dropout")
_LYCORIS_ARGS = (
    *_DROPOUTS, "conv_dim", "conv_alpha", "factor", "use_cp", "use_tucker", "use_scalar", "rank_dropout_scale", "rescaled", "train_norm",
    "decompose_both", "bypass_mode", "dora_wd", "constrain",
)
_OWN_ARGS: Mapping[str, tuple[str, ...]] = {
    "Flux1": (*_FLUX_ARGS, *_GGPO),
    "Flux1 OFT": ("enable_all_linear",),
    "Kohya LoHa": (*_DROPOUTS, "conv_dim", "conv_alpha", "use_tucker"),
    "Kohya LoKr": (*_DROPOUTS, "conv_dim", "conv_alpha", "use_tucker", "factor"),
}
"""`LoRA_type` -> keys that the GUI makes network arguments of, for those that are not of LyCORIS."""

_ARG_NAMES: Mapping[str, str] = {"LyCORIS_preset": "preset", "constrain": "constraint"}

_ALGOS: Mapping[str, str] = {
    "LoCon": "locon",
    "LyCORIS/LoCon": "locon",
    "LyCORIS/LoHa": "loha",
    "LyCORIS/LoKr": "lokr",
    "LyCORIS/GLoRA": "glora",
    "LyCORIS/Diag-OFT": "diag-oft",
    "LyCORIS/BOFT": "boft",
    "LyCORIS/DyLoRA": "dylora",
    "LyCORIS/iA3": "ia3",
    "LyCORIS/Native Fine-Tuning": "full",
}
MODULES: Mapping[str, str] = {
    "Flux1": "networks.lora_flux",
    "Flux1 OFT": "networks.oft_flux",
    "Standard": "networks.lora",
    "Kohya LoCon": "networks.lora",
    "Kohya LoHa": "networks.loha",
    "Kohya LoKr": "networks.lokr",
    "Kohya DyLoRA": "networks.dylora",
    "LoRA-FA": "networks.lora_fa",
    **dict.fromkeys(_ALGOS, "lycoris.kohya"),
}
"""`LoRA_type` -> the module that is trained."""

ZERO_TEXT_RATE = "text_encoder_lr 0: network_train_unet_only"
"""What the GUI makes of a rate of 0, as it is spelled in a report."""

_SPELLED = ("optimizer_args", "lr_scheduler_args")

_NOT_PASSED = "the GUI does not pass on what is empty, false or 0"
_OTHER_TYPE = "the GUI passes it on for other kinds of LoRA_type alone"
_NEW_DROPOUT = "the GUI passes it on for Flux1 since July 2026 alone; weber has it for LyCORIS alone"
_OTHER_MODEL = "is for other models than FLUX.1"
_NO_TEXT = "flux_train.py trains no text encoder"
_SHOWN = "says what the GUI shows"
_METADATA = "the GUI makes --in_json of train_dir and the file of captions or latents"

_ZERO_IS_NONE = frozenset(
    (
        "adaptive_noise_scale", "clip_skip", "ip_noise_gamma", "max_timestep", "max_train_epochs", "max_train_steps", "min_snr_gamma",
        "min_timestep", "multires_noise_iterations", "noise_offset", "sample_every_n_epochs", "sample_every_n_steps", "save_every_n_epochs",
        "save_every_n_steps", "save_last_n_steps", "save_last_n_steps_state", "save_last_n_epochs", "save_last_n_epochs_state", "seed",
        "stop_text_encoder_training", "v_pred_like_loss", "vae_batch_size", "fused_optimizer_groups", "lr_warmup", "lr_warmup_steps",
        "blocks_to_swap", "single_blocks_to_swap", "double_blocks_to_swap",
    )
)
"""Where whole models are trained the GUI leaves out a 0 of these alone, and for a LoRA any 0."""

_CHECKBOXES: Mapping[str, str] = {
    "sdxl": "of Stable Diffusion XL",
    "sdxl_checkbox": "of Stable Diffusion XL",
    "sd3_checkbox": "of Stable Diffusion 3",
    "hunyuan_image_checkbox": "of HunyuanImage",
    "anima_checkbox": "of Anima",
    "lumina_checkbox": "of Lumina",
}
"""What the GUI asks for another model with -> for which."""

_OTHERS: Mapping[str, str] = {
    _OTHER_MODEL: (
        "sdxl sdxl_* sd3_* lumina_* anima_* hunyuan_* clip_skip max_token_length clip_g clip_l_dropout_rate clip_g_dropout_rate"
        " t5_dropout_rate down_lr_weight mid_lr_weight up_lr_weight block_lr block_lr_zero_threshold block_dims block_alphas"
        " conv_block_dims conv_block_alphas unit train_on_input pos_emb_random_crop_rate save_clip save_t5xxl t5xxl_device t5xxl_dtype"
        " weighting_scheme logit_mean logit_std mode_scale train_inpainting no_token_padding"
    ),
    _NO_TEXT: "learning_rate_te learning_rate_te1 learning_rate_te2 train_text_encoder",
    "weber trains no T5": "t5xxl_lr",
    _METADATA: (
        "train_dir caption_metadata_filename latent_metadata_filename use_latent_files full_path batch_size generate_caption_database"
        " generate_image_buckets create_caption create_buckets"
    ),
    _SHOWN: (
        "headless model_list save_as_bool save_as print_only color_palette flux1_checkbox train_lora_ggpo noise_offset_type"
        " show_timesteps show_timesteps_resolution"
    ),
}


def check_gui(top: Mapping[str, Any]) -> None:
    """Refuse a save for another model, of which the GUI asks before FLUX.1, or that has no mark of FLUX.1."""
    is_flux = _is_on(top.get("flux1_checkbox")) or str(top.get("LoRA_type", "")).startswith("Flux1")
    others = [name for name in _CHECKBOXES if _is_on(top.get(name)) and (name.startswith("sdxl") or not is_flux)]
    if others:
        raise build_other_model(f"{others[0]} = true", where="the save", what=_CHECKBOXES[others[0]])
    if not is_flux:
        raise build_other_model(f"flux1_checkbox = {top.get('flux1_checkbox')}", where="the save", what="of Stable Diffusion")


def read_gui(top: Mapping[str, Any], *, where: str, spell: Spell) -> tuple[list[Given], list[Outcome]]:
    """Options of the scripts that a save of the GUI starts them with, and what became of keys that it does not pass on."""
    given, added = list[Given](), list[Given]()
    answered: list[Outcome] = []
    for name, value in top.items():
        own = Given(name, value, name, where)
        reason = _find_reason(name, top)
        if name == "LoRA_type":
            given += _read_kind(own, top)
        elif name == "lr_scheduler_num_cycles" and value == "" and top.get("epoch"):
            given.append(Given(name, top["epoch"], f"epoch: {name}", where))
            answered.append(Outcome(own, "no effect", "empty: the GUI takes the number of epochs"))
        elif _is_left_out(name, top) and name not in ("text_encoder_lr", "unet_lr"):
            answered.append(Outcome(own, "no effect", _NOT_PASSED))
        elif name == _find_metadata(top):
            given.append(Given("in_json", f"{top.get('train_dir') or '.'}/{value}", name, where))
        elif reason is not None:
            answered.append(Outcome(own, "no effect", reason))
        elif name == "additional_parameters":
            added += _read_additional(own, spell)
        elif name in _SPELLED:
            given += spell(name, str(value).replace('"', ""), spelled=name, where=where)
        elif name in _list_args(top):
            given.append(Given(f"network_args.{_ARG_NAMES.get(name, name)}", str(value), name, where))
        else:
            given.append(Given(RENAMED.get(name, name), value, name, where))
    given = _choose_length([*given, *added], top, answered)
    return _choose_rates(given, top, answered), answered


def _is_on(value: object) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1")


def _is_left_out(name: str, top: Mapping[str, Any]) -> bool:
    """As the GUI has it: for a LoRA 0 is equal to False."""
    value = top[name]
    if value in ("", None, []) or value is False:
        return True
    return value == 0 and ("LoRA_type" in top or name in _ZERO_IS_NONE)


def _find_metadata(top: Mapping[str, Any]) -> str | None:
    """The key that names the file of captions, where the pictures of whole models are listed in one."""
    if not top.get("image_folder") or top.get("dataset_config"):
        return None
    return "latent_metadata_filename" if top.get("use_latent_files") == "Yes" else "caption_metadata_filename"


def _list_args(top: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys that the GUI makes network arguments of, for that kind of LoRA."""
    if "LoRA_type" not in top:
        return ()
    kind = str(top["LoRA_type"])
    own = (*_LYCORIS_ARGS, "LyCORIS_preset") if kind in _ALGOS else _OWN_ARGS.get(kind, ())
    return (*own, *_RATIOS)


def _find_reason(name: str, top: Mapping[str, Any]) -> str | None:
    """Why the GUI does not pass a key on; None where it does."""
    known = (*_FLUX_ARGS, *_GGPO, *_RATIOS, *_LYCORIS_ARGS, "LyCORIS_preset", "enable_all_linear")
    if name in _list_args(top):
        if name in ("conv_alpha", "factor") and not _acts_alone(name, top):
            return _NOT_PASSED
        return "passed on with train_lora_ggpo alone" if name in _GGPO and not top.get("train_lora_ggpo") else None
    if "LoRA_type" not in top and _FLUX_NAMES.get(name) in top:
        return _OTHER_MODEL
    if name == "train_blocks":
        return 'the GUI passes on "single" with split_mode, and nothing else'
    if name in _DROPOUTS and top.get("LoRA_type") == "Flux1":
        return _NEW_DROPOUT
    if name in known:
        return _OTHER_TYPE
    is_lora = "LoRA_type" in top
    if is_lora and name in ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale") and _has_many(top):
        return 'the GUI passes it on with noise_offset_type = "Original" alone'
    if is_lora and name.startswith("multires_noise") and not _has_many(top):
        return 'the GUI passes it on with noise_offset_type = "Multires" alone'
    for reason, names in _OTHERS.items():
        if any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in names.split()):
            return reason
    return None


def _acts_alone(name: str, top: Mapping[str, Any]) -> bool:
    """Whether the scripts' own LoHa and LoKr get it."""
    if str(top["LoRA_type"]) not in _OWN_ARGS:
        return True
    return _read_rate(top.get("conv_dim")) > 0 if name == "conv_alpha" else _read_rate(top["factor"]) != -1


def _has_many(top: Mapping[str, Any]) -> bool:
    return top.get("noise_offset_type") == "Multires"


def _read_kind(own: Given, top: Mapping[str, Any]) -> list[Given]:
    kind = str(own.value)
    given = [Given("network_module", MODULES.get(kind, kind), f"{own.spelled} {kind}: network_module", own.where)]
    if kind in _ALGOS:
        given.append(Given("network_args.algo", _ALGOS[kind], f"{own.spelled} {kind}: algo", own.where))
    if kind == "Flux1" and top.get("split_mode"):
        given.append(Given("network_args.train_blocks", "single", "split_mode: train_blocks", own.where))
    return given


def _read_additional(own: Given, spell: Spell) -> Iterator[Given]:
    try:
        words = shlex.split(str(own.value))
    except ValueError:
        words = str(own.value).split()
    for name, value in read_flags(words):
        spelled = f"{own.spelled} --{name}"
        if name in ("network_args", *_SPELLED):
            yield from spell(name, value if isinstance(value, list) else [value], spelled=spelled, where=own.where)
        else:
            yield Given(name, value, spelled, own.where)


def is_added(given: Given) -> bool:
    """Whether it is of the text that the GUI puts behind its own options."""
    return given.spelled.startswith("additional_parameters ")


def _choose_length(given: list[Given], top: Mapping[str, Any], answered: list[Outcome]) -> list[Given]:
    """`epoch` counts where neither steps nor `max_train_epochs` do: the GUI then computes the steps of so many passes."""
    lengths = ("max_train_steps", "max_train_epochs")
    epoch = next((one for one in given if one.name == "epoch"), None)
    said = next((one for one in given if one.name in lengths), None)
    chosen = [_halve(one, top) if one.name == "max_train_steps" else one for one in given if one is not epoch]
    if epoch is None:
        return chosen
    if said is None and not top.get("dataset_config"):
        return [*chosen, _halve(Given("max_train_epochs", epoch.value, epoch.spelled, epoch.where), top)]
    line = f"{said.spelled} says how long it trains" if said else "with dataset_config the GUI leaves the length to the script: 1600 steps"
    answered.append(Outcome(epoch, "no effect", line))
    return chosen


def _halve(given: Given, top: Mapping[str, Any]) -> Given:
    """Where captions are in a file the GUI trains half as long with `flip_aug`, which it takes for two copies of each picture."""
    if _find_metadata(top) is None or not _is_on(top.get("flip_aug")):
        return given
    return replace(given, value=math.ceil(_read_rate(given.value) / 2), spelled=f"{given.spelled} {given.value}, half of it with flip_aug")


def _choose_rates(given: list[Given], top: Mapping[str, Any], answered: list[Outcome]) -> list[Given]:
    """A rate of 0 switches that part off; where one of both is set, `learning_rate` is not passed on."""
    text, unet = (_read_rate(top.get(name)) for name in ("text_encoder_lr", "unet_lr"))
    if "LoRA_type" not in top:
        return [one for one in given if one.name not in ("text_encoder_lr", "unet_lr")]
    chosen: list[Given] = []
    for one in given:
        if one.name == "learning_rate" and (text or unet):
            answered.append(Outcome(one, "no effect", "unet_lr and text_encoder_lr say the rates"))
        elif one.name == "text_encoder_lr" and not text:
            chosen.append(Given("network_train_unet_only", bool(unet), ZERO_TEXT_RATE, one.where))
        elif one.name == "unet_lr" and not unet:
            chosen.append(Given("network_train_text_encoder_only", bool(text), "unet_lr 0: network_train_text_encoder_only", one.where))
        else:
            chosen.append(one)
    return chosen


def _read_rate(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0
