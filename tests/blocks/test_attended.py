"""The backend that is chosen attends in all blocks: in those of our own and in the library's, however they are run."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from tests.blocks.test_families import TOLERANCE, Net
from tests.kernels.standins import put_flash3, put_sage
from tests.memory.conftest import FAMILIES
from weber.blocks import attended as module
from weber.blocks.attended import Attended, attended
from weber.kernels import attention
from weber.memory.checkpointing import build_checkpointing


def _count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which backends have run, forward and backward, from now on."""
    ran: list[str] = []
    for name in ("cpu", "flash3", "sage"):
        row = attention.BACKENDS[name]

        def forward(*inputs: Any, name: str = name, run: Any = row.forward) -> Any:
            ran.append(name)
            return run(*inputs)

        def backward(*inputs: Any, name: str = name, run: Any = row.backward) -> Any:
            ran.append(f"{name} back")
            return run(*inputs)

        monkeypatch.setitem(attention.BACKENDS, name, attention.Backend(forward, backward))
    return ran


def _check_near(found: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert found.keys() == right.keys()
    for name, tensor in right.items():
        assert torch.linalg.vector_norm(found[name] - tensor) <= TOLERANCE * torch.linalg.vector_norm(tensor), name


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_package_attends_in_every_block(family: str, is_fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(family).put_lora()
    inputs = net.draw(references=1)
    plain = net.learn(inputs, is_fused=is_fused)
    put_flash3(monkeypatch)
    ran = _count(monkeypatch)
    net.predictor.attention = "flash3"
    _check_near(net.learn(inputs, is_fused=is_fused), plain)
    assert ran.count("flash3") == net.num_own + net.num_others >= 4
    assert ran.count("flash3 back") >= 4 and set(ran) == {"flash3", "flash3 back"}
    net.predictor.attention = None
    assert all(torch.equal(one, plain[name]) for name, one in net.learn(inputs, is_fused=is_fused).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_may_lay_its_results_otherwise(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads before tokens in memory, as cuDNN does."""
    net = Net(family).put_lora()
    inputs = net.draw(references=1)
    plain = net.learn(inputs, is_fused=True)
    cpu = attention.BACKENDS["cpu"]
    assert cpu.backward is not None
    back = cpu.backward
    other = attention.Backend(
        lambda *inputs: tuple(one.contiguous() for one in cpu.forward(*inputs)),
        lambda *inputs: tuple(one.contiguous() for one in back(*inputs)),  # type: ignore[return-value, arg-type]
    )
    monkeypatch.setitem(attention.BACKENDS, "cudnn", other)
    net.predictor.attention = "cudnn"
    _check_near(net.learn(inputs, is_fused=True), plain)


@pytest.mark.parametrize("mode", ["all", "lean"])
@pytest.mark.parametrize("is_fused", [True, False])
def test_blocks_that_are_run_again(mode: Any, is_fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the choice between the two passes."""
    net = Net("first").put_lora()
    inputs = net.draw()
    put_flash3(monkeypatch)
    net.predictor.attention = "flash3"
    whole = net.learn(inputs, is_fused=is_fused)
    ran = _count(monkeypatch)
    net.predictor.run = build_checkpointing(mode, blocks=net.blocks, lean_layers=net.family.lean_layers)
    less = net.learn(inputs, is_fused=is_fused)
    assert all(torch.equal(less[name], one) for name, one in whole.items())
    assert ran and all(name.startswith("flash3") for name in ran)


@pytest.mark.parametrize("is_fused", [True, False])
def test_what_paints_alone(is_fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net("first").put_lora()
    noisy, t, condition = net.draw()
    calls = put_sage(monkeypatch)
    net.predictor.is_fused, net.predictor.attention = is_fused, "sage"
    with torch.no_grad():
        painted = net.predictor(noisy, t, condition)
        net.predictor.attention = None
        assert torch.allclose(net.predictor(noisy, t, condition), painted, atol=1e-5)
    assert calls == [False] * 5


def test_own_forwards_are_built_once_for_each_backend() -> None:
    net = Net("first")
    find = net.predictor.own_blocks.find
    plain, other = find(net.blocks[0]), find(net.blocks[0], "flash")
    assert plain is find(net.blocks[0]) and other is find(net.blocks[0], "flash") and plain is not other
    assert (plain.backend, other.backend, other.build_lean().backend) == (None, "flash", "flash")


def test_pytorch_is_told_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks go there too: it is PyTorch that takes them to the kernel that was chosen."""
    told: list[list[SDPBackend]] = []
    plain = module.sdpa_kernel

    def tell(backends: list[SDPBackend]) -> Any:
        told.append(backends)
        return plain([SDPBackend.MATH])

    monkeypatch.setattr(module, "sdpa_kernel", tell)
    net = Net("first").put_lora()
    noisy, t, condition = net.draw()
    condition["text_read"] = torch.arange(7).expand(2, 7) < 5
    right = net.learn((noisy, t, condition), is_fused=True)
    net.predictor.attention = "cudnn"
    _check_near(net.learn((noisy, t, condition), is_fused=True), right)
    assert told == [[SDPBackend.CUDNN_ATTENTION]] * 5


def test_nothing_is_left_behind_and_other_threads_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    put_flash3(monkeypatch)
    ran, plain = _count(monkeypatch), functional.scaled_dot_product_attention
    query = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))

    def look() -> None:
        functional.scaled_dot_product_attention(query, query, query)

    def call() -> None:
        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert ran == []
        look()
        raise KeyError

    with pytest.raises(KeyError):
        Attended(call, "flash3")()
    assert ran == ["flash3"]
    assert functional.scaled_dot_product_attention is plain


@pytest.mark.parametrize("backend", [None, "cpu"])
def test_what_pytorch_takes_by_itself_changes_nothing(backend: str | None) -> None:
    def call() -> None:
        pass

    assert attended(call, backend) is call
