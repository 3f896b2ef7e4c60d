"""The form says what the file says, and what is typed becomes what was meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weber.config.form import build_form, choose_kind, list_changes, list_unknown, read_typed, write_typed
from weber.config.load import build_config, check_tree
from weber.config.settings import find_setting, list_settings

TREE: dict[str, Any] = tomllib.loads("""
[[data]]
path = "a"
resolution = [512, 768]
captions = ["textfile", "none"]
[[data.caption_steps]]
kind = "trigger"
text = "zorb"
separator = " "
[adapter]
kind = "lycoris"
[adapter.lycoris]
algo = "lokr"
apply_preset = {name_algo_map = {"a.*" = {algo = "loha"}}}
[optim]
lr = 1e-4
betas = [0.9, 0.99]
clip_norm = "off"
[train]
epochs = 3
[[output.webhooks]]
kind = "raw"
url = "https://example.org/secret-word"
token = "hush"
[sampling]
prompts = ["a \\"cat\\"", "  two\\nlines"]
seeds = [1, 2]
every = "2 epochs"
""")


def test_a_form_has_every_setting_and_says_what_the_file_says() -> None:
    build_config(TREE)
    blocks = build_form(TREE, added=["model.adapters.0", "adapter.rules.0", "objective.rollout", "objective.tread.0"])
    rows = {row.key: row for block in blocks for row in block.list_rows()}
    assert set(rows) == {setting.key for setting in list_settings() if setting.table is None}
    assert rows["data.0.resolution"].text == "[512, 768]" and rows["data.0.captions"].text == "textfile\nnone"
    assert rows["data.0.caption_steps.0.separator"].text == '" "'
    assert rows["sampling.prompts"].text == 'a "cat"\n"  two\\nlines"'
    assert rows["adapter.lycoris.apply_preset.name_algo_map"].text == '{"a.*" = {algo = "loha"}}'
    assert (rows["train.epochs"].unit, rows["train.epochs"].differs, rows["train.seed"].default) == ("epochs", True, "42")
    assert rows["optim.lr"].text != "" and rows["output.webhooks.0.url"].text == rows["output.webhooks.0.token"].text == ""
    assert not list_changes(TREE, {key: row.text for key, row in rows.items()})
    assert [row.key for row in rows.values() if row.is_found("left right mirror_sides")] == ["data.0.mirror_sides"]
    titles = [block.title for block in blocks]
    assert titles[:2] == ["[model]", "[[data]] 1"] and dict(blocks[0].addable).keys() == {"model.adapters.1"}
    assert all("secret-word" not in repr(row) and "hush" not in repr(row) for row in rows.values())


def test_what_is_typed_is_what_was_meant() -> None:
    typed = {
        "train.epochs": "", "train.steps": "500", "optim.lr": "2e-4", "data.0.name": "5", "data.0.mirror": "true",
        "data.0.captions": "filename\r\nnone", "optim.clip_norm": "1.5", "data.0.path": "b", "sampling.every": "100",
        "output.webhooks.0.url": "", "memory.fit": "24GB", "data.0.caption_steps.0.separator": '""', "model.variant": "pocket",
    }  # fmt: skip
    changes = dict(list_changes(TREE, typed))
    assert changes == {
        "train.epochs": None, "train.steps": 500, "optim.lr": 2e-4, "data.0.name": "5", "data.0.mirror": True,
        "data.0.captions": ["filename", "none"], "optim.clip_norm": 1.5, "data.0.path": "b", "sampling.every": 100,
        "memory.fit": "24GB", "data.0.caption_steps.0.separator": "", "model.variant": "pocket",
    }  # fmt: skip
    assert list_changes(TREE, {"train.steps": "five", "nothing.there": "1"}) == [("train.steps", "five")]
    form = build_form(TREE, typed={"train.steps": "five"})
    assert next(row.text for block in form for row in block.list_rows() if row.key == "train.steps") == "five"


def test_problems_are_told_by_their_keys() -> None:
    problems = check_tree(TREE | {"train": {"steps": "five", "stepz": 3}})
    assert set(problems) == {"train.steps", "train.stepz"}
    assert "train.steps" in problems["train.stepz"].fix
    end = {"lr": 1e-4, "schedule": "cosine", "end_lr": 1e-3}
    assert set(check_tree(TREE | {"optim": end})) == {""}
    assert set(check_tree(TREE | {"adapter": {"kind": "lycoris"}})) == {"adapter"}
    assert "adapter.lycoris" in check_tree(TREE | {"adapter": {"kind": "lycoris", "lycoris": "absent.json"}})
    assert not check_tree(TREE)


def test_what_is_no_setting_is_found() -> None:
    tree = TREE | {"train": {"epoks": 3, "steps": 1}, "concept": {"a": 1}, "data": [{"path": "a", "q": 1, "caption_steps": [{"x": 2}]}]}
    assert dict(list_unknown(tree)) == {"train.epoks": 3, "concept": {"a": 1}, "data.0.q": 1, "data.0.caption_steps.0.x": 2}


ODD = ["5", "true", "[1]", '"q"', "'", " a", "a\nb", "1e3", "{", "off", "\\"]
TEXTS = st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(ODD))
SEVERAL = st.lists(TEXTS, min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([one for one in list_settings() if one.table is None and choose_kind(one) in ("text", "path")]), TEXTS)
def test_any_text_is_read_back_from_its_field(setting: Any, text: str) -> None:
    assert read_typed(setting, write_typed(setting, text)) == text


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([one for one in list_settings() if one.table is None and choose_kind(one) == "lines"]), SEVERAL)
def test_any_list_is_read_back_from_its_field(setting: Any, items: list[str]) -> None:
    assert read_typed(setting, write_typed(setting, items)) == items


@pytest.mark.parametrize("value", [5, 0.5, [512, 768], "832x1216", ["832x1216", 512], [0.5]])
def test_numbers_and_lists_are_read_back(value: object) -> None:
    setting = find_setting("data.0.resolution")
    assert setting is not None and read_typed(setting, write_typed(setting, value)) == value


def test_paths_of_defaults_are_shown() -> None:
    setting = find_setting("output.folder")
    assert setting is not None and write_typed(setting, Path("runs/lora")) == "runs/lora"
