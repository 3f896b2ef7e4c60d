"""Names inside FLUX.3: which linear layers the target sets mean, and what modules are called in saved files.

Blocks are of four kinds: those that see the picture alone (`mode_blocks.image`), the references alone (`mode_blocks.image_cond`), the
text alone (`txt_mode_blocks`), and all of it (`single_transformer_blocks`). Each has the same six linear layers. Without references the
second kind does not take part, so only the set that is named for them holds it. Patterns are read by `adapters/target.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from weber.families.pairing import Pairing, build_embedder, build_norms

_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
_FFS = ("ff.linear_in", "ff.linear_out")
_IMAGE, _REFERENCES, _TEXT = "mode_blocks.image.*", "mode_blocks.image_cond.*", "txt_mode_blocks.*"
_JOINT = "single_transformer_blocks.*"


def _join(blocks: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{block}.{layer}" for block in blocks for layer in layers)


_ALL_FFS = _join((_IMAGE, _TEXT, _JOINT), _ATTENTION + _FFS)

ADAPTER_TARGETS: dict[str, tuple[str, ...]] = {
    "blocks": _ALL_FFS,
    "all": _join((_IMAGE, _TEXT, _JOINT), _ATTENTION),
    "context": _join((_TEXT,), _ATTENTION),
    "context+ffs": _join((_TEXT,), _ATTENTION + _FFS),
    "all+ffs": _ALL_FFS,
    "all+ffs+embedder": (*_ALL_FFS, "x_embedders.image"),
    "all+ffs+references": _ALL_FFS + _join((_REFERENCES,), _ATTENTION + _FFS),
    "mmdit": _join((_IMAGE, _TEXT), _ATTENTION + _FFS),
}

LEAN_LAYERS = {"attn.to_out.0": "skip", "ff.linear_out": "skip"}
"""See `Family.lean_layers`."""

JOINED_LAYERS = (("attn.to_q", "attn.to_k", "attn.to_v", "ff.linear_in"),)
"""See `Family.joined_layers`."""

REFERENCE_MODULES = ("mode_blocks.image_cond.*", "*.image_cond", "*.image_cond.linear")
"""Layers that take part only with references."""

_MODES = ("image", "image_cond", "txt")


def _pair_block(original: str, block: str) -> list[Pairing]:
    return [
        Pairing(f"{original}.q_proj", (f"{block}.attn.to_q",)),
        Pairing(f"{original}.k_proj", (f"{block}.attn.to_k",)),
        Pairing(f"{original}.v_proj", (f"{block}.attn.to_v",)),
        Pairing(f"{original}.attn_out", (f"{block}.attn.to_out.0",)),
        Pairing(f"{original}.mlp_in", (f"{block}.ff.linear_in",)),
        Pairing(f"{original}.mlp_out", (f"{block}.ff.linear_out",)),
        *build_norms(original, f"{block}.attn.norm_q", f"{block}.attn.norm_k"),
    ]


PAIRINGS: tuple[Pairing, ...] = (
    Pairing("emb_in.image", ("x_embedders.image",)),
    Pairing("emb_in.image_cond", ("x_embedders.image_cond",)),
    Pairing("txt_in", ("context_embedder",)),
    *build_embedder("time_in", "timestep_embedder"),
    *build_embedder("ref_time_in", "target_timestep_embedder"),
    *(Pairing(f"early_stream_modulations.{mode}.lin", (f"early_stream_modulations.{mode}.linear",)) for mode in _MODES),
    *(Pairing(f"single_stream_modulations.{mode}.lin", (f"single_stream_modulations.{mode}.linear",)) for mode in _MODES),
    *_pair_block("content_mode_blocks.image.{}", "mode_blocks.image.{}"),
    *_pair_block("content_mode_blocks.image_cond.{}", "mode_blocks.image_cond.{}"),
    *_pair_block("txt_mode_blocks.{}", "txt_mode_blocks.{}"),
    *_pair_block("single_blocks.{}", "single_transformer_blocks.{}"),
    Pairing("final_layer.image.linear", ("proj_out",)),
    Pairing("final_layer.image.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
"""diffusers 0.42 `loaders/single_file_utils.py:convert_flux3_transformer_checkpoint_to_diffusers`, as a table."""
