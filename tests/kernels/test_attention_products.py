"""Attention as products of whole heads: that of PyTorch and its gradients, for any scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.kernels.narrow import needs_onednn, put_narrow
from weber.kernels import attention_products
from weber.kernels.attention import attend, attend_backward
from weber.kernels.attention_products import attend_heads, attend_heads_backward, is_quicker

pytestmark = needs_onednn


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    put_narrow(monkeypatch)


def _draw(num_tokens: int, *, batch: int = 1, width: int = 32, dtype: torch.dtype = torch.float32, size: float = 1.0) -> list[Tensor]:
    """Queries, keys, values and the output's gradient, as they lie in a block: parts of wider tensors."""
    joint = torch.randn(batch, num_tokens, 4, 2, width, generator=torch.Generator().manual_seed(num_tokens)).to(dtype)
    joint[:, :, :2] *= size
    return [part.transpose(1, 2) for part in joint.unbind(2)]


def _run(tensors: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients."""
    *inputs, grad = tensors
    output, *kept = attend(*inputs)
    return [output, *attend_backward(grad, *inputs, (output, *kept))]


def _run_exactly(tensors: list[Tensor]) -> list[Tensor]:
    *inputs, grad = (one.double() for one in tensors)
    learning = [one.clone().requires_grad_() for one in inputs]
    output = functional.scaled_dot_product_attention(*learning)
    return [output.detach(), *torch.autograd.grad(output, learning, grad)]


def _find_error(found: list[Tensor], exact: list[Tensor]) -> float:
    return max(float((one.double() - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True))


@pytest.mark.parametrize("most_scores", [2**19, 2**12], ids=["at once", "in parts"])
@pytest.mark.parametrize(("num_tokens", "batch", "width"), [(256, 1, 32), (301, 2, 32), (257, 1, 128)])
def test_it_is_that_of_pytorch(num_tokens: int, batch: int, width: int, most_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_products, "_MOST_SCORES", most_scores)
    tensors = _draw(num_tokens, batch=batch, width=width)
    assert is_quicker(tensors[0]) and not is_quicker(tensors[0].double())
    found = _run(tensors)
    assert [one.shape for one in found] == [tensors[0].shape] * 4
    assert _find_error(found, _run_exactly(tensors)) < 2e-6


@pytest.mark.parametrize("size", [10.0, 100.0], ids=["large", "one of all"])
def test_scores_that_are_far_apart(size: float) -> None:
    """As near to the truth as PyTorch's own; of each query one weight is 1, and the others are below the least number there is."""
    tensors = _draw(300, size=size)
    found, exact = _run(tensors), _run_exactly(tensors)
    *inputs, grad = tensors
    learning = [one.clone().requires_grad_() for one in inputs]
    output = functional.scaled_dot_product_attention(*learning)
    theirs = [output.detach(), *torch.autograd.grad(output, learning, grad)]
    assert all(one.isfinite().all() for one in found)
    assert _find_error(found[:1], exact[:1]) <= 2 * _find_error(theirs[:1], exact[:1])
    assert _find_error(found[3:], exact[3:]) <= 2 * _find_error(theirs[3:], exact[3:])


def test_bf16_is_nearer_than_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = _draw(400, dtype=torch.bfloat16)
    found, exact = _run(tensors), _run_exactly(tensors)
    assert {one.dtype for one in found} == {torch.bfloat16}
    put_narrow(monkeypatch, is_narrow=False)
    assert _find_error(found, exact) <= _find_error(_run(tensors), exact) * 1.01


def test_a_sample_is_the_same_beside_others() -> None:
    tensors = _draw(270, batch=3)
    whole = _run(tensors)
    for number in range(3):
        alone = _run([one[number : number + 1] for one in tensors])
        assert all(torch.equal(one[0], other[number]) for one, other in zip(alone, whole, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_fakes_are_as_the_real_ones(dtype: torch.dtype) -> None:
    *inputs, grad = _draw(20, dtype=dtype)
    kept = attend_heads(*inputs)
    for operation, given in ((attend_heads, inputs), (attend_heads_backward, [grad, *inputs, *kept])):
        torch.library.opcheck(operation, tuple(given), test_utils=("test_schema", "test_faketensor"))
