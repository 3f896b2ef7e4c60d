"""The target sets on the real FLUX.3: how many linear layers each one means, counted by hand; names in saved files."""

from __future__ import annotations

import pytest
import torch
from diffusers import Flux3ModularPipeline, Flux3Transformer2DModel
from torch import nn

from weber.adapters.target import list_targets
from weber.families.flux3.keys import ADAPTER_TARGETS, PAIRINGS
from weber.families.pairing import find_module

NUM_OWN, NUM_JOINT = 5, 28  # blocks of the picture (and as many of the text and of references), blocks of all together
NUM_LAYERS = {
    "all": 4 * (2 * NUM_OWN + NUM_JOINT),
    "context": 4 * NUM_OWN,
    "context+ffs": 6 * NUM_OWN,
    "blocks": 6 * (2 * NUM_OWN + NUM_JOINT),
    "all+ffs": 6 * (2 * NUM_OWN + NUM_JOINT),
    "all+ffs+embedder": 6 * (2 * NUM_OWN + NUM_JOINT) + 1,
    "all+ffs+references": 6 * (3 * NUM_OWN + NUM_JOINT),
    "mmdit": 6 * 2 * NUM_OWN,
}


@pytest.fixture(scope="module")
def full_size() -> nn.Module:
    """FLUX.3 klein base without weights."""
    with torch.device("meta"):
        return Flux3Transformer2DModel()


def test_every_set_is_counted_here() -> None:
    assert set(ADAPTER_TARGETS) == set(NUM_LAYERS)
    assert (NUM_LAYERS["all"], NUM_LAYERS["all+ffs"], NUM_LAYERS["all+ffs+references"]) == (152, 228, 258)


@pytest.mark.parametrize("name", NUM_LAYERS)
def test_layers_of_a_set_at_full_size(full_size: nn.Module, name: str) -> None:
    targets = list_targets(full_size, name, sets=ADAPTER_TARGETS)
    assert len(targets) == len(set(targets)) == NUM_LAYERS[name]
    assert all(isinstance(full_size.get_submodule(target), nn.Linear) for target in targets)


@pytest.mark.parametrize("name", NUM_LAYERS)
def test_layers_of_references_are_in_their_own_set_only(full_size: nn.Module, name: str) -> None:
    targets = list_targets(full_size, name, sets=ADAPTER_TARGETS)
    assert sum("image_cond" in target for target in targets) == (6 * NUM_OWN if name == "all+ffs+references" else 0)


def test_the_library_reads_our_names(full_size: nn.Module) -> None:
    targets = list_targets(full_size, "all+ffs+references", sets=ADAPTER_TARGETS)
    state = {f"transformer.{target}.lora_A.weight": torch.zeros(1, 1) for target in targets}
    assert Flux3ModularPipeline.lora_state_dict(dict(state)) == state


def test_the_library_reads_the_names_of_the_makers(full_size: nn.Module) -> None:
    targets = list_targets(full_size, "all+ffs+references", sets=ADAPTER_TARGETS)
    originals = {}
    for target in targets:
        match = find_module(PAIRINGS, target)
        assert match is not None and match.modules == (target,)
        originals[f"diffusion_model.{match.original}.lora_A.weight"] = torch.zeros(1, 1)
    read = Flux3ModularPipeline.lora_state_dict(originals)
    assert list(read) == [f"transformer.{target}.lora_A.weight" for target in targets]

