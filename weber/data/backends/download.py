"""One file of the web, whole or not at all; what goes wrong is told apart by whether it may be better another time."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

from weber.data.formats import START_BYTES, explain_start
from weber.version import VERSION

_CHUNK_BYTES = 2**16
_PASSING_ANSWERS = (408, 425, 429)
_SAFE = "%/:=&?~+!$,;'@()*[]"
_MISNAMED = (ValueError, http.client.InvalidURL)


@dataclass(frozen=True)
class Limits:
    """How long to wait for each answer and for the whole file, how large it may be, and how often to try."""

    answer_seconds: float = 20.0
    whole_seconds: float = 600.0
    most_bytes: int = 2**29
    num_tries: int = 4
    pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0


class DownloadError(Exception):
    """Why a file did not come. `is_lasting`: to ask again is of no use; `pause_seconds`: what the server asks to wait."""

    def __init__(self, reason: str, *, is_lasting: bool, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.is_lasting, self.pause_seconds = is_lasting, pause_seconds


def download(address: str, file: Path, *, limits: Limits, is_picture: bool) -> None:
    """Fetch a file, trying again where that may help. A fragment `#sha256=...` or `#md5=...` is what it is checked against.

    Raises DownloadError, and OSError where it cannot be written.
    """
    for number in range(1, limits.num_tries + 1):
        try:
            _attempt(address, file, limits, is_picture=is_picture)
            return
        except DownloadError as error:
            if error.is_lasting or number == limits.num_tries:
                raise
            asked = min(error.pause_seconds, limits.longest_pause_seconds)
            time.sleep(max(asked, limits.pause_seconds * 2 ** (number - 1)))


def _attempt(address: str, file: Path, limits: Limits, *, is_picture: bool) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{uuid4().hex[:8]}.unfinished")
    try:
        with unfinished.open("xb") as written:
            _fetch(address, written, limits, is_picture=is_picture)
            written.flush()
            os.fsync(written.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _fetch(address: str, written: BinaryIO, limits: Limits, *, is_picture: bool) -> None:
    address, _, digest = address.partition("#")
    request = _build_request(address)
    try:
        with _OPENER.open(request, timeout=limits.answer_seconds) as answer:
            length = answer.headers.get("Content-Length", "")
            num_bytes, hashed = _copy(answer, written, limits, digest=digest, is_picture=is_picture)
    except HTTPError as error:
        raise _explain_answer(error) from error
    except ssl.SSLCertVerificationError as error:
        raise DownloadError(f"bad certificate: {error.verify_message}", is_lasting=True) from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"bad certificate: {error.reason.verify_message}", is_lasting=True) from error
        raise DownloadError(f"no connection: {error.reason}", is_lasting=False) from error
    except _MISNAMED as error:
        raise DownloadError(f"no address of the web: {error}", is_lasting=True) from error
    except (OSError, http.client.HTTPException) as error:  # timeouts and resets
        raise DownloadError(str(error) or type(error).__name__, is_lasting=False) from error
    if length.isdecimal() and int(length) != num_bytes:
        raise DownloadError(f"{num_bytes} bytes came instead of {length}", is_lasting=False)
    if not num_bytes:
        raise DownloadError("the file is empty", is_lasting=True)
    if digest and hashed != digest.partition("=")[2].lower():
        raise DownloadError(f"another file than its row says: its {digest.partition('=')[0]} is {hashed}", is_lasting=True)


def _copy(answer: BinaryIO, written: BinaryIO, limits: Limits, *, digest: str, is_picture: bool) -> tuple[int, str]:
    """How many bytes came, and their hash if one is to be compared."""
    end, num_bytes = time.monotonic() + limits.whole_seconds, 0
    hashed = hashlib.new(digest.partition("=")[0], usedforsecurity=False) if digest else None
    while chunk := answer.read(_CHUNK_BYTES):
        if is_picture and num_bytes == 0 and (reason := explain_start(chunk[:START_BYTES])):
            raise DownloadError(reason, is_lasting=True)
        num_bytes += len(chunk)
        if is_picture and num_bytes > limits.most_bytes:
            raise DownloadError(f"more than {limits.most_bytes // 2**20} MiB, which no picture has", is_lasting=True)
        if is_picture and time.monotonic() > end:
            raise DownloadError(f"not whole after {limits.whole_seconds:g} seconds", is_lasting=False)
        written.write(chunk)
        if hashed is not None:
            hashed.update(chunk)
    return num_bytes, "" if hashed is None else hashed.hexdigest()


def _build_request(address: str) -> urllib.request.Request:
    try:
        parts = urlsplit(address)
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
        url = urlunsplit(parts._replace(netloc=host, path=quote(parts.path, safe=_SAFE), query=quote(parts.query, safe=_SAFE)))
        return urllib.request.Request(url, headers={"User-Agent": f"weber/{VERSION}"})
    except ValueError as error:
        raise DownloadError(f"no address of the web: {error}", is_lasting=True) from error


def _explain_answer(error: HTTPError) -> DownloadError:
    with error:
        asked = error.headers.get("Retry-After", "") if error.headers is not None else ""
    is_passing = error.code >= 500 or error.code in _PASSING_ANSWERS
    what = f"{error.code} {error.reason}".splitlines()[0] if error.code >= 400 else "redirected in a circle, or out of the web"
    return DownloadError(what, is_lasting=not is_passing, pause_seconds=float(asked) if asked.isdecimal() else 0.0)


def _build_opener() -> urllib.request.OpenerDirector:
    """The web alone: a redirection to a file of this machine leads nowhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _build_opener()
