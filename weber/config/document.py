"""A file of text that is edited by a person here, and perhaps in an editor at the same time: nothing of either is lost."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from weber.errors import ChangedError, ConfigError

_MARK = b"\xef\xbb\xbf"
_ABSENT = "none"
_writing = threading.Lock()


@dataclass(frozen=True)
class Document:
    """A file as it was read: its text with `\\n` alone at the ends of lines, and a `stamp` of its bytes; of one that is not there the text
    is empty."""

    path: Path
    text: str
    stamp: str
    line_end: str = "\n"
    has_mark: bool = False


def read_document(path: Path) -> Document:
    """Raises ConfigError for what is no text in UTF-8."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Document(path, "", _ABSENT)
    has_mark = data.startswith(_MARK)
    try:
        text = data.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8.",
            got=f"byte 0x{error.object[error.start]:02x}",
            fix="save it again with the encoding UTF-8",
        ) from error
    return Document(path, text.replace("\r\n", "\n"), _hash(data), "\r\n" if "\r\n" in text else "\n", has_mark)


def write_document(document: Document, text: str, *, stamp: str | None = None, is_private: bool = False) -> Document:
    """Write the text in the place of a file that is still as it was, whole or not at all, with the ends of lines and the permissions that
    it has. `stamp`: what it was when a person looked at it, left out: when it was read; `is_private`: nobody but its owner may read it.

    Raises ChangedError where somebody has changed the file since; what they wrote stays.
    """
    with _writing:
        now = _stamp(document.path)
        if now != (document.stamp if stamp is None else stamp):
            raise ChangedError(
                f"{document.path.name} was changed by somebody else while it was edited here.",
                got="another text than the one that was read",
                fix="nothing was written; look at both, and save again",
            )
        data = (_MARK if document.has_mark else b"") + text.replace("\n", document.line_end).encode()
        _replace(document.path.resolve(), data, is_private=is_private)
    return Document(document.path, text, _hash(data), document.line_end, document.has_mark)


def _stamp(path: Path) -> str:
    try:
        return _hash(path.read_bytes())
    except FileNotFoundError:
        return _ABSENT


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _replace(path: Path, data: bytes, *, is_private: bool) -> None:
    """The file appears whole or not at all; who may read it stays."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_read_umask()
        unfinished.chmod(mode & 0o600 if is_private else mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_umask() -> int:
    """What files are not given by default; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
