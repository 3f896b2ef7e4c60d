"""Adapters on a frozen network: fp32, drawn by seed alone, without effect at the start, of any strength."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from weber.adapters.lora import list_parameters, list_tensors, load_tensors, write_strength
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

Load = Callable[..., nn.Module]
Put = Callable[..., list[tuple[str, nn.Parameter]]]
Predict = Callable[[nn.Module], Tensor]
CONFIG = AdapterConfig(rank=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_fp32_and_the_base_is_frozen_as_it_was(load_network: Load, put_adapter: Put, dtype: torch.dtype) -> None:
    network = load_network(dtype)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    parameters = put_adapter(network, CONFIG)
    learning = {name for name, _ in parameters}
    assert len(parameters) == 2 * (8 + 4 + 2 * 5 + 1)  # `all+ffs` on one double and two single blocks, and proj_out
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for _, parameter in parameters)
    assert all(".lora_A." in name or ".lora_B." in name for name in learning)
    base = {name.replace(".base_layer", ""): parameter for name, parameter in network.named_parameters() if name not in learning}
    assert set(base) == set(before)
    for name, parameter in base.items():
        assert not parameter.requires_grad
        assert parameter.dtype == dtype
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_effect_at_the_start(load_network: Load, put_adapter: Put, predict: Predict, dtype: torch.dtype) -> None:
    network = load_network(dtype)
    with torch.no_grad():
        before = predict(network)
        parameters = put_adapter(network, CONFIG)
        assert torch.equal(predict(network), before)
    assert all(parameter.abs().max() == 0 for name, parameter in parameters if "lora_B" in name)
    assert all(parameter.std() > 0.01 for name, parameter in parameters if "lora_A" in name)


def test_the_seed_alone_decides(load_network: Load, put_adapter: Put) -> None:
    starts = []
    for seed, disturbance in ((1, 10), (1, 20), (2, 10)):
        torch.manual_seed(disturbance)
        starts.append(torch.cat([parameter.flatten() for _, parameter in put_adapter(load_network(), CONFIG, seed=seed)]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_the_global_random_state_is_left_alone(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    before = torch.get_rng_state()
    put_adapter(network, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength(load_network: Load, put_adapter: Put, predict: Predict, dtype: torch.dtype) -> None:
    network = load_network(dtype)
    with torch.no_grad():
        base = predict(network)
        put_adapter(network, AdapterConfig(rank=4, alpha=6.0), random_b=True)
        trained = predict(network)
        assert (trained - base).abs().max() > 0.05
        write_strength(network, 0.0)
        assert torch.equal(predict(network), base)
        write_strength(network, 0.5)
        half = predict(network)
        assert not torch.equal(half, base)
        assert not torch.equal(half, trained)
        write_strength(network, 1.0)
        assert torch.equal(predict(network), trained)


def test_alpha_scales_what_the_adapters_add(load_network: Load, put_adapter: Put, predict: Predict) -> None:
    """Doubling alpha is doubling B."""
    doubled_alpha, doubled_b = load_network(), load_network()
    put_adapter(doubled_alpha, AdapterConfig(rank=4, alpha=8.0), random_b=True)
    for name, parameter in put_adapter(doubled_b, AdapterConfig(rank=4), random_b=True):
        if "lora_B" in name:
            parameter.data *= 2
    with torch.no_grad():
        assert torch.allclose(predict(doubled_alpha), predict(doubled_b), atol=1e-5)


def test_an_adapter_adds_b_a_x(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    put_adapter(network, AdapterConfig(rank=3, alpha=2.0, targets=["transformer_blocks.0.attn.to_q"]), random_b=True)
    layer = network.get_submodule("transformer_blocks.0.attn.to_q")
    tensors = list_tensors(network)
    a, b = (tensors[f"transformer_blocks.0.attn.to_q.lora_{which}.weight"] for which in "AB")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(layer(x), layer.base_layer(x) + 2 / 3 * x @ a.T @ b.T, atol=1e-6)
    assert len(list_parameters(network)) == 2


def test_gradients_reach_every_adapter(load_network: Load, put_adapter: Put, predict: Predict) -> None:
    network = load_network(torch.bfloat16)
    parameters = put_adapter(network, CONFIG, random_b=True)
    predict(network).float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for _, parameter in parameters)
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for _, parameter in parameters)


def test_dropout_acts_in_training_only(load_network: Load, put_adapter: Put, predict: Predict) -> None:
    network = load_network()
    put_adapter(network, AdapterConfig(rank=4, dropout=0.5), random_b=True)
    with torch.no_grad():
        assert torch.equal(predict(network.eval()), predict(network))
        assert not torch.equal(predict(network.train()), predict(network))


def test_weights_travel(load_network: Load, put_adapter: Put, predict: Predict) -> None:
    first, second = load_network(), load_network()
    put_adapter(first, CONFIG, random_b=True)
    put_adapter(second, CONFIG, seed=9)
    load_tensors(second, {name: tensor.clone() for name, tensor in list_tensors(first).items()})
    assert all(parameter.requires_grad for _, parameter in list_parameters(second))
    with torch.no_grad():
        assert torch.equal(predict(second), predict(first))


def test_names_of_tensors(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    put_adapter(network, AdapterConfig(rank=2, targets=["single_transformer_blocks.1.proj_mlp"]))
    shapes = {name: tuple(tensor.shape) for name, tensor in list_tensors(network).items()}
    prefix = "single_transformer_blocks.1.proj_mlp"
    assert shapes == {f"{prefix}.lora_A.weight": (2, 32), f"{prefix}.lora_B.weight": (128, 2)}
    assert not any(tensor.requires_grad for tensor in list_tensors(network).values())


def test_weights_that_do_not_fit_are_refused(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    put_adapter(network, CONFIG)
    tensors = {name: tensor.clone() for name, tensor in list_tensors(network).items()}
    name = "transformer_blocks.0.attn.to_q.lora_A.weight"
    wrong = {
        "shape (8, 32)": tensors | {name: torch.ones(8, 32)},
        "missing": {other: tensor for other, tensor in tensors.items() if other != name},
        "shape (4, 4)": tensors | {"stranger.lora_A.weight": torch.ones(4, 4)},
    }
    for text, offered in wrong.items():
        with pytest.raises(AdapterError) as caught:
            load_tensors(network, offered)
        message = str(caught.value)
        assert text in message
        assert f"got: {len(offered)} tensors" in message
        assert "fix: use the rank and targets that the adapter was made with" in message
    assert all(torch.equal(tensor, tensors[other]) for other, tensor in list_tensors(network).items())
