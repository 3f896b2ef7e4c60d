"""Strengths of single blocks, as one text: `single:0.5, double.3:0`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from weber.errors import ConfigError
from weber.families.pairing import Pairing, find_module

_EXPECTED = "NAME:STRENGTH, with commas between them, such as single:0.5, double.3:0 or double.0-9:0.8"
_RANGE = re.compile(r"(\d+)-(\d+)")
_NUM_SHOWN = 4


def read_strengths(text: str, layers: Iterable[str], *, pairings: Sequence[Pairing]) -> dict[str, float]:
    """The strength of each layer (by the library's name) that one of the names means; all others stay as they are.

    A name is the start of a layer's name, as the library or the makers call it: of its first word the start is enough, a number may be a
    range, `*` stands for any text. The last name that means a layer counts. Raises ConfigError where one means no layer.
    """
    listed = list(layers)
    names = {layer: _list_names(layer, pairings) for layer in listed}
    strengths: dict[str, float] = {}
    for part in text.split(","):
        pattern, strength = _read(part)
        meant = [layer for layer in listed if any(_is_meant(name, pattern) for name in names[layer])]
        if not meant:
            blocks = dict.fromkeys(".".join(name.split(".")[:2]) for several in names.values() for name in several)
            raise ConfigError(
                "A name means no layer of the adapter.",
                got=f"--blocks {part.strip()}",
                expected=f"names such as {', '.join(list(blocks)[:_NUM_SHOWN])}",
                fix="correct --blocks",
            )
        strengths |= dict.fromkeys(meant, strength)
    return strengths


def split_by_strength(layers: Iterable[str], strengths: dict[str, float]) -> dict[float, set[str]]:
    """Layers by what their change is multiplied by; those that nothing is said of by 1."""
    found: dict[float, set[str]] = {}
    for layer in layers:
        found.setdefault(strengths.get(layer, 1.0), set()).add(layer)
    return found


def _read(part: str) -> tuple[str, float]:
    pattern, colon, number = part.strip().rpartition(":")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not pattern.strip() or not colon or not math.isfinite(strength):
        got = f"--blocks {part.strip()}"
        raise ConfigError("The strengths of blocks are not understood.", got=got, expected=_EXPECTED, fix="correct it")
    return pattern.strip(), strength


def _list_names(layer: str, pairings: Sequence[Pairing]) -> list[str]:
    match = find_module(pairings, layer)
    return [layer] if match is None else [layer, match.original]


def _is_meant(name: str, pattern: str) -> bool:
    words, parts = name.split("."), pattern.split(".")
    first, *others = zip(words, parts, strict=False)
    is_first = fnmatchcase(first[0], first[1]) or first[0].startswith(f"{first[1]}_")
    return len(parts) <= len(words) and is_first and all(_fits(word, part) for word, part in others)


def _fits(word: str, part: str) -> bool:
    found = _RANGE.fullmatch(part)
    if found is not None and word.isdecimal():
        return int(found[1]) <= int(word) <= int(found[2])
    return fnmatchcase(word, part)
