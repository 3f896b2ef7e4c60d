"""From names of sets and patterns to layers, and what is said where nothing fits."""

from __future__ import annotations

import pytest
from torch import nn

from weber.adapters.target import find_set, list_patterns, list_targets
from weber.errors import AdapterError

SETS = {"attention": ("to_q", "to_k"), "half": ("to_q", "to_nothing"), "everything": ("*",)}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Two blocks with names as in the real model."""

    def build_block() -> nn.Module:
        return nn.ModuleDict({"norm": nn.LayerNorm(2)} | {name: nn.Linear(2, 2) for name in ("to_q", "to_k", "proj_out")})

    return nn.ModuleDict(
        {
            "blocks": nn.ModuleList([build_block(), build_block()]),
            "more_blocks": nn.ModuleList([build_block()]),
            "proj_out": nn.Linear(2, 2),
        }
    )


def test_a_set_in_the_models_order(model: nn.Module) -> None:
    names = ["blocks.0.to_q", "blocks.0.to_k", "blocks.1.to_q", "blocks.1.to_k", "more_blocks.0.to_q", "more_blocks.0.to_k"]
    assert list_targets(model, "attention", sets=SETS) == names
    assert list_targets(model, ["to_k", "to_q"], sets=SETS) == names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("to_q", ["blocks.0.to_q", "blocks.1.to_q", "more_blocks.0.to_q"]),
        ("blocks.0.to_q", ["blocks.0.to_q"]),
        ("blocks.*.to_q", ["blocks.0.to_q", "blocks.1.to_q"]),
        ("*blocks.*.to_q", ["blocks.0.to_q", "blocks.1.to_q", "more_blocks.0.to_q"]),
        ("proj_out", ["blocks.0.proj_out", "blocks.1.proj_out", "more_blocks.0.proj_out", "proj_out"]),
        ("more_blocks.*", ["more_blocks.0.to_q", "more_blocks.0.to_k", "more_blocks.0.proj_out"]),
    ],
)
def test_patterns_match_the_end_of_a_name_at_a_dot(model: nn.Module, pattern: str, names: list[str]) -> None:
    assert list_targets(model, [pattern], sets=SETS) == names


def test_overlapping_patterns_name_a_layer_once(model: nn.Module) -> None:
    assert list_targets(model, ["to_q", "blocks.0.*"], sets=SETS).count("blocks.0.to_q") == 1


def test_only_linear_layers(model: nn.Module) -> None:
    assert len(list_targets(model, "everything", sets=SETS)) == 10
    with pytest.raises(AdapterError):
        list_targets(model, ["norm"], sets=SETS)


@pytest.mark.parametrize("pattern", ["o_q", "blocks.0", "TO_Q", "to_q."])
def test_parts_of_a_word_do_not_match(model: nn.Module, pattern: str) -> None:
    with pytest.raises(AdapterError) as caught:
        list_targets(model, [pattern], sets=SETS)
    message = str(caught.value)
    assert f"no linear layer is named {pattern}" in message
    assert "expected: the end of a module's name, at a dot, such as " in message
    assert "fix: correct adapter.targets" in message


def test_near_matches_are_shown(model: nn.Module) -> None:
    with pytest.raises(AdapterError, match=r"such as .*more_blocks\.0\.proj_out"):
        list_targets(model, ["more_blocks.0.project_out"], sets=SETS)


def test_every_pattern_must_match(model: nn.Module) -> None:
    with pytest.raises(AdapterError, match="no linear layer is named to_v"):
        list_targets(model, ["to_q", "to_v"], sets=SETS)
    with pytest.raises(AdapterError, match="The target set 'half' is not for this model") as caught:
        list_targets(model, "half", sets=SETS)
    assert "no linear layer is named to_nothing" in str(caught.value)


def test_no_targets(model: nn.Module) -> None:
    with pytest.raises(AdapterError, match=r"adapter\.targets = \[\]"):
        list_targets(model, [], sets=SETS)


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(AdapterError) as caught:
        list_patterns("atention", SETS)
    message = str(caught.value)
    assert "got: adapter.targets = 'atention'" in message
    assert "expected: attention, half, everything" in message
    assert "did you mean 'attention'?" in message
    assert "targets = ['atention']" in message
    assert list_patterns("attention", SETS) == ["to_q", "to_k"]


def test_the_set_that_some_layers_are(model: nn.Module) -> None:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert find_set(list(reversed(list_targets(model, "attention", sets=SETS))), names, sets=SETS) == "attention"
    assert find_set(names, names, sets=SETS) == "everything"
    assert find_set(names[:1], names, sets=SETS) is None


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (["blocks.1"], ["blocks.1.to_q", "blocks.1.to_k"]),
        (["blocks.0-1"], ["blocks.0.to_q", "blocks.0.to_k", "blocks.1.to_q", "blocks.1.to_k"]),
        (["more_blocks"], ["more_blocks.0.to_q", "more_blocks.0.to_k"]),
        (["more_blocks.0", "blocks.1"], ["blocks.1.to_q", "blocks.1.to_k", "more_blocks.0.to_q", "more_blocks.0.to_k"]),
        (["blocks.1,0"], ["blocks.0.to_q", "blocks.0.to_k", "blocks.1.to_q", "blocks.1.to_k"]),
    ],
)
def test_only_some_blocks(model: nn.Module, blocks: list[str], names: list[str]) -> None:
    assert list_targets(model, "attention", sets=SETS, blocks=blocks) == names


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["blocks.2"], r"expected: some of blocks\.0-1 and more_blocks\.0-0"),
        (["blocks.1-0"], "The model has no such blocks"),
        (["blocks.one"], "The model has no such blocks"),
        (["blocks."], "The model has no such blocks"),
        (["block.0"], "did you mean 'blocks'"),
        (["to_q"], "The model has no such blocks"),
        (["blocks", "blocks.0-99999999999"], "The model has no such blocks"),
        ([""], "The model has no such blocks"),
    ],
)
def test_blocks_that_are_not_there(model: nn.Module, blocks: list[str], message: str) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        list_targets(model, "attention", sets=SETS, blocks=blocks)
    assert "adapter.blocks" in str(caught.value)


def test_blocks_without_a_target(model: nn.Module) -> None:
    with pytest.raises(AdapterError, match=r"more_blocks, in which no target is\n  expected: .*blocks\.1"):
        list_targets(model, ["blocks.1.to_q"], sets=SETS, blocks=["blocks.1", "more_blocks"])


def test_layers_that_are_left_out(model: nn.Module) -> None:
    names = list_targets(model, "attention", sets=SETS, exclude=["blocks.0.*", "more_blocks.*.to_k"])
    assert names == ["blocks.1.to_q", "blocks.1.to_k", "more_blocks.0.to_q"]
    for exclude, blocks in ((["proj_out"], []), (["more_blocks.*"], ["blocks"])):
        with pytest.raises(AdapterError, match=r"adapter\.exclude means no layer that gets an adapter"):
            list_targets(model, "attention", sets=SETS, exclude=exclude, blocks=blocks)
    with pytest.raises(AdapterError, match="No layer is left"):
        list_targets(model, "attention", sets=SETS, exclude=["*"])
