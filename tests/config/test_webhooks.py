"""`[[output.webhooks]]`: what is refused, and that nothing which is said holds an address or a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.load import build_config, list_changes, load_config, save_config
from weber.config.run import RunConfig
from weber.errors import ConfigError

URL, TOKEN = "https://example.org/hooks/s3cret", "t0ken"
GOOD = {"kind": "raw", "url": URL, "token": TOKEN}


def build(*webhooks: object) -> RunConfig:
    return build_config({"data": [{"path": "a"}], "output": {"webhooks": list(webhooks)}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "example.org/s3cret"}, ["output.webhooks.0.url", "no address of a server", "https:// in front"]),
        ({"url": "ftp://example.org/s3cret"}, ["no address of a server"]),
        ({"url": "https:///s3cret"}, ["no address of a server"]),
        ({"url": "https://example.org/s3cret here"}, ["holds a blank", "copy it again"]),
        ({"url": "https://example.org/s3cret\n"}, ["holds a blank"]),
        ({"url": "https://me:s3cret@example.org/"}, ["before @", "set token"]),
        ({"url": "https://example.org:s3cret/"}, ["its port cannot be read"]),
        ({"url": "https://[s3cret/"}, ["cannot be read"]),
        ({"url": ["https://example.org/s3cret"]}, ["output.webhooks.0.url", "expected: text"]),
        ({"token": "t0ken\nX-Other: 1"}, ["output.webhooks.0.token", "no header"]),
        ({"kind": "slack"}, ["output.webhooks.0.kind", '"slack"', '"discord"', '"raw"']),
        ({"kind": "discord"}, ["token has no effect", "remove it"]),
        ({"kind": "discord", "token": None, "url": "https://discord.com/channels/1/s3cret"}, ["page of Discord", "Copy Webhook URL"]),
        ({"url": "https://discord.com/api/webhooks/1/s3cret"}, ['kind = "discord"']),
        ({"message_prefix": "cat"}, ["message_prefix has no effect", "job_id"]),
        ({"level": "critical"}, ["output.webhooks.0.level", '"error"']),
        ({"level": "warning", "every": 5}, ["every has no effect", 'level = "info"']),
        ({"every": 0}, ["output.webhooks.0.every"]),
        ({"uri": "https://example.org/s3cret"}, ["output.webhooks.0.uri", "is not a setting", "url"]),
    ],
)
def test_what_cannot_be_is_refused_without_a_secret(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build({key: value for key, value in {**GOOD, **changes}.items() if value is not None})
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "s3cret" not in said and TOKEN not in said


@pytest.mark.parametrize("place", ["output.webhooks", "output.webhook_config", "webhook_config", "train.webhook_url"])
@pytest.mark.parametrize("value", [URL, [{"webhook_type": "raw", "callback_url": URL}], [URL]])
def test_other_names_are_refused_without_a_secret(place: str, value: object) -> None:
    tree: dict[str, Any] = {"data": [{"path": "a"}]}
    section, _, key = place.rpartition(".")
    (tree.setdefault(section, {}) if section else tree)[key] = value
    with pytest.raises(ConfigError) as caught:
        build_config(tree)
    said = str(caught.value)
    assert "s3cret" not in said and "[[output.webhooks]]" in said, said


def test_what_is_saved_is_read_back_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    config = build(GOOD, {"kind": "discord", "url": URL, "every": "1 epoch"})
    save_config(config, tmp_path / "run.toml")
    assert load_config(tmp_path / "run.toml") == config
    assert (tmp_path / "run.toml").stat().st_mode & 0o077 == 0
    save_config(build(), tmp_path / "plain.toml")
    (tmp_path / "new").write_text("")
    assert (tmp_path / "plain.toml").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_what_is_shown_holds_no_secret() -> None:
    config = build(GOOD)
    changes = {key: value for key, value, _ in list_changes(config)}
    assert changes["output.webhooks.0.url"] == changes["output.webhooks.0.token"] == "(not shown)"
    assert changes["output.webhooks.0.kind"] == "raw"
    assert "s3cret" not in repr(config) and TOKEN not in repr(config)
    with pytest.raises(ConfigError) as caught:
        build({**GOOD, "url": "s3cret"})
    assert "s3cret" not in str(caught.value.__cause__)


def test_they_are_given_on_the_command_line_too() -> None:
    config = load_config(None, ["data.0.path=a", "output.webhooks.0.kind=raw", f"output.webhooks.0.url={URL}"])
    assert json.loads(config.model_dump_json())["output"]["webhooks"][0] == {
        "kind": "raw",
        "url": URL,
        "token": None,
        "level": "info",
        "every": None,
        "message_prefix": None,
    }
