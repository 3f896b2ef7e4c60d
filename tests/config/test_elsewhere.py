"""What an address may hold that nobody else should read."""

from __future__ import annotations

import pytest

from weber.config.elsewhere import hide_logins
from weber.config.load import build_config
from weber.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:s3cret@bucket/cats", "s3://(not shown)@bucket/cats"),
        ('["sftp:/me:s3cret@host/cats", "http://me@host"]', '["sftp:/(not shown)@host/cats", "http://(not shown)@host"]'),
        ("s3://bucket/a@b.png", "s3://bucket/a@b.png"),
    ],
)
def test_logins_in_addresses_are_not_shown(text: str, shown: str) -> None:
    assert hide_logins(text) == shown


def test_an_error_does_not_repeat_a_password() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"data": [{"path": "."}], "publish": {"to": "s3://key:s3cret@bucket/cats"}})
    assert "s3cret" not in str(caught.value) and "before @" in str(caught.value)
