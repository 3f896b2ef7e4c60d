"""Attention by name: what PyTorch's own gives, and what its backward pass needs, for every way that there is."""

from __future__ import annotations

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
