"""Saves of the kohya_ss GUI and of lora-scripts' pages: which option of the scripts each key becomes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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

_FLUX_ARGS = (
    "img_attn_dim", "img_mlp_dim", "img_mod_dim", "single_dim", "txt_attn_dim", "txt_mlp_dim", "txt_mod_dim", "single_mod_dim", "in_dims",
    "train_double_block_indices", "train_single_block_indices", "split_qkv", "train_t5xxl",
)
_GGPO = ("ggpo_beta", "ggpo_sigma")
_DROPOUTS = ("rank_dropout", "module_dropout")
_LYCORIS_ARGS = (
    *_DROPOUTS, "conv_dim", "conv_alpha", "factor", "use_cp", "use_tucker", "use_scalar", "rank_dropout_scale", "rescaled", "train_norm",
    "decompose_both", "bypass_mode", "dora_wd",
)

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

_NOT_PASSED = "the GUI does not pass on what is empty, false or 0"
_OTHER_TYPE = "the GUI passes it on for other kinds of LoRA_type alone"
_OTHER_MODEL = "is for other models than FLUX.1"
_SHOWN = "says what the GUI shows"

_OTHERS: Mapping[str, str] = {
    _OTHER_MODEL: (
        "sdxl sdxl_* sd3_* lumina_* anima_* hunyuan_* clip_skip max_token_length clip_l_dropout_rate clip_g_dropout_rate t5_dropout_rate"
        " down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims conv_block_alphas unit"
        " train_on_input constrain pos_emb_random_crop_rate save_clip save_t5xxl"
    ),
    _SHOWN: (
        "headless model_list save_as_bool save_as print_only color_palette flux1_checkbox train_lora_ggpo noise_offset_type"
    ),
}


def read_gui(top: Mapping[str, Any], *, where: str, spell: Spell) -> tuple[list[Given], list[Outcome]]:
    """Options of the scripts that a save of the GUI starts them with, and what became of keys that it does not pass on."""
    kind = str(top.get("LoRA_type", ""))
    given: list[Given] = []
    answered: list[Outcome] = []
    for name, value in top.items():
        own = Given(name, value, name, where)
        reason = _find_reason(name, top)
        if name == "LoRA_type":
            given += _read_kind(own, top)
        elif name == "lr_scheduler_num_cycles" and value == "" and top.get("epoch"):
            given.append(Given(name, top["epoch"], f"epoch: {name}", where))
            answered.append(Outcome(own, "no effect", "empty: the GUI takes the number of epochs"))
        elif _is_left_out(value) and name not in ("text_encoder_lr", "unet_lr"):
            answered.append(Outcome(own, "no effect", _NOT_PASSED))
        elif reason is not None:
            answered.append(Outcome(own, "no effect", reason))
        elif name == "additional_parameters":
            given += _read_additional(own)
        elif name in ("optimizer_args", "lr_scheduler_args"):
            given += spell(name, str(value).replace('"', ""), spelled=name, where=where)
        elif name in _list_args(kind):
            argument = "preset" if name == "LyCORIS_preset" else name
            given.append(Given(f"network_args.{argument}", str(value), name, where))
        else:
            given.append(Given(RENAMED.get(name, name), value, name, where))
    return _choose_rates(_choose_length(given, top, answered), top, answered), answered


def _is_left_out(value: object) -> bool:
    """As the GUI has it: 0 is equal to False."""
    return value in ("", None, 0, [])


def _list_args(kind: str) -> tuple[str, ...]:
    """Keys that the GUI makes network arguments of, for that kind of LoRA."""
    if kind == "Flux1":
        return (*_FLUX_ARGS, *_GGPO)
    return (*_LYCORIS_ARGS, "LyCORIS_preset") if kind in _ALGOS else ()


def _find_reason(name: str, top: Mapping[str, Any]) -> str | None:
    """Why the GUI does not pass a key on; None where it does."""
    kind = str(top.get("LoRA_type", ""))
    known = (*_FLUX_ARGS, *_GGPO, *_LYCORIS_ARGS, "LyCORIS_preset")
    if name in _list_args(kind):
        return "passed on with train_lora_ggpo alone" if name in _GGPO and not top.get("train_lora_ggpo") else None
    if name == "train_blocks":
        return 'the GUI passes on "single" with split_mode, and nothing else'
    if name in known:
        return _OTHER_TYPE
    if name in ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale") and top.get("noise_offset_type") == "Multires":
        return 'the GUI passes it on with noise_offset_type = "Original" alone'
    if name.startswith("multires_noise") and top.get("noise_offset_type") != "Multires":
        return 'the GUI passes it on with noise_offset_type = "Multires" alone'
    for reason, names in _OTHERS.items():
        if any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in names.split()):
            return reason
    return None


def _read_kind(own: Given, top: Mapping[str, Any]) -> list[Given]:
    kind = str(own.value)
    given = [Given("network_module", MODULES.get(kind, kind), f"{own.spelled} {kind}: network_module", own.where)]
    if kind in _ALGOS:
        given.append(Given("network_args.algo", _ALGOS[kind], f"{own.spelled} {kind}: algo", own.where))
    if kind == "Flux1" and top.get("split_mode"):
        given.append(Given("network_args.train_blocks", "single", "split_mode: train_blocks", own.where))
    return given


def _read_additional(own: Given) -> list[Given]:
    try:
        words = shlex.split(str(own.value))
    except ValueError:
        words = str(own.value).split()
    return [Given(name, value, f"{own.spelled} --{name}", own.where) for name, value in read_flags(words)]


def _choose_length(given: list[Given], top: Mapping[str, Any], answered: list[Outcome]) -> list[Given]:
    """`epoch` counts where neither steps nor `max_train_epochs` do: the GUI then computes the steps of so many passes."""
    epoch = next((one for one in given if one.name == "epoch"), None)
    if epoch is None:
        return given
    rest = [one for one in given if one is not epoch]
    if top.get("max_train_epochs") in ("", 0, None) and top.get("max_train_steps") in ("", 0, None):
        return [*rest, Given("max_train_epochs", epoch.value, epoch.spelled, epoch.where)]
    answered.append(Outcome(epoch, "no effect", "max_train_steps or max_train_epochs says how long it trains"))
    return rest


def _choose_rates(given: list[Given], top: Mapping[str, Any], answered: list[Outcome]) -> list[Given]:
    """A rate of 0 switches that part off; where one of both is set, `learning_rate` is not passed on."""
    text, unet = (_read_rate(top.get(name)) for name in ("text_encoder_lr", "unet_lr"))
    if "LoRA_type" not in top:
        return [one for one in given if one.name not in ("text_encoder_lr", "unet_lr")]
    chosen: list[Given] = []
    for one in given:
        if one.name == "learning_rate" and (text or unet):
            answered.append(Outcome(one, "no effect", "the GUI passes on unet_lr and text_encoder_lr instead"))
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


# ---- lora-scripts

PAGE_ARGS: Mapping[str, str] = {
    "lycoris_algo": "network_args.algo",
    "lokr_factor": "network_args.factor",
    "conv_dim": "network_args.conv_dim",
    "conv_alpha": "network_args.conv_alpha",
    "dropout": "network_args.dropout",
    "train_norm": "network_args.train_norm",
    "train_t5xxl": "network_args.train_t5xxl",
    "prodigy_d_coef": "optimizer_args.d_coef",
    "prodigy_d0": "optimizer_args.d0",
}
"""Keys of lora-scripts' page -> the entry of a list of arguments that it makes of them."""

