"""The target sets on the real FLUX.1: how many linear layers each one means, counted by hand, and which."""

from __future__ import annotations

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1.keys import ADAPTER_TARGETS

NUM_DOUBLE, NUM_SINGLE = 19, 38
ALL = NUM_DOUBLE * (4 + 4) + NUM_SINGLE * 3  # q k v out, for pictures and for text; q k v
ALL_FFS = ALL + NUM_DOUBLE * (2 + 2) + NUM_SINGLE * 2 + 1  # two of each feed-forward; proj_mlp, proj_out; the network's own proj_out
NUM_LAYERS = {
    "all": ALL,
    "context": NUM_DOUBLE * 4,
    "context+ffs": NUM_DOUBLE * (4 + 2),
    "blocks": ALL_FFS - 1,
    "all+ffs": ALL_FFS,
    "all+ffs+embedder": ALL_FFS + 1,
    "all+ffs+modulation": ALL_FFS + NUM_DOUBLE * 2 + NUM_SINGLE,
    "ai-toolkit": ALL_FFS - 1 + NUM_DOUBLE * 2 + NUM_SINGLE,  # its own code, run on this network, trains these
    "mmdit": NUM_DOUBLE * (8 + 4),
    "tiny": 2,
    "nano": 1,
}
REFUSED = {"controlnet", "all+ffs+embedder+controlnet"}


@pytest.fixture(scope="module", params=["dev", "schnell", "fill"])
def full_size(request: pytest.FixtureRequest) -> nn.Module:
    """FLUX.1 without weights."""
    with torch.device("meta"):
        return FluxTransformer2DModel(
            guidance_embeds=request.param != "schnell", in_channels=384 if request.param == "fill" else 64, out_channels=64
        )


def test_every_set_is_counted_here() -> None:
    assert set(ADAPTER_TARGETS) == set(NUM_LAYERS) | REFUSED


def test_the_counts() -> None:
    assert NUM_LAYERS == {
        "all": 266,
        "context": 76,
        "context+ffs": 114,
        "blocks": 418,
        "all+ffs": 419,
        "all+ffs+embedder": 420,
        "all+ffs+modulation": 495,
        "ai-toolkit": 494,
        "mmdit": 228,
        "tiny": 2,
        "nano": 1,
    }


@pytest.mark.parametrize("name", NUM_LAYERS)
def test_layers_of_a_set_at_full_size(full_size: nn.Module, name: str) -> None:
    targets = list_targets(full_size, name, sets=ADAPTER_TARGETS)
    assert len(targets) == len(set(targets)) == NUM_LAYERS[name]
    assert all(isinstance(full_size.get_submodule(target), nn.Linear) for target in targets)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_controlnet_sets_are_refused(full_size: nn.Module, name: str) -> None:
    with pytest.raises(AdapterError) as caught:
        list_targets(full_size, name, sets=ADAPTER_TARGETS)
    message = str(caught.value)
    assert name in message
    assert "controlnet_x_embedder" in message
    assert "weber variants" in message


def test_layers_of_one_block_of_each_kind(full_size: nn.Module) -> None:
    by_set = {name: set(list_targets(full_size, name, sets=ADAPTER_TARGETS)) for name in NUM_LAYERS}
    attention = {f"transformer_blocks.3.attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")}
    context = {f"transformer_blocks.3.attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")}
    feed_forward = {f"transformer_blocks.3.ff.net.{name}" for name in ("0.proj", "2")}
    context_feed_forward = {f"transformer_blocks.3.ff_context.net.{name}" for name in ("0.proj", "2")}
    modulation = {"transformer_blocks.3.norm1.linear", "transformer_blocks.3.norm1_context.linear"}
    double = {name: {target for target in targets if target.startswith("transformer_blocks.3.")} for name, targets in by_set.items()}
    assert double == {
        "all": attention | context,
        "context": context,
        "context+ffs": context | context_feed_forward,
        "blocks": attention | context | feed_forward | context_feed_forward,
        "all+ffs": attention | context | feed_forward | context_feed_forward,
        "all+ffs+embedder": attention | context | feed_forward | context_feed_forward,
        "all+ffs+modulation": attention | context | feed_forward | context_feed_forward | modulation,
        "ai-toolkit": attention | context | feed_forward | context_feed_forward | modulation,
        "mmdit": attention | context | feed_forward | context_feed_forward,
        "tiny": set(),
        "nano": set(),
    }
    single = "single_transformer_blocks.7."
    assert {target for target in by_set["ai-toolkit"] if target.startswith(single)} == {
        single + name for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out", "norm.linear")
    }
    assert not any(target.startswith("single") for target in by_set["mmdit"])
    assert by_set["all+ffs+modulation"] - by_set["ai-toolkit"] == {"proj_out"}
    assert by_set["ai-toolkit"] < by_set["all+ffs+modulation"]
    assert all("transformer_blocks." in target for target in by_set["ai-toolkit"])
    assert by_set["all+ffs+embedder"] - by_set["all+ffs"] == {"x_embedder"}
    assert by_set["all+ffs"] - by_set["blocks"] == {"proj_out"}
    assert by_set["tiny"] == {"single_transformer_blocks.7.proj_out", "single_transformer_blocks.20.proj_out"}

