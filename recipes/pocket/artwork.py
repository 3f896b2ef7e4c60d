"""The pictures that the pocket model is trained on, and their names: fetched from the package registries and rendered.

Noto Color Emoji comes as the Debian package (128-pixel bitmaps inside a font), Twemoji as SVG files (npm), names as emojibase-data (npm).
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from recipes.pocket.captions import Concept

NOTO = "fonts-noto-color-emoji"
TWEMOJI = "@twemoji/svg@15.0.0"
FLUENT = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "emojibase-data@17.0.0"

SIZE = 128
MARGIN = 4
_SELECTOR = "fe0f"
_NOTO_FONT_SIZE = 109  # the only size that the bitmap font has
_GROUPS = ("smileys-emotion", "animals-nature", "food-drink", "travel-places", "activities", "objects")
_LEFT_OUT = {"time", "hotel"}  # 24 clock faces would outweigh everything else

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
Draw = Callable[[str], Image.Image | None]


def load_concepts(packages: Path) -> list[Concept]:
    """Every emoji of the groups that the model knows, in Unicode order."""
    package = load_package(NAMES, packages)
    entries = json.loads((package / "en/data.json").read_text(encoding="utf-8"))
    meta = json.loads((package / "meta/groups.json").read_text(encoding="utf-8"))
    concepts = []
    for entry in sorted((entry for entry in entries if "group" in entry), key=lambda entry: entry["order"]):
        group, subgroup = meta["groups"][str(entry["group"])], meta["subgroups"][str(entry["subgroup"])]
        if group in _GROUPS and subgroup not in _LEFT_OUT:
            concepts.append(Concept(entry["emoji"], _read_name(entry["label"]), tuple(entry.get("tags", ())), entry["version"]))
    return concepts


def _read_name(label: str) -> str:
    return label.lower().replace("’", "'").replace("“", "").replace("”", "").replace(":", "")


def load_package(name: str, packages: Path) -> Path:
    """Folder of an npm package's files, fetched once."""
    folder = packages / name.replace("/", "_").replace("@", "_")
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run("npm", "pack", "--silent", name, folder=partial)
        with tarfile.open(next(partial.glob("*.tgz"))) as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):  # `filter="data"` came with Python 3.11.4
                place = partial / member.name
                if ".." in place.parts or Path(member.name).is_absolute():
                    raise RuntimeError(f"{name} has a file outside of its folder: {member.name}")
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                place.write_bytes(content.read())
        (partial / "package").rename(folder)
        shutil.rmtree(partial)
    return folder


def load_noto_font(packages: Path) -> ImageFont.FreeTypeFont:
    """The font of the Debian package, unpacked beside the others and not installed."""
    folder = packages / NOTO
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run("apt-get", "download", NOTO, folder=partial)
        _run("dpkg", "-x", next(partial.glob("*.deb")).name, ".", folder=partial)
        partial.rename(folder)
    return ImageFont.truetype(str(next(folder.rglob("NotoColorEmoji.ttf"))), _NOTO_FONT_SIZE)


def _run(program: str, *arguments: str, folder: Path) -> None:
    found = shutil.which(program)
    assert found is not None, f"{program} is not installed"
    subprocess.run([found, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def build_painters(packages: Path) -> Mapping[str, Draw]:
    """Per style: from an emoji's characters to a picture with transparency, None where the style lacks it."""
    font, twemoji = load_noto_font(packages), load_package(TWEMOJI, packages)
    missing = _paint_noto(font, "\U0010ffff")

    def paint_noto(emoji: str) -> Image.Image | None:
        picture = _paint_noto(font, emoji)
        return None if picture.getbbox() is None or picture.tobytes() == missing.tobytes() else picture

    return {"noto": paint_noto, "twemoji": lambda emoji: _paint_svg(twemoji, emoji)}


def _paint_noto(font: ImageFont.FreeTypeFont, emoji: str) -> Image.Image:
    picture = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(picture).text((0, 0), emoji, font=font, embedded_color=True, anchor="lt")
    return picture


def _paint_svg(folder: Path, emoji: str) -> Image.Image | None:
    path = _find_file(folder, emoji, ".svg")
    if path is None:
        return None
    data = resvg_py.svg_to_bytes(svg_path=str(path), width=SIZE, height=SIZE)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def _find_file(folder: Path, emoji: str, suffix: str) -> Path | None:
    """The file named after the emoji's characters; sets differ in where they write the variation selector."""
    points = [f"{ord(character):x}" for character in emoji]
    plain = [point for point in points if point != _SELECTOR]
    for names in (points, plain, [*plain, _SELECTOR]):
        path = folder / f"{'-'.join(names)}{suffix}"
        if path.is_file():
            return path
    return None


def load_fluent(packages: Path, concepts: Sequence[Concept]) -> dict[str, Tensor]:
    """Fluent pictures (4, 128, 128) uint8 by emoji: for the judge alone, never for the model."""
    assets = load_package(FLUENT, packages) / "assets"
    pictures = {}
    for concept in concepts:
        path = _find_file(assets, concept.emoji, ".webp")
        if path is not None:
            with Image.open(path) as picture:
                pictures[concept.emoji] = torch.from_numpy(np.array(build_square(picture.convert("RGBA")))).permute(2, 0, 1)
    return pictures


def build_square(picture: Image.Image, size: int = SIZE) -> Image.Image:
    """The painted part of the picture, centered on a transparent square with a margin."""
    box = picture.getbbox()
    assert box is not None, "an empty picture"
    painted = picture.crop(box)
    factor = (size - 2 * MARGIN * size // SIZE) / max(painted.size)
    painted = painted.resize((max(1, round(painted.width * factor)), max(1, round(painted.height * factor))), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size))
    square.paste(painted, ((size - painted.width) // 2, (size - painted.height) // 2))
    return square


def build_colors(pixels_N4HW: Tensor, background: Color = WHITE) -> Tensor:
    """Pictures with transparency laid on a background: (N, 3, H, W) uint8."""
    alpha = pixels_N4HW[:, 3:].float() / 255
    below = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1)
    return (alpha * pixels_N4HW[:, :3] + (1 - alpha) * below).round().to(torch.uint8)


@dataclass(frozen=True)
class Artwork:
    """Pictures (N, 4, 128, 128) uint8 with transparency, and for each the concept and the style."""

    pixels: Tensor
    concepts: Sequence[Concept]
    styles: Sequence[str]

    def build_colors(self, background: Color = WHITE) -> Tensor:
        """The pictures laid on a background: (N, 3, 128, 128) uint8."""
        return build_colors(self.pixels, background)


def load_artwork(packages: Path) -> Artwork:
    """Fetch what is missing, and render every concept in every style that has it."""
    painters = build_painters(packages)
    pixels, concepts, styles = [], [], []
    for concept in load_concepts(packages):
        for style, paint in painters.items():
            if (picture := paint(concept.emoji)) is not None:
                pixels.append(torch.from_numpy(np.array(build_square(picture))).permute(2, 0, 1))
                concepts.append(concept)
                styles.append(style)
    return Artwork(torch.stack(pixels), concepts, styles)
