"""Pictures of a run: which there are, and as files for a browser, small ones made once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from weber.serve.paths import resolve_path, shorten
from weber.serve.reply import find_site, refuse
from weber.serve.site import Site

KINDS = {f".{name}": f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "avif")} | {".jpg": "image/jpeg"}
EDGES = (64, 128, 256, 512)
_MOST_PIXELS = 200_000_000
_CACHING = {"Cache-Control": "private, max-age=31536000, immutable"}
_STEP = re.compile(r"step-(\d{6,})")
_MADE_BY = "weber"
"""The text of a PNG that says what made it (`sampling/stamp.py`)."""


@dataclass(frozen=True)
class Strip:
    """The pictures of one prompt, by their steps: addresses, None where there is none."""

    name: str
    prompt: str
    pictures: tuple[str | None, ...]


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [Route("/picture", show_picture)]


def show_picture(request: Request) -> Response:
    """A picture file, or with `edge` a small one."""
    site, asked = find_site(request), request.query_params
    file = resolve_path(site, asked.get("at", ""))
    kind = KINDS.get(file.suffix.lower())
    if kind is None or not file.is_file():
        return refuse(request, "There is no such picture.", status=404, got=shorten(site, file))
    caching = _CACHING if "v" in asked else {"Cache-Control": "private, no-cache"}
    edge = asked.get("edge", "")
    if not edge:
        return FileResponse(file, media_type=kind, headers=caching)
    if edge not in map(str, EDGES):
        return refuse(request, "Small pictures have other sizes.", got=ascii(edge[:20]), expected=", ".join(map(str, EDGES)))
    try:
        small = make_small(site, file, edge=int(edge))
    except (UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError, OSError):
        return refuse(request, "This picture cannot be read.", status=415, got=shorten(site, file))
    return FileResponse(small, media_type="image/webp", headers=caching)


def make_small(site: Site, file: Path, *, edge: int) -> Path:
    """A small copy, made once and kept in the site's own folder. Raises what Pillow does for what it cannot read."""
    found = file.stat()
    name = hashlib.sha256(f"{file} {found.st_mtime_ns} {found.st_size} {edge}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    small = site.home / "small" / name[:2] / f"{name}.webp"
    if small.is_file():
        return small
    small.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(file) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise ValueError(f"{file} is too large")
        picture.draft("RGB", (2 * edge, 2 * edge))
        copy = picture.convert("RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB")
    copy.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    unfinished = small.with_name(f".{name}.{os.getpid()}.{id(copy)}.tmp")
    copy.save(unfinished, "WEBP", quality=85)
    unfinished.replace(small)
    return small


def list_steps(folder: Path) -> list[int]:
    """The steps of which a run has pictures."""
    try:
        found = [match for one in (folder / "pictures").iterdir() if (match := _STEP.fullmatch(one.name)) and one.is_dir()]
    except OSError:
        return []
    return sorted(int(match[1]) for match in found)


def list_strips(site: Site, folder: Path, *, steps: Sequence[int]) -> list[Strip]:
    """The pictures of these steps, prompt by prompt."""
    rows: dict[str, dict[int, Path]] = {}
    for step in steps:
        for file in sorted((folder / "pictures" / f"step-{step:06d}").glob("*.png")):
            rows.setdefault(file.stem, {})[step] = file
    strips = []
    for name, files in rows.items():
        last = files[max(files)]
        prompt = read_prompt(last, last.stat().st_mtime_ns)
        addresses = [None if step not in files else _write_address(site, files[step]) for step in steps]
        strips.append(Strip(name, prompt or name, tuple(addresses)))
    return strips


@lru_cache(maxsize=4096)
def read_prompt(file: Path, changed: int) -> str:
    """The prompt that a picture's file says it was painted from; `changed`: when the file was."""
    try:
        with Image.open(file) as picture:
            said = json.loads(str(picture.info.get(_MADE_BY, "{}")))
    except (OSError, ValueError, SyntaxError):
        return ""
    return str(said.get("prompt", "")) if isinstance(said, dict) else ""


def _write_address(site: Site, file: Path) -> str:
    return f"{shorten(site, file)}|{file.stat().st_mtime_ns}"
