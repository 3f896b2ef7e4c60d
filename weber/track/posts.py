"""Events as what is sent: a multipart message with pictures for Discord, JSON for programs."""

from __future__ import annotations

import base64
import io
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from weber.track.events import Event

MOST_FILES, MOST_CHARACTERS, MOST_BYTES = 10, 2000, 10 * 1000 * 1000
"""What Discord takes in one message."""
_QUALITY = 90


@dataclass(frozen=True)
class Post:
    """The body of a request."""

    body: bytes
    content_type: str


def build_discord(event: Event, *, prefix: str) -> Iterator[Post]:
    """One message, and further ones for pictures that are too many or too large for it."""
    text = _cut(f"`({prefix})` {event.text}")
    files = list(_read_files(event.pictures))
    groups = list(_group(files)) or [[]]
    for number, group in enumerate(groups):
        yield _build_multipart(text if number == 0 else _cut(f"`({prefix})` {event.title}"), group)


def build_raw(event: Event, *, job: str) -> Post:
    """An event as JSON, pictures in it as base64."""
    content: dict[str, object] = {
        "type": event.type,
        "message_type": event.type,
        "severity": "info" if event.level == "debug" else event.level,
        "job_id": job,
        "title": event.title,
        "message": event.text,
        "timestamp": int(event.time),
        **event.fields,
    }
    if event.pictures:
        content["images"] = [base64.b64encode(data).decode("ascii") for data in _read_pictures(event.pictures)]
    return Post(json.dumps(_build_plain(content), allow_nan=False).encode("utf-8"), "application/json")


def _build_plain(value: object) -> object:
    """Numbers that JSON does not have are null."""
    if isinstance(value, dict):
        return {key: _build_plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_build_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _read_pictures(paths: Iterable[Path]) -> Iterator[bytes]:
    """Those that are there: somebody may have moved one since."""
    for path in paths:
        with suppress(OSError):
            yield path.read_bytes()


def _read_files(paths: Sequence[Path]) -> Iterator[tuple[str, str, bytes]]:
    """Ending, type and bytes of each; a picture that is too large for a message becomes a JPEG, and is left out if that is so too."""
    for data in _read_pictures(paths):
        if len(data) <= MOST_BYTES:
            yield "png", "image/png", data
            continue
        smaller = io.BytesIO()
        with suppress(OSError, UnidentifiedImageError):
            Image.open(io.BytesIO(data)).convert("RGB").save(smaller, "JPEG", quality=_QUALITY)
        if 0 < len(smaller.getvalue()) <= MOST_BYTES:
            yield "jpg", "image/jpeg", smaller.getvalue()


def _group(files: Sequence[tuple[str, str, bytes]]) -> Iterator[list[tuple[str, str, bytes]]]:
    """As many in each as a message takes."""
    group: list[tuple[str, str, bytes]] = []
    for file in files:
        if group and (len(group) == MOST_FILES or sum(len(data) for _, _, data in [*group, file]) > MOST_BYTES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _build_multipart(text: str, files: Sequence[tuple[str, str, bytes]]) -> Post:
    boundary = uuid.uuid4().hex
    parts = [_build_part('name="content"', text.encode("utf-8"), content_type="text/plain; charset=utf-8")]
    for number, (ending, content_type, data) in enumerate(files):
        parts.append(_build_part(f'name="file{number}"; filename="image{number}.{ending}"', data, content_type=content_type))
    mark = f"--{boundary}".encode("ascii")
    body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
    return Post(body, f"multipart/form-data; boundary={boundary}")


def _build_part(name: str, data: bytes, *, content_type: str) -> bytes:
    return f"Content-Disposition: form-data; {name}\r\nContent-Type: {content_type}\r\n\r\n".encode("ascii") + data
