"""A command line that means nothing is explained like a setting: what was got, what was expected, what to write."""

from __future__ import annotations

import pytest
from cyclopts import CycloptsError

from weber.commands.mistakes import EXAMPLES, build_mistake
from weber.commands.verbs import app, call
from weber.errors import ConfigError

ZOO: dict[str, tuple[str, str, str]] = {
    "plan": ("weber plan needs CONFIG.", "A TOML file of settings", "weber plan run.toml"),
    "train": ("weber train needs CONFIG.", "A TOML file", "weber train run.toml"),
    "plan --card": ("--card needs a value.", "this GPU", "weber plan run.toml"),
    "sample": ("weber sample needs", "", "weber sample runs/lora"),
    "merge a b": ("weber merge needs --out.", "The adapter file", "--out sum.safetensors"),
    "inspect a b": ("weber inspect takes less than that.", "", "remove it"),
    "plna x": ("weber has no verb 'plna'.", "train, launch, plan, cache", "did you mean `weber plan`?"),
    "data chek x": ("weber data has no verb 'chek'.", "check, resize, convert", "did you mean `weber data check`?"),
    "tags zork x": ("weber tags has no verb 'zork'.", "add, first, remove", "`weber tags --help`"),
    "zork": ("weber has no verb 'zork'.", "train, launch, plan, cache", "`weber --help`"),
    "sample a --prompt x --steps many": ("--steps cannot be 'many'.", "a whole number", "`weber sample --help`"),
    "sample a --prompt x --strength strong": ("--strength cannot be 'strong'.", "a number", "`weber sample --help`"),
    "train run.toml --optim.lr=1e-3": ("weber train has no option --optim.lr=1e-3.", "", "no dashes: write optim.lr=1e-3"),
    "train run.toml --train.steps 500": ("weber train has no option --train.steps.", "", "write train.steps=500"),
    "train run.toml --resum": ("weber train has no option --resum.", "", "did you mean --resume?"),
    "plan run.toml --lr 1e-4": ("weber plan has no option --lr.", "", "use optim.lr"),
    "plan run.toml --learning_rate=1e-4": ("weber plan has no option --learning_rate=1e-4.", "", "use optim.lr"),
    "cache run.toml --zork": ("weber cache has no option --zork.", "", "`weber cache --help`"),
    "cache gc --zork": ("weber cache gc has no option --zork.", "", "`weber cache gc --help`"),
    "export runs/a": ("weber export needs --format.", "diffusers, kohya, comfyui", "--format kohya"),
}


def _explain(line: str) -> ConfigError:
    with pytest.raises(CycloptsError) as caught:
        call(line.split())
    return build_mistake(caught.value, line.split())


@pytest.mark.parametrize("line", ZOO)
def test_a_mistake_is_one_message(line: str) -> None:
    what, expected, fix = ZOO[line]
    error = _explain(line)
    assert error.what.startswith(what) and "\n" not in error.what
    assert error.got.endswith(f"weber {line}") and expected in error.expected and fix in error.fix


def test_every_verb_has_an_example() -> None:
    verbs = {name for name in app if not name.startswith("-")}
    assert verbs <= set(EXAMPLES)
    assert all(line.startswith(f"weber {verb}") for verb, line in EXAMPLES.items())
