"""Names inside FLUX.2: which linear layers the target sets mean, and what modules are called in saved files.

A single-stream block has two linear layers only: `attn.to_qkv_mlp_proj` (queries, keys, values and the feed-forward's input in one)
and `attn.to_out` (ecosystem.md 1.3). The modulations are shared by all blocks, and ai-toolkit trains the blocks alone
(`Flux2Model.get_transformer_block_names`). Patterns are read by `adapters/target.py`.
"""

from __future__ import annotations

from weber.families.pairing import OUR_SINGLE, SINGLE, Pairing, build_embedder, build_norms, build_stream

_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj", "attn.to_out")
_CONTEXT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
_CONTEXT_FFS = ("ff_context.linear_in", "ff_context.linear_out")
_FFS = ("ff.linear_in", "ff.linear_out", *_CONTEXT_FFS)
_MODULATION = ("double_stream_modulation_img.linear", "double_stream_modulation_txt.linear", "single_stream_modulation.linear")
LEAN_LAYERS = {
    "attn.to_out.0": "recompute",
    "ff.linear_out": "skip",
    "ff_context.linear_out": "skip",
    "attn.to_out": "skip",
}
"""See `Family.lean_layers`."""

JOINED_LAYERS = (
    ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
)
"""See `Family.joined_layers`."""

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "blocks": _ATTENTION + _CONTEXT + _FFS,
    "all": _ATTENTION + _CONTEXT,
    "context": _CONTEXT,
    "context+ffs": _CONTEXT + _CONTEXT_FFS,
    "all+ffs": _ATTENTION + _CONTEXT + _FFS,
    "all+ffs+embedder": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder"),
    "all+ffs+modulation": _ATTENTION + _CONTEXT + _FFS + _MODULATION,
    "ai-toolkit": _ATTENTION + _CONTEXT + _FFS,
    "mmdit": ("transformer_blocks.*.attn.*", "transformer_blocks.*.ff.*", "transformer_blocks.*.ff_context.*"),
    "simpletuner": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj"),
}

PAIRINGS: tuple[Pairing, ...] = (
    Pairing("img_in", ("x_embedder",)),
    Pairing("txt_in", ("context_embedder",)),
    *build_embedder("time_in", "time_guidance_embed.timestep_embedder", only_original=True),
    *build_embedder("guidance_in", "time_guidance_embed.guidance_embedder", only_original=True),
    Pairing("double_stream_modulation_img.lin", ("double_stream_modulation_img.linear",), only_original=True),
    Pairing("double_stream_modulation_txt.lin", ("double_stream_modulation_txt.linear",), only_original=True),
    Pairing("single_stream_modulation.lin", ("single_stream_modulation.linear",), only_original=True),
    *build_stream(
        "img",
        attention=("to_q", "to_k", "to_v", "to_out.0"),
        norms=("norm_q", "norm_k"),
        layers={"mlp.0": "ff.linear_in", "mlp.2": "ff.linear_out"},
    ),
    *build_stream(
        "txt",
        attention=("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        norms=("norm_added_q", "norm_added_k"),
        layers={"mlp.0": "ff_context.linear_in", "mlp.2": "ff_context.linear_out"},
    ),
    Pairing(f"{SINGLE}linear1", (f"{OUR_SINGLE}attn.to_qkv_mlp_proj",)),
    Pairing(f"{SINGLE}linear2", (f"{OUR_SINGLE}attn.to_out",)),
    *build_norms(SINGLE.rstrip("."), f"{OUR_SINGLE}attn.norm_q", f"{OUR_SINGLE}attn.norm_k"),
    Pairing("final_layer.linear", ("proj_out",)),
    Pairing("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
"""diffusers 0.42 `loaders/single_file_utils.py:convert_flux2_transformer_checkpoint_to_diffusers`, as a table. `only_original`: ComfyUI's
`comfy/utils.py:flux_to_diffusers` (0.33) has no name of the library for them."""
