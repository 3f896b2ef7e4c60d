"""OneTrainer's keys of the model, the adapter and the memory: what each becomes here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.onetrainer.read import find_form, find_type, is_flux2, is_full
from weber.config.importers.values import read_bool, read_float, read_int, read_texts
from weber.errors import ConfigError

_NOTHING = "asks for nothing, here as there"
_BITS: Mapping[str, str] = {
    "NFLOAT_4": "nf4",
    "FLOAT_8": "fp8",
    "INT_8": "int8",
    "INT_W8A8": "int8",
    "INT_W8A8_COMPRESSED": "int8",
    "FLOAT_W8A8": "fp8",
    "FLOAT_W8A8_COMPRESSED": "fp8",
}
"""OneTrainer's packed weights -> `memory.quantize`."""
_PLAIN = ("FLOAT_32", "TFLOAT_32", "BFLOAT_16", "FLOAT_16", "NONE")
_BLOCKS = {"flux1": 57, "dev": 56, "9b": 32, "4b": 25}


def set_type(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The model; which one its files say, except where no name is given."""
    kind, origin = find_type(keys), keys.find("model_type")
    if kind == "FLUX_FILL_DEV_1":
        return draft.set("model.variant", "flux1-fill", origin=origin)
    if "base_model_name" in keys:
        return f"a model of {'FLUX.2' if is_flux2(keys) else 'FLUX.1'}; which one, its files say"
    return draft.set("model.variant", "flux2-dev" if is_flux2(keys) else "flux1-dev", origin=origin)


def set_part(name: str, key: str) -> Call:
    """Another part of the model than that of the base."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        return draft.set(key, str(value).strip(), origin=keys.find(name))

    return call


def set_method(draft: Draft, keys: Keys, *, value: Any) -> str:
    """An adapter, or the model itself."""
    form = find_form(keys)
    return draft.set("adapter.kind", form if form in ("full", "lora") else "lycoris", origin=keys.find("training_method"))


def set_peft(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The form of the adapter; those of LyCORIS take their sizes from keys of their own."""
    form, origin = find_form(keys), keys.find("peft_type")
    if form == "full":
        return f"{NO_EFFECT}the model itself is trained"
    if form == "lora":
        return draft.set("adapter.kind", "lora", origin=origin)
    tables = {"loha": _build_loha, "lokr": _build_lokr, "oft_2": _build_oft}
    if form not in tables:
        raise ConfigError(
            f"peft_type = {value} is an adapter that weber does not have.",
            got=origin.text,
            expected="LORA, LOHA, LOKR or OFT_2",
            fix="choose LORA",
        )
    draft.set("adapter.kind", "lycoris", origin=origin)
    for name, one in tables[form](keys).items():
        draft.set(f"adapter.lycoris.{name}", one, origin=origin)
    note = "; OneTrainer's turns are OFT of the second kind, the nearest here is diag-oft" if form == "oft_2" else ""
    return f"the table [adapter.lycoris]{note}"


def _build_loha(keys: Keys) -> dict[str, Any]:
    return {"algo": "loha", "linear_dim": keys.read_int("lora_rank") or 16, "linear_alpha": _read_alpha(keys)}


def _build_lokr(keys: Keys) -> dict[str, Any]:
    table: dict[str, Any] = {"algo": "lokr", "linear_dim": keys.read_int("lokr_dim") or 16, "linear_alpha": _read_alpha(keys)}
    table["factor"] = -1 if keys["lokr_decompose_factor"] is None else keys.read_int("lokr_decompose_factor")
    if keys.read_bool("lokr_full_matrix"):
        table["full_matrix"] = True
    elif keys.read_bool("lokr_decompose_both"):
        table["decompose_both"] = True
    if keys.read_bool("lokr_weight_decompose"):
        table["dora_wd"] = True
        if keys["lokr_dora_on_output"] is False:
            table["wd_on_output"] = False
    return table


def _build_oft(keys: Keys) -> dict[str, Any]:
    table: dict[str, Any] = {"algo": "diag-oft", "linear_dim": keys.read_int("oft_block_size") or 32}
    return table | ({"rescaled": True} if keys.read_bool("oft_scaled") else {})


def _read_alpha(keys: Keys) -> float:
    return 1.0 if keys["lora_alpha"] is None else keys.read_float("lora_alpha") or 0.0


def name_lycoris(forms: str) -> Call:
    """A size of one of LyCORIS' forms."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        return "in [adapter.lycoris]" if find_form(keys) in forms.split() else f"{NO_EFFECT}it is for peft_type {forms.upper()}"

    return call


def for_lora(name: str, key: str) -> Call:
    """A setting of a plain LoRA."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        form = find_form(keys)
        if form == "loha" and name in ("lora_rank", "lora_alpha") or form == "lokr" and name == "lora_alpha":
            return "in [adapter.lycoris]"
        if form != "lora":
            return f"{NO_EFFECT}it is for peft_type LORA"
        if name == "dropout_probability" and read_float(value, name=name) == 0:
            return f"{NO_EFFECT}{_NOTHING}"
        return draft.set(key, value, origin=keys.find(name))

    return call


def set_dora(draft: Draft, keys: Keys, *, value: Any) -> str:
    """DoRA: lengths of outputs here, of inputs there unless it is said."""
    if find_form(keys) != "lora" or not keys.read_bool("lora_decompose"):
        return f"{NO_EFFECT}{_NOTHING}"
    line = draft.set("adapter.dora", True, origin=keys.find("lora_decompose"))
    is_output = keys.read_bool("lora_decompose_output_axis")
    return line if is_output else f"{line}: a length for each output, where OneTrainer has one for each input (lora_decompose_output_axis)"


def set_start(draft: Draft, keys: Keys, *, value: Any) -> str:
    """An adapter to start from."""
    if is_full(keys):
        return f"{NO_EFFECT}the model itself is trained"
    return draft.set("adapter.start_from", str(value).strip(), origin=keys.find("lora_model_name"))


def set_layers(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Layers whose names hold one of some texts; without any text all layers of the transformer."""
    parts = _read_filter(keys)
    origin = keys.find("layer_filter" if "layer_filter" in keys else "layer_filter_preset")
    if keys.read_bool("layer_filter_regex") and parts:
        return f"{REFUSED}layers are named by patterns with * here: write adapter.targets"
    if not parts and is_full(keys):
        return f"{NO_EFFECT}the whole transformer is trained, as here by default"
    if not parts:
        return draft.set("adapter.targets", ["*"], origin=origin) + ", every linear layer of the transformer"
    if parts == ["transformer_block"] and is_full(keys):
        return draft.set("adapter.targets", ["transformer_blocks.*", "single_transformer_blocks.*"], origin=origin)
    if parts == ["transformer_block"]:
        return draft.set("adapter.targets", "blocks" if is_flux2(keys) else "ai-toolkit", origin=origin) + ", every layer of the blocks"
    return draft.set("adapter.targets", [f"*{part}*" for part in parts], origin=origin)


_PRESETS = {"attn-mlp": "attn, ff.net, proj_mlp", "attn-only": "attn", "blocks": "transformer_block", "full": ""}


def name_preset(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The name of a filter; its text counts."""
    if "layer_filter" in keys or str(value).lower() not in _PRESETS:
        return f"{NO_EFFECT}layer_filter has the text that counts"
    return set_layers(draft, keys, value=value)


# ---- memory


def for_bits(name: str, key: str) -> Call:
    """Packed weights of a part of the model."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        word = _read_dtype(keys, str(value))
        if key == "memory.quantize_text_encoder_2" and is_flux2(keys):
            return f"{NO_EFFECT}FLUX.2 has one text encoder"
        if word in _BITS and key == "memory.quantize" and is_full(keys):
            raise ConfigError(
                "OneTrainer does not train weights that are packed, and weber neither.",
                got=keys.find(name).text,
                expected="BFLOAT_16 or FLOAT_32 for training_method FINE_TUNE",
                fix="choose LORA, or a weight_dtype that is not packed",
            )
        if word in _BITS:
            line = draft.set(key, _BITS[word], origin=keys.find(name))
            extra = _add_products(draft, keys, name, word) if key == "memory.quantize" else ""
            return line + extra
        if word not in _PLAIN:
            return f"{REFUSED}weber packs weights itself, from a model in 16 bits: the nearest are int8, fp8, nf4 and int4"
        if key == "memory.quantize" and is_full(keys) and word in ("FLOAT_32", "BFLOAT_16"):
            return draft.set("adapter.precision", "fp32" if word == "FLOAT_32" else "bf16", origin=keys.find(name))
        return f"{NO_EFFECT}nothing is packed; memory.dtype = \"auto\" is bf16 on GPUs that have it"

    return call


def _read_dtype(keys: Keys, word: str) -> str:
    plain = word.strip().upper()
    return (keys.read_text("weight_dtype") or "NONE").upper() if plain == "NONE" else plain


def _add_products(draft: Draft, keys: Keys, name: str, word: str) -> str:
    if "W8A8" not in word:
        return ""
    return ", " + draft.set("memory.int8_matmul" if word.startswith("INT") else "memory.fp8_matmul", True, origin=keys.find(name))


def set_train_dtype(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The precision in which the model computes."""
    word = str(value).strip().upper()
    if word == "FLOAT_16":
        return f"{REFUSED}these models overflow in fp16; memory.dtype is bf16 on GPUs that have it, else fp32"
    if word in ("FLOAT_32", "TFLOAT_32"):
        return draft.set("memory.dtype", "fp32", origin=keys.find("train_dtype"))
    return f'{NO_EFFECT}memory.dtype = "auto" is bf16 on GPUs that have it'


def set_device(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where the model runs."""
    word = str(value).strip().lower()
    if word in ("cuda", "mps", "auto"):
        return f'{NO_EFFECT}memory.device = "auto" takes the first GPU'
    return draft.set("memory.device", word, origin=keys.find("train_device"))


def _is_checkpointed(keys: Keys) -> bool:
    value = keys["transformer.gradient_checkpointing"]
    old = keys["gradient_checkpointing"]
    if value is None and old is not None:
        return str(old).upper() not in ("OFF", "FALSE")
    return value is None or read_bool(value, name="transformer.gradient_checkpointing")


def _find_fraction(keys: Keys) -> float:
    if "transformer.offload_fraction" in keys:
        return keys.read_float("transformer.offload_fraction") or 0.0
    is_offloaded = str(keys["gradient_checkpointing"]).upper() == "CPU_OFFLOADED"
    return (keys.read_float("layer_offload_fraction") or 0.0) if is_offloaded else 0.0


def _offloads(keys: Keys) -> bool:
    if "transformer.activation_offloading" in keys:
        return keys.read_bool("transformer.activation_offloading")
    is_offloaded = str(keys["gradient_checkpointing"]).upper() == "CPU_OFFLOADED"
    return is_offloaded and keys["enable_activation_offloading"] is not False


def set_checkpointing(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Blocks are computed again in the backward pass, with what they keep in the memory of the host."""
    name = "transformer.gradient_checkpointing" if "transformer.gradient_checkpointing" in keys else "gradient_checkpointing"
    if not _is_checkpointed(keys):
        return draft.set("memory.gradient_checkpointing", "none", origin=keys.find(name))
    if name == "gradient_checkpointing" and _offloads(keys):
        return draft.set("memory.offload_activations", True, origin=keys.find(name))
    return f'{NO_EFFECT}memory.gradient_checkpointing = "all" is the default here'


def set_offload(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What checkpointing keeps, in the memory of the host."""
    if not _offloads(keys) or not _is_checkpointed(keys):
        return f"{NO_EFFECT}{_NOTHING}"
    return draft.set("memory.offload_activations", True, origin=keys.find("transformer.activation_offloading"))


def _count_blocks(keys: Keys) -> int:
    name = (keys.read_text("base_model_name") or "").lower()
    if not is_flux2(keys):
        return _BLOCKS["flux1"]
    return next((number for word, number in _BLOCKS.items() if word in name and word != "flux1"), _BLOCKS["dev"])


def set_swap(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A share of the blocks outside of the GPU."""
    fraction = _find_fraction(keys)
    name = "transformer.offload_fraction" if "transformer.offload_fraction" in keys else "layer_offload_fraction"
    if fraction <= 0:
        return f"{NO_EFFECT}{_NOTHING}"
    if not _is_checkpointed(keys):
        return f"{NO_EFFECT}weber moves blocks out of the GPU only where they are computed again"
    number = max(1, round(fraction * _count_blocks(keys)))
    return draft.set("memory.swap_blocks", number, origin=keys.find(name)) + f", {fraction:g} of {_count_blocks(keys)} blocks"


def set_compile(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Compiled blocks, where nothing else stands against it."""
    if not read_bool(value, name="compile"):
        return f"{NO_EFFECT}nothing is compiled, as here by default"
    dtype = _read_dtype(keys, keys.read_text("transformer.weight_dtype") or "NONE")
    is_packed = "W8A8" in dtype and not _is_checkpointed(keys)
    if _BITS.get(dtype) == "nf4" or _find_fraction(keys) > 0 or _offloads(keys) or is_packed:
        return f"{REFUSED}weber does not compile blocks that are moved, or packed as they are here; its own operations need no compiler"
    return draft.set("memory.compile", True, origin=keys.find("compile"))


_ATTENTION = {"FLASH": "flash", "CUDNN": "cudnn"}


def set_attention(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What computes attention."""
    word = str(value).strip().upper()
    if word in _ATTENTION:
        return draft.set("memory.attention", _ATTENTION[word], origin=keys.find("attention_mechanism"))
    return f'{NO_EFFECT}memory.attention = "auto" takes what is fastest'


def set_tokens(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How many tokens of a text T5 makes; OneTrainer takes 77 unless it is told otherwise."""
    tokens = read_int(value, name="text_encoder_2_sequence_length")
    if is_flux2(keys):
        return f"{NO_EFFECT}FLUX.2 has no second text encoder"
    if tokens >= 512:
        return f"{NO_EFFECT}512 tokens are the default here"
    return draft.set("model.text_tokens", max(tokens, 77), origin=keys.find("text_encoder_2_sequence_length"))


# ---- what is left behind


def set_destination(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The name of the finished file; it lies in the run folder."""
    path = PurePosixPath(re.sub(r"\\", "/", str(value).strip()))
    stem = path.stem if path.suffix else path.name
    if not stem:
        return f"{NO_EFFECT}it names no file"
    return draft.set("output.name", stem, origin=keys.find("output_model_destination")) + ", in output.folder"


def set_precision(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The precision of the finished file."""
    word = {"FLOAT_32": "fp32", "BFLOAT_16": "bf16", "FLOAT_16": "fp16"}.get(str(value).strip().upper())
    if is_full(keys):
        return f"{NO_EFFECT}a whole model is written in the precision of the base's files"
    if word is None:
        return f"{REFUSED}an adapter in so few bits would be another one; output.precision is fp32, bf16 or fp16"
    if word == "fp32":
        return f"{NO_EFFECT}fp32 is the default here"
    return draft.set("output.precision", word, origin=keys.find("output_dtype"))


_LORA_FORMATS = {
    "KOHYA_LORA": "kohya",
    "LEGACY_LORA": "kohya",
    "SAFETENSORS": "kohya",
    "ORIGINAL_LORA": "comfyui",
    "COMFY_LORA": "comfyui",
}


def set_format(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The layout of the finished file."""
    word, origin = str(value).strip().upper(), keys.find("output_model_format")
    if is_full(keys):
        return draft.set("output.formats", ["merged-diffusers" if word == "DIFFUSERS" else "merged-bfl"], origin=origin)
    if word not in _LORA_FORMATS or find_form(keys) != "lora":
        return f"{NO_EFFECT}the layout of diffusers is written in any case"
    layout = _LORA_FORMATS[word]
    lost = [one for one in _LOST[layout] if _is_trained(keys, one) and (is_flux2(keys) or "modulation" not in one)]
    if keys.read_bool("lora_decompose"):
        return f"{REFUSED}programs do not agree on DoRA in that layout: diffusers' is written"
    if lost:
        return f"{REFUSED}programs that read it would lose {' and '.join(lost)}: diffusers' is written; train blocks alone (layer_filter)"
    return draft.set("output.formats", ["diffusers", layout], origin=origin)


def _is_trained(keys: Keys, layer: str) -> bool:
    """Whether a layer outside of the blocks gets an adapter."""
    parts = _read_filter(keys)
    return not parts or any(part in layer for part in parts)


def _read_filter(keys: Keys) -> list[str]:
    parts = read_texts(keys["layer_filter"]) if "layer_filter" in keys else []
    return parts or read_texts(_PRESETS.get(str(keys["layer_filter_preset"] or "full").lower(), ""))


_LOST = {"kohya": ("norm_out.linear", "proj_out", "double_stream_modulation_img.linear"), "comfyui": ("norm_out.linear",)}
"""Layers outside of the blocks that a layout cannot carry; those of FLUX.2 share their modulation."""
