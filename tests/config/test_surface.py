"""The settings' faces say what the fields say, and the committed pages are up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.load import build_config, load_config
from weber.config.settings import Setting, list_sections, list_settings
from weber.config.surface import build_docs, build_help, build_schema

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_page_is_up_to_date() -> None:
    assert (DOCS / "config.md").read_text(encoding="utf-8") == build_docs(), "docs/config.md is old; run: make docs"


def test_the_committed_schema_is_up_to_date() -> None:
    committed = json.loads((DOCS / "config.schema.json").read_text(encoding="utf-8"))
    assert committed == build_schema(), "docs/config.schema.json is old; run: make docs"


def test_every_setting_is_documented() -> None:
    assert [setting.key for setting in list_settings() if not setting.doc.endswith((".", ")"))] == []
    assert [section.name for section in list_sections() if not section.doc] == []


@pytest.mark.parametrize("face", [build_help, build_docs])
def test_every_setting_is_in_every_face(face: object) -> None:
    assert callable(face)
    text = face()
    for setting in list_settings():
        assert (setting.key if face is build_help else f"| `{setting.name}` |") in text


def test_the_help_tells_defaults_choices_and_first_sentences() -> None:
    lines = build_help().splitlines()
    assert "  train.seed = 42" in lines
    assert "  data.0.path" in lines
    assert '"bf16"' in lines[lines.index('  memory.dtype = "auto"') + 1]
    assert "Left out" not in build_help()
    assert max(map(len, lines)) <= 80


def test_the_schema_knows_keys_choices_limits_and_what_may_be_left_out() -> None:
    schema = build_schema()
    data = schema["$defs"]["DataConfig"]
    assert schema["required"] == ["data"]
    assert "required" not in data  # either `path` or `hub`
    assert data["additionalProperties"] is False
    assert data["properties"]["crop"]["enum"] == ["off", "center", "random", "corner", "face"]
    assert data["properties"]["repeats"] | {"description": ""} == {"type": "integer", "minimum": 1, "default": 1, "description": ""}
    assert "null" not in json.dumps(schema)
    for section in list_sections():
        properties = schema["$defs"][section.type.__name__]["properties"]
        assert {name: entry["description"] for name, entry in properties.items()} == {row.name: row.doc for row in section.settings}


def test_the_examples_on_the_page_load(tmp_path: Path) -> None:
    examples = [block.partition("```")[0] for block in build_docs().split("```toml\n")[1:]]
    assert len(examples) == 2
    for text in examples:
        (tmp_path / "run.toml").write_text(text, encoding="utf-8")
        assert load_config(tmp_path / "run.toml").data


def test_every_default_is_a_value_that_may_be_given() -> None:
    for setting in list_settings():
        if setting.default is not None and setting.section not in ("data", "sampling") and "." not in setting.section:
            build_config({"data": [{"path": "a"}], setting.section: {setting.name: setting.default}})


@pytest.mark.parametrize("setting", list_settings(), ids=lambda setting: setting.key)
def test_the_first_sentence_of_a_setting_is_whole(setting: Setting) -> None:
    assert setting.summary and setting.doc.startswith(setting.summary)
    assert setting.summary.count("(") == setting.summary.count(")")
    assert not setting.summary.endswith(("et al", "such as", "e.g"))


def test_a_point_in_an_abbreviation_ends_no_sentence() -> None:
    [dora] = [setting for setting in list_settings() if setting.key == "adapter.dora"]
    assert dora.summary == "Learn a length for each output too (DoRA, Liu et al. 2024)"
    assert f"{dora.summary}." in " ".join(build_help().split())
