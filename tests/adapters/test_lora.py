"""Adapters on a frozen network: fp32, drawn by seed alone, without effect at the start, of any strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile
from weber.adapters.lora import (
    add_frozen,
    build_lora,
    list_factors,
    list_parameters,
    load_adapter_onto,
    load_factors,
    write_frozen_strength,
    write_strength,
)
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

Load = Callable[..., nn.Module]
Put = Callable[..., list[tuple[str, nn.Parameter]]]
Predict = Callable[[nn.Module], Tensor]
Apply = Callable[[nn.Module, Mapping[str, Factors]], nn.Module]
CONFIG = AdapterConfig(rank=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_fp32_and_the_base_is_frozen_as_it_was(load_network: Load, put_adapter: Put, dtype: torch.dtype) -> None:
    network = load_network(dtype)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    parameters = put_adapter(network, CONFIG)
    learning = {name for name, _ in parameters}
    assert len(parameters) == 2 * (8 + 4 + 2 * 5)  # `blocks`: one double and two single ones
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
    factors = list_factors(network)["transformer_blocks.0.attn.to_q"]
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(layer(x), layer.base_layer(x) + 2 / 3 * x @ factors.down.T @ factors.up.T, atol=1e-6)
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


def _copy(modules: dict[str, Factors]) -> dict[str, Factors]:
    return {name: Factors(one.down.clone(), one.up.clone(), one.alpha) for name, one in modules.items()}


def test_weights_travel(load_network: Load, put_adapter: Put, predict: Predict) -> None:
    first, second = load_network(), load_network()
    put_adapter(first, AdapterConfig(rank=4, alpha=3.0), random_b=True)
    put_adapter(second, AdapterConfig(rank=4, alpha=3.0), seed=9)
    load_factors(second, _copy(list_factors(first)))
    assert all(parameter.requires_grad for _, parameter in list_parameters(second))
    with torch.no_grad():
        assert torch.equal(predict(second), predict(first))


def test_factors_are_the_adapters_own(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    parameters = dict(put_adapter(network, AdapterConfig(rank=2, alpha=5.0, targets=["single_transformer_blocks.1.proj_mlp"])))
    (name, factors), = list_factors(network).items()
    assert name == "single_transformer_blocks.1.proj_mlp"
    assert (tuple(factors.down.shape), tuple(factors.up.shape), factors.alpha) == ((2, 32), (128, 2), 5.0)
    assert not factors.down.requires_grad and not factors.up.requires_grad
    assert {one.data_ptr() for one in parameters.values()} == {factors.down.data_ptr(), factors.up.data_ptr()}


def test_only_the_layers_that_are_named_get_an_adapter(load_network: Load) -> None:
    """`proj_out` is also the end of other layers' names."""
    network = load_network()
    build_lora(network, CONFIG, modules=["proj_out"], seed=0)
    assert list(list_factors(network)) == ["proj_out"]


