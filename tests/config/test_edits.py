"""A TOML text is changed in place: what is meant is there, and every comment is where it was."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weber.config.edits import move_entry, write_setting
from weber.config.load import place_value
from weber.config.statements import list_statements
from weber.errors import ConfigError

SOURCE = '''\
# one
[model]
variant = "pocket" # two

# three
[[data]]
path = "a"  # four
caption_endings = [
  ".long.txt", # five
  ".txt", # six
]

[[data]]
path = "b" # seven

[[data.caption_steps]]
kind = "prefix"
text = """x # no comment
[no.header]
"""

# eight
[train]
steps = 5
# nine
[output] # ten
folder = 'runs/x'
'''
DOTTED = """\
train.steps = 5 # one
optim = {lr = 1e-4, "name" = 'adamw'} # two

# three
[adapter.lycoris]
algo = "lokr" # four
apply_preset.target_name = ["a#b"] # five
[adapter]
kind = "lycoris"
"""


def test_a_new_key_stands_with_its_own_section_and_comments_stay_where_they_were() -> None:
    text = write_setting(SOURCE, "train.batch_size", value=2)
    assert "steps = 5\nbatch_size = 2\n# nine\n[output] # ten" in text
    text = write_setting(text, "data.0.repeats", value=3)
    assert ']\nrepeats = 3\n\n[[data]]\npath = "b" # seven' in text
    text = write_setting(text, "model.variant", value="flux1-dev")
    assert 'variant = "flux1-dev" # two' in text
    text = write_setting(text, "data.2", value={"path": "c"})
    assert '"""\n\n[[data]]\npath = "c"\n\n# eight\n[train]' in text
    text = write_setting(text, "data.0.caption_steps.0", value={"kind": "suffix", "text": "y"})
    assert 'repeats = 3\n\n[[data.caption_steps]]\nkind = "suffix"\ntext = "y"\n\n[[data]]\npath = "b" # seven' in text
    text = write_setting(text, "sampling.prompts", value=["a cat"])
    assert text.endswith("folder = 'runs/x'\n\n[sampling]\nprompts = [\"a cat\"]\n")


def test_what_is_taken_out_leaves_no_gap() -> None:
    text = write_setting(SOURCE, "data.1", value=None)
    assert "]\n\n# eight\n[train]" in text and "seven" not in text
    assert write_setting(SOURCE, "train.steps", value=None).count("\n") == SOURCE.count("\n") - 1
    assert write_setting(SOURCE, "train.nothing", value=None) == SOURCE


def test_sections_in_other_forms_are_changed_in_those_forms() -> None:
    text = write_setting(DOTTED, "train.batch_size", value=2)
    assert text.startswith("train.steps = 5 # one\ntrain.batch_size = 2\n")
    text = write_setting(text, "optim.lr", value=1e-3)
    assert 'optim = {lr = 0.001, name = "adamw"} # two' in text
    text = write_setting(text, "adapter.lycoris.apply_preset.use_fnmatch", value=True)
    assert 'apply_preset.target_name = ["a#b"] # five\napply_preset.use_fnmatch = true\n' in text
    assert "lycoris" not in tomllib.loads(write_setting(text, "adapter.lycoris", value=None))["adapter"]


def test_a_long_list_has_an_item_per_line() -> None:
    text = write_setting("", "sampling.prompts", value=[f"a picture of {number} cats on a sofa" for number in range(9)])
    assert text.startswith('[sampling]\nprompts = [\n  "a picture of 0 cats on a sofa",\n') and text.endswith("\n]\n")


STEPS = """\
[[data]]
path = "a"

# first
[[data.caption_steps]]
kind = "prefix" # one
text = "x"

[[data.caption_steps]]
kind = "suffix"
text = "y" # two
# still two

# other
[train]
steps = 5
"""


