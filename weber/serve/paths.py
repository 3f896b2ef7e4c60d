"""The only way from a text that a browser sends to a path."""

from __future__ import annotations

import re
from pathlib import Path

from weber.errors import ConfigError
from weber.serve.site import Site

_MOST_CHARACTERS, _MOST_PART, _MOST_NAME = 2000, 240, 120
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_UNSAFE = re.compile(r"[^\w .()+,=@#-]")


def resolve_path(site: Site, text: str) -> Path:
    """The file or folder that a text names: below one of the roots, given from the root of this machine, or from a root.

    It need not be there. Raises ConfigError for whatever leads out of the roots or into the site's own folder, for places that are on no
    disk of this machine, and for names that a system has for devices.
    """
    reason = _find_reason(text)
    if reason is not None:
        raise _build_refusal(site, text, reason)
    given = Path(text)
    places = [given] if given.is_absolute() else [root / given for root in site.roots]
    try:
        found = [place.resolve() for place in places]
        inside = [one for one in found if any(one.is_relative_to(root) for root in site.roots)]
        if not inside:
            raise _build_refusal(site, text, "it is outside of the folders that this page may use")
        chosen = next((one for one in inside if one.exists()), inside[0])
    except (OSError, RuntimeError, ValueError) as error:
        raise _build_refusal(site, text, "it cannot be followed") from error
    if chosen.is_relative_to(site.home):
        raise _build_refusal(site, text, "it is where the pages keep their own")
    return chosen


def shorten(site: Site, path: Path) -> str:
    """A path as a page says it, which `resolve_path` reads back: from the root that it is in, where that is the only one that has it."""
    for root in site.roots:
        if path == root or not path.is_relative_to(root):
            continue
        short = path.relative_to(root)
        if next(one for one in site.roots if one == root or (one / short).exists()) == root:
            return short.as_posix()
    return str(path)


def clean_name(text: str) -> str:
    """A file's name that a browser sends, as a name that is safe everywhere: its last part, without what no system has in names.

    Raises ConfigError where nothing of it is left.
    """
    last = re.split(r"[/\\]", text)[-1]
    cleaned = _UNSAFE.sub("_", _CONTROL.sub("", last)).strip(" .")
    stem, dot, ending = cleaned.rpartition(".")
    room = _MOST_NAME - len(ending.encode()) - 1
    cleaned = _cut(stem, room) + dot + ending if dot and room > 0 else _cut(cleaned, _MOST_NAME)
    cleaned = cleaned.strip(" .")
    if not cleaned.strip("_-") or _DEVICES.fullmatch(cleaned):
        got = ascii(text[:80])
        raise ConfigError("The file's name cannot be used.", got=got, expected="letters, digits, - and _", fix="rename the file")
    return cleaned


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")


def _find_reason(text: str) -> str | None:
    """Why a text is no path that can be followed."""
    if not text.strip():
        return "it is empty"
    if len(text) > _MOST_CHARACTERS:
        return "it is too long"
    if _CONTROL.search(text):
        return "it holds characters that no path has"
    if "\\" in text or text.startswith("//"):
        return "it is written as on Windows or as a share of a network"
    if _DRIVE.match(text) or _SCHEME.match(text):
        return "it names a drive or an address"
    if text.startswith("~"):
        return "it names the folder of a user"
    parts = [part for part in text.split("/") if part]
    if ".." in parts:
        return "it leads upwards"
    if any(_DEVICES.fullmatch(part.rstrip(" .")) for part in parts):
        return "it has the name of a device"
    return "a part of it is too long" if any(len(part.encode()) > _MOST_PART for part in parts) else None


def _build_refusal(site: Site, text: str, reason: str) -> ConfigError:
    shown = ascii(text if len(text) <= 80 else f"{text[:80]}...")
    return ConfigError(
        f"This path cannot be used: {reason}.",
        got=shown,
        expected=f"a path below {', '.join(map(str, site.roots))}",
        fix="name one of these, or start the pages with the folder: weber serve . /the/folder",
    )