def test_weights_that_do_not_fit_are_refused(load_network: Load, put_adapter: Put) -> None:
    network = load_network()
    put_adapter(network, CONFIG)
    before = _copy(list_factors(network))
    name = "transformer_blocks.0.attn.to_q"
    wrong = {
        f"{name} with inputs 32, outputs 32, rank 8, alpha 4": before | {name: Factors(torch.ones(8, 32), torch.ones(32, 8), 4.0)},
        f"{name} with inputs 32, outputs 32, rank 4, alpha 6": before | {name: Factors(torch.ones(4, 32), torch.ones(32, 4), 6.0)},
        f"{name} with nothing": {other: factors for other, factors in before.items() if other != name},
        "stranger with inputs 4, outputs 4, rank 4, alpha 4": before | {"stranger": Factors(torch.ones(4, 4), torch.ones(4, 4), 4.0)},
    }
    for text, offered in wrong.items():
        with pytest.raises(AdapterError) as caught:
            load_factors(network, offered)
        message = str(caught.value)
        assert text in message
        assert f"got: {len(offered)} layers" in message
        assert "fix: use the rank, alpha and targets that the adapter was made with" in message
    assert all(torch.equal(now.down, before[other].down) for other, now in list_factors(network).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_to_paint_with(
    dtype: torch.dtype, load_network: Load, draw_factors: Callable[..., dict[str, Factors]], apply_factors: Apply, predict: Predict
) -> None:
    """Every layer with its own rank and alpha; layers whose names end alike are told apart."""
    network = load_network(dtype)
    names = ["proj_out", "single_transformer_blocks.1.proj_out", "x_embedder", "transformer_blocks.0.ff.net.2"]
    modules = draw_factors(network, names, ranks=(1, 3, 2), alphas=(0.5, 7.0))
    load_adapter_onto(network, AdapterFile("diffusers", modules, {}, {}))
    assert set(list_factors(network)) == set(names)
    for name, factors in list_factors(network).items():
        assert factors.down.dtype == torch.float32
        assert torch.equal(factors.build_delta(), modules[name].build_delta())
    if dtype == torch.float32:
        with torch.no_grad():
            assert torch.allclose(predict(network), predict(apply_factors(load_network(), modules)), atol=1e-5)
            write_strength(network, 0.0)
            assert torch.equal(predict(network), predict(load_network()))


def _put_file(network: nn.Module, modules: dict[str, Factors]) -> None:
    load_adapter_onto(network, AdapterFile("diffusers", modules, {}, {}))


def _put_frozen(network: nn.Module, modules: dict[str, Factors]) -> None:
    add_frozen(network, modules, name="assistant", strength=1.0)


@pytest.mark.parametrize("put", [_put_file, _put_frozen])
def test_files_for_other_models_are_refused(
    put: Callable[[nn.Module, dict[str, Factors]], None], load_network: Load, draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    fine = draw_factors(network, ["x_embedder"])
    wrong = {
        "stranger.to_q is no linear layer of it": fine | {"stranger.to_q": fine["x_embedder"]},
        "x_embedder (32, 64)": {"x_embedder": Factors(torch.ones(2, 384), torch.ones(32, 2), 2.0)},
        "no layers": {},
    }
    wrong |= {"is a DoRA": draw_factors(network, ["x_embedder"], dora=True)} if put is _put_frozen else {}
    before = set(network.state_dict())
    for text, modules in wrong.items():
        with pytest.raises(AdapterError) as caught:
            put(network, modules)
        assert text in str(caught.value)
    assert set(network.state_dict()) == before, "nothing was put on the model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_assistant(
    is_first: bool,
    dtype: torch.dtype,
    load_network: Load,
    draw_factors: Callable[..., dict[str, Factors]],
    predict: Predict,
) -> None:
    """Beside the adapter or before it, on layers of its own choice: it takes part, learns nothing, and goes without a trace."""
    network, alone = load_network(dtype), load_network(dtype)
    modules = draw_factors(network, list_targets(network, ["transformer_blocks.*", "x_embedder"], sets={}), ranks=(3, 1), alphas=(2.0,))
    names = list_targets(network, ["attn.to_q", "single_transformer_blocks.*.proj_out"], sets={})
    if is_first:
        add_frozen(network, modules, name="assistant", strength=1.0)
    for one in (network, alone):
        for number, (name, parameter) in enumerate(build_lora(one, CONFIG, modules=names, seed=0)):
            if "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    if not is_first:
        add_frozen(network, modules, name="assistant", strength=1.0)
    assert [name for name, _ in list_parameters(network)] == [name for name, _ in list_parameters(alone)]
    assert set(list_factors(network)) == set(list_factors(alone))
    with torch.no_grad():
        base, trained, both = predict(load_network(dtype)), predict(alone), predict(network)
        assert (both - trained).abs().max() > 0.05
        write_strength(network, 0.0)
        assisted = predict(network)
        assert not torch.equal(assisted, base), "the adapter's strength is not the assistant's"
        write_strength(network, 1.0)
        write_frozen_strength(network, 0.5, name="assistant")
        assert not torch.equal(predict(network), both)
        write_frozen_strength(network, 0.0, name="assistant")
        assert torch.equal(predict(network), trained)
        write_strength(network, 0.0)
        assert torch.equal(predict(network), base)
        write_frozen_strength(network, 1.0, name="assistant")
        assert torch.equal(predict(network), assisted)
        write_strength(network, 1.0)
        assert torch.equal(predict(network), both)


def test_the_assistant_is_what_its_factors_say(
    load_network: Load, draw_factors: Callable[..., dict[str, Factors]], apply_factors: Apply, predict: Predict
) -> None:
    network = load_network()
    modules = draw_factors(network, ["x_embedder", "single_transformer_blocks.0.attn.to_v", "proj_out"], ranks=(1, 4), alphas=(2.0, 6.0))
    add_frozen(network, modules, name="assistant", strength=1.0)
    assert list_parameters(network) == []
    with torch.no_grad():
        assert torch.allclose(predict(network), predict(apply_factors(load_network(), modules)), atol=1e-5)


def test_gradients_pass_through_the_assistant(
    load_network: Load, put_adapter: Put, draw_factors: Callable[..., dict[str, Factors]], predict: Predict
) -> None:
    network = load_network()
    parameters = put_adapter(network, AdapterConfig(rank=4, targets=["x_embedder"]), random_b=True)
    add_frozen(network, draw_factors(network, ["proj_out", "x_embedder"]), name="assistant", strength=1.0)
    predict(network).square().mean().backward()
    with_assistant = [parameter.grad.clone() for _, parameter in parameters if parameter.grad is not None]
    assert len(with_assistant) == 2 and all(grad.abs().max() > 0 for grad in with_assistant)
    assert all(parameter.grad is None for name, parameter in network.named_parameters() if "assistant" in name)
    write_frozen_strength(network, 0.0, name="assistant")
    network.zero_grad()
    predict(network).square().mean().backward()
    assert not torch.equal(with_assistant[0], parameters[0][1].grad)


def test_the_global_random_state_is_left_alone_by_files(load_network: Load, draw_factors: Callable[..., dict[str, Factors]]) -> None:
    network = load_network()
    before = torch.get_rng_state()
    add_frozen(network, draw_factors(network, ["x_embedder"]), name="assistant", strength=1.0)
    assert torch.equal(torch.get_rng_state(), before)
