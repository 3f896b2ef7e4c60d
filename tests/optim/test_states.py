"""An optimizer's state as tensors: through a file and into a fresh optimizer, and the bits go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.optim.conftest import OWN, SHAPES, Named, build, build_parameters, copy, is_equal, train
from weber.errors import CheckpointError
from weber.optim.states import list_states, load_states

CASES = [(name, dtype) for name, row in OWN.items() for dtype in row.dtypes]


def _resume(parameters: Named, name: str, path: Path, **settings: object) -> tuple[torch.optim.Optimizer, Named]:
    second = copy(parameters)
    fresh = build(second, name, **settings)
    load_states(fresh, second, tensors=load_file(path))
    return fresh, second


@pytest.mark.parametrize("settings", [{}, {"fused_backward": True}, {"state_on": "host"}], ids=["plain", "fused", "host"])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_run_goes_on_bit_for_bit(name: str, dtype: torch.dtype, settings: dict[str, object], tmp_path: Path) -> None:
    whole = build_parameters(dtype)
    in_one_go = build(whole, name, **settings)
    train(in_one_go, whole, start=0, stop=10)

    first = build_parameters(dtype)
    optimizer = build(first, name, **settings)
    train(optimizer, first, start=0, stop=6)
    save_file(list_states(optimizer, first), tmp_path / "optimizer.safetensors")
    fresh, second = _resume(first, name, tmp_path / "optimizer.safetensors", **settings)
    train(fresh, second, start=6, stop=10)

    assert is_equal(whole, second)
    expected, got = list_states(in_one_go, whole), list_states(fresh, second)
    assert expected.keys() == got.keys()
    for key, tensor in expected.items():
        assert tensor.dtype == got[key].dtype, key
        assert torch.equal(tensor, got[key]), key


def test_where_the_state_lies_may_change_on_resume(tmp_path: Path) -> None:
    """Plain AdamW goes on in fp32 on the host, and fused into the backward pass: the states have the same names."""
    first = build_parameters()
    optimizer = build(first, "adamw")
    train(optimizer, first, start=0, stop=3)
    save_file(list_states(optimizer, first), tmp_path / "optimizer.safetensors")
    train(optimizer, first, start=3, stop=4)
    for settings in ({"fused_backward": True}, {"state_on": "host"}):
        before = build_parameters()
        train(build(before, "adamw"), before, start=0, stop=3)
        fresh, second = _resume(before, "adamw", tmp_path / "optimizer.safetensors", **settings)
        train(fresh, second, start=3, stop=4)
        assert all(torch.allclose(one, other, rtol=0, atol=1e-7) for (_, one), (_, other) in zip(first, second, strict=True))


MOMENTS = {
    "adamw": {"exp_avg": torch.float32, "exp_avg_sq": torch.float32},
    "adamw_bf16": {"exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16},
    "adamw_8bit": {
        "exp_avg": torch.uint8,
        "exp_avg_absmax": torch.float32,
        "exp_avg_sq": torch.uint8,
        "exp_avg_sq_absmax": torch.float32,
    },
    "adafactor": {"exp_avg_sq_row": torch.float32, "exp_avg_sq_col": torch.float32},
    "lion": {"exp_avg": torch.float32},
    "lion_8bit": {"exp_avg": torch.uint8, "exp_avg_absmax": torch.float32},
}
"""Of a tensor of 4096 numbers or more."""


@pytest.mark.parametrize("name", OWN)
def test_names_and_dtypes(name: str) -> None:
    parameters = build_parameters(torch.float32)
    optimizer = build(parameters, name)
    train(optimizer, parameters, start=0, stop=2)
    states = list_states(optimizer, parameters)
    large = next(iter(SHAPES))
    assert {key: tensor.dtype for key, tensor in states.items() if key.startswith(large)} == {
        f"{large}/{key}": dtype for key, dtype in ({"step": torch.float32} | MOMENTS[name]).items()
    }
    assert {key.split("/")[0] for key in states} == set(SHAPES)
    assert {tensor.item() for key, tensor in states.items() if key.endswith("/step")} == {2.0}
    assert not any(tensor.requires_grad for tensor in states.values())


@pytest.mark.parametrize("name", OWN)
def test_before_the_first_step_there_is_nothing(name: str, tmp_path: Path) -> None:
    parameters = build_parameters()
    optimizer = build(parameters, name)
    assert list_states(optimizer, parameters) == {}
    save_file({}, tmp_path / "empty.safetensors")
    load_states(optimizer, parameters, tensors=load_file(tmp_path / "empty.safetensors"))
    untouched = build_parameters()
    train(optimizer, parameters, start=0, stop=3)
    train(build(untouched, name), untouched, start=0, stop=3)
    assert is_equal(parameters, untouched)


@pytest.mark.parametrize(
    ("name", "key", "tensor", "got"),
    [
        ("adamw", "stranger.weight/exp_avg", torch.zeros(3), "stranger.weight"),
        ("lion", "stranger.weight/exp_avg", torch.zeros(3), "stranger.weight"),
        ("lion", "proj.bias/exp_avg", torch.zeros(3), "proj.bias/exp_avg of shape (3,) in float32"),
        ("lion", "proj.bias/exp_avg", torch.zeros(5).bfloat16(), "proj.bias/exp_avg of shape (5,) in bfloat16"),
        ("lion", "proj.bias/exp_avg_sq", torch.zeros(5), "proj.bias/exp_avg_sq of shape (5,) in float32"),
    ],
)
def test_the_state_of_another_adapter_is_refused(name: str, key: str, tensor: Tensor, got: str) -> None:
    parameters = build_parameters()
    with pytest.raises(CheckpointError) as caught:
        load_states(build(parameters, name), parameters, tensors={key: tensor})
    assert f"got: {got}" in str(caught.value)
    assert "fix: resume with the settings of the run" in str(caught.value)
