"""Names inside FLUX.1: which linear layers the target sets mean, and what modules are called in saved files.

Sets as in SimpleTuner's `flux_lora_target` (simpletuner.md 1.4), so that a choice made there means the same here, without the names of
fused projections, which the library's model does not have; `mmdit` has its real meaning, the double-stream blocks. `proj_out` is the
output of the single-stream blocks and of the network. Patterns are read by `adapters/target.py`.
"""

from __future__ import annotations

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_CONTEXT_FFS = ("ff_context.net.0.proj", "ff_context.net.2")
_FFS = ("ff.net.0.proj", "ff.net.2", *_CONTEXT_FFS, "proj_mlp", "proj_out")
_MODULATION = ("norm.linear", "norm1.linear", "norm1_context.linear")
_CONTROLNET = (
    "controlnet_x_embedder",
    *(f"controlnet_blocks.{i}" for i in range(4)),
    *(f"controlnet_single_blocks.{i}" for i in range(10)),
)

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "all": _ATTENTION + _CONTEXT,
    "context": _CONTEXT,
    "context+ffs": _CONTEXT + _CONTEXT_FFS,
    "all+ffs": _ATTENTION + _CONTEXT + _FFS,
    "all+ffs+embedder": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder"),
    "all+ffs+embedder+controlnet": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder", *_CONTROLNET),
    "ai-toolkit": _ATTENTION + _CONTEXT + _FFS + _MODULATION,
    "mmdit": ("transformer_blocks.*.attn.*", "transformer_blocks.*.ff.*", "transformer_blocks.*.ff_context.*"),
    "tiny": ("single_transformer_blocks.7.proj_out", "single_transformer_blocks.20.proj_out"),
    "nano": ("single_transformer_blocks.7.proj_out",),
    "controlnet": _CONTROLNET,
}

_EXPORT_PREFIX = "transformer."


def export_key(module: str) -> str:
    """Name of a transformer module in a diffusers LoRA file."""
    return _EXPORT_PREFIX + module
