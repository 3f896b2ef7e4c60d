"""What is mistyped on a command line is answered with its right spelling."""

from __future__ import annotations

import pytest

from weber.config.load import load_config
from weber.config.overrides import close_brackets, spell_key
from weber.errors import ConfigError


def _refuse(*overrides: str) -> ConfigError:
    has_set = any("path" in one for one in overrides)
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides if has_set else ["data.0.path=a", *overrides])
    return caught.value


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("train.steps 500", "train.steps=500"),
        ("train.steps:500", "train.steps=500"),
        ("train.steps: 500", "train.steps=500"),
        ("train.steps:=500", "train.steps=500"),
        ("train.steps+=500", "train.steps=500"),
        ("train.steps->500", "train.steps=500"),
        ("train.steps=>500", "train.steps=500"),
        ("train.steps==3", "train.steps=3"),
        ("train/steps=500", "train.steps=500"),
        ("train steps=500", "train.steps=500"),
        (".train.steps=500", "train.steps=500"),
        ("TRAIN.STEPS=5", "train.steps=5"),
        ("trian.steps=5", "train.steps=5"),
        ("optimizer.lr=1e-4", "optim.lr=1e-4"),
        ("[train]steps=5", "train.steps=5"),
        ("'train.steps'=5", "train.steps=5"),
        ("data[0].path=x", "data.0.path=x"),
        ("data[0][path]=x", "data.0.path=x"),
        ("data:0:path=x", "data.0.path=x"),
        ("data.0.path:x", "data.0.path=x"),
        ("data.path=x", "data.0.path=x"),
        ("data.-1.path=x", "data.0.path=x"),
        ("data.first.path=x", "data.0.path=x"),
        ("TRAIN.STEPS=null", "train.steps=null"),
    ],
)
def test_a_mistyped_key_is_answered_with_the_right_one(override: str, right: str) -> None:
    error = _refuse(override)
    assert error.got == override
    assert error.fix == f"write {right}"


def test_parts_between_blanks_are_one_setting() -> None:
    assert _refuse("train.steps", "500").fix == "write train.steps=500"
    assert _refuse("train.steps", "=", "500").fix == "write train.steps=500"
    assert "an equals sign" in _refuse("train.steps", "optim.lr=1e-4").fix


def test_what_is_within_a_setting_stays() -> None:
    config = load_config(None, ["data.0.path=a", "optim.name=prodigy", "optim.options.d_coef=0.8"])
    assert config.optim.options == {"d_coef": 0.8}
    assert spell_key("train.steps.more") is None
    assert spell_key("zebra.stripes") is None


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("train.steps=1k", "train.steps = 1000"),
        ("train.steps=2.5k", "train.steps = 2500"),
        ("train.steps=2000steps", "train.steps = 2000"),
        ("train.steps=2000 steps", "train.steps = 2000"),
        ("train.steps=500;", "train.steps = 500"),
        ("train.steps='500", "train.steps = 500"),
        ("train.steps=1,000", "train.steps = 1000"),
        ("train.steps=5%", "a whole number"),
        ("data.0.caption_dropout=5%", "data.0.caption_dropout = 0.05"),
        ("adapter.alpha=16/2", "adapter.alpha = 8"),
        ("adapter.rank=1-4", "write one number, such as adapter.rank = 1 or adapter.rank = 4"),
        ("optim.lr=0.9,0.99", "write one number, such as optim.lr = 0.9 or optim.lr = 0.99"),
        ("optim.lr=1e-4..1e-3", "optim.lr = 0.0001 or optim.lr = 0.001"),
        ("optim.lr=1*10^-4", "optim.lr = 0.0001"),
        ("optim.lr=1e−4", "optim.lr = 0.0001"),
        ("optim.betas=0.9,0.99", "optim.betas = [0.9, 0.99]"),
    ],
)
def test_a_number_with_more_than_digits_is_read(override: str, right: str) -> None:
    assert right in _refuse(override).fix


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ('sampling.prompts=["a cat"', "'sampling.prompts=[\"a cat\"]'"),
        ('sampling.prompts=["a cat", "dog', "'sampling.prompts=[\"a cat\", \"dog\"]'"),
        ("sampling.prompts=[a cat", "\"sampling.prompts=['a cat']\""),
        ("adapter.rules=[{match=x,rank=2}", "\"adapter.rules=[{match = 'x', rank = 2}]\""),
        ("train={steps=5", '"train={steps=5}"'),
    ],
)
def test_a_bracket_that_is_not_closed_is_said(override: str, right: str) -> None:
    error = _refuse(override)
    assert "is not closed" in error.what
    assert error.fix == f"write {right}"


def test_tables_in_a_list_that_has_lost_its_quotes_are_quoted_within() -> None:
    assert "\"adapter.rules=[{match = 'x', rank = 2}]\"" in _refuse("adapter.rules=[{match=x,rank=2}]").fix
    assert "\"adapter.rules=[{match = 'x'}, {match = 'y', rank = 2}]\"" in _refuse("adapter.rules=[{match=x},{match=y,rank=2}]").fix


@pytest.mark.parametrize("text", ["[a dog's bone]", "[v] dog", "['a', \"b\"]", "{a = [1, 2]}"])
def test_what_is_closed_stays(text: str) -> None:
    assert close_brackets(text) == text
