"""Names inside FLUX.2: which linear layers the target sets mean, and what modules are called in saved files.

A single-stream block has two linear layers only: `attn.to_qkv_mlp_proj` (queries, keys, values and the feed-forward's input in one)
and `attn.to_out` (ecosystem.md 1.3). The modulations are shared by all blocks. Patterns are read by `adapters/target.py`.
"""

from __future__ import annotations

from weber.families.pairing import Pairing

_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj", "attn.to_out")
_CONTEXT = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
_CONTEXT_FFS = ("ff_context.linear_in", "ff_context.linear_out")
_FFS = ("ff.linear_in", "ff.linear_out", *_CONTEXT_FFS)
_MODULATION = ("double_stream_modulation_img.linear", "double_stream_modulation_txt.linear", "single_stream_modulation.linear")

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "blocks": _ATTENTION + _CONTEXT + _FFS,
    "all": _ATTENTION + _CONTEXT,
    "context": _CONTEXT,
    "context+ffs": _CONTEXT + _CONTEXT_FFS,
    "all+ffs": _ATTENTION + _CONTEXT + _FFS,
    "all+ffs+embedder": (*_ATTENTION, *_CONTEXT, *_FFS, "x_embedder"),
    "ai-toolkit": _ATTENTION + _CONTEXT + _FFS + _MODULATION,
    "mmdit": ("transformer_blocks.*.attn.*", "transformer_blocks.*.ff.*", "transformer_blocks.*.ff_context.*"),
    "simpletuner": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj"),
}

_DOUBLE, _SINGLE = "double_blocks.{}.", "single_blocks.{}."
_OUR_DOUBLE, _OUR_SINGLE = "transformer_blocks.{}.", "single_transformer_blocks.{}."


def _pair_stream(original: str, feed_forward: str, *, attention: tuple[str, str, str, str], norms: tuple[str, str]) -> list[Pairing]:
    """The image or the text stream of a double-stream block; `attention` is query, key, value and output."""
    *projections, out = [f"{_OUR_DOUBLE}attn.{name}" for name in attention]
    return [
        Pairing(f"{_DOUBLE}{original}_attn.qkv", tuple(projections), (1, 1, 1)),
        Pairing(f"{_DOUBLE}{original}_attn.proj", (out,)),
        Pairing(f"{_DOUBLE}{original}_mlp.0", (f"{_OUR_DOUBLE}{feed_forward}.linear_in",)),
        Pairing(f"{_DOUBLE}{original}_mlp.2", (f"{_OUR_DOUBLE}{feed_forward}.linear_out",)),
        Pairing(f"{_DOUBLE}{original}_attn.norm.query_norm", (f"{_OUR_DOUBLE}attn.{norms[0]}",), is_norm=True),
        Pairing(f"{_DOUBLE}{original}_attn.norm.key_norm", (f"{_OUR_DOUBLE}attn.{norms[1]}",), is_norm=True),
    ]


def _pair_embedder(original: str, module: str) -> list[Pairing]:
    return [
        Pairing(f"{original}.in_layer", (f"time_guidance_embed.{module}.linear_1",)),
        Pairing(f"{original}.out_layer", (f"time_guidance_embed.{module}.linear_2",)),
    ]


PAIRINGS: tuple[Pairing, ...] = (
    Pairing("img_in", ("x_embedder",)),
    Pairing("txt_in", ("context_embedder",)),
    *_pair_embedder("time_in", "timestep_embedder"),
    *_pair_embedder("guidance_in", "guidance_embedder"),
    Pairing("double_stream_modulation_img.lin", ("double_stream_modulation_img.linear",)),
    Pairing("double_stream_modulation_txt.lin", ("double_stream_modulation_txt.linear",)),
    Pairing("single_stream_modulation.lin", ("single_stream_modulation.linear",)),
    *_pair_stream("img", "ff", attention=("to_q", "to_k", "to_v", "to_out.0"), norms=("norm_q", "norm_k")),
    *_pair_stream(
        "txt",
        "ff_context",
        attention=("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        norms=("norm_added_q", "norm_added_k"),
    ),
    Pairing(f"{_SINGLE}linear1", (f"{_OUR_SINGLE}attn.to_qkv_mlp_proj",)),
    Pairing(f"{_SINGLE}linear2", (f"{_OUR_SINGLE}attn.to_out",)),
    Pairing(f"{_SINGLE}norm.query_norm", (f"{_OUR_SINGLE}attn.norm_q",), is_norm=True),
    Pairing(f"{_SINGLE}norm.key_norm", (f"{_OUR_SINGLE}attn.norm_k",), is_norm=True),
    Pairing("final_layer.linear", ("proj_out",)),
    Pairing("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
"""diffusers 0.42 `loaders/single_file_utils.py:convert_flux2_transformer_checkpoint_to_diffusers`, as a table."""
