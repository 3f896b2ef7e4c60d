"""SimpleTuner's options of memory and speed: what each becomes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner.facts import QUANTIZED_PLAIN, has_pictures, is_flux2, is_quantized, read_precision

_BITS: Mapping[str, str] = {
    "int8-quanto": "int8",
    "int8-torchao": "int8",
    "int8dq-torchao": "int8",
    "int8-sdnq": "int8",
    "uint8-sdnq": "int8",
    "fp8-quanto": "fp8",
    "fp8uz-quanto": "fp8",
    "fp8-torchao": "fp8",
    "fp8wo-torchao": "fp8",
    "fp8-sdnq": "fp8",
    "fp8-native": "fp8",
    "fp8-transformerengine": "fp8",
    "nf4-bnb": "nf4",
    "int4-quanto": "int4",
    "int4-torchao": "int4",
    "int8dq-int4-torchao": "int4",
    "fp8-int4-torchao": "int4",
    "uint4-sdnq": "int4",
    "int2-quanto": "int2",
    "uint2-sdnq": "int2",
}
"""SimpleTuner's precisions -> `memory.quantize`."""
_NO_BITS = "weber has no such format; the nearest are int8, fp8, nf4 and int4: set memory.quantize to one of them"


def for_bits(name: str, key: str) -> Call:
    """Packed weights of a part of the model."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        precision = str(value).strip().lower()
        if precision in QUANTIZED_PLAIN:
            return f"{NO_EFFECT}nothing is quantized, as here by default"
        if key == "memory.quantize_text_encoder_2" and is_flux2(keys):
            return f"{NO_EFFECT}FLUX.2 has one text encoder"
        if precision not in _BITS:
            return f"{REFUSED}{_NO_BITS}"
        line = draft.set(key, _BITS[precision], origin=keys.find(name))
        if name == "base_model_precision" and precision == "int8dq-torchao":
            line += ", " + draft.set("memory.int8_matmul", True, origin=keys.find(name))
        return line

    return call


def set_int8_matmul(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Products in 8 bits too."""
    name = next(one for one in ("quantize_activations", "sdnq_use_quantized_matmul") if one in keys)
    if not keys.read_bool(name):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if _BITS.get(read_precision(keys)) != "int8":
        return f"{NO_EFFECT}weber computes in 8 bits on a model in int8 alone"
    return draft.set("memory.int8_matmul", True, origin=keys.find(name))


