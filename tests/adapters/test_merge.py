"""Adapters added up, into one adapter or into their model: what comes out is the sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.merge import build_cut, build_merged_adapter, build_merged_weights, check_base
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.tensors import Entry, build_entry, open_weights

Draw = Callable[..., dict[str, Factors]]


def _open(network: nn.Module) -> dict[str, Entry]:
    return {name: build_entry(tensor.detach()) for name, tensor in network.state_dict().items()}


def test_the_sum_of_adapters(load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    """Different layers, ranks and alphas; a negative weight too. Ranks add up."""
    network = load_network()
    names = list_targets(network, ["attn.to_q", "ff.net.2"], sets={})
    first = draw_factors(network, names, ranks=(2, 3), alphas=(5.0,))
    second = draw_factors(network, [*names[1:], "x_embedder"], ranks=(4,), alphas=(1.0,), seed=1)
    merged = build_merged_adapter([(first, 0.5), (second, -1.25)])
    assert set(merged) == {*names, "x_embedder"}
    for name, factors in merged.items():
        parts = [(one[name], weight) for one, weight in ((first, 0.5), (second, -1.25)) if name in one]
        assert factors.rank == sum(part.rank for part, _ in parts)
        expected = sum((weight * part.build_delta() for part, weight in parts), torch.zeros(()))
        assert torch.allclose(factors.build_delta(), expected, atol=1e-6)


def test_one_adapter_alone_keeps_its_factors(load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    drawn = draw_factors(load_network(), ["x_embedder"], ranks=(3,), alphas=(3.0,))
    merged = build_merged_adapter([(drawn, 1.0)])["x_embedder"]
    assert torch.equal(merged.down, drawn["x_embedder"].down)
    assert torch.equal(merged.up, drawn["x_embedder"].up)


def test_cutting_to_a_rank_is_the_best_there_is(load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    first, second = (draw_factors(network, ["x_embedder"], ranks=(3,), alphas=(5.0,), seed=seed) for seed in (0, 1))
    cut = build_merged_adapter([(first, 1.0), (second, 1.0)], rank=4)["x_embedder"]
    whole = build_merged_adapter([(first, 1.0), (second, 1.0)])["x_embedder"].build_delta()
    left, values, right = torch.linalg.svd(whole.double(), full_matrices=False)
    best = left[:, :4] * values[:4] @ right[:4]
    assert cut.rank == 4
    assert torch.allclose(cut.build_delta().double(), best, atol=1e-5)
    assert torch.linalg.norm(whole - cut.build_delta()) > 0.1


def test_cutting_loses_nothing_where_there_is_nothing_to_lose() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(2, 9, generator=generator), torch.randn(7, 2, generator=generator), 3.0)
    doubled = build_merged_adapter([({"m": factors}, 0.5), ({"m": factors}, 0.5)])["m"]
    assert doubled.rank == 4
    assert torch.allclose(build_cut(doubled, 2).build_delta(), factors.build_delta(), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (5, 9), (9, 5), (1, 7)])
@pytest.mark.parametrize("rank", [4, 6, 11])
def test_cutting_to_a_rank_above_the_smaller_side(shape: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(6, shape[1], generator=generator), torch.randn(shape[0], 6, generator=generator), 3.0)
    merged = build_merged_adapter([({"m": factors}, 0.5), ({"m": factors}, 0.5)], rank=rank)["m"]
    assert merged.rank == merged.alpha == min(rank, *shape)
    assert rank < min(shape) or torch.allclose(merged.build_delta(), factors.build_delta(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dora", [False, True])
def test_the_model_with_an_adapter_in_it(
    dtype: torch.dtype, dora: bool, load_network: Callable[..., nn.Module], draw_factors: Draw
) -> None:
    network = load_network(dtype)
    modules = draw_factors(network, list_targets(network, ["attn.*", "proj_out"], sets={}), ranks=(2, 3), alphas=(5.0,), dora=dora)
    base = _open(network)
    merged = build_merged_weights(base, [(modules, 1.0)])
    assert list(merged) == list(base)
    for name, entry in merged.items():
        tensor, before = entry.read(), base[name].read()
        assert (tuple(tensor.shape), tensor.dtype) == (entry.shape, entry.dtype) == (base[name].shape, dtype)
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in modules:
            assert torch.allclose(tensor, modules[module].build_weight(before.float()).to(dtype), rtol=torch.finfo(dtype).eps)
            assert not torch.equal(tensor, before)
        else:
            assert tensor is before
    fresh = load_network(dtype).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in network.state_dict().items()), "the model itself is as it was"


def test_weights_and_several_adapters(load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    """Each changes the model as it was before, so that their order does not matter; a DoRA too."""
    network = load_network()
    lora, dora = draw_factors(network, ["x_embedder"], ranks=(3,)), draw_factors(network, ["x_embedder"], dora=True, seed=1)
    base = network.x_embedder.weight.detach()
    changes = [one["x_embedder"].build_weight(base) - base for one in (lora, dora)]
    for order in (1, -1):
        adapters = [(lora, 0.5), (dora, -0.75)][::order]
        merged = build_merged_weights(_open(network), adapters)["x_embedder.weight"].read()
        assert torch.allclose(merged, base + 0.5 * changes[0] - 0.75 * changes[1], atol=1e-6)


def test_the_merged_model_predicts_what_the_adapted_one_does(
    load_network: Callable[[], nn.Module],
    draw_factors: Draw,
    apply_factors: Callable[..., nn.Module],
    predict: Callable[[nn.Module], Tensor],
) -> None:
    network = load_network()
    modules = draw_factors(network, list_targets(network, ["*"], sets={}), ranks=(1, 2), alphas=(3.0,))
    merged = {name: entry.read() for name, entry in build_merged_weights(_open(network), [(modules, 1.0)]).items()}
    network.load_state_dict(merged, strict=True)
    with torch.no_grad():
        assert torch.allclose(predict(network), predict(apply_factors(load_network(), modules)), atol=1e-5)


def test_nothing_is_read_before_it_is_asked_for(tiny_model: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    def read() -> Tensor:
        raise AssertionError("a tensor was read")

    network = load_network()
    base = open_weights([next((tiny_model / "transformer").glob("*.safetensors"))])
    unread = {name: Entry(entry.shape, entry.dtype, read) for name, entry in base.items()}
    modules = draw_factors(network, list_targets(network, ["*"], sets={}))
    assert set(build_merged_weights(unread, [(modules, 1.0)])) == set(base)
    check_base(unread, iter(modules))


def test_what_cannot_be_merged(load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    base, modules = _open(network), draw_factors(network, ["x_embedder"])
    narrow = {"x_embedder": Factors(torch.ones(2, 8), torch.ones(32, 2), 2.0)}
    stranger = {"stranger": modules["x_embedder"]}
    packed = base | {"x_embedder.weight": build_entry(base["x_embedder.weight"].read().to(torch.float8_e4m3fn))}
    for message, offered, model in (
        ("got: x_embedder.weight [32, 8]\n  expected: x_embedder.weight [32, 64]", narrow, base),
        ("stranger, which the model does not have", stranger, base),
        ("not merged into quantized weights", modules, packed),
    ):
        with pytest.raises(AdapterError) as caught:
            build_merged_weights(model, [(offered, 1.0)])
        assert message in str(caught.value)
    scaled = base | {"proj_out.weight": replace(base["proj_out.weight"], is_quantized=True)}
    for message, name, model in (
        ("stranger, which the model does not have", "stranger", base),
        ("not merged into quantized", "x_embedder", packed),
        ("proj_out.weight in fp8 with a scale", "x_embedder", scaled),
    ):
        with pytest.raises(AdapterError, match=message):
            check_base(model, iter(["context_embedder", name]))
    dora = draw_factors(network, ["x_embedder"], dora=True)
    with pytest.raises(AdapterError, match="A DoRA cannot be merged with other adapters"):
        build_merged_adapter([(dora, 1.0)])
    with pytest.raises(AdapterError, match="The adapters are for different models"):
        build_merged_adapter([(modules, 1.0), (narrow, 1.0)])
