"""SimpleTuner's webhooks become ours, and no report holds what is secret in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.config.importers.test_simpletuner_wrong import run
from weber.commands.imports import import_settings
from weber.config.importers.commented import write_commented
from weber.config.importers.outcome import Imported
from weber.config.importers.report import write_page, write_report, write_summary
from weber.config.load import load_config
from weber.errors import ConfigError

ADDRESS = "https://discord.com/api/webhooks/1/s3cret"
DISCORD = {"webhook_type": "discord", "webhook_url": ADDRESS, "message_prefix": "cat", "log_level": "critical"}
RAW = {"webhook_type": "raw", "callback_url": "https://example.org/s3cret", "auth_token": "t0ken", "ssl_no_verify": True}
OURS = [
    {"kind": "discord", "url": ADDRESS, "level": "error", "message_prefix": "cat"},
    {"kind": "raw", "url": "https://example.org/s3cret", "level": "info", "token": "t0ken", "every": 25},
]


def check(imported: Imported, folder: Path) -> None:
    assert imported.tree["output"]["webhooks"] == OURS
    lines = {one.given.name: one for one in imported.outcomes}
    assert lines["webhook_config"].kind == lines["webhook_reporting_interval"].kind == "translated"
    assert lines["webhook_config"].line == "output.webhooks, 2 of them; weber checks certificates in any case (ssl_no_verify)"
    assert lines["webhook_reporting_interval"].line == "output.webhooks.1.every = 25"
    for text in (write_report(imported), write_summary(imported), write_page(imported), str(imported.origins)):
        assert "s3cret" not in text and "t0ken" not in text
    (folder / "run.toml").write_text(write_commented(imported))
    assert load_config(folder / "run.toml") == imported.config


def test_webhooks_of_the_file_itself(tmp_path: Path) -> None:
    check(run(tmp_path, webhook_config=[DISCORD, RAW], webhook_reporting_interval="25"), tmp_path)


def test_webhooks_as_a_text(tmp_path: Path) -> None:
    check(run(tmp_path, webhook_config=json.dumps([DISCORD, RAW]), webhook_reporting_interval=25), tmp_path)


def test_webhooks_of_a_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "webhooks.json").write_text(json.dumps([DISCORD, RAW]))
    imported = run(tmp_path, webhook_config="webhooks.json", webhook_reporting_interval=25)
    check(imported, tmp_path)
    assert str(tmp_path / "webhooks.json") in imported.files


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://example.org/s3cret", "it is an address"),
        ('{"webhook_url": "s3cret", ', "it is no JSON"),
        ([RAW, "s3cret"], "something that is no table"),
        ({"webhook_type": "slack", "webhook_url": "s3cret"}, "neither discord nor raw"),
        ({"webhook_type": "raw"}, "neither webhook_url nor callback_url"),
        ({"webhook_type": "raw", "callback_url": "s3cret"}, "no address of a server"),
        ({"webhook_type": "raw", "callback_url": "https://example.org", "log_level": "s3"}, "output.webhooks.0.level"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, webhook_config=value)
    assert says in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"webhook_reporting_interval": 5}, "it is of raw webhooks, and there is none"),
        ({"webhook_reporting_interval": 5, "webhook_config": DISCORD}, "it is of raw webhooks, and there is none"),
        ({"webhook_reporting_interval": 0, "webhook_config": RAW}, "no such messages are asked for"),
    ],
)
def test_an_interval_without_a_raw_webhook(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    found = next(one for one in run(tmp_path, **options).outcomes if one.given.name == "webhook_reporting_interval")
    assert (found.kind, found.line) == ("no effect", line)


def test_the_file_that_is_written_is_its_owners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, webhook_config=[DISCORD, RAW])
    import_settings(tmp_path / "config.json", out=tmp_path / "run.toml")
    assert "s3cret" in (tmp_path / "run.toml").read_text() and (tmp_path / "run.toml").stat().st_mode & 0o077 == 0
    said = capsys.readouterr()
    assert "(not shown)" in said.out and not [one for one in ("s3cret", "t0ken") if one in said.out + said.err]