def set_quantize_on(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where weights are packed; the outcome is the same."""
    if not is_quantized(keys) or str(value).strip().lower() != "cpu":
        return f"{NO_EFFECT}weights are packed one layer at a time, on the GPU where there is one; the outcome is the same"
    return draft.set("memory.quantize_on", "cpu", origin=keys.find("quantize_via"))


def set_precision(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The precision in which the base model computes."""
    word = str(value).strip().lower()
    if word == "fp16":
        return f"{REFUSED}these models overflow in fp16; memory.dtype is bf16 on GPUs that have it, else fp32"
    if word == "fp8":
        return f'{REFUSED}weber computes in fp8 with memory.quantize = "fp8" and memory.fp8_matmul = true'
    if word == "no" and _reads_bf16(keys):
        return f"{NO_EFFECT}a quantized model computes in base_model_default_dtype"
    if word == "no":
        return draft.set("memory.dtype", "fp32", origin=keys.find("mixed_precision"))
    return f'{NO_EFFECT}memory.dtype = "auto" is bf16 on GPUs that have it'


def set_default_dtype(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The precision of frozen weights that are not packed."""
    mixed = (keys.read_text("mixed_precision") or "bf16").lower()
    if str(value).strip().lower() == "fp32" and is_quantized(keys) and mixed != "bf16":
        return draft.set("memory.dtype", "fp32", origin=keys.find("base_model_default_dtype"))
    return f'{NO_EFFECT}memory.dtype = "auto" is bf16 on GPUs that have it'


def _reads_bf16(keys: Keys) -> bool:
    return is_quantized(keys) and (keys.read_text("base_model_default_dtype") or "bf16").lower() == "bf16"


# ---- what is computed again, and where blocks lie


def _is_checkpointed(keys: Keys) -> bool:
    return keys["gradient_checkpointing"] is None or keys.read_bool("gradient_checkpointing")


def _swaps(keys: Keys) -> bool:
    return keys.read_bool("enable_group_offload") or keys.read_bool("ramtorch") or (keys.read_int("musubi_blocks_to_swap") or 0) > 0


def _offloads(keys: Keys) -> bool:
    return (keys.read_text("gradient_checkpointing_backend") or "").lower().startswith("unsloth")


def set_checkpointing(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Blocks are computed again in the backward pass, or nothing is."""
    if _is_checkpointed(keys):
        return f'{NO_EFFECT}memory.gradient_checkpointing = "all" is the default here'
    return draft.set("memory.gradient_checkpointing", "none", origin=keys.find("gradient_checkpointing"))


def set_interval(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Every n-th block alone is computed again."""
    interval = keys.read_int("gradient_checkpointing_interval") or 0
    if interval < 2 or not _is_checkpointed(keys):
        return f"{NO_EFFECT}every block is computed again, or none is"
    if _swaps(keys) or _offloads(keys):
        return f"{NO_EFFECT}blocks that are moved out of the GPU are computed again in any case"
    return draft.set("memory.gradient_checkpointing", interval, origin=keys.find("gradient_checkpointing_interval"))


def set_offload(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What checkpointing keeps, in the memory of the host."""
    if not _offloads(keys) or not _is_checkpointed(keys):
        return f"{NO_EFFECT}weber computes whole blocks again, in its own way"
    return draft.set("memory.offload_activations", True, origin=keys.find("gradient_checkpointing_backend"))


def set_swap(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Blocks of the transformer outside of the GPU."""
    number = keys.read_int("musubi_blocks_to_swap") or 0
    name = next((one for one in ("enable_group_offload", "ramtorch") if keys.read_bool(one)), "musubi_blocks_to_swap")
    if not _swaps(keys):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if not _is_checkpointed(keys):
        return f"{NO_EFFECT}weber moves blocks out of the GPU only where they are computed again: set gradient_checkpointing to true"
    return draft.set("memory.swap_blocks", number if name == "musubi_blocks_to_swap" else "all", origin=keys.find(name))


def set_swap_disk(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Blocks in a file instead of the memory of the host."""
    if not keys.read_bool("enable_group_offload") or not _is_checkpointed(keys):
        return f"{NO_EFFECT}no blocks are offloaded"
    return draft.set("memory.swap_to", "disk", origin=keys.find("group_offload_to_disk_path")) + ", in output.cache"


def set_compile(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Compiled blocks, where nothing else stands against it."""
    backend = str(value).strip().lower()
    if backend in ("no", "none", "false", "eager"):
        return f"{NO_EFFECT}nothing is compiled, as here by default"
    if backend != "inductor":
        return f"{REFUSED}weber compiles with inductor alone: memory.compile = true"
    if not _can_compile(keys):
        against = "with layers of LyCORIS, that are moved, or packed as these are"
        return f"{REFUSED}weber does not compile blocks {against}; its own operations need no compiler"
    return draft.set("memory.compile", True, origin=keys.find("dynamo_backend"))


def _can_compile(keys: Keys) -> bool:
    is_moved = _swaps(keys) or (_offloads(keys) and _is_checkpointed(keys))
    against = is_moved or keys.read_text("lora_type") == "lycoris" or _BITS.get(read_precision(keys)) == "nf4"
    recomputes_all = _is_checkpointed(keys) and (keys.read_int("gradient_checkpointing_interval") or 0) < 2
    return not against and (recomputes_all or not _computes_packed(keys))


def _computes_packed(keys: Keys) -> bool:
    return read_precision(keys) == "int8dq-torchao" or keys.read_bool("quantize_activations") or keys.read_bool("sdnq_use_quantized_matmul")


_ATTENTION: Mapping[str, str] = {
    "xformers": "efficient",
    "native-efficient": "efficient",
    "flash-attn": "flash",
    "flash-attn-2": "flash",
    "flash-attn-varlen": "flash",
    "native-flash": "flash",
    "flash-attn-3": "flash3",
    "flash-attn-3-varlen": "flash3",
    "cudnn": "cudnn",
    "native-cudnn": "cudnn",
}


def set_attention(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What computes attention; SageAttention paints and does not train."""
    word, origin = str(value).strip().lower().replace("_", "-"), keys.find("attention_mechanism")
    if word.startswith("sage"):
        usage = (keys.read_text("sageattention_usage") or "inference").lower()
        if usage.startswith("training"):
            return f'{REFUSED}SageAttention has no backward pass; sampling.attention = "sage" paints with it'
        if not has_pictures(keys):
            return f"{NO_EFFECT}it is for pictures on the way there too, and none are painted"
        return draft.set("sampling.attention", "sage", origin=origin)
    if _ATTENTION.get(word) == "flash3" and (keys.read_text("dynamo_backend") or "").lower() == "inductor" and _can_compile(keys):
        return f"{REFUSED}PyTorch's compiler does not see into FlashAttention 3, and the blocks are compiled; remove one of them"
    if word in _ATTENTION:
        return draft.set("memory.attention", _ATTENTION[word], origin=origin)
    if word in ("diffusers", "native", "sdpa"):
        return f'{NO_EFFECT}memory.attention = "auto" takes what is fastest'
    return f'{REFUSED}weber has no such attention; memory.attention = "auto" takes what is fastest'


def set_xformers(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The old switch of xformers."""
    if not keys.read_bool("enable_xformers_memory_efficient_attention") or "attention_mechanism" in keys:
        return f"{NO_EFFECT}asks for nothing, here as there"
    return draft.set("memory.attention", "efficient", origin=keys.find("enable_xformers_memory_efficient_attention"))
