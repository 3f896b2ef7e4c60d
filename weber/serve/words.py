"""Numbers as a person reads them."""

from __future__ import annotations

import time


def describe_bytes(number: float) -> str:
    """Such as 3.1 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def describe_time(seconds: float) -> str:
    """How long something lasts: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def describe_ago(moment: float) -> str:
    """How long ago a moment was, given in seconds since 1970."""
    seconds = time.time() - moment
    return "just now" if seconds < 5 else f"{describe_time(seconds)} ago"


def count(number: int, what: str) -> str:
    """Such as 1 step, 2 steps."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
