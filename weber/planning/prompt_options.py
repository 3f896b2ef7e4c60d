"""Options inside of a prompt, as kohya's and other trainers write them: here they would be painted as words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from weber.errors import ConfigError

_OPTION = re.compile(r"(?<!\S)--([a-z]{1,2})(?:\s+(?!--)(\S+))?(?!\S)")
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^>]*>")
_NAMES = {
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "steps",
    "g": "guidance",
    "l": "cfg",
    "n": "negative_prompt",
    "ar": "width",
    "no": "negative_prompt",
}
"""What each option is here, as a setting of [sampling]."""
_FLAGS = {"width": "--size", "height": "--size", "negative_prompt": "--negative"}
"""The options of `weber sample` that are not called like the setting."""


def check_options(texts: Sequence[str], *, key: str, is_run: bool, section: str = "sampling.") -> None:
    """Raise ConfigError for a text with options in it; `key` is what a person calls the texts, `is_run` whether that is a setting of
    `section`; without one it is a table of its own."""
    for number, text in enumerate(texts):
        options = [found for found in _OPTION.finditer(text) if found[1] in _NAMES]
        networks = _NETWORK.findall(text)
        if not options and not networks:
            continue
        name = f"{key}.{number}" if is_run and section else key
        settings = dict.fromkeys(_describe(found[1], found[2], is_run=is_run, section=section) for found in options)
        advice = f" and set {', '.join(settings)}" if settings else ""
        more = "; adapters that take part are named in model.adapters" if networks else ""
        raise ConfigError(
            f"{name} holds options of other programs, which would be taken as words of the prompt.",
            got=", ".join([*(found[0] for found in options), *networks]),
            expected="the words of the prompt alone; what else there is to say of the pictures are settings"
            + (", for all of them" if section else " beside it"),
            fix=f"take them out{advice}{more}",
        )


def _describe(option: str, value: str | None, *, is_run: bool, section: str) -> str:
    name = _NAMES[option]
    if not is_run:
        return _FLAGS.get(name, f"--{name}")
    return f"{section}{name}" if value is None or name == "negative_prompt" or ":" in value else f"{section}{name} = {value}"
