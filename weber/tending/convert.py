"""Pictures of a folder written into another one: smaller, upright, in sRGB, in one format; with what belongs to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from weber.data.backends.sources import LOCAL
from weber.data.beside import cut_suffix
from weber.data.colors import convert_colors
from weber.data.files import Files
from weber.data.images import decode_picture, read_alpha, read_colors
from weber.data.whole import write_whole
from weber.data.words import describe_some
from weber.errors import ConfigError, DataError, MissingExtraError
from weber.progress import Progress
from weber.tending.caption_texts import find_pictures

_NUM_PER_REPORT = 16
_PLAIN = frozenset({".txt", ".caption", ".json"})
"""Endings of files that belong to a picture by their stem."""


@dataclass(frozen=True)
class Format:
    """How pictures are written. `has_alpha`: transparent parts stay."""

    name: str
    ending: str
    options: Mapping[str, object]
    has_alpha: bool


FORMATS: Mapping[str, Format] = {
    "png": Format("PNG", ".png", {"compress_level": 6}, True),
    "jpg": Format("JPEG", ".jpg", {"quality": 95, "subsampling": 0, "optimize": True}, False),
    "webp": Format("WEBP", ".webp", {"quality": 95, "method": 4}, True),
    "webp-lossless": Format("WEBP", ".webp", {"lossless": True, "method": 4, "exact": True}, True),
}
"""By the name that a person gives them."""

_KEPT = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}


@dataclass(frozen=True)
class Wish:
    """`longest`, `shortest`: edges in pixels that larger pictures are scaled down to, None for none; nothing is ever enlarged. `format`: a
    row of FORMATS, None for that of each picture, where it is one of them, else PNG."""

    longest: int | None = None
    shortest: int | None = None
    format: str | None = None
    quality: int | None = None
    recursive: bool = True


@dataclass(frozen=True)
class Converted:
    """What became of a folder: `left` says of pictures that are not written why, as `name: reason`."""

    num_written: int
    num_there: int
    num_beside: int
    left: tuple[str, ...]


def check_wish(wish: Wish) -> None:
    """Refuse what cannot be. Raises ConfigError."""
    if wish.format is not None and wish.format not in FORMATS:
        raise ConfigError("Pictures are not written in that format.", got=wish.format, expected=", ".join(FORMATS), fix="name one of them")
    if wish.quality is not None and not 1 <= wish.quality <= 100:
        raise ConfigError("A quality is a number from 1 to 100.", got=f"--quality {wish.quality}", fix="write one of these, such as 95")
    if wish.quality is not None and wish.format in ("png", "webp-lossless"):
        raise ConfigError(
            "This format loses nothing, so a quality has no effect.",
            got=f"--format {wish.format} --quality {wish.quality}",
            fix="remove --quality, or write --format jpg or webp",
        )
    for flag, edge in (("--edge", wish.longest), ("--shorter-edge", wish.shortest)):
        if edge is not None and edge < 16:
            raise ConfigError("An edge has at least 16 pixels.", got=f"{flag} {edge}", fix="write it in pixels, such as 1024")


def convert_pictures(folder: Path, out: Path, *, wish: Wish, progress: Progress) -> Converted:
    """Write all pictures of a folder that are not yet in the other one, or are older there, and copy what belongs to them.

    Raises ConfigError for folders that are one, and where two pictures would become one file.
    """
    files = find_pictures(folder, recursive=wish.recursive)
    targets = _choose_targets(files, folder, out, wish)
    written, there, left = 0, 0, [f"{name}: {reason}" for name, reason in files.unread.items()]
    with ThreadPoolExecutor() as pool:
        results = pool.map(partial(_convert, folder, wish), targets.items())
        for number, (name, result) in enumerate(zip(targets, results, strict=True), 1):
            written, there = written + (result == "written"), there + (result == "there")
            left += [f"{name}: {result}"] if result not in ("written", "there") else []
            if number % _NUM_PER_REPORT == 0 or number == len(targets):
                progress("converting the pictures", number, len(targets))
    return Converted(written, there, _copy_beside(files, folder, out), tuple(left))


def scale_down(image: Image.Image, wish: Wish) -> Image.Image:
    """A picture with edges of at most so many pixels, in its own aspect."""
    factor = max(
        max(image.size) / wish.longest if wish.longest else 1.0,
        min(image.size) / wish.shortest if wish.shortest else 1.0,
    )
    if factor <= 1:
        return image
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _choose_targets(files: Files, folder: Path, out: Path, wish: Wish) -> dict[str, tuple[Path, Format]]:
    inside, target = folder.resolve(), out.resolve()
    if inside == target or target.is_relative_to(inside) or inside.is_relative_to(target):
        raise ConfigError(
            "Pictures are written into another folder, apart from their own.",
            got=f"{folder} and --out {out}",
            expected="two folders, neither inside of the other",
            fix=f"write --out {inside.parent / (inside.name + '-converted')}",
        )
    targets: dict[str, tuple[Path, Format]] = {}
    owners: dict[Path, str] = {}
    for name in files.pictures:
        kind = FORMATS[wish.format or _KEPT.get(Path(name).suffix.lower(), "png")]
        path = out / (cut_suffix(name) + kind.ending)
        if path in owners:
            raise ConfigError(
                "Two pictures would become one file.",
                got=describe_some([owners[path], name]),
                expected="names that differ before their endings",
                fix="rename one of them",
            )
        owners[path], targets[name] = name, (path, kind)
    return targets


def _convert(folder: Path, wish: Wish, item: tuple[str, tuple[Path, Format]]) -> str:
    """`written`, `there`, or why not."""
    name, (target, kind) = item
    try:
        source = LOCAL.stat(folder / name)
        if target.exists() and target.stat().st_mtime_ns == source.mtime_ns:
            return "there"
        data = LOCAL.read(folder / name)
        write_whole(target, _encode(data, kind, wish))
        os.utime(target, ns=(source.mtime_ns, source.mtime_ns))  # by which the next start knows that it is made of this one
    except (DataError, MissingExtraError) as error:
        return f"{error.what}: {error.got}" if error.got else error.what
    return "written"


def _encode(data: bytes, kind: Format, wish: Wish) -> bytes:
    image, written = read_colors(data).image, BytesIO()
    if kind.has_alpha and (alpha := read_alpha(data)) is not None and alpha.getextrema() != (255, 255):
        image = decode_picture(data, _read_straight)
        image.putalpha(alpha)
    options = dict(kind.options)
    if wish.quality is not None and "quality" in options:
        options["quality"] = wish.quality
    scale_down(image, wish).save(written, kind.name, **options)
    return written.getvalue()


def _read_straight(image: Image.Image) -> Image.Image:
    """Colors as they are below what is transparent, in sRGB."""
    return convert_colors(image.convert("RGBA").convert("RGB"), image.info.get("icc_profile")).image


def _copy_beside(files: Files, folder: Path, out: Path) -> int:
    """Caption files and the like that are new or changed; by name, so that they belong to the new pictures too."""
    stems, number = {cut_suffix(name) for name in files.pictures}, 0
    for name in [*files.captions, *files.others]:
        target = out / name
        if Path(name).suffix.lower() not in _PLAIN or not _belongs(name, stems):
            continue
        data = LOCAL.read(folder / name)
        if not target.exists() or target.read_bytes() != data:
            write_whole(target, data)
            number += 1
    return number


def _belongs(name: str, stems: set[str]) -> bool:
    """Does the name of a file begin with the stem of a picture? `a.long.txt` with `a` or `a.long`."""
    home, slash, last = name.rpartition("/")
    parts = last.split(".")
    return any(home + slash + ".".join(parts[:number]) in stems for number in range(1, len(parts)))
