"""A transformer in a single file of the makers: names, settings and weights are those that the library would read."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from diffusers import Flux3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux3_transformer_checkpoint_to_diffusers
from torch import Tensor

from weber.families.flux3.keys import PAIRINGS
from weber.families.flux3.original import TRANSFORMER, is_flux3
from weber.families.pairing import build_original_weights
from weber.families.tensors import Entry, build_entry, open_weights, save_weights

CHANGES = [{}, {"flow_map": True}, {"cond_in_channels": 64, "mlp_ratio": 2.0, "num_layers": 2, "num_single_layers": 3}]


def _build(**changes: object) -> Flux3Transformer2DModel:
    settings = {"num_layers": 1, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 64}
    settings |= {"timestep_channels": 32, "axes_dims_rope": (4, 4, 4, 4)}
    return Flux3Transformer2DModel(**settings | changes)


def _build_original(model: Flux3Transformer2DModel) -> dict[str, Entry]:
    return build_original_weights({name: build_entry(tensor) for name, tensor in model.state_dict().items()}, PAIRINGS)


def _read(weights: dict[str, Entry]) -> dict[str, Tensor]:
    return {name: entry.read() for name, entry in weights.items()}


@pytest.mark.parametrize("changes", CHANGES)
def test_a_file_of_the_makers_comes_back_equal(tmp_path: Path, changes: dict[str, object]) -> None:
    model = _build(**changes)
    extra = {"repa_projectors.0.weight": build_entry(torch.zeros(3))}
    save_weights(tmp_path / "model.safetensors", _build_original(model) | extra, metadata={})
    opened = open_weights([tmp_path / "model.safetensors"])
    weights, unknown = TRANSFORMER.convert(opened)
    assert unknown == ["repa_projectors.0.weight"]
    assert all(any(fnmatch(name, pattern) for pattern in TRANSFORMER.extras) for name in unknown)
    assert is_flux3(opened)
    assert set(weights) == set(model.state_dict())
    assert all(torch.equal(weights[name].read(), tensor) for name, tensor in model.state_dict().items())
    config = TRANSFORMER.build_config(opened)
    assert {name: model.config[name] for name in config} == config | {"axes_dims_rope": tuple(config["axes_dims_rope"])}
    rebuilt = Flux3Transformer2DModel.from_config(config)
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("changes", CHANGES)
def test_the_library_converts_our_file_to_the_same(changes: dict[str, object]) -> None:
    model = _build(**changes)
    converted = convert_flux3_transformer_checkpoint_to_diffusers(_read(_build_original(model)))
    assert set(converted) == set(model.state_dict())
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("is_flow_map", [False, True])
def test_every_tensor_has_its_name_at_full_size(is_flow_map: bool) -> None:
    with torch.device("meta"):
        model = Flux3Transformer2DModel(flow_map=is_flow_map)
    originals = _build_original(model)
    assert len(originals) == len(model.state_dict()) == 8 * (3 * 5 + 28) + 15 + 2 * is_flow_map - 2
    assert TRANSFORMER.build_config(originals) == {
        "in_channels": 128,
        "cond_in_channels": 128,
        "num_layers": 5,
        "num_single_layers": 28,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 20480,
        "timestep_channels": 256,
        "mlp_ratio": 3.0,
        "axes_dims_rope": [32, 32, 32, 32],
        "flow_map": is_flow_map,
    }
