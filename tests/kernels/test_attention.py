"""Attention by name: what PyTorch's own gives, and what its backward pass needs, for every way that there is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.kernels.standins import put_flash3, put_sage
from weber.kernels import attention
from weber.kernels.attention import BACKENDS, attend, attend_backward


def _draw() -> list[Tensor]:
    """Queries, keys and values, as they lie in a block: parts of one tensor."""
    joint = torch.randn(2, 7, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    return [part.transpose(1, 2) for part in joint.unbind(2)]


@pytest.mark.parametrize("name", [None, "cpu", "flash3"])
def test_it_is_that_of_pytorch(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    put_flash3(monkeypatch)
    query, key, value = _draw()
    output, *kept = attend(query, key, value, name)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    learning = [one.clone().requires_grad_() for one in (query, key, value)]
    theirs = functional.scaled_dot_product_attention(*learning)
    theirs.backward(gradient)
    assert torch.allclose(output, theirs, atol=1e-6)
    for own, one in zip(attend_backward(gradient, query, key, value, (output, *kept), name), learning, strict=True):
        assert one.grad is not None and torch.allclose(own, one.grad, atol=1e-6)


def test_what_has_no_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    put_sage(monkeypatch)
    query, key, value = _draw()
    kept = attend(query, key, value, "sage")
    assert torch.allclose(kept[0], functional.scaled_dot_product_attention(query, key, value), atol=1e-6)
    with pytest.raises(AssertionError, match="sage has no backward pass"):
        attend_backward(kept[0], query, key, value, kept, "sage")
    assert [name for name, one in BACKENDS.items() if one.backward is None] == ["sage"]


@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
def test_ways_of_gpus_keep_what_their_backward_pass_takes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes alone, on the meta device: there is no GPU here."""
    monkeypatch.setattr(attention, "choose_kind", lambda query: kind)
    query, key, value = (one.to("meta", torch.bfloat16) for one in _draw())
    kept = attend(query, key, value)
    assert kept[0].shape == query.shape
    gradients = attend_backward(torch.empty_like(kept[0]), query, key, value, kept)
    assert [one.shape for one in gradients] == [one.shape for one in (query, key, value)]


def test_cudnn_is_given_what_lies_in_order_and_gives_tokens_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with PyTorch's own signature: the operation itself runs on GPUs of NVIDIA alone."""
    cpu = BACKENDS["cpu"]
    assert cpu.backward is not None

    def forward(
        query: Tensor, key: Tensor, value: Tensor, attn_bias: None, compute_log_sumexp: bool, dropout_p: float, *rest: bool
    ) -> tuple[Any, ...]:
        assert all(one.is_contiguous() for one in (query, key, value)) and compute_log_sumexp and dropout_p == 0 and not any(rest)
        output, logsumexp = cpu.forward(query, key, value)
        return output.contiguous(), logsumexp, None, None, 7, 7, "seed", "offset", None

    def backward(*inputs: Any) -> Any:
        grad, query, key, value, output, logsumexp, seed, offset, bias, cum_q, cum_k, max_q, max_k, dropout, is_causal = inputs
        assert all(one.is_contiguous() for one in (grad, query, key, value, output)) and cpu.backward is not None
        assert (seed, offset, bias, cum_q, cum_k, max_q, max_k, dropout, is_causal) == ("seed", "offset", *[None] * 3, 7, 7, 0, False)
        return cpu.backward(grad, query, key, value, (output, logsumexp))

    operations = SimpleNamespace(_scaled_dot_product_cudnn_attention=forward, _scaled_dot_product_cudnn_attention_backward=backward)
    query, key, value = _draw()
    gradient = torch.randn(query.shape, generator=torch.Generator().manual_seed(1))
    right = cpu.forward(query, key, value)
    rights = cpu.backward(gradient, query, key, value, right)
    monkeypatch.setattr(attention, "_OPS", SimpleNamespace(**vars(operations), **_list_cpu()))
    output, *kept = attend(query, key, value, "cudnn")
    assert output.transpose(1, 2).is_contiguous() and torch.allclose(output, right[0])
    found = attend_backward(gradient, query, key, value, (output, *kept), "cudnn")
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, rights, strict=True))


def _list_cpu() -> dict[str, Any]:
    names = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
    return {name: getattr(torch.ops.aten, name) for name in names}


@pytest.mark.parametrize(
    ("dtype", "capability", "is_available", "kind"),
    [
        (torch.bfloat16, (9, 0), True, "flash"),
        (torch.bfloat16, (9, 0), False, "efficient"),
        (torch.float32, (9, 0), True, "efficient"),
        (torch.float16, (7, 5), True, "efficient"),
    ],
)
def test_which_way_a_gpu_goes(
    dtype: torch.dtype, capability: tuple[int, int], is_available: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnGpu:
        device = torch.device("cuda")

    query = OnGpu()
    query.dtype = dtype  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: is_available)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attention.choose_kind(query) == kind  # type: ignore[arg-type]
