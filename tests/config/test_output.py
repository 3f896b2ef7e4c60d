"""What a run leaves behind, as people want it."""

from __future__ import annotations

import pytest

from weber.config.every import count_steps
from weber.config.load import load_config
from weber.errors import ConfigError


@pytest.mark.parametrize(("every", "steps"), [(250, 250), ("1 epoch", 12), ("3 epochs", 36)])
def test_a_period_is_said_in_steps_or_epochs(every: int | str, steps: int) -> None:
    overrides = [f"output.save_every={every}", f"output.keep_every={every}", f"sampling.every={every}", 'sampling.prompts=["x"]']
    config = load_config(None, ["data.0.path=a", *overrides])
    for got in (config.output.save_every, config.output.keep_every, config.sampling.every):
        assert got is not None and count_steps(got, steps_per_epoch=12) == steps


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("output.save_every=0", ["output.save_every", "one checkpoint is written at the end in any case", "2 epochs"]),
        ("output.save_every=true", ["output.save_every", "a whole number, at least 1 or epochs, such as"]),
        ("output.save_every=0 epochs", ["2 epochs"]),
        ("output.save_every=often", ["often", "2 epochs"]),
        ("output.keep_every=1.5", ["output.keep_every"]),
        ("output.keep_last=every", ["output.keep_last", '"all"']),
        ("output.name=runs/style", ["output.name", "not a path", "output.folder"]),
        ("output.name=style.safetensors", ['name = "style"']),
        ("output.name=.hidden", ["name of files"]),
        ("output.precision=fp8", ["output.precision", '"bf16"']),
        ("optim.lr=1e10", ["optim.lr", "at most 100"]),
        ("optim.lr=inf", ["optim.lr"]),
    ],
)
def test_what_cannot_be_is_refused(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.0.path=a", override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["output.keep_last=all", "output.keep_every=100"], ["keep_every", "has no effect", "remove one"]),
        (["output.precision=bf16", "adapter.kind=full"], ["output.precision", "has no effect"]),
    ],
)
def test_what_cannot_act_is_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.0.path=a", *overrides])
    assert all(word in str(caught.value) for word in words), str(caught.value)
