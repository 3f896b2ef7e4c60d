"""Values as other trainers write them: numbers and yes and no as texts, lists in one text."""

from __future__ import annotations

import re
from typing import Any

from weber.errors import ConfigError

UNSET: tuple[Any, ...] = (None, "")
"""What files hold where nothing was chosen."""

_TRUE, _FALSE = ("true", "1", "yes", "on", "y", "t"), ("false", "0", "no", "off", "n", "f", "none", "null", "")


def read_bool(value: object, *, name: str) -> bool:
    """Yes or no. Raises ConfigError."""
    if isinstance(value, bool | int | float):
        return bool(value)
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigError(f"{name} is neither true nor false.", got=str(value), expected="true or false", fix=f"correct {name} in that file")


def read_float(value: object, *, name: str) -> float:
    """A number; a percent sign and digits in groups are understood. Raises ConfigError."""
    try:
        return float(str(value).strip().replace("_", ""))
    except ValueError as error:
        raise ConfigError(f"{name} is no number.", got=str(value), expected="a number", fix=f"correct {name} in that file") from error


def read_int(value: object, *, name: str) -> int:
    """A whole number; `1e3` and `1000.0` are some. Raises ConfigError."""
    number = read_float(value, name=name)
    if number != int(number):
        raise ConfigError(f"{name} is no whole number.", got=str(value), expected="a whole number", fix=f"correct {name} in that file")
    return int(number)


def read_texts(value: object, *, separator: str = ",") -> list[str]:
    """Texts of a list, or of one text with separators."""
    parts = value if isinstance(value, list | tuple) else re.split(separator, str(value))
    return [str(part).strip() for part in parts if str(part).strip()]


def simplify(value: float) -> int | float:
    """A whole number as one."""
    return int(value) if value == int(value) else value
