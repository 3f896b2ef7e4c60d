"""What diffusers' scripts ask of the network and of the machine, as settings of weber."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.trackers import set_project, set_trackers
from weber.config.importers.values import read_int, read_texts, simplify
from weber.errors import ConfigError

FLUX1_LAYERS = (
    "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out",
    "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
)  # fmt: skip
FLUX2_LAYERS = ("to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out")
LAYERS: Mapping[str, tuple[str, ...]] = {
    "flux": FLUX1_LAYERS,
    "kontext": (*FLUX1_LAYERS, "proj_mlp"),
    "flux2": FLUX2_LAYERS,
    "klein": FLUX2_LAYERS,
}
"""Layers that get an adapter where `--lora_layers` is left out."""

_NOT_IN_FLUX1 = r".*\b(to_qkv_mlp_proj|ff(_context)?\.linear_(in|out)|double_stream_modulation\w*|single_stream_modulation.*)"
_NOT_IN_FLUX2 = (
    r".*\b(ff(_context)?\.net\.(0\.proj|2)|norm1(_context)?\.linear|(?<!_)norm\.linear|proj_mlp)"
    r"|single_transformer_blocks\.[\d*]+\.(attn\.to_[qkv]|attn\.to_out\.0|proj_out)"
)


def is_flux2(keys: Keys) -> bool:
    """Whether the script is for FLUX.2."""
    return keys["family"] in ("flux2", "klein")


def is_schnell(keys: Keys) -> bool:
    """Whether the model is FLUX.1 schnell, by its name."""
    return "schnell" in str(keys["pretrained_model_name_or_path"]).lower()


def has_guidance(keys: Keys) -> bool:
    """Whether the model has a guidance input."""
    return keys["family"] != "klein" and not is_schnell(keys)


# ---- the adapter


def set_size(setting: str, name: str) -> Any:
    """`--rank`, `--lora_alpha` and `--lora_dropout`, which the script for the whole model has not."""

    def write(draft: Draft, keys: Keys, value: Any) -> str:
        if keys["kind"] == "full":
            return NO_EFFECT + "that script trains the weights themselves, and stops at this flag"
        return draft.set(f"adapter.{setting}", value, origin=keys.find(name))

    return write


def set_layers(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--lora_layers`, once `--lora_blocks` in the README: names that the family does not have change nothing there, and are left out."""
    if keys["kind"] == "full":
        return NO_EFFECT + "that script trains the weights themselves, and stops at this flag"
    absent = _NOT_IN_FLUX2 if is_flux2(keys) else _NOT_IN_FLUX1
    names = list(dict.fromkeys(read_texts(value)))
    kept = [name for name in names if re.fullmatch(absent, name) is None]
    if not kept:
        raise ConfigError(
            "--lora_layers names no layer of that model.",
            got=", ".join(names),
            expected=", ".join(LAYERS[str(keys["family"])][:5]),
            fix="correct --lora_layers, or remove it",
        )
    left = [name for name in names if name not in kept]
    name = "lora_layers" if "lora_layers" in keys or "lora_blocks" not in keys else "lora_blocks"
    line = draft.set("adapter.targets", kept, origin=keys.find(name))
    return line if not left else f"{line}; the model has no {', '.join(left)}"


