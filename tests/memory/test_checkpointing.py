"""Whatever is computed again in the backward pass, losses and gradients are those of the plain run, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from weber.adapters.lora import add_frozen, list_factors
from weber.memory.checkpointing import Mode, build_checkpointing

Build = Callable[..., Any]
MODES: list[Mode] = ["all", 2, "lean"]
INPUTS: dict[str, dict[str, Any]] = {"plain": {}, "references": {"references": 2}, "clean": {"references": 1, "has_reference_t": True}}


def _set(network: Any, mode: Mode) -> None:
    network.predictor.run = build_checkpointing(mode, blocks=network.blocks, lean_layers=network.family.lean_layers)


def _assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "inputs"), [*((one, "plain") for one in ("first", "second", "third")), ("first", "clean")])
def test_equal_to_the_plain_run(build_network: Build, family: str, inputs: str, dtype: torch.dtype) -> None:
    network = build_network(family, dtype)
    fed = network.draw(**INPUTS[inputs])
    expected = network.learn(*fed)
    assert len(expected) == 1 + len(network.parameters) - 12 * (family == "third"), "references learn only where there are some"
    for mode in MODES:
        _set(network, mode)
        _assert_equal(network.learn(*fed), expected)


@pytest.mark.parametrize("family", ["first", "second", "third"])
def test_equal_with_references(build_network: Build, family: str) -> None:
    network = build_network(family, torch.bfloat16)
    fed = network.draw(references=2)
    expected = network.learn(*fed)
    for mode in MODES:
        _set(network, mode)
        _assert_equal(network.learn(*fed), expected)


@pytest.mark.parametrize("mode", MODES)
def test_equal_with_an_assistant(build_network: Build, mode: Mode) -> None:
    network = build_network("first", torch.bfloat16)
    factors = list_factors(network.predictor.transformer)
    add_frozen(network.predictor.transformer, {name: factors[name] for name in list(factors)[::2]}, name="assistant", strength=0.5)
    fed = network.draw()
    expected = network.learn(*fed)
    _set(network, mode)
    _assert_equal(network.learn(*fed), expected)


@pytest.mark.parametrize("mode", MODES)
def test_equal_where_everything_learns(build_network: Build, mode: Mode) -> None:
    """Gates too, whose gradients need what lean checkpointing else skips."""
    for family in ("first", "second", "third"):
        network = build_network(family)
        transformer = network.predictor.transformer.requires_grad_(True)
        network.parameters = list(transformer.named_parameters())
        fed = network.draw()
        expected = network.learn(*fed)
        _set(network, mode)
        for _ in range(2):
            _assert_equal(network.learn(*fed), expected)


def test_equal_with_dropout(build_network: Build) -> None:
    network = build_network("first", dropout=0.5)
    network.predictor.transformer.train()
    fed = network.draw()
    found = []
    for mode in ("none", "all", 2):
        _set(network, mode)
        torch.manual_seed(7)
        found.append(network.learn(*fed))
    _assert_equal(found[1], found[0])
    _assert_equal(found[2], found[0])
    assert not torch.equal(network.learn(*fed)["loss"], found[0]["loss"]), "dropout drew the same again"


@pytest.mark.parametrize("mode", MODES)
def test_two_passes_before_their_backward_pass(build_network: Build, mode: Mode) -> None:
    network = build_network("second")
    fed = [network.draw(), network.draw(references=1)]
    expected: dict[str, Tensor] = {}
    for how in ("none", mode):
        _set(network, how)
        loss = torch.stack([network.predictor(*one).square().mean() for one in fed]).sum()
        loss.backward()
        found = {name: one.grad for name, one in network.parameters}
        expected = expected or found
        _assert_equal(found, expected)
        for _, one in network.parameters:
            one.grad = None


@pytest.mark.parametrize(
    ("mode", "times"),
    [("none", [1, 1, 1, 1, 1]), ("all", [2, 2, 2, 2, 2]), (2, [1, 2, 1, 2, 1]), (3, [1, 1, 2, 1, 1]), ("lean", [2, 2, 2, 2, 2])],
)
def test_which_blocks_run_again(build_network: Build, mode: Mode, times: list[int]) -> None:
    network = build_network("first")
    _set(network, mode)
    seen: Counter[nn.Module] = Counter()
    for block in network.blocks:
        block.register_forward_pre_hook(lambda block, _: seen.update([block]))
    fed = network.draw()
    with torch.no_grad():
        network.predictor(*fed)
    assert [seen[block] for block in network.blocks] == [1] * 5, "there is nothing to go back to"
    seen.clear()
    network.learn(*fed)
    assert [seen[block] for block in network.blocks] == times
