"""Numbers as people write them where a number of TOML is asked for: `1k`, `5%`, `2000 steps`, `1*10^-4`, `1-4`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_WITH_UNIT = re.compile(rf"({_NUMBER})\s*([a-z_ ]+|%)")
_POWER = re.compile(r"\s*[*x×·]\s*10\s*(?:\^|\*\*)\s*\(?([+-]?\d+)\)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:[ ,'’_]\d{3})+")
_FRACTION = re.compile(rf"({_NUMBER})\s*/\s*({_NUMBER})")
_SEVERAL = re.compile(rf"[(\[]?\s*({_NUMBER})(?:\s*(?:[,;|]|-|–|\.\.+|to|\s)\s*({_NUMBER}))+\s*[)\]]?")
_FACTORS = {"k": 1e3, "m": 1e6, "%": 0.01}
_UNITS = frozenset(("step", "steps", "iterations", "it", "its", "px", "pixel", "pixels", "f", "r", "x"))
"""Words behind a number that change nothing; those of other things, such as minutes, are not read."""
_MARKS = " =:;,\"'"


def list_numbers(text: str, name: str = "") -> Iterator[int | float]:
    """Numbers that a text may be, the likeliest first. `name`: of the setting, which may stand behind the number."""
    text = _POWER.sub(r"e\1", text.lower().replace("−", "-").replace("–", "-")).strip(_MARKS)
    if re.fullmatch(_NUMBER, text):
        yield from _list_kinds(float(text))
    if _THOUSANDS.fullmatch(text):
        yield int(re.sub(r"\D", "", text))
    unit, fraction = _WITH_UNIT.fullmatch(text), _FRACTION.fullmatch(text)
    if unit is not None and (unit[2].strip() in _FACTORS.keys() | _UNITS or unit[2].strip().rstrip("s") == name.rstrip("s")):
        yield from _list_kinds(float(unit[1]) * _FACTORS.get(unit[2].strip(), 1))
    if fraction is not None and float(fraction[2]) != 0:
        yield from _list_kinds(float(fraction[1]) / float(fraction[2]))


def list_several(text: str) -> list[int | float]:
    """The numbers of a range or a list that is written as a text; none of any other text."""
    text = text.lower().replace("−", "-")
    if _SEVERAL.fullmatch(text.strip()) is None:
        return []
    found = re.findall(r"(?:\d+(?:\.(?!\.)\d*)?|(?<!\.)\.\d+)(?:e[+-]?\d+)?", text)
    return [next(_list_kinds(float(one))) for one in found]


def _list_kinds(number: float) -> Iterator[int | float]:
    """A number as a whole one, if it is, then as any other."""
    number = float(f"{number:.12g}")
    if number.is_integer() and abs(number) < 1e15:
        yield int(number)
    yield number
