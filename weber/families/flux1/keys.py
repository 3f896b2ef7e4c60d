"""Names inside FLUX.1: which linear layers the target sets mean, and what modules are called in saved files.

Sets as in SimpleTuner's `flux_lora_target` (simpletuner.md 1.4), so that a choice made there means the same here, without the names of
fused projections, which the library's model does not have; `mmdit` has its real meaning, the double-stream blocks. `proj_out` is the
output of the single-stream blocks and of the network; the latter, which few readers of LoRA files know, is not in `blocks`. Patterns are
read by `adapters/target.py`.
"""

from __future__ import annotations

from weber.families.pairing import Pairing

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_CONTEXT_FFS = ("ff_context.net.0.proj", "ff_context.net.2")
_BLOCK_FFS = ("ff.net.0.proj", "ff.net.2", *_CONTEXT_FFS, "proj_mlp")
_FFS = (*_BLOCK_FFS, "proj_out")
_MODULATION = ("norm.linear", "norm1.linear", "norm1_context.linear")
_CONTROLNET = (
    "controlnet_x_embedder",
    *(f"controlnet_blocks.{i}" for i in range(4)),
    *(f"controlnet_single_blocks.{i}" for i in range(10)),
)

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "blocks": (*_ATTENTION, *_CONTEXT, *_BLOCK_FFS, "single_transformer_blocks.*.proj_out"),
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

_DOUBLE, _SINGLE = "double_blocks.{}.", "single_blocks.{}."
_OUR_DOUBLE, _OUR_SINGLE = "transformer_blocks.{}.", "single_transformer_blocks.{}."


def _pair_stream(
    original: str, norm: str, feed_forward: str, *, attention: tuple[str, str, str, str], norms: tuple[str, str]
) -> list[Pairing]:
    """The image or the text stream of a double-stream block; `attention` is query, key, value and output."""
    *projections, out = [f"{_OUR_DOUBLE}attn.{name}" for name in attention]
    return [
        Pairing(f"{_DOUBLE}{original}_attn.qkv", tuple(projections), (1, 1, 1)),
        Pairing(f"{_DOUBLE}{original}_attn.proj", (out,)),
        Pairing(f"{_DOUBLE}{original}_mlp.0", (f"{_OUR_DOUBLE}{feed_forward}.net.0.proj",)),
        Pairing(f"{_DOUBLE}{original}_mlp.2", (f"{_OUR_DOUBLE}{feed_forward}.net.2",)),
        Pairing(f"{_DOUBLE}{original}_mod.lin", (f"{_OUR_DOUBLE}{norm}.linear",)),
        Pairing(f"{_DOUBLE}{original}_attn.norm.query_norm", (f"{_OUR_DOUBLE}attn.{norms[0]}",), is_norm=True),
        Pairing(f"{_DOUBLE}{original}_attn.norm.key_norm", (f"{_OUR_DOUBLE}attn.{norms[1]}",), is_norm=True),
    ]


def _pair_embedder(original: str, module: str) -> list[Pairing]:
    return [
        Pairing(f"{original}.in_layer", (f"time_text_embed.{module}.linear_1",)),
        Pairing(f"{original}.out_layer", (f"time_text_embed.{module}.linear_2",)),
    ]


PAIRINGS: tuple[Pairing, ...] = (
    Pairing("img_in", ("x_embedder",)),
    Pairing("txt_in", ("context_embedder",)),
    *_pair_embedder("time_in", "timestep_embedder"),
    *_pair_embedder("vector_in", "text_embedder"),
    *_pair_embedder("guidance_in", "guidance_embedder"),
    *_pair_stream("img", "norm1", "ff", attention=("to_q", "to_k", "to_v", "to_out.0"), norms=("norm_q", "norm_k")),
    *_pair_stream("txt", "norm1_context", "ff_context", attention=_CONTEXT, norms=("norm_added_q", "norm_added_k")),
    Pairing(
        f"{_SINGLE}linear1",
        (*(f"{_OUR_SINGLE}attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{_OUR_SINGLE}proj_mlp"),
        (1, 1, 1, 4),
    ),
    Pairing(f"{_SINGLE}linear2", (f"{_OUR_SINGLE}proj_out",)),
    Pairing(f"{_SINGLE}modulation.lin", (f"{_OUR_SINGLE}norm.linear",)),
    Pairing(f"{_SINGLE}norm.query_norm", (f"{_OUR_SINGLE}attn.norm_q",), is_norm=True),
    Pairing(f"{_SINGLE}norm.key_norm", (f"{_OUR_SINGLE}attn.norm_k",), is_norm=True),
    Pairing("final_layer.linear", ("proj_out",)),
    Pairing("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
"""diffusers 0.42 `loaders/single_file_utils.py:convert_flux_transformer_checkpoint_to_diffusers`, as a table."""
