"""Keys and defaults are a promise: a change of one must be seen in a diff of `config_keys.txt`."""

from __future__ import annotations

from pathlib import Path

from weber.config.settings import list_settings
from weber.config.toml import write_value

SNAPSHOT = Path(__file__).with_name("config_keys.txt")


def test_keys_and_defaults_are_those_of_the_snapshot() -> None:
    now = [
        setting.key + (" (required)" if setting.required else "" if setting.default is None else f" = {write_value(setting.default)}")
        for setting in list_settings()
    ]
    promised = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    gone, new = [line for line in promised if line not in now], [line for line in now if line not in promised]
    assert now == promised, f"{SNAPSHOT.name} is the promise to those who wrote run files; if you mean it, edit it: - {gone} + {new}"
