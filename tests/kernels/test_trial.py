"""What can attend where, and that what is wrong is passed over, named, and tried once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from tests.kernels.standins import put_flash3, put_sage
from weber.kernels import trial
from weber.kernels.attention import BACKENDS, Backend
from weber.kernels.trial import Choice, Use, choose, choose_first, find_fault, find_obstacle, list_candidates, read_capability

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = Use(CPU, torch.float32, num_heads=3, num_tokens=21, width=16)
HOPPER = Use(CUDA, torch.bfloat16, num_heads=24, num_tokens=4608, width=128, capability=(9, 0))


def _spoil(change: Callable[..., Any], *, backward: bool) -> Backend:
    """The processor's, with something done to its outputs or gradients."""
    cpu = BACKENDS["cpu"]
    assert cpu.backward is not None
    back = cpu.backward
    if backward:
        return replace(cpu, backward=lambda *inputs: change(*back(*inputs)))
    return replace(cpu, forward=lambda *inputs: change(*cpu.forward(*inputs)))


def _raise(*inputs: Any) -> Any:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


WRONG: dict[str, tuple[Backend, str]] = {
    "outputs": (_spoil(lambda output, *kept: (1.01 * output, *kept), backward=False), "its outputs are off by 0.01 of their size"),
    "nothing": (_spoil(lambda output, *kept: (output * torch.nan, *kept), backward=False), "its outputs are off by nan"),
    "queries": (_spoil(lambda query, key, value: (0 * query, key, value), backward=True), "its gradients of queries are off by 1 of"),
    "keys": (_spoil(lambda query, key, value: (query, -key, value), backward=True), "its gradients of keys are off by 2 of"),
    "values": (_spoil(lambda query, key, value: (query, key, key), backward=True), "its gradients of values are off by"),
    "raises": (replace(BACKENDS["cpu"], forward=_raise), "it failed with RuntimeError: no kernel image is available"),
    "raises later": (replace(BACKENDS["cpu"], backward=_raise), "it failed with RuntimeError: no kernel image is available"),
    "is not there": (BACKENDS["flash3"], "it failed with ModuleNotFoundError: No module named 'flash_attn_interface'"),
    "has no kernel": (replace(BACKENDS["cpu"], sdp=SDPBackend.EFFICIENT_ATTENTION), "it failed with RuntimeError: No viable backend"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_passed_over_and_named(case: str) -> None:
    backend, why = WRONG[case]
    found = choose_first({"first": backend, "second": BACKENDS["cpu"]}, SMALL)
    assert found.name == "second"
    assert found.refused[0][0] == "first" and found.refused[0][1].startswith(why), found
    assert found.describe().startswith(f"second (first refused: {why}")
    assert choose_first({"first": backend}, SMALL).name is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [21, 300])
def test_what_processors_have_is_right(dtype: torch.dtype, tokens: int) -> None:
    assert find_fault(BACKENDS["cpu"], replace(SMALL, dtype=dtype, num_tokens=tokens)) is None


@pytest.mark.parametrize("has_mask", [False, True])
def test_what_the_library_calls_is_tried_too(has_mask: bool) -> None:
    use = replace(SMALL, has_mask=has_mask)
    assert find_fault(replace(BACKENDS["cpu"], sdp=SDPBackend.MATH), use) is None


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """SageAttention rounds to 8 bits, so that more is allowed; it is asked for outputs alone."""
    put_flash3(monkeypatch)
    assert find_fault(BACKENDS["flash3"], SMALL) is None
    painting = replace(SMALL, learns=False)
    calls = put_sage(monkeypatch, spread=0.05)
    assert find_fault(BACKENDS["sage"], painting) is None
    assert calls == [False]
    put_sage(monkeypatch, spread=0.2)
    assert find_fault(BACKENDS["sage"], painting) == "its outputs are off by 0.2 of their size, where 0.1 is allowed"


@pytest.mark.parametrize("has_mask", [False, True])
def test_the_reference_is_right_piece_by_piece(has_mask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_NUM_ROWS", 8)
    query, key, value, grad = (one.double() for one in trial._draw(SMALL))
    mask = torch.arange(21)[None, None, None] % 4 != 1 if has_mask else None
    learning: list[Tensor] = [one.clone().requires_grad_() for one in (query, key, value)]
    output = functional.scaled_dot_product_attention(learning[0], learning[1], learning[2], attn_mask=mask)
    exact = [output, *torch.autograd.grad(output, learning, grad)]
    found = trial._run_exactly([query, key, value, grad], mask, learns=True)
    assert all(torch.allclose(one, right) for one, right in zip(found, exact, strict=True))
    (alone,) = trial._run_exactly([query, key, value, grad], mask, learns=False)
    assert torch.equal(alone, found[0])


def test_each_use_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(trial, "find_fault", lambda backend, use: tried.append("cpu"))
    choose.cache_clear()
    assert [choose(SMALL, ("cpu",)) for _ in range(3)] == [Choice("cpu")] * 3
    assert tried == ["cpu"]
    choose(replace(SMALL, num_tokens=22), ("cpu",))
    assert tried == ["cpu", "cpu"]
    choose.cache_clear()


def test_nothing_is_drawn_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    find_fault(BACKENDS["cpu"], SMALL)
    assert torch.equal(torch.get_rng_state(), before)


OBSTACLES: list[tuple[str, dict[str, Any], str | None]] = [
    ("flash", {}, None),
    ("cudnn", {}, None),
    ("efficient", {"dtype": torch.float32, "has_mask": True, "width": 200, "capability": (7, 5)}, None),
    ("flash", {"device": CPU, "capability": None}, "it runs on GPUs, and the model runs on cpu"),
    ("cpu", {}, "it runs on processors, and the model runs on cuda"),
    ("efficient", {"device": torch.device("mps"), "capability": None}, "it runs on GPUs, and the model runs on mps"),
    ("cudnn", {"dtype": torch.float32}, "it computes in 16 bits, and the model is in fp32"),
    ("flash", {"width": 264}, "it takes heads of up to 256 numbers, in steps of 8, and the model has heads of 264"),
    ("cudnn", {"width": 20}, "it takes heads of up to 128 numbers, in steps of 8, and the model has heads of 20"),
    ("flash3", {"has_mask": True}, "it takes no mask, and the padding behind captions is masked"),
    ("cudnn", {"has_mask": True}, None),
    ("flash", {"capability": (7, 5)}, "it needs a GPU of compute capability 8.0 or more, and this one has 7.5"),
    ("flash3", {"capability": (8, 9)}, "it needs a GPU of compute capability 9.0, and this one has 8.9"),
    ("flash3", {"capability": (12, 0)}, "it needs a GPU of compute capability 9.0, and this one has 12.0"),
    ("flash3", {}, "the package flash_attn_interface is not installed"),
    ("flash3", {"capability": None}, None),
    ("sage", {}, "it has no backward pass"),
    ("sage", {"learns": False}, "the package sageattention is not installed"),
]


@pytest.mark.parametrize(("name", "changes", "why"), OBSTACLES)
def test_what_is_known_without_running(name: str, changes: dict[str, Any], why: str | None) -> None:
    assert find_obstacle(name, replace(HOPPER, **changes)) == why


def test_gpus_of_another_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert find_obstacle("cudnn", HOPPER) == "it runs on GPUs of NVIDIA, and this one is of AMD"
    assert list_candidates(HOPPER) == ("flash", "efficient")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ("cudnn", "flash", "efficient")),
        ({"capability": (12, 0)}, ("cudnn", "flash", "efficient")),
        ({"capability": (8, 9)}, ("flash", "cudnn", "efficient")),
        ({"capability": (7, 5)}, ("efficient",)),
        ({"dtype": torch.float32}, ("efficient",)),
        ({"has_mask": True}, ("cudnn", "efficient")),
        ({"capability": None}, ()),
        ({"device": CPU, "capability": None}, ("cpu",)),
        ({"device": torch.device("mps"), "capability": None}, ()),
    ],
)
def test_the_order(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert list_candidates(replace(HOPPER, **changes)) == names


def test_the_order_with_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only paints is never taken unasked."""
    monkeypatch.setattr(trial, "find_spec", lambda name: object())
    assert list_candidates(HOPPER) == ("flash3", "cudnn", "flash", "efficient")
    assert "sage" not in list_candidates(replace(HOPPER, learns=False))


def test_a_processor_has_no_capability() -> None:
    assert read_capability(CPU) is None
