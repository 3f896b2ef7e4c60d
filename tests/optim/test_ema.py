"""The running mean of the weights: the recurrence, the files, and the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.optim.conftest import Named, build, build_parameters, copy, is_equal, train
from weber.errors import CheckpointError
from weber.optim import ema as module
from weber.optim.ema import Ema

CPU = torch.device("cpu")


def _follow(parameters: Named, ema: Ema, *, start: int, stop: int) -> None:
    optimizer = build(parameters, "lion", lr=0.01)
    for step in range(start, stop):
        train(optimizer, parameters, start=step, stop=step + 1)
        ema.update(step)


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_recurrence(decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 100)
    parameters = build_parameters()
    means = [parameter.detach().double() for _, parameter in parameters]
    ema, optimizer = Ema(parameters, decay=decay, device=CPU), build(parameters, "lion", lr=0.01)
    for step in range(30):
        train(optimizer, parameters, start=step, stop=step + 1)
        ema.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        means = [kept * mean + (1 - kept) * parameter.detach().double() for mean, (_, parameter) in zip(means, parameters, strict=True)]
    tensors = ema.list_tensors()
    assert list(tensors) == [name for name, _ in parameters]
    for (_, parameter), tensor, mean in zip(parameters, tensors.values(), means, strict=True):
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor.double(), mean, rtol=0, atol=1e-6)
        assert (tensor - parameter).abs().mean() > 1e-3


def test_without_warm_up_the_decay_is_the_same_from_the_first_step() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    plain, warm = (Ema([("weight", weight)], decay=0.9, device=CPU, warmup=warmup) for warmup in (False, True))
    weight.data.fill_(1.0)
    for step in range(3):
        plain.update(step)
        warm.update(step)
    assert plain.list_tensors()["weight"].tolist() == pytest.approx([1 - 0.9**3] * 2)
    assert warm.list_tensors()["weight"].tolist() == pytest.approx([1 - 0.1 * (2 / 11) * 0.25] * 2)


def test_bf16_weights_have_fp32_means() -> None:
    """After a jump from 1 to the next number in bf16, the mean is between the two for long."""
    weight = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    ema = Ema([("weight", weight)], decay=0.999, device=CPU)
    weight.data.fill_(1.0078125)
    for step in range(20_000, 20_100):
        ema.update(step)
    expected = 1.0078125 - 0.0078125 * 0.999**100
    assert ema.list_tensors()["weight"].tolist() == pytest.approx([expected] * 8, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(dtype: torch.dtype) -> None:
    parameters = build_parameters(dtype)
    ema = Ema(parameters, decay=0.9, device=CPU)
    _follow(parameters, ema, start=0, stop=5)
    trained, pointers = copy(parameters), [parameter.data_ptr() for _, parameter in parameters]
    with pytest.raises(RuntimeError, match="stop"), ema.swapped():
        assert all(torch.equal(parameter, ema.list_tensors()[name].to(dtype)) for name, parameter in parameters)
        assert not is_equal(parameters, trained)
        raise RuntimeError("stop")
    assert is_equal(parameters, trained)
    assert [parameter.data_ptr() for _, parameter in parameters] == pointers


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = build_parameters()
    in_one_go = Ema(whole, decay=0.9, device=CPU)
    _follow(whole, in_one_go, start=0, stop=3)
    save_file(in_one_go.list_tensors(), tmp_path / "ema.safetensors")
    second = copy(whole)
    fresh = Ema(second, decay=0.9, device=CPU)
    fresh.load_tensors(load_file(tmp_path / "ema.safetensors"))
    for ema, parameters in ((in_one_go, whole), (fresh, second)):
        _follow(parameters, ema, start=3, stop=6)
    assert all(torch.equal(tensor, fresh.list_tensors()[name]) for name, tensor in in_one_go.list_tensors().items())


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_the_means_of_others_are_refused(change: str) -> None:
    ema = Ema(build_parameters(), decay=0.9, device=CPU)
    tensors = {name: tensor.clone() for name, tensor in ema.list_tensors().items()}
    if change == "missing":
        del tensors["proj.bias"]
    elif change == "unknown":
        tensors["stranger.weight"] = torch.zeros(3)
    else:
        tensors["proj.bias"] = torch.zeros(6)
    with pytest.raises(CheckpointError) as caught:
        ema.load_tensors(tensors)
    assert "1 that differ, such as " + ("stranger.weight" if change == "unknown" else "proj.bias") in str(caught.value)
