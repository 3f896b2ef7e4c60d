"""Places that are not on a disk of this machine: a path whose first part is a scheme, such as `s3:/bucket/cat.png`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters and more: C: is a drive
_QUOTED_SLASH = "%2F"
_LOGIN = re.compile(r"(:/{1,2})[^/@\s\"]+@")


def is_address(text: str) -> bool:
    """Does a text name a place elsewhere, as people write it?"""
    return _ADDRESS.match(text) is not None


def check_url(url: str) -> str:
    """The address of a server. Raises ValueError in words that name no part of it: whoever knows it may use it."""
    if any(one.isspace() or not 32 < ord(one) < 127 for one in url):
        raise ValueError("it holds a blank or a letter that no address has; copy it again, as one word")
    parts = split_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no address of a server; write it with https:// in front and the server's name behind")
    if parts.username is not None:
        raise ValueError("it holds a name or a password before @; leave them out, and set token where the server wants one")
    return url


def split_url(url: str) -> SplitResult:
    """The parts of the address of a server. Raises ValueError where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("it is no address: its server or its port cannot be read; copy it again") from error
    return parts


def hide_logins(text: str) -> str:
    """The same, without the names and passwords that stand before the hosts of addresses in it."""
    return _LOGIN.sub(r"\1(not shown)@", text)


def find_scheme(path: Path) -> str:
    """What a path starts with, such as `s3`; empty where it is one of this machine."""
    found = _SCHEME.fullmatch(path.parts[0]) if path.parts else None
    return "" if found is None else found[1].lower()


def build_absolute(path: Path) -> Path:
    """The path from the root of this machine; one from elsewhere as it is."""
    return path if find_scheme(path) else path.absolute()


def build_path(address: str) -> Path:
    """An address as a path. One that a path would change (`//`, `.` and `..` within) becomes a path of two parts, all in the second."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    path = Path(f"{found[1]}:/{found[2]}")
    same = path.as_posix() == f"{found[1]}:/{found[2]}" and ".." not in path.parts and (len(path.parts) > 2 or "%" not in found[2])
    return path if same else Path(f"{found[1]}:/{quote(found[2], safe='')}")


def write_address(path: Path) -> str:
    """The address that a path stands for, to the letter."""
    scheme, _, rest = path.as_posix().partition(":/")
    return f"{scheme.rstrip(':')}://{unquote(rest) if len(path.parts) == 2 and _QUOTED_SLASH in rest else rest}"