def test_an_entry_of_a_list_moves_with_its_remarks() -> None:
    text = move_entry(STEPS, "data.0.caption_steps.1")
    assert text == """\
[[data]]
path = "a"

[[data.caption_steps]]
kind = "suffix"
text = "y" # two
# still two

# first
[[data.caption_steps]]
kind = "prefix" # one
text = "x"

# other
[train]
steps = 5
"""
    assert move_entry(text, "data.0.caption_steps.1") == STEPS
    swapped = move_entry(SOURCE, "data.1")
    assert [one["path"] for one in tomllib.loads(swapped)["data"]] == ["b", "a"] and "# three\n[[data]]\npath = \"a\"  # four" in swapped
    assert move_entry('data = [{path = "a"}, {path = "b"}] # two', "data.1") == 'data = [{path = "b"}, {path = "a"}] # two'
    for key in ("data.0", "data.2", "train.1", "nothing.1"):
        with pytest.raises(ConfigError, match="no entry"):
            move_entry(SOURCE, key)


VALUES = st.one_of(
    st.booleans(), st.integers(-5, 10**9), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3), st.dictionaries(st.sampled_from(["a", "b.c", "d e"]), st.integers(0, 9), max_size=2),
)
KEYS = st.sampled_from([
    "model.variant", "model.path", "train.steps", "train.seed", "optim.lr", "optim.betas", "output.folder", "data.0.path",
    "data.0.repeats", "data.1.path", "data.1.captions", "data.0.caption_steps.0.kind", "data.1.caption_steps.0.text",
    "data.1.caption_steps.1.kind", "adapter.lycoris.algo", "adapter.lycoris.apply_preset.name_algo_map", "adapter.rank",
])  # fmt: skip
TAKEN = st.sampled_from(["data.0", "data.1", "data.1.caption_steps.0", "train", "adapter.lycoris", "optim", "nothing.at_all"])
EDITS = st.lists(st.one_of(st.tuples(KEYS, VALUES), st.tuples(st.one_of(KEYS, TAKEN), st.none())), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([SOURCE, DOTTED, "", "[[data]]\npath = 'x'"]), EDITS)
def test_any_edits_read_back_as_what_was_meant(text: str, edits: list[tuple[str, Any]]) -> None:
    for key, value in edits:
        before: dict[str, Any] = tomllib.loads(text)
        wanted = copy.deepcopy(before)
        if value is not None:
            try:
                place_value(wanted, key, value=value)
            except ConfigError:
                continue  # it would need an entry that is not there
        text = write_setting(text, key, value=value)
        after: dict[str, Any] = tomllib.loads(text)
        if value is not None:
            assert after == wanted
        else:
            assert drop_empty(after) == drop_empty(without(before, key.split(".")))


def without(tree: Any, parts: list[str]) -> Any:
    """The tree without what is there."""
    head = int(parts[0]) if isinstance(tree, list) else parts[0]
    is_there = head < len(tree) if isinstance(head, int) else isinstance(tree, dict) and head in tree
    if not is_there:
        return tree
    if len(parts) == 1:
        return [one for place, one in enumerate(tree) if place != head] if isinstance(tree, list) else tree | {head: None}
    inner = without(tree[head], parts[1:])
    return [inner if place == head else one for place, one in enumerate(tree)] if isinstance(tree, list) else tree | {head: inner}


def drop_empty(tree: Any) -> Any:
    """Without what is empty: a section without settings says nothing."""
    if isinstance(tree, dict):
        return {name: kept for name, value in tree.items() if (kept := drop_empty(value)) not in (None, {}, [])}
    return [drop_empty(one) for one in tree] if isinstance(tree, list) else tree


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([SOURCE, DOTTED]), st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_comments_survive_what_is_set(text: str, edits: list[tuple[str, Any]]) -> None:
    words = ["one", "two", "three", "four", "five"]
    for key, value in edits:
        if key in ("optim.betas", "data.0.caption_endings"):
            continue
        try:
            text = write_setting(text, key, value=value)
        except ConfigError:
            continue
    assert [word for word in words if f"# {word}" in text] == words


ODD = (
    'a = 1 # "x\nb = \'\'\'\n#\n\'\'\'',
    'x."a b"."c\\u00e9" = {y = [1, 2]}\n',
    'a = """""x"""""\nb = [ # [\n]\n',
)


@pytest.mark.parametrize("text", ODD)
def test_statements_are_cut_where_a_parser_cuts_them(text: str) -> None:
    tree: Any = tomllib.loads(text)
    for one in list_statements(text):
        value = tree
        for part in one.place:
            value = value[part]
        assert tomllib.loads(f"v = {text[one.value_start : one.value_end]}")["v"] == value
