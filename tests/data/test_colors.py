"""Colors as viewers show them: profiles of all kinds, broken ones, and pixels that must stay as they are."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from weber.config.data import DataConfig
from weber.data.colors import CONVERTED
from weber.data.dataset import Dataset
from weber.data.images import read_colors, read_image
from weber.data.views import build_view

Read = Callable[..., Dataset]

D50 = (0.9642, 1.0, 0.8249)
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PRO_PHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _curve_of_srgb() -> bytes:
    """The parametric curve of sRGB."""
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))


def build_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal ICC profile of version 2 for a display."""
    name = b"made for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    head = struct.pack(">I", 132 + 12 * len(tags) + len(body)) + bytes(4) + b"\x02\x40\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    return head + bytes(28) + b"".join(map(_fixed, D50)) + bytes(48) + table + body


def build_rgb(primaries: tuple[tuple[float, float, float], ...], curve: bytes) -> bytes:
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {name: _xyz(values) for name, values in zip(names, primaries, strict=True)}
    return build_profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _show(image: Image.Image, profile: bytes) -> Image.Image:
    """What viewers show: Pillow's own conversion."""
    shown = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert shown is not None
    return shown


def _difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)).max())


@pytest.mark.parametrize(
    "profile",
    [build_rgb(DISPLAY_P3, _curve_of_srgb()), build_rgb(ADOBE, _curve(2.2)), build_rgb(PRO_PHOTO, _curve(1.8))],
    ids=["Display P3", "Adobe RGB", "ProPhoto"],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95}), ("AVIF", {}), ("HEIF", {"quality": 90})],
)
def test_profiles_of_colors(profile: bytes, kind: str, options: dict[str, Any]) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", (16, 16), (180, 120, 95))
    image.paste((60, 140, 70), (8, 0, 16, 16))
    data = _encode(image, kind, icc_profile=profile, **options)
    stored = Image.open(BytesIO(data)).convert("RGB")
    colors = read_colors(data)
    assert (colors.done, colors.problem) == (CONVERTED, "")
    assert _difference(colors.image, _show(stored, profile)) <= 1
    assert _difference(colors.image, stored) > 10


def test_the_numbers_of_display_p3() -> None:
    image = Image.new("RGB", (2, 1), (255, 0, 0))
    image.putpixel((1, 0), (0, 200, 80))
    data = _encode(image, icc_profile=build_rgb(DISPLAY_P3, _curve(2.2)))
    assert np.abs(np.asarray(read_image(data), dtype=np.int16)[0] - [[255, 0, 0], [0, 205, 56]]).max() <= 1


