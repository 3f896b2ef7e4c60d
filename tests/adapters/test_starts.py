"""Starts against PEFT's own, on the same weights; and the model stays as it is."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from weber.adapters.lora import build_lora, list_factors, list_starts, load_factors, write_strength
from weber.adapters.starts import write_input_start, write_shifted_start
from weber.config.adapter import AdapterConfig

NAMES = ["0", "2"]


def _build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 12)).requires_grad_(False)


def _put(model: nn.Module, **settings: object) -> None:
    config = AdapterConfig.model_validate({"rank": 4, "alpha": 6.0, "targets": NAMES, **settings})
    build_lora(model, config, modules=NAMES, seed=0)


def _read_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: model.get_submodule(name).weight.detach().clone() for name in NAMES}


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_start_is_pefts_and_the_model_stays(init: str) -> None:
    theirs, ours, plain = _build_model(), _build_model(), _build_model()
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=6, target_modules=NAMES, init_lora_weights=init), theirs)
    weights = _read_weights(ours)
    _put(ours, init=init)
    write_shifted_start(ours, init, read=lambda name: (weights[name], weights[name]))
    for name, (own, taken) in list_starts(ours).items():
        layer = theirs.get_submodule(name)
        expected = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert torch.allclose(own.build_delta(), expected, atol=1e-5)
        assert taken is not None and torch.equal(taken.down, own.down) and torch.equal(taken.up, own.up)
    x = torch.randn(5, 24)
    with torch.no_grad():
        assert torch.allclose(ours(x), plain(x), atol=1e-5)
        for factors in list_factors(ours).values():
            assert factors.rank == 8
            assert torch.allclose(factors.build_delta(), torch.zeros(()), atol=1e-5)


def test_a_rank_above_the_layers() -> None:
    """The directions that there are, and the rest as drawn."""
    model = _build_model()
    weights = _read_weights(model)
    _put(model, init="pissa", rank=30)
    drawn = {name: own.down.clone() for name, (own, _) in list_starts(model).items()}
    write_shifted_start(model, "pissa", read=lambda name: (weights[name], weights[name]))
    own, _ = list_starts(model)["2"]
    assert torch.allclose(own.build_delta(), weights["2"], atol=1e-5)
    assert torch.equal(own.down[12:], drawn["2"][12:]) and not own.up[:, 12:].any()


def test_loftq_gives_back_what_quantization_took() -> None:
    model, x = _build_model(), torch.randn(5, 24)
    originals = _read_weights(model)
    for name in NAMES:
        weight = model.get_submodule(name).weight
        weight.data = (weight * 8).round() / 8
    rough = _read_weights(model)
    with torch.no_grad():
        quantized = model(x)
        _put(model, init="loftq")
        write_shifted_start(model, "loftq", read=lambda name: (originals[name], rough[name]))
        exact, started = _build_model()(x), model(x)
        assert (started - exact).norm() < 0.8 * (quantized - exact).norm()
        for strength in (0.0, 0.5):
            write_strength(model, strength)
            assert torch.allclose(model(x), started, atol=1e-5), "without what was learned it is what training started with"
        write_strength(model, 1.0)
    for name, (own, _) in list_starts(model).items():
        values = torch.linalg.svdvals(originals[name] - rough[name])
        left = torch.linalg.svdvals(originals[name] - rough[name] - own.build_delta())
        assert torch.allclose(left[0], values[4], atol=1e-5)
    for factors in list_factors(model).values():
        assert torch.allclose(factors.build_delta(), torch.zeros(()), atol=1e-6), "the file says that nothing was learned"


def test_a_layer_that_lost_nothing_starts_plainly() -> None:
    model = _build_model()
    weights = _read_weights(model)
    _put(model, init="loftq")
    before = {name: own.down.clone() for name, (own, _) in list_starts(model).items()}
    write_shifted_start(model, "loftq", read=lambda name: (weights[name], weights[name]))
    assert all(torch.equal(own.down, before[name]) and not own.up.any() for name, (own, _) in list_starts(model).items())


@pytest.mark.parametrize("init", ["pissa", "loftq"])
def test_the_file_holds_both_parts(init: str) -> None:
    """What was trained and what was taken away are apart again, bit for bit."""
    first, second = _build_model(), _build_model()
    for number, model in enumerate((first, second)):
        _put(model, init=init)
        generator = torch.Generator().manual_seed(number)
        for own, taken in list_starts(model).values():
            for tensor in (own.down, own.up, *(() if taken is None else (taken.down, taken.up))):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    load_factors(second, list_factors(first))
    x = torch.randn(5, 24)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))
        for model in (first, second):
            write_strength(model, 0.5)
        assert torch.equal(first(x), second(x))
        write_strength(first, 0.0)
        assert torch.equal(first(x), _build_model()(x)) == (init == "pissa"), "loftq gives back what quantization took"


def test_orthogonal_parts_have_nothing_in_common() -> None:
    model = _build_model()
    _put(model, init="orthogonal")
    for own, taken in list_starts(model).values():
        assert taken is None and own.down.any() and own.up.any()
        assert torch.allclose(own.build_delta(), torch.zeros(()), atol=1e-5)
        assert torch.linalg.matrix_rank(own.down) == 4 // 2


def test_gaussian_has_pefts_spread() -> None:
    model = _build_model()
    _put(model, init="gaussian", rank=8)
    own, _ = list_starts(model)["0"]
    assert own.down.std() == pytest.approx(1 / 8, rel=0.2) and not own.up.any()


@pytest.mark.parametrize("num_rows", [3, 64])
def test_eva_finds_the_main_directions_of_the_inputs(num_rows: int) -> None:
    """Of what was seen in all passes, without its mean, as PEFT has it; fewer rows than the rank leave the rest as drawn."""
    model = _build_model()
    _put(model, init="eva")
    before = list_starts(model)["0"][0].down.clone()
    torch.manual_seed(1)
    basis = torch.linalg.qr(torch.randn(24, 4))[0]
    seen = [torch.randn(num_rows, 4) * torch.tensor([8.0, 4.0, 2.0, 1.0]) @ basis.T for _ in range(3 if num_rows > 3 else 1)]

    def run() -> object:
        for x in seen:
            yield model(x)

    write_input_start(model, run())
    own = list_starts(model)["0"][0]
    assert not own.up.any()
    if num_rows > 3:
        centered = torch.cat(seen) - torch.cat(seen).mean(dim=0)
        expected = torch.linalg.svd(centered)[2][:4]
        assert torch.allclose((own.down @ expected.T).abs(), torch.eye(4), atol=1e-2)
    else:
        assert torch.equal(own.down[3:], before[3:]) and not torch.equal(own.down[:2], before[:2])
    assert torch.allclose((own.down[:2] @ own.down[:2].T), torch.eye(2), atol=1e-5)