_LISTS = {"optimizer_args_custom": "optimizer_args", "network_args_custom": "network_args"}
_SAMPLES = {"sample_width": "w", "sample_height": "h", "sample_cfg": "l", "sample_steps": "s", "sample_seed": "d", "negative_prompts": "n"}


def read_page(given: list[Given], *, spell: Spell) -> Iterator[Given]:
    """Options of the scripts that a save of lora-scripts' page starts them with."""
    there = {one.name: one for one in given}
    for one in given:
        if one.name in PAGE_ARGS and PAGE_ARGS[one.name] not in there and one.value not in (None, ""):
            value = str(one.value) if PAGE_ARGS[one.name].startswith("network") else _read_number(one.value)
            yield Given(PAGE_ARGS[one.name], value, one.spelled, one.where)
        elif one.name in _LISTS:
            yield from spell(_LISTS[one.name], one.value or [], spelled=one.spelled, where=one.where)
        elif one.name == "positive_prompts" and "sample_prompts" not in there and there.get("enable_preview", one).value is True:
            flags = [f"--{flag} {there[name].value}" for name, flag in _SAMPLES.items() if name in there]
            yield Given("sample_prompts", " ".join([str(one.value).replace("\n", " "), *flags]), one.spelled, one.where)
        else:
            yield one


def _read_number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value
