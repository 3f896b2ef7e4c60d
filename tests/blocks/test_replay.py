"""Blocks that are recorded and run again: every bit is as if they had not been, and who else has to see what they do sees it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.blocks.test_families import Inputs, Net, pack
from tests.memory.conftest import FAMILIES
from weber.blocks import replay
from weber.blocks.arena import Life, place
from weber.blocks.record import Recorder, UnrecordableError, build_steps
from weber.blocks.replay import Replays


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with every forward pass that is a replay."""
    found: list[object] = []
    run = replay._Graph.run

    def run_and_note(graph: replay._Graph, inputs: Any) -> Any:
        found.append(graph)
        return run(graph, inputs)

    monkeypatch.setattr(replay._Graph, "run", run_and_note)
    return found


@pytest.fixture
def learn_plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Net, Inputs], dict[str, Tensor]]:
    """A step of blocks as they are written."""

    def learn(net: Net, inputs: Inputs) -> dict[str, Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(replay, "_MOST_BYTES", 0)
            return net.learn(inputs, is_fused=True)

    return learn


def check_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        assert torch.equal(found[name], one), name


def _move(net: Net) -> None:
    for one in net.model.parameters():
        if one.requires_grad:
            with torch.no_grad():
                one.mul_(1.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_bit_is_the_same(
    family: str, batch: int, dtype: torch.dtype, runs: list[object], learn_plainly: Callable[[Net, Inputs], dict[str, Tensor]]
) -> None:
    """Of an adapter, step after step; gradients of earlier steps that somebody still has stay as they are."""
    net = Net(family, dtype=dtype).put_lora()
    noisy, t, condition = net.draw(batch=batch)
    inputs = noisy.to(dtype), t, {name: one.to(dtype) for name, one in condition.items()}
    net.learn(inputs, is_fused=True)
    assert not runs
    held, copies = [], []
    for _ in range(3):
        wanted = learn_plainly(net, inputs)
        runs.clear()
        found = net.learn(inputs, is_fused=True)
        assert len(runs) >= 3
        check_same(found, wanted)
        held.append(found)
        copies.append({name: one.clone() for name, one in found.items()})
        _move(net)
    for one, other in zip(held, copies, strict=True):
        check_same(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_bit_of_all_weights(family: str, runs: list[object], learn_plainly: Callable[[Net, Inputs], dict[str, Tensor]]) -> None:
    """Of what modulates the blocks too, whose gradients are summed over them."""
    net = Net(family)
    net.model.requires_grad_(True)
    inputs = net.draw()
    net.learn(inputs, is_fused=True)
    for _ in range(2):
        check_same(net.learn(inputs, is_fused=True), learn_plainly(net, inputs))
        _move(net)
    assert runs


@pytest.mark.parametrize("form", ["nf4", "int8", "int8 products", "fp8 products"])
def test_packed_weights(form: str, runs: list[object], learn_plainly: Callable[[Net, Inputs], dict[str, Tensor]]) -> None:
    name, *products = form.split()
    net = pack(Net("first"), name, multiplies_packed=bool(products)).put_lora()
    inputs = net.draw()
    wanted = learn_plainly(net, inputs)
    for _ in range(3):
        check_same(net.learn(inputs, is_fused=True), wanted)
    assert runs


class Small:
    """Something that runs as a block does."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.frozen = torch.randn(6, 6, generator=generator)
        self.weight = torch.randn(6, 6, generator=generator).requires_grad_()
        self.replays = Replays([self.frozen, self.weight])
        self.x = torch.randn(4, 6, generator=generator).requires_grad_()

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = x @ (self.frozen * 2) @ self.weight
        return hidden.tanh(), hidden * (self.frozen * 2).sum()

    def run(self) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self.replays.run(self.compute, [self.x.view_as(self.x)])
        return outputs

    def list_gradients(self, *outputs: Tensor) -> list[Tensor | None]:
        sum(one.square().sum() for one in outputs).backward()  # type: ignore[union-attr]
        found, self.x.grad, self.weight.grad = [self.x.grad, self.weight.grad], None, None
        return found

    def list_wanted(self) -> list[Tensor | None]:
        return self.list_gradients(*self.compute(self.x))


@pytest.fixture
def small() -> Small:
    """Recorded."""
    one = Small()
    for _ in range(2):
        one.list_gradients(*one.run())
    return one


def check_gradients(found: list[Tensor | None], wanted: list[Tensor | None]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other))


def test_forward_passes_before_a_backward_pass(small: Small, runs: list[object]) -> None:
    """The second one runs as it is written, since what the first one keeps is still needed."""
    first, second = small.run(), small.run()
    assert len(runs) == 1
    wanted = small.list_wanted()
    check_gradients(small.list_gradients(*second), wanted)
    check_gradients(small.list_gradients(*first), wanted)
    assert all(torch.equal(one, other) for one, other in zip(small.run(), first, strict=True)) and len(runs) == 2


def test_a_forward_pass_that_is_given_up(small: Small, runs: list[object]) -> None:
    outputs = small.run()
    del outputs
    small.run()
    assert len(runs) == 2


def test_gradients_of_several_passes_are_summed(small: Small, runs: list[object]) -> None:
    (x_grad, weight_grad), total = small.list_wanted(), 0.0
    assert x_grad is not None and weight_grad is not None
    for number in range(1, 4):
        sum(one.square().sum() for one in small.run()).backward()  # type: ignore[union-attr]
        total = total + weight_grad
        assert torch.equal(small.weight.grad, total) and len(runs) == number


def test_an_output_that_nobody_uses(small: Small, runs: list[object]) -> None:
    """What only leads there has no gradient, and not one of zeros; from then on nothing is replayed."""
    wanted = small.list_gradients(small.compute(small.x)[0])
    check_gradients(small.list_gradients(small.run()[0]), wanted)
    check_gradients(small.list_gradients(small.run()[0]), wanted)
    assert len(runs) == 1


def test_weights_that_are_changed_or_moved(small: Small, runs: list[object]) -> None:
    """Frozen ones, of which something may be known already; learning ones elsewhere."""
    with torch.no_grad():
        small.frozen.mul_(1.5)
    for _ in range(3):
        check_gradients(small.list_gradients(*small.run()), small.list_wanted())
    assert len(runs) == 2
    small.weight.data = small.weight.data.clone()
    for _ in range(3):
        check_gradients(small.list_gradients(*small.run()), small.list_wanted())
    assert len(runs) == 4
    small.weight.data = small.weight.data.clone()
    small.run()
    small.run()
    assert len(runs) == 4, "what moves again and again is not recorded again and again"


def test_a_backward_pass_runs_once(small: Small) -> None:
    loss = small.run()[0].sum() + small.run()[1].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="runs once"):
        loss.backward()


def test_who_has_to_see_sees(small: Small, runs: list[object]) -> None:
    with FlopCounterMode(display=False) as counter:
        small.run()
    assert counter.get_total_flops() > 0
    checkpoint(small.replays.run, small.compute, [small.x.view_as(small.x)], use_reentrant=False)
    with torch.no_grad():
        small.run()
    with torch.autocast("cpu", torch.bfloat16):
        small.run()
    assert not runs
    small.run()
    assert len(runs) == 1


def test_large_inputs_run_as_they_are_written(runs: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    one = Small()
    monkeypatch.setattr(replay, "_MOST_BYTES", one.x.nbytes - 1)
    for _ in range(3):
        one.run()
    assert not runs and replay.count_recorded_bytes(one.x.nbytes) == 0 < replay.count_recorded_bytes(one.x.nbytes - 1)


@pytest.mark.parametrize(
    "compute",
    [lambda x: x * torch.rand(x.shape), lambda x: x * float(x.detach().sum()), lambda x: x.detach().add_(1) * x],
    ids=["chance", "numbers of the device", "what was there before"],
)
def test_what_cannot_be_recorded_runs_as_it_is_written(compute: Callable[[Tensor], Tensor], runs: list[object]) -> None:
    replays, x = Replays([]), torch.ones(3, requires_grad=True)
    for _ in range(4):
        assert replays.run(compute, [x * 1]).requires_grad
    assert not runs


def test_nothing_is_made_twice() -> None:
    """What the backward pass makes again comes from the forward pass, and what is made of constants is there."""
    one = Small()
    graph = replay._Graph(one.compute, [one.x.detach().requires_grad_()], learning=[one.weight], constants=[one.frozen])
    names = [call.func.__name__ for call in graph._ahead]  # type: ignore[attr-defined]
    assert names == ["mm", "mm", "tanh", "mul"]


def test_nothing_is_left_of_a_network() -> None:
    """Not even until garbage is collected: its memory would be missed."""
    net = Net("first").put_lora()
    inputs = net.draw()
    for _ in range(3):
        net.learn(inputs, is_fused=True)
    graphs = [weakref.ref(graph) for graph in net.predictor.own_blocks.find(net.blocks[0]).replays._graphs.values()]
    assert graphs and all(one() is not None for one in graphs)
    gc.disable()
    try:
        net.predictor.own_blocks._known.clear()
        assert all(one() is None for one in graphs)
    finally:
        gc.enable()


def test_recording_keeps_no_memory() -> None:
    recorder = Recorder([], most_bytes=0)
    x = torch.ones(1000)
    with recorder:
        (x + 1).mul_(2)
    calls = recorder.take()
    assert [one.name for one in calls] == ["add", "mul_"] and not recorder.take()
    assert calls[0].args[0] is x and calls[0].made[0].is_meta and calls[1].args[0].is_meta
    with pytest.raises(UnrecordableError):
        with recorder:
            torch.randn(3)
        build_steps(recorder.take())


def test_places() -> None:
    """What is alive at the same time lies apart; the rest may lie in the same place."""
    lives = {number: Life(100 + number, number, number + 2) for number in range(20)}
    starts, end = place(lives)
    assert end <= 4 * 128
    for number, one in lives.items():
        for other in range(number + 1, min(20, number + 3)):
            assert starts[other] >= starts[number] + one.num_bytes or starts[number] >= starts[other] + lives[other].num_bytes
