"""Lists of which each entry is a picture: named once, and not beside the setting of a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def refuse_twice(values: Sequence[Any]) -> list[Any]:
    """The values, sizes without blanks. Raises ValueError where one is there twice."""
    written = [one.replace(" ", "") if isinstance(one, str) else one for one in values]
    twice = next((one for one in written if written.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is there twice, which would paint the same picture again; name each once")
    return written


def refuse_beside(name: str, values: Sequence[Any], *, single: Mapping[str, Any]) -> None:
    """Raise ValueError where several are listed and one is set beside them too."""
    beside = [one for one, value in single.items() if value is not None]
    if values and beside:
        raise ValueError(f"{beside[0]} has no effect beside {name}; remove one of them")
