"""The model of an ai-toolkit job and the machine that it is for, as settings of weber."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys


def set_path(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`name_or_path`, with `extras_name_or_path` for the other parts."""
    given = keys.find("model.name_or_path")
    if "model.extras_name_or_path" in keys and keys["model.extras_name_or_path"] != value:
        lines = [draft.set("model.transformer", value, origin=given)]
        extras = keys.find("model.extras_name_or_path")
        return "; ".join([*lines, draft.set("model.path", keys["model.extras_name_or_path"], origin=extras)])
    return draft.set("model.path", value, origin=given)


VARIANTS: Mapping[str, str] = {
    "flux_kontext": "flux1-kontext",
    "flux2": "flux2-dev",
    "flux2_klein_4b": "flux2-klein-base-4b",
    "flux2_klein_9b": "flux2-klein-base-9b",
}


def set_arch(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`arch`; that of FLUX.1 may be dev or schnell."""
    variant = VARIANTS.get(str(value).partition(":")[0])
    if variant is None:
        return NO_EFFECT + "weber sees from its files that it is FLUX.1, and which"
    return draft.set("model.variant", variant, origin=keys.find("model.arch"))


_NO_FORMAT = "weber has no such format"
_BITS = (
    (("qfloat8", "float8", "fp8"), "fp8", ""),
    (("qint8", "int8", "uint8"), "int8", ""),
    (("convrot8",), "int8", "memory.int8_matmul = true computes in 8 bits too"),
    (("qint4", "int4", "uint4"), "int4", ""),
    (("qint2", "int2", "uint2"), "int2", ""),
    (("nf4",), "nf4", ""),
    (("uint3", "int3", "uint5", "uint6", "uint7", "convrot", "nvfp4", "mxfp", "fp4"), "int4", f"{_NO_FORMAT}; int4 is the nearest"),
    (("orbit", "convrotint2", "bitnet"), "int2", f"{_NO_FORMAT}; int2 is the nearest"),
)


def find_bits(kind: object) -> tuple[str, str]:
    """What a `qtype` is here, and what is to be said of it."""
    name = str(kind or "qfloat8").partition("|")[0].strip().lower()
    exact = next(((bits, what) for names, bits, what in _BITS if name in names), None)
    near = next(((bits, what) for names, bits, what in reversed(_BITS) if name.startswith(names)), None)
    return exact or near or ("int8", f"weber has no {name}; int8 is the safest")


def set_bits(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`quantize` with `qtype`, and the text encoder's where `quantize_te` is left out."""
    is_on = keys.read_bool("model.quantize")
    lines = []
    if is_on:
        bits, what = find_bits(keys["model.qtype"])
        lines += [draft.set("memory.quantize", bits, origin=keys.find("model.quantize")), *([what] if what else [])]
        if "|" in str(keys["model.qtype"]):
            lines.append("the adapter behind | that mends the error of that format is left out")
    if "model.quantize_te" not in keys and is_on:
        lines.append(set_text_bits(draft, keys, value=value))
    return "; ".join(lines) if lines else NO_EFFECT + "asks for nothing"


def set_text_bits(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`quantize_te`: T5 of FLUX.1, the only text encoder of FLUX.2."""
    name = "model.quantize_te" if "model.quantize_te" in keys else "model.quantize"
    if not keys.read_bool(name):
        return NO_EFFECT + "asks for nothing"
    key = "memory.quantize_text_encoder_2" if keys["family"] in ("flux", "kontext") else "memory.quantize_text_encoder"
    kind = keys["model.qtype_te"] if keys["family"] == "klein" else keys["model.qtype"]
    bits, what = find_bits(kind)
    return "; ".join([draft.set(key, bits, origin=keys.find(name)), *([what] if what else [])])


def answer_bits(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`qtype`."""
    is_on = keys.read_bool("model.quantize") or keys.read_bool("model.quantize_te")
    return f'"{find_bits(value)[0]}"' if is_on else NO_EFFECT + "quantize is not set"


def answer_text_bits(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`qtype_te`, which most models do not read."""
    if keys["family"] != "klein":
        return NO_EFFECT + "the text encoder is packed as model.qtype says there"
    name = "model.quantize_te" if "model.quantize_te" in keys else "model.quantize"
    return f'memory.quantize_text_encoder = "{find_bits(value)[0]}"' if keys.read_bool(name) else NO_EFFECT + "quantize_te is not set"


NUM_BLOCKS: Mapping[str, int] = {"flux": 57, "flux_kontext": 57, "flux2": 56, "flux2_klein_4b": 25, "flux2_klein_9b": 32}


def set_offload(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`layer_offloading`, with its share."""
    if not keys.read_bool("model.layer_offloading"):
        return NO_EFFECT + "asks for nothing"
    if keys["train.gradient_checkpointing"] is not None and not keys.read_bool("train.gradient_checkpointing"):
        return REFUSED + "weights are swapped only where all blocks are computed again; remove train.gradient_checkpointing: false"
    share = keys.read_float("model.layer_offloading_transformer_percent")
    num = NUM_BLOCKS.get(str(keys["arch"]), 0)
    count = "all" if share is None or share >= 1 or not num else max(0, round(share * num))
    return draft.set("memory.swap_blocks", count, origin=keys.find("model.layer_offloading"))


def set_checkpointing(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`gradient_checkpointing`."""
    given = keys.find("train.gradient_checkpointing")
    return draft.set("memory.gradient_checkpointing", "all" if keys.read_bool(given.name) else "none", origin=given)


_DTYPES = {"bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32", "float": "fp32"}


def set_dtype(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`train.dtype`: of the model."""
    dtype = _DTYPES.get(str(value).strip().lower())
    if dtype is None:
        return 'memory.dtype = "auto", the default: in bf16 where the GPU has it'
    return draft.set("memory.dtype", dtype, origin=keys.find("train.dtype"))


def set_device(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`device`."""
    name = str(value).strip().lower()
    if name in ("cuda", "cuda:0", "gpu"):
        return NO_EFFECT + 'the first GPU, as memory.device = "auto" has it'
    return draft.set("memory.device", name, origin=keys.find("device"))


def set_adapters(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`model.lora_path`, fused before the run."""
    return draft.set("model.adapters", [{"path": str(value)}], origin=keys.find("model.lora_path"))


def set_mask_of_text(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`attn_masking`."""
    if not keys.read_bool("model.attn_masking"):
        return NO_EFFECT + "asks for nothing"
    if keys["family"] != "flux":
        return REFUSED + "only FLUX.1 has it"
    return draft.set("objective.text_mask", True, origin=keys.find("model.attn_masking"))