@pytest.mark.parametrize("curve", [_curve_of_srgb()])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_pixels_in_srgb_stay_as_they_are(curve: bytes, mode: str) -> None:
    for profile in (build_rgb(SRGB, curve), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        colors = read_colors(_encode(_noise(mode), icc_profile=profile))
        assert (colors.done, colors.problem) == ("", "")
        assert _difference(colors.image, read_image(_encode(_noise(mode)))) == 0


def test_gray_with_a_profile_of_gray() -> None:
    gray = build_profile(b"GRAY", {b"kTRC": _curve(1.8)})
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    for mode in ("L", "LA"):
        colors = read_colors(_encode(ramp.convert(mode), icc_profile=gray))
        levels = np.asarray(colors.image)[0]
        assert colors.done == CONVERTED and (levels[:, 0] == levels[:, 1]).all() and (levels[:, 0] == levels[:, 2]).all()
        linear = (np.arange(256) / 255) ** 1.8
        meant = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(levels[:, 0] - meant).max() < 1.5
    wide = Image.fromarray(np.arange(256, dtype=np.uint16)[None] * 257)
    assert _difference(read_image(_encode(wide, icc_profile=gray)), colors.image) == 0


def test_gray_with_a_profile_of_colors_has_its_curve() -> None:
    profile = build_rgb(SRGB, _curve(1.8))
    image = _noise("L")
    colors = read_colors(_encode(image, icc_profile=profile))
    assert colors.done == CONVERTED and _difference(colors.image, _show(image.convert("RGB"), profile)) <= 1


def test_transparent_parts_are_white_in_srgb() -> None:
    profile = build_rgb(ADOBE, _curve(2.2))
    image = Image.new("RGBA", (3, 1), (60, 140, 70, 255))
    image.putpixel((1, 0), (60, 140, 70, 0))
    image.putpixel((2, 0), (60, 140, 70, 128))
    pixels = np.asarray(read_image(_encode(image, icc_profile=profile)), dtype=np.int16)[0]
    shown = np.asarray(_show(Image.new("RGB", (1, 1), (60, 140, 70)), profile), dtype=np.int16)[0, 0]
    assert np.abs(pixels[0] - shown).max() <= 1 and (pixels[1] == 255).all()
    assert np.abs(pixels[2] - (255 + 128 / 255 * (shown - 255))).max() <= 1.5


@pytest.mark.parametrize(
    ("mode", "kind", "profile", "words"),
    [
        ("RGB", "PNG", b"no profile at all", "damaged"),
        ("RGB", "JPEG", build_rgb(ADOBE, _curve(2.2))[:200], "damaged"),
        ("RGB", "PNG", build_profile(b"GRAY", {b"kTRC": _curve(1.8)}), "made for GRAY, in a picture of RGB"),
        ("CMYK", "TIFF", build_rgb(ADOBE, _curve(2.2)), "made for RGB, in a picture of CMYK"),
        ("RGB", "PNG", build_profile(b"RGB ", {}), ""),
    ],
)
def test_unusable_profiles_are_said_and_left(mode: str, kind: str, profile: bytes, words: str) -> None:
    colors = read_colors(_encode(_noise(mode), kind, icc_profile=profile))
    assert colors.done == "" and colors.problem.startswith("color profile cannot be used, so colors are taken as sRGB: ")
    assert words in colors.problem and "\n" not in colors.problem
    assert _difference(colors.image, read_image(_encode(_noise(mode), kind))) == 0


@pytest.mark.parametrize("facts", [{ExifTags.Base.ColorSpace: 2}, {ExifTags.IFD.Interop: {ExifTags.Interop.InteropIndex: "R03"}}])
def test_adobe_rgb_by_exif_alone_is_said(facts: dict[int, Any]) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = facts
    colors = read_colors(_encode(_noise(), "JPEG", exif=exif))
    assert colors.done == "" and colors.problem.startswith("Adobe RGB by EXIF, but without a profile")


def test_a_conversion_is_part_of_the_key_and_problems_are_noted(tmp_path: Path, read_sets: Read) -> None:
    profiles = {"p3": build_rgb(DISPLAY_P3, _curve(2.2)), "plain": None, "srgb": build_rgb(SRGB, _curve_of_srgb()), "torn": b"torn"}
    folder = tmp_path / "set"
    folder.mkdir()
    for number, (name, profile) in enumerate(profiles.items()):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8))
        image.save(folder / f"{name}.png", icc_profile=profile)
    config = DataConfig(path=folder, captions="none", resolution=64, bucket_step=16)
    for dataset in (read_sets(config), read_sets(config)):  # the second from the index
        said = {example.path.stem: example.target(0).describe() for example in dataset.examples}
        assert [name for name, text in said.items() if text.endswith(f" {CONVERTED}")] == ["p3"]
        assert said["plain"] == said["srgb"] == said["torn"] == dataset.examples[1].crops[0].describe()
        (note,) = dataset.notes
        assert note.endswith(": color profile cannot be used, so colors are taken as sRGB: 1 picture (torn.png)")
    assert build_view(folder / "p3.png", size=(64, 64)) == dataset.examples[0].target(0)
