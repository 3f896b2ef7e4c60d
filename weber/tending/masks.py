"""Masks of what a picture is about, for `loss_masks`: white is learned. From the alpha channel, or from what a model sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFilter

from weber.data.backends.sources import LOCAL
from weber.data.beside import cut_suffix
from weber.data.images import read_alpha, read_image
from weber.data.whole import write_whole
from weber.errors import ConfigError, DataError, MissingExtraError
from weber.progress import Progress
from weber.tending.caption_texts import find_pictures

See = Callable[[Image.Image], Image.Image]
"""From a picture to how much of each pixel is its subject, as mode L of any size."""


@dataclass(frozen=True)
class Drawing:
    """How masks are drawn. `see`: a model, None: the alpha channel. `threshold`: levels from which on all is white, else black; None: as it
    comes. `grow_pixels`: by how much white grows; `background`: the level of all else, so that a little of it is learned."""

    see: See | None = None
    threshold: int | None = None
    grow_pixels: int = 0
    background: int = 0
    recursive: bool = True


@dataclass(frozen=True)
class Drawn:
    """How many masks are new, how many were there, and why pictures have none."""

    num_written: int
    num_there: int
    left: tuple[str, ...]


def check_drawing(drawing: Drawing) -> None:
    """Refuse what cannot be. Raises ConfigError."""
    if drawing.threshold is not None and not 0 < drawing.threshold <= 255:
        raise ConfigError("A threshold lies above 0, up to 1.", got=f"--threshold {drawing.threshold / 255:g}", fix="write --threshold 0.5")
    if not 0 <= drawing.grow_pixels <= 200:
        raise ConfigError("White grows by 0 to 200 pixels.", got=f"--grow {drawing.grow_pixels}", fix="write one of these")
    if not 0 <= drawing.background < 255:
        raise ConfigError("The background counts 0 or more, below 1.", got=f"--background {drawing.background / 255:g}", fix="write 0.1")


def draw_masks(folder: Path, out: Path, *, drawing: Drawing, progress: Progress) -> Drawn:
    """Write a mask for each picture that has none there yet, as PNG under the picture's name. Raises ConfigError for the folder itself."""
    if folder.resolve() == out.resolve():
        raise ConfigError(
            "Masks lie in a folder of their own, because they have the names of their pictures.",
            got=f"--out {out}",
            fix=f"write --out {folder.absolute().parent / (folder.absolute().name + '-masks')}",
        )
    files = find_pictures(folder, recursive=drawing.recursive)
    written, there, left = 0, 0, list[str]()
    for number, name in enumerate(files.pictures, 1):
        target = out / f"{cut_suffix(name)}.png"
        try:
            if target.exists():
                there += 1
            else:
                write_whole(target, _draw(LOCAL.read(folder / name), drawing))
                written += 1
        except (DataError, MissingExtraError) as error:
            left.append(f"{name}: {error.what}")
        progress("drawing masks", number, len(files.pictures))
    return Drawn(written, there, tuple(left))


def _draw(data: bytes, drawing: Drawing) -> bytes:
    if drawing.see is None:
        alpha = read_alpha(data)
        if alpha is None or alpha.getextrema()[0] == 255:
            raise DataError("no alpha channel, or an opaque one: name a model with --with")
        mask = alpha
    else:
        image = read_image(data)
        mask = drawing.see(image).convert("L").resize(image.size, Image.Resampling.BILINEAR)
    if drawing.threshold is not None:
        least = drawing.threshold
        mask = mask.point([255 if level >= least else 0 for level in range(256)])
    if drawing.grow_pixels:
        mask = mask.filter(ImageFilter.MaxFilter(2 * drawing.grow_pixels + 1))
    if drawing.background:
        mask = mask.point([max(level, drawing.background) for level in range(256)])
    if mask.getextrema()[1] == 0:
        raise DataError("nothing of it is seen as the subject")
    saved = BytesIO()
    mask.save(saved, "PNG")
    return saved.getvalue()
