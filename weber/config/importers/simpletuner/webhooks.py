"""SimpleTuner's webhooks: what each becomes here. Nothing that is said holds an address or a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.texts import read_text
from weber.config.importers.values import read_bool
from weber.config.section import HIDDEN
from weber.errors import ConfigError

_KEY, _INTERVAL = "webhook_config", "webhook_reporting_interval"
_LEVELS = {"critical": "error"}
"""What is called otherwise here; the others are the same."""


def set_webhooks(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Each webhook as a table: of the file itself, or of one that it names."""
    webhooks, notes = _read(draft, value), list[str]()
    for number, webhook in enumerate(webhooks):
        notes += _set(draft, keys, webhook=webhook, number=number)
    if not webhooks:
        return f"{NO_EFFECT}there is no webhook in it"
    said = "output.webhooks" if len(webhooks) == 1 else f"output.webhooks, {len(webhooks)} of them"
    return "; ".join(dict.fromkeys([said, *notes]))


def set_interval(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Steps between messages to raw webhooks."""
    steps = keys.read_int(_INTERVAL) or 0
    if steps <= 0:
        return f"{NO_EFFECT}no such messages are asked for"
    webhooks = _read(draft, keys[_KEY]) if _KEY in keys else []
    number = next((number for number, one in enumerate(webhooks) if _takes_steps(one)), None)
    return f"{NO_EFFECT}it is of raw webhooks, and there is none" if number is None else f"output.webhooks.{number}.every = {steps}"


def _read(draft: Draft, value: Any) -> list[Mapping[str, Any]]:
    """The tables, of a text of JSON or a file too."""
    tree = value
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", "{"):
            tree = _parse(text)
        elif "://" in text:
            raise _build_error("it is an address, not a file or a table")
        else:
            tree = _parse(read_text(find_named(draft, text, key=_KEY)))
    found = tree if isinstance(tree, list) else [tree]
    if not all(isinstance(one, Mapping) for one in found):
        raise _build_error("it holds something that is no table")
    return found


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _build_error("it is no JSON") from None


def _build_error(what: str) -> ConfigError:
    expected = '{"webhook_type": "discord", "webhook_url": ...}, a list of such tables, or the name of a file with them'
    return ConfigError(f"{_KEY} cannot be read: {what}.", got=HIDDEN, expected=expected, fix=f"correct {_KEY} in that file")


def _find_kind(webhook: Mapping[str, Any]) -> str:
    return str(webhook.get("webhook_type") or "").strip().lower()


def _find_level(webhook: Mapping[str, Any]) -> str:
    level = str(webhook.get("log_level") or "info").strip().lower()
    return _LEVELS.get(level, level)


def _takes_steps(webhook: Mapping[str, Any]) -> bool:
    return _find_kind(webhook) == "raw" and _find_level(webhook) in ("info", "debug")


def _set(draft: Draft, keys: Keys, *, webhook: Mapping[str, Any], number: int) -> list[str]:
    """Put one into the draft; returns what is to be said of it."""
    kind, place, origin = _find_kind(webhook), f"output.webhooks.{number}", keys.find(_KEY)
    if kind not in ("discord", "raw"):
        raise _build_error("a webhook_type is neither discord nor raw")
    url = webhook.get("webhook_url") or webhook.get("callback_url")
    if not url:
        raise _build_error("a webhook has neither webhook_url nor callback_url")
    values = {"kind": kind, "url": str(url), "level": _find_level(webhook)}
    if kind == "raw" and webhook.get("auth_token"):
        values["token"] = str(webhook["auth_token"])
    if kind == "discord" and webhook.get("message_prefix"):
        values["message_prefix"] = str(webhook["message_prefix"])
    for name, value in values.items():
        draft.set(f"{place}.{name}", value, origin=origin)
    steps = keys.read_int(_INTERVAL) or 0
    if steps > 0 and _takes_steps(webhook):
        draft.set(f"{place}.every", steps, origin=keys.find(_INTERVAL))
    is_unchecked = read_bool(webhook.get("ssl_no_verify") or False, name="ssl_no_verify")
    return ["weber checks certificates in any case (ssl_no_verify)"] if is_unchecked else []