def set_text_encoder(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--train_text_encoder`: CLIP."""
    if not keys.read_bool("train_text_encoder"):
        return NO_EFFECT + "asks for nothing"
    if keys["kind"] == "full":
        return REFUSED + "weber trains CLIP by adapters only; train a LoRA (train_dreambooth_lora_flux.py) with it, or leave CLIP as it is"
    return draft.set("adapter.text_encoder", True, origin=keys.find("train_text_encoder"))


def set_text_tokens(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--max_sequence_length`: of T5."""
    num = read_int(value, name="--max_sequence_length")
    if is_flux2(keys):
        fixed = "512 tokens of each text are read, here as there"
        return NO_EFFECT + fixed if num == 512 else REFUSED + "FLUX.2 reads 512 tokens of each text, and weber does not shorten that"
    most = 256 if is_schnell(keys) else 512
    if num >= most:
        return NO_EFFECT + f"{most} tokens of each text are read, all that the model was made for"
    if num < 77:
        return REFUSED + "the fewest tokens are 77; set model.text_tokens = 77"
    return draft.set("model.text_tokens", num, origin=keys.find("max_sequence_length"))


def answer_text_layers(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--text_encoder_out_layers`."""
    own = ["9", "18", "27"] if keys["family"] == "klein" else ["10", "20", "30"]
    layers = [str(one) for one in read_texts(value, separator=r"[\s,]+")]
    if layers == own:
        return NO_EFFECT + f"layers {', '.join(own)} of the text encoder are read, here as there"
    return REFUSED + f"the model was made with layers {', '.join(own)} of its text encoder, and weber reads those"


# ---- noise levels and the loss


def set_weighting(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--weighting_scheme`: the law of the noise levels, or the weight of each."""
    given, scheme = keys.find("weighting_scheme"), str(value).strip().lower()
    if scheme == "logit_normal":
        mean, std = keys.read_float("logit_mean") or 0.0, keys.read_float("logit_std")
        lines = [draft.set("objective.timesteps", "logit_normal", origin=given)]
        if mean:
            lines.append(draft.set("objective.logit_mean", simplify(-mean), origin=keys.find("logit_mean")))
        if std is not None and std != 1.0:
            lines.append(draft.set("objective.logit_std", std, origin=keys.find("logit_std")))
        return "; ".join(lines)
    if scheme == "mode":
        lines = [draft.set("objective.timesteps", "mode", origin=given)]
        scale = keys.read_float("mode_scale")
        if scale is not None and scale != 1.29:
            lines.append(draft.set("objective.mode_scale", scale, origin=keys.find("mode_scale")))
        return "; ".join(lines)
    line = draft.set("objective.timesteps", "uniform", origin=given)
    if scheme in ("sigma_sqrt", "cosmap"):
        return line + "; " + draft.set("objective.weighting", scheme, origin=given)
    if scheme != "none":
        raise ConfigError(
            f"--weighting_scheme {value} is none of the script's.",
            got=str(value),
            expected="none, sigma_sqrt, logit_normal, mode or cosmap",
            fix="correct --weighting_scheme",
        )
    return line


def answer_law(law: str, line: str) -> Any:
    """What a number of one law becomes; `set_weighting` writes it."""

    def answer(draft: Draft, keys: Keys, value: Any) -> str:
        scheme = str(keys["weighting_scheme"] or "none")
        return line if scheme == law else NO_EFFECT + f"with --weighting_scheme {scheme}"

    return answer


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--guidance_scale`: told to the model while it trains."""
    if not has_guidance(keys):
        return NO_EFFECT + "that model has no guidance input"
    return draft.set("objective.guidance", value, origin=keys.find("guidance_scale"))


# ---- memory and files


def set_precision(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--mixed_precision`, of the script or of accelerate."""
    given, name = keys.find("mixed_precision"), str(value).strip().lower()
    if "script_precision" in keys.defaults:
        return NO_EFFECT + "the script's own --mixed_precision counts"
    dtypes = {"bf16": "bf16", "no": "fp32"}
    if name not in dtypes:
        what = "in bf16 where the GPU has it, else in fp32" if name == "fp16" else f"weber has no {name}; set memory.dtype"
        return f'memory.dtype = "auto", the default: {what}'
    line = draft.set("memory.dtype", dtypes[name], origin=given)
    if keys["kind"] == "full" and name == "bf16":
        line += "; " + draft.set("adapter.precision", "fp32", origin=given)
    return line


def set_checkpointing(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--gradient_checkpointing`."""
    if not keys.read_bool("gradient_checkpointing"):
        return NO_EFFECT + "asks for nothing"
    return draft.set("memory.gradient_checkpointing", "all", origin=keys.find("gradient_checkpointing"))


def set_fp8(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--do_fp8_training`."""
    if not keys.read_bool("do_fp8_training"):
        return NO_EFFECT + "asks for nothing"
    if "bnb_quantization_config_path" in keys:
        raise ConfigError(
            "--do_fp8_training and --bnb_quantization_config_path are two precisions of the same weights.",
            got="both",
            expected="one of them; the script itself refuses both",
            fix="remove one of them",
        )
    given = keys.find("do_fp8_training")
    return "; ".join([draft.set("memory.quantize", "fp8", origin=given), draft.set("memory.fp8_matmul", True, origin=given)])


def set_bits(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`load_in_4bit` and `load_in_8bit` of the JSON file."""
    if keys.read_bool("load_in_4bit"):
        given, kind = keys.find("load_in_4bit"), str(keys["bnb_4bit_quant_type"] or "fp4").lower()
        line = draft.set("memory.quantize", "nf4", origin=given)
        return line if kind == "nf4" else f"{line}; weber has no fp4, and nf4 has as many bits with a smaller error"
    if keys.read_bool("load_in_8bit"):
        return draft.set("memory.quantize", "int8", origin=keys.find("load_in_8bit"))
    return NO_EFFECT + "asks for nothing"


# ---- pictures on the way


def set_validation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--validation_prompt`, painted as often as `--num_validation_images` says, in the pipeline's own size."""
    if not _paints(keys):
        return NO_EFFECT + "--num_validation_images is 0"
    return _set_prompts(draft, keys, value, name="validation_prompt")


def set_final_prompt(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--final_validation_prompt`, at the end."""
    if not _paints(keys) or "validation_prompt" in keys:
        return NO_EFFECT + "the last pictures are of --validation_prompt, or left out"
    return _set_prompts(draft, keys, value, name="final_validation_prompt") + "; painted on the way too"


def _set_prompts(draft: Draft, keys: Keys, value: Any, *, name: str) -> str:
    given, num = keys.find(name), _count_pictures(keys)
    prompts = value if isinstance(value, list) else [value]
    draft.set("sampling.prompts", [str(one) for one in prompts for _ in range(num)], origin=given)
    draft.set("sampling.width", 1024, origin="1024 x 1024, the library's own size")
    draft.set("sampling.height", 1024, origin="1024 x 1024, the library's own size")
    if "seed" in keys:
        draft.set("sampling.seed", keys.read_int("seed"), origin=keys.find("seed"))
    if "validation_image" in keys:
        images = keys["validation_image"] if isinstance(keys["validation_image"], list) else [keys["validation_image"]]
        draft.set("sampling.conditioning", [[str(one)] for one in images for _ in range(num)], origin=keys.find("validation_image"))
    return f"sampling.prompts has it {num} times, for as many pictures with other seeds, of 1024 x 1024 pixels"


def _count_pictures(keys: Keys) -> int:
    num = keys.read_int("num_validation_images")
    return 4 if num is None else num


def set_end(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--skip_final_inference`."""
    if not _paints(keys) or not keys.read_bool("skip_final_inference"):
        return NO_EFFECT + "pictures are painted at the end wherever there are prompts"
    return draft.set("sampling.at_end", False, origin=keys.find("skip_final_inference"))


def set_painting_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--validation_epochs`."""
    if not _paints(keys):
        return NO_EFFECT + "there is no --validation_prompt"
    num = read_int(value, name="--validation_epochs")
    return draft.set("sampling.every", "1 epoch" if num == 1 else f"{num} epochs", origin=keys.find("validation_epochs"))


def set_painting_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--validation_steps`, which some scripts have."""
    if not _paints(keys):
        return NO_EFFECT + "there is no --validation_prompt"
    return draft.set("sampling.every", read_int(value, name="--validation_steps"), origin=keys.find("validation_steps"))


def answer_painting(line: str) -> Any:
    """What a flag of the pictures becomes; `set_validation` writes it."""

    def answer(draft: Draft, keys: Keys, value: Any) -> str:
        return line if _paints(keys) else NO_EFFECT + "there is no --validation_prompt"

    return answer


def _paints(keys: Keys) -> bool:
    is_final = "final_validation_prompt" in keys and not keys.read_bool("skip_final_inference")
    return ("validation_prompt" in keys or is_final) and _count_pictures(keys) > 0


def set_report(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--report_to`."""
    return set_trackers(draft, read_texts(value), origin=keys.find("report_to"))


def set_tracker_project(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--tracker_project_name`."""
    return set_project(draft, value, trackers=read_texts(keys["report_to"] or ""), origin=keys.find("tracker_project_name"))


def answer_resume(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--resume_from_checkpoint`."""
    if str(value).strip().lower() == "latest":
        return NO_EFFECT + "a new run folder has no checkpoint; `weber train` goes on with one of its own"
    return REFUSED + (
        "weber reads no optimizer states of others; adapter.start_from with the pytorch_lora_weights.safetensors in that checkpoint"
        " starts from its weights"
    )


def set_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--checkpoints_total_limit`."""
    num = read_int(value, name="--checkpoints_total_limit")
    return draft.set("output.keep_last", num if num > 0 else "all", origin=keys.find("checkpoints_total_limit"))
