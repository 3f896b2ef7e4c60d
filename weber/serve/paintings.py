"""Pictures of a run: which there are, and as files for a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from weber.errors import DataError
from weber.serve.paths import resolve_path, shorten
from weber.serve.reply import find_site, refuse
from weber.serve.site import Site
from weber.serve.thumbnails import load_thumbnail

KINDS = {f".{name}": f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "avif")} | {".jpg": "image/jpeg"}
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
    """A picture file, or with `small` a small one."""
    site, asked = find_site(request), request.query_params
    file = resolve_path(site, asked.get("at", ""))
    kind = KINDS.get(file.suffix.lower())
    if kind is None or not file.is_file():
        return refuse(request, "There is no such picture.", status=404, got=shorten(site, file))
    caching = _CACHING if "v" in asked else {"Cache-Control": "private, no-cache"}
    if "small" not in asked:
        return FileResponse(file, media_type=kind, headers=caching)
    try:
        return FileResponse(load_thumbnail(site, file), media_type="image/webp", headers=caching)
    except DataError:
        return refuse(request, "This picture cannot be read.", status=415, got=shorten(site, file))


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
