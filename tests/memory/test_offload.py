"""What goes to the host and comes back: how much, and that it is the same. The copies of a GPU are made on the CPU here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from weber.memory.checkpointing import build_checkpointing
from weber.memory.offload import Log, build_offload

Build = Callable[..., Any]
CPU = torch.device("cpu")
TOKENS, TEXT, WIDTH, BATCH = 48, 7, 32, 2


def _offload(network: Any, **settings: Any) -> None:
    checkpointed = build_checkpointing("all", blocks=network.blocks, lean_layers={})
    offload = build_offload(CPU, **settings)

    def run(block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        with offload:
            return checkpointed(block, call, *inputs)

    network.predictor.run = run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["first", "second", "third"])
def test_equal_to_the_plain_run(build_network: Build, family: str, dtype: torch.dtype) -> None:
    network = build_network(family, dtype)
    fed = network.draw(references=1)
    expected = network.learn(*fed)
    _offload(network, min_bytes=1)
    for _ in range(3):
        found = network.learn(*fed)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_bytes_that_move(build_network: Build) -> None:
    """The tokens of every block but the first, once in each direction; nothing that blocks share."""
    network, log = build_network("first"), Log()
    network.predictor.is_fused = False  # its later blocks are given text and image as one
    _offload(network, min_bytes=500, log=log)
    for _ in range(2):
        network.learn(*network.draw())
        image, text = 4 * BATCH * TOKENS // 4 * WIDTH, 4 * BATCH * TEXT * WIDTH  # a token is 2 x 2 latents
        times = len(network.blocks) - 1
        assert Counter(log) == {(way, size): times for way in ("out", "in") for size in (image, text)}
        assert [way for way, _ in log] == ["out"] * 2 * times + ["in"] * 2 * times
        log.clear()


def test_small_tensors_stay(build_network: Build) -> None:
    network, log = build_network("first"), Log()
    _offload(network, log=log)
    network.learn(*network.draw())
    assert log == []


def test_buffers_are_used_again(build_network: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build = torch.empty

    def empty(*size: Any, **settings: Any) -> Tensor:
        if settings.get("dtype") is torch.uint8:
            made.extend(size)
        return build(*size, **settings)

    monkeypatch.setattr(torch, "empty", empty)
    network = build_network("second")
    _offload(network, min_bytes=1)
    for _ in range(3):
        network.learn(*network.draw())
    assert len(made) == 2 + len(network.blocks) - 2, "the second double block has two inputs of its own, each single block one"


def test_the_block_before_is_on_its_way(build_network: Build) -> None:
    """When a block is run again, what the block before it keeps has been asked for."""
    network, log = build_network("first"), Log()
    network.predictor.is_fused = False  # the library's blocks are modules that are called
    _offload(network, min_bytes=1, log=log)
    came: list[int] = []
    loss = network.predictor(*network.draw()).square().mean()
    for block in network.blocks:
        block.register_forward_pre_hook(lambda *_: came.append(sum(way == "in" for way, _ in log)))
    loss.backward()
    assert came == [4, 6, 8, 8, 8]


def test_two_passes_before_their_backward_pass(build_network: Build) -> None:
    network = build_network("first")
    fed = [network.draw(), network.draw(references=1)]
    gradients = []
    for is_offloaded in (False, True):
        if is_offloaded:
            _offload(network, min_bytes=1)
        torch.stack([network.predictor(*one).square().mean() for one in fed]).sum().backward()
        gradients.append([one.grad for _, one in network.parameters])
        for _, one in network.parameters:
            one.grad = None
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
