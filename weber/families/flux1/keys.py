"""Names inside FLUX.1: which linear layers the target sets mean, and what modules are called in saved files.

Sets as in SimpleTuner's `flux_lora_target` (simpletuner.md 1.4), so that a choice made there means the same here, without the names of
fused projections, which the library's model does not have; but `mmdit` has its real meaning, the double-stream blocks, and `ai-toolkit` is
what ai-toolkit trains by default (its `lora_special.py`: every linear layer of the blocks). What SimpleTuner and the library's scripts
call so has the network's last layer too: that is `all+ffs+modulation`. `proj_out` is the output of the single-stream blocks and of the
network; the latter, which few readers of LoRA files know, is not in `blocks`. Patterns are read by `adapters/target.py`.
"""

from __future__ import annotations

from weber.families.pairing import OUR_SINGLE, SINGLE, Pairing, build_embedder, build_norms, build_stream

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_CONTEXT_FFS = ("ff_context.net.0.proj", "ff_context.net.2")
_BLOCK_FFS = ("ff.net.0.proj", "ff.net.2", *_CONTEXT_FFS, "proj_mlp")
_FFS = (*_BLOCK_FFS, "proj_out")
_BLOCKS = (*_ATTENTION, *_CONTEXT, *_BLOCK_FFS, "single_transformer_blocks.*.proj_out")
MODULATION = ("norm.linear", "norm1.linear", "norm1_context.linear")
"""See `Family.modulation_modules`: 27 % of the weights."""
LEAN_LAYERS = {
    "attn.to_out.0": "recompute",
    "ff.net.2": "skip",
    "ff_context.net.2": "skip",
    "proj_out": "skip",
}
"""See `Family.lean_layers`."""

JOINED_LAYERS = (
    ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
)
"""See `Family.joined_layers`; of two that fit, the first one counts."""
_CONTROLNET = (
    "controlnet_x_embedder",
    *(f"controlnet_blocks.{i}" for i in range(4)),
    *(f"controlnet_single_blocks.{i}" for i in range(10)),
)

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "blocks": _BLOCKS,
    "all": _ATTENTION + _CONTEXT,
    "context": _CONTEXT,
    "context+ffs": _CONTEXT + _CONTEXT_FFS,
    "all+ffs": _ATTENTION + _CONTEXT + _FFS,
    "all+ffs+embedder": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder"),
    "all+ffs+embedder+controlnet": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder", *_CONTROLNET),
    "all+ffs+modulation": _ATTENTION + _CONTEXT + _FFS + MODULATION,
    "ai-toolkit": _BLOCKS + MODULATION,
    "mmdit": ("transformer_blocks.*.attn.*", "transformer_blocks.*.ff.*", "transformer_blocks.*.ff_context.*"),
    "tiny": ("single_transformer_blocks.7.proj_out", "single_transformer_blocks.20.proj_out"),
    "nano": ("single_transformer_blocks.7.proj_out",),
    "controlnet": _CONTROLNET,
}

PAIRINGS: tuple[Pairing, ...] = (
    Pairing("img_in", ("x_embedder",)),
    Pairing("txt_in", ("context_embedder",)),
    *build_embedder("time_in", "time_text_embed.timestep_embedder"),
    *build_embedder("vector_in", "time_text_embed.text_embedder"),
    *build_embedder("guidance_in", "time_text_embed.guidance_embedder"),
    *build_stream(
        "img",
        attention=_ATTENTION,
        norms=("norm_q", "norm_k"),
        layers={"mlp.0": "ff.net.0.proj", "mlp.2": "ff.net.2", "mod.lin": "norm1.linear"},
    ),
    *build_stream(
        "txt",
        attention=_CONTEXT,
        norms=("norm_added_q", "norm_added_k"),
        layers={"mlp.0": "ff_context.net.0.proj", "mlp.2": "ff_context.net.2", "mod.lin": "norm1_context.linear"},
    ),
    Pairing(
        f"{SINGLE}linear1",
        (*(f"{OUR_SINGLE}attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{OUR_SINGLE}proj_mlp"),
        (1, 1, 1, 4),
    ),
    Pairing(f"{SINGLE}linear2", (f"{OUR_SINGLE}proj_out",)),
    Pairing(f"{SINGLE}modulation.lin", (f"{OUR_SINGLE}norm.linear",)),
    *build_norms(SINGLE.rstrip("."), f"{OUR_SINGLE}attn.norm_q", f"{OUR_SINGLE}attn.norm_k"),
    Pairing("final_layer.linear", ("proj_out",)),
    Pairing("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
"""diffusers 0.42 `loaders/single_file_utils.py:convert_flux_transformer_checkpoint_to_diffusers`, as a table."""
