"""Names inside the real FLUX.2: what the target sets mean, counted by hand, and what the makers call each tensor."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from torch import nn

from weber.adapters.target import list_targets
from weber.families.flux2.components import Flux2
from weber.families.flux2.keys import ADAPTER_TARGETS, PAIRINGS
from weber.families.pairing import build_library_weights, build_original_weights
from weber.families.tensors import build_entry

SIZES: dict[str, dict[str, Any]] = {
    "flux2-dev": {},
    "flux2-klein-4b": {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    },
    "flux2-klein-9b": {
        "num_layers": 8,
        "num_single_layers": 24,
        "num_attention_heads": 32,
        "joint_attention_dim": 12288,
        "guidance_embeds": False,
    },
}
NUM_PARAMETERS = {"flux2-dev": 32_223_281_152, "flux2-klein-4b": 3_875_544_576, "flux2-klein-9b": 9_078_581_248}
NUM_BLOCKS = {"flux2-dev": (8, 48), "flux2-klein-4b": (5, 20), "flux2-klein-9b": (8, 24)}
COUNTS = {
    # of a double-stream block, of a single-stream block, of the rest
    "all": (4 + 4, 2, 0),  # q k v out, for pictures and for text; the two fused layers
    "context": (4, 0, 0),
    "context+ffs": (4 + 2, 0, 0),
    "blocks": (8 + 4, 2, 0),
    "all+ffs": (8 + 4, 2, 0),
    "all+ffs+embedder": (8 + 4, 2, 1),
    "all+ffs+modulation": (8 + 4, 2, 3),  # the three modulations, shared by all blocks
    "ai-toolkit": (8 + 4, 2, 0),
    "mmdit": (8 + 4, 0, 0),
    "simpletuner": (4, 1, 0),
}


@pytest.fixture(scope="module")
def full_size() -> dict[str, nn.Module]:
    """The models without weights."""
    with torch.device("meta"):
        return {name: Flux2Transformer2DModel(**settings) for name, settings in SIZES.items()}


@pytest.mark.parametrize("name", SIZES)
def test_number_of_parameters(full_size: dict[str, nn.Module], name: str) -> None:
    assert sum(parameter.numel() for parameter in full_size[name].parameters()) == NUM_PARAMETERS[name]


def test_every_set_is_counted_here() -> None:
    assert set(ADAPTER_TARGETS) == set(COUNTS)


@pytest.mark.parametrize("targets", COUNTS)
@pytest.mark.parametrize("name", SIZES)
def test_layers_of_a_set_at_full_size(full_size: dict[str, nn.Module], name: str, targets: str) -> None:
    found = list_targets(full_size[name], targets, sets=ADAPTER_TARGETS)
    (double, single), (per_double, per_single, rest) = NUM_BLOCKS[name], COUNTS[targets]
    assert len(found) == len(set(found)) == double * per_double + single * per_single + rest
    assert all(isinstance(full_size[name].get_submodule(module), nn.Linear) for module in found)


def test_the_counts_of_the_default_set(full_size: dict[str, nn.Module]) -> None:
    counts = {name: len(list_targets(model, "all+ffs", sets=ADAPTER_TARGETS)) for name, model in full_size.items()}
    assert counts == {"flux2-dev": 192, "flux2-klein-4b": 100, "flux2-klein-9b": 144}


def test_all_linear_layers_are_in_a_set_or_at_the_edges(full_size: dict[str, nn.Module]) -> None:
    """What no set reaches: the inputs of text, time and guidance, and the last norm's modulation and output."""
    for model in full_size.values():
        reached = {module for targets in ADAPTER_TARGETS for module in list_targets(model, targets, sets=ADAPTER_TARGETS)}
        linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        rest = {name for name in linears - reached if not name.startswith("time_guidance_embed.")}
        assert rest == {"context_embedder", "norm_out.linear", "proj_out"}


ORIGINAL_MODULES = {
    "img_in",
    "txt_in",
    *(f"{embedder}.{layer}" for embedder in ("time_in", "guidance_in") for layer in ("in_layer", "out_layer")),
    *(f"{modulation}.lin" for modulation in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")),
    *(
        f"double_blocks.#.{stream}_{layer}"
        for stream in ("img", "txt")
        for layer in ("attn.qkv", "attn.proj", "attn.norm.query_norm", "attn.norm.key_norm", "mlp.0", "mlp.2")
    ),
    *(f"single_blocks.#.{layer}" for layer in ("linear1", "linear2", "norm.query_norm", "norm.key_norm")),
    "final_layer.linear",
    "final_layer.adaLN_modulation.1",
}


@pytest.mark.parametrize("name", SIZES)
def test_the_makers_names_at_full_size(full_size: dict[str, nn.Module], name: str) -> None:
    """Every tensor has one, they are those of BFL's files, and from them the library's names come back with their shapes."""
    weights = {key: build_entry(tensor) for key, tensor in full_size[name].state_dict().items()}
    originals = build_original_weights(weights, PAIRINGS)
    stems = {re.sub(r"blocks\.\d+\.", "blocks.#.", key.rpartition(".")[0]) for key in originals}
    assert stems == {stem for stem in ORIGINAL_MODULES if name == "flux2-dev" or not stem.startswith("guidance_in")}
    back, unknown = build_library_weights(originals, PAIRINGS)
    assert unknown == []
    assert {key: entry.shape for key, entry in back.items()} == {key: entry.shape for key, entry in weights.items()}


def test_the_library_reads_what_we_write_in_the_makers_layout(families: dict[str, Flux2]) -> None:
    """The library's own converter is the judge: names, order of rows, and the swapped halves of the last modulation."""
    weights = families["dev"].open_transformer()
    originals = {name: entry.read() for name, entry in build_original_weights(weights, PAIRINGS).items()}
    converted = convert_flux2_transformer_checkpoint_to_diffusers(originals)
    assert converted.keys() == weights.keys()
    for name, tensor in converted.items():
        assert torch.equal(tensor, weights[name].read()), name

