"""Places that are not on a disk of this machine: a path whose first part is a scheme, such as `s3:/bucket/cat.png`."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters and more: C: is a drive


def find_scheme(path: Path) -> str:
    """What a path starts with, such as `s3`; empty where it is one of this machine."""
    found = _SCHEME.fullmatch(path.parts[0]) if path.parts else None
    return "" if found is None else found[1].lower()


def build_absolute(path: Path) -> Path:
    """The path from the root of this machine; one from elsewhere as it is."""
    return path if find_scheme(path) else path.absolute()


def write_address(path: Path) -> str:
    """A place elsewhere as people write it: a path has only one `/` behind its scheme."""
    scheme, _, rest = path.as_posix().partition(":/")
    return f"{scheme.rstrip(':')}://{rest}"
