"""What is typed as `section.key=value`: the key and the value in it, or why it is none and how it is spelled."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time

from weber.config.foreign import FOREIGN_SECTIONS
from weber.config.near import find_near
from weber.config.settings import SET_SECTION, find_setting, is_known, list_sections
from weber.errors import ConfigError

LEFT_OUT = "null"
"""What an override says in place of a value."""

_SIGNS = re.compile(r"\s*(?::=|\+=|=>|->|=+>?|:(?=[^:=]*$)|\s(?=[^\s=:]+$))\s*")
"""What stands between a key and its value in other programs, and what is mistyped for an equals sign."""

_PAIRS = {"[": "]", "{": "}"}


def split_override(override: str, following: Sequence[str] = ()) -> tuple[str, object]:
    """Key and value of a text; the value None leaves out what the file says.

    Raises ConfigError for what is none, with the right spelling: `following` texts may be parts of it, where blanks stood.
    """
    key, equals, text = override.partition("=")
    key, text = key.strip().lstrip("-"), text.strip()
    if any("\ud800" <= character <= "\udfff" for character in override):
        raise ConfigError(f"{key} holds characters that are not text", got=ascii(override), expected="UTF-8", fix="use a name in UTF-8")
    if not equals or not all(key.split(".")) or text[:1] in ("=", ">") or key[-1:] in (":", "+", "-"):
        texts = [" ".join([override, *following[:count]]) for count in range(3)]
        right = next((f"{right}={rest}" for text in texts for right, rest in _list_readings(text) if rest), None)
        raise ConfigError(
            f"{override!r} is not a setting",
            got=override,
            expected="section.key=value, such as train.steps=500 or data.0.path=pictures",
            fix="write the key, an equals sign and the value, without spaces around it" if right is None else f"write {right}",
        )
    if text == LEFT_OUT:
        return key, None
    value = read_value(text)
    if value == text and text[:1] in _PAIRS:
        _check_brackets(key, text)
    return key, value


def check_spelling(key: str, value: object, *, override: str) -> None:
    """Refuse a key that is a setting when it is spelled as weber does, and say how."""
    right = key if _is_whole(key) else spell_key(key)
    if right is not None and right != key:
        text = override.partition("=")[2].strip()
        raise ConfigError(
            f"{key} is not how the setting is spelled",
            got=override,
            expected="section.key in small letters with points between; sets of pictures are counted from 0",
            fix=f"write {right}={LEFT_OUT if value is None else text}",
        )


def spell_key(text: str) -> str | None:
    """The key that a text means in another spelling: other signs, capitals, a section misspelled, a set without its number."""
    parts = [part for part in re.split(r"[\s./:\[\]\"'$]+", text.strip().lower()) if part]
    if len(parts) < 2:
        return None
    sections = [section.name for section in list_sections() if "." not in section.name]
    parts[0] = parts[0] if parts[0] in sections else FOREIGN_SECTIONS.get(parts[0]) or find_near(parts[0], sections) or parts[0]
    if parts[0] == SET_SECTION and not parts[1].isdecimal():
        has_word = len(parts) > 2 and find_setting(f"{SET_SECTION}.0.{parts[1]}") is None
        parts = [SET_SECTION, "0", *parts[2 if has_word else 1 :]]
    key = ".".join(parts)
    return key if _is_whole(key) else None


def read_value(text: str) -> object:
    """A value as TOML has it, else the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # No setting is a date, so 2024-05-01 is a name; and a text that would set more than one key is just text.
    return text if len(parsed) != 1 or isinstance(parsed["value"], date | time) else parsed["value"]


def _is_whole(key: str) -> bool:
    """Whether a key means a section or a setting, or something within one, and a set in it has its number."""
    parts = key.split(".")
    if not is_known(key) or (parts[0] == SET_SECTION and parts[1:] and not parts[1].isdecimal()):
        return False
    passed = [setting for end in range(1, len(parts)) if (setting := find_setting(".".join(parts[:end]))) is not None]
    return all(setting.is_collection for setting in passed)


def _list_readings(override: str) -> Iterator[tuple[str, str]]:
    """Known keys and values that a text is made of, if it is cut at any sign."""
    for sign in _SIGNS.finditer(override):
        key = spell_key(override[: sign.start()].lstrip("-"))
        if key is not None:
            yield key, override[sign.end() :].strip()


def _check_brackets(key: str, text: str) -> None:
    """Refuse a list or table that is not whole, where one may stand: a text that looks like it is not what was meant."""
    setting = find_setting(key)
    if setting is None and not is_known(key) or setting is not None and not setting.is_collection:
        return
    noun, expected = "list" if text[0] == "[" else "table", "a table" if setting is None else setting.expected
    closed = close_brackets(text)
    if closed != text:
        right = closed if read_value(closed) != closed else _quote_items(closed)
        raise ConfigError(f"{key}: a bracket of the {noun} is not closed", got=f"{key}={text}", expected=expected, fix=_quote(key, right))
    if text[-1] == _PAIRS[text[0]]:
        raise ConfigError(
            f"{key}: the {noun} has lost its quotes, which a shell takes away",
            got=f"{key}={text}",
            expected=expected,
            fix=f"{_quote(key, _quote_items(text))}, with both kinds of quotes",
        )


def _quote(key: str, text: str) -> str:
    outer = "'" if '"' in text else '"'
    return f"write {outer}{key}={text}{outer}"


def close_brackets(text: str) -> str:
    """A list or table with the quote and the brackets that are missing at its end."""
    missing, quote = "", ""
    for before, character in zip(f" {text}", text, strict=False):
        if quote or character in "\"'" and not before.isalnum():
            quote = "" if character == quote else quote or character
        elif character in _PAIRS:
            missing = _PAIRS[character] + missing
        elif missing[:1] == character:
            missing = missing[1:]
    return text + (quote + missing if missing else "")


def _quote_items(text: str) -> str:
    """A list or table with its texts in single quotes, and so within it; numbers and what has quotes stay as they are."""
    text = text.strip()
    if not text or text[:1] + text[-1:] not in ("[]", "{}"):
        return text if read_value(text) != text else f"'{text}'"
    items = []
    for item in _split_items(text[1:-1]):
        name, equals, rest = item.partition("=") if text[0] == "{" else ("", "", item)
        items.append(f"{name.strip()} = " * bool(equals) + _quote_items(rest))
    return text[0] + ", ".join(items) + text[-1]


def _split_items(text: str) -> list[str]:
    """Items between commas that are in no inner brackets."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return items
