"""Small pictures of large ones, made once and kept under the name of what they show."""

from __future__ import annotations

import io
import os
import threading
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from PIL import Image, ImageOps

from weber.data.images import encode_content, read_image
from weber.errors import DataError
from weber.serve.site import Site

EDGE_PIXELS = 256
_FOLDER, _QUALITY, _METHOD = "thumbnails", 80, 2
_DRAFT_PIXELS = 2 * EDGE_PIXELS
_SRGB = b"sRGB"
_making = threading.Semaphore(2)
"""So many at once: the others wait, and other pages have a processor."""


def load_thumbnail(site: Site, path: Path) -> Path:
    """The WebP file with the picture at most 256 pixels long, upright and in sRGB; made where it is not there yet. Raises DataError for
    what is no picture."""
    stat = path.stat()
    content = _read_content(path, stat.st_mtime_ns, stat.st_size)
    file = site.home / _FOLDER / content[:2] / f"{content}.webp"
    if not file.is_file():
        with _making:
            if not file.is_file():
                _save(_build(path.read_bytes()), file)
    return file


@lru_cache(maxsize=65536)
def _read_content(path: Path, changed_ns: int, num_bytes: int) -> str:
    """The name of a file's bytes; asked for again when its stat has changed."""
    return encode_content(path.read_bytes())


def _build(data: bytes) -> Image.Image:
    image = _read_draft(data)
    image = read_image(data) if image is None else image
    image.thumbnail((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.LANCZOS)
    return image


def _read_draft(data: bytes) -> Image.Image | None:
    """A JPEG in sRGB, decoded at a fraction of its size, which is many times as fast; None for any other picture."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            profile = image.info.get("icc_profile")
            if image.format != "JPEG" or image.mode not in ("RGB", "L") or (profile and _SRGB not in profile):
                return None
            image.draft("RGB", (_DRAFT_PIXELS, _DRAFT_PIXELS))
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # why is said by whoever reads it whole


def _save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.stem}.{uuid4().hex[:8]}.unfinished")
    try:
        image.save(unfinished, "WEBP", quality=_QUALITY, method=_METHOD)
        os.replace(unfinished, file)
    except (OSError, ValueError) as error:
        unfinished.unlink(missing_ok=True)
        raise DataError("No small picture can be made of it.", got=str(error), fix="check the disk's space") from error
