"""A zoo of picture files: every format and mode, and broken ones."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from weber.data.formats import SUFFIXES
from weber.data.images import encode_content, read_image
from weber.errors import DataError

WIDTH, HEIGHT = 24, 16
CORNERS = {"red": (0, 0), "lime": (WIDTH - 1, 0), "blue": (0, HEIGHT - 1), "yellow": (WIDTH - 1, HEIGHT - 1)}
"""Pixel of each corner: four quarters of plain colors, so that any turn or flip shows."""


def _quarters() -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for color, (x, y) in CORNERS.items():
        left, top = x // (WIDTH // 2) * (WIDTH // 2), y // (HEIGHT // 2) * (HEIGHT // 2)
        image.paste(color, (left, top, left + WIDTH // 2, top + HEIGHT // 2))
    return image


def _encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def _read(data: bytes) -> NDArray[np.int64]:
    image = read_image(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def _assert_near(data: bytes, expected: Image.Image, *, tolerance: int = 0) -> None:
    pixels = _read(data)
    assert pixels.shape == (expected.height, expected.width, 3)
    assert np.abs(pixels - np.asarray(expected.convert("RGB")).astype(np.int64)).max() <= tolerance


def test_this_pillow_reads_all_formats() -> None:
    assert features.check("avif") and features.check("webp") and features.check("libtiff")
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".heic"} <= SUFFIXES


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("GIF", {}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 3),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 10),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 6),
    ],
)
def test_formats(format: str, options: dict[str, Any], tolerance: int) -> None:
    _assert_near(_encode(_quarters(), format, **options), _quarters(), tolerance=tolerance)


# Where the four corners of the stored picture are seen, for each EXIF orientation: top left, top right, bottom left, bottom right.
ORIENTATIONS = {
    1: ["red", "lime", "blue", "yellow"],
    2: ["lime", "red", "yellow", "blue"],
    3: ["yellow", "blue", "lime", "red"],
    4: ["blue", "yellow", "red", "lime"],
    5: ["red", "blue", "lime", "yellow"],
    6: ["blue", "red", "yellow", "lime"],
    7: ["yellow", "lime", "blue", "red"],
    8: ["lime", "yellow", "red", "blue"],
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_pictures_are_upright(format: str, options: dict[str, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = _read(_encode(_quarters(), format, exif=exif, **options))
    turned = orientation >= 5
    assert pixels.shape == ((WIDTH, HEIGHT, 3) if turned else (HEIGHT, WIDTH, 3))
    seen = [pixels[2, 2], pixels[2, -3], pixels[-3, 2], pixels[-3, -3]]
    for pixel, color in zip(seen, ORIENTATIONS[orientation], strict=True):
        assert np.abs(pixel - Image.new("RGB", (1, 1), color).getpixel((0, 0))).max() <= 6, (orientation, color)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"garbage garbage", b"MM\0*\0\0", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0"])
def test_damaged_metadata_does_no_harm(format: str, exif: bytes) -> None:
    plain = Image.new("RGB", (WIDTH, HEIGHT), "red")
    _assert_near(_encode(plain, format, exif=b"Exif\0\0" + exif), plain, tolerance=3)


def test_lossy_webp() -> None:
    plain = Image.new("RGB", (WIDTH, HEIGHT), "red")
    _assert_near(_encode(plain, "WEBP", quality=90), plain, tolerance=3)


def test_lab() -> None:
    image = Image.new("LAB", (2, 1))
    image.putdata([(255, 128, 128), (0, 128, 128)])
    assert np.abs(_read(_encode(image, "TIFF"))[0] - [[255] * 3, [0] * 3]).max() <= 1


def test_alpha_is_laid_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 255, 51)])
    expected = [[255, 0, 0], [255, 255, 255], [204, 204, 255]]
    for format, options in [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]:
        assert _read(_encode(image, format, **options))[0].tolist() == expected


def test_alpha_of_avif() -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, WIDTH // 2, HEIGHT))
    pixels = _read(_encode(image, "AVIF", quality=100, subsampling="4:4:4"))
    assert np.abs(pixels[8, 4] - [255, 0, 0]).max() <= 6 and np.abs(pixels[8, 20] - [255, 255, 255]).max() <= 6


def test_gray_with_alpha() -> None:
    image = Image.new("LA", (3, 1))
    image.putdata([(0, 255), (0, 0), (100, 128)])
    assert _read(_encode(image, "PNG"))[0].tolist() == [[0] * 3, [255] * 3, [177] * 3]


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(format: str) -> None:
    palette = _quarters().quantize(4)
    assert palette.mode == "P"
    _assert_near(_encode(palette, format), _quarters())


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 254])
    image.putdata([0, 1, 2])
    last = [0, 0, 254] if isinstance(transparency, int) else [127, 127, 254]
    assert _read(_encode(image, "PNG", transparency=transparency))[0].tolist() == [[255, 0, 0], [255, 255, 255], last]


def test_gif_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert _read(_encode(image, "GIF", transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_color_key_transparency() -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 0), (1, 2, 3)])
    assert _read(_encode(image, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    gray = Image.new("L", (2, 1))
    gray.putdata([7, 8])
    assert _read(_encode(gray, "PNG", transparency=7))[0].tolist() == [[255] * 3, [8] * 3]


@pytest.mark.parametrize(("format", "options", "tolerance"), [("JPEG", {"quality": 100}, 6), ("TIFF", {}, 0)])
def test_cmyk(format: str, options: dict[str, Any], tolerance: int) -> None:
    cmyk = _quarters().convert("CMYK")
    data = _encode(cmyk, format, **options)
    assert Image.open(BytesIO(data)).mode == "CMYK"
    _assert_near(data, _quarters(), tolerance=tolerance)


@pytest.mark.parametrize("format", ["BMP", "PNG", "TIFF", "GIF"])
def test_one_bit(format: str) -> None:
    image = Image.new("1", (9, 2))
    image.putdata([0, 1, 1, 0, 1, 0, 0, 0, 1] * 2)
    assert _read(_encode(image, format))[0, :, 0].tolist() == [0, 255, 255, 0, 255, 0, 0, 0, 255]


@pytest.mark.parametrize("mode", ["YCbCr", "L"])
def test_other_jpeg_modes(mode: str) -> None:
    image = _quarters().convert(mode)
    _assert_near(_encode(image, "JPEG", quality=100, subsampling=0), image.convert("RGB"), tolerance=3)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_gray_of_16_bits(format: str) -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    data = _encode(Image.fromarray(wide), format)
    assert Image.open(BytesIO(data)).mode.startswith("I;16")
    assert _read(data)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_big_endian_gray_of_16_bits() -> None:
    image = Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 257, 65535))
    data = _encode(image, "TIFF")
    assert _read(data)[0, :, 0].tolist() == [0, 1, 255]


def _png(width: int, height: int, *, bits: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_color_of_16_bits() -> None:
    rgb = _png(2, 1, bits=16, color=2, rows=b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 257, 0))
    assert _read(rgb)[0].tolist() == [[0, 128, 255], [255, 1, 0]]
    rgba = _png(2, 1, bits=16, color=6, rows=b"\0" + struct.pack(">8H", 0, 0, 0, 0, 65535, 0, 0, 65535))
    assert _read(rgba)[0].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_transparent_gray_of_16_bits() -> None:
    key = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 257)
    data = _png(3, 1, bits=16, color=0, rows=b"\0" + struct.pack(">3H", 0, 257, 514), extra=key + struct.pack(">I", zlib.crc32(key[4:])))
    assert _read(data)[0, :, 0].tolist() == [0, 255, 2]


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        (np.array([[0, 100, 255]], dtype=np.int32), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], dtype=np.int32), [0, 128, 255]),
        (np.array([[-5, 2**30, 2**31 - 1]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),
        (np.array([[-1, 100, 255]], dtype=np.float32), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], dtype=np.float32), [0, 128, 255]),
    ],
)
def test_gray_of_32_bits_and_floats(values: NDArray[Any], gray: list[int]) -> None:
    assert _read(_encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == gray


@pytest.mark.parametrize(
    ("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {"quality": 100})]
)
def test_first_frame_of_animations_and_pages(format: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "lime", "blue")]
    data = _encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    _assert_near(data, frames[0], tolerance=6)


def test_pictures_of_90_million_pixels_are_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(_encode(Image.new("1", (10_000, 9_000)), "PNG"))
    code = "import sys, pathlib; from weber.data.images import read_image; print(read_image(pathlib.Path(sys.argv[1]).read_bytes()).size)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "large.png")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("(10000, 9000)\n", "")


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_damaged(format: str, share: float) -> None:
    data = _encode(_noise(), format)
    with pytest.raises(DataError, match=r"^(damaged|not a) picture: "):
        read_image(data[: int(len(data) * share)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "empty file"),
        (lambda: b"a cat on a mat", "not a picture: no known picture format"),
        (lambda: b"\0" * 1000, "not a picture: no known picture format"),
        (lambda: _png(60_000, 60_000, bits=8, color=2, rows=b""), "too many pixels: "),
        (lambda: _png(64, 64, bits=8, color=2, rows=b""), "damaged picture: "),
        (lambda: _png(64, 64, bits=7, color=2, rows=b""), "not a picture: no known picture format"),
        (lambda: _encode(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF"), "unknown gray scale: values up to nan"),
        (lambda: _encode(Image.fromarray(np.array([[0, 1e6]], dtype=np.float32)), "TIFF"), "unknown gray scale: values up to 1e+06"),
    ],
)
def test_reasons(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(DataError) as error:
        read_image(make())
    assert error.value.what.startswith(reason)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")  # pytest drops the filters that weber.data.images sets
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_scrambled_files_never_crash(format: str) -> None:
    """Random bytes in the header and everywhere: a picture or a reason, nothing else."""
    data, random, num_reasons = _encode(_quarters(), format), np.random.default_rng(1), 0
    for _ in range(150):
        scrambled = np.frombuffer(data, dtype=np.uint8).copy()
        places = random.integers(0, len(data) if random.random() < 0.5 else min(len(data), 120), 8)
        scrambled[places] = random.integers(0, 256, 8)
        try:
            assert read_image(scrambled.tobytes()).mode == "RGB"
        except DataError as error:
            num_reasons += 1
            assert "\n" not in error.what
    assert num_reasons > 0


def test_content_names_bytes() -> None:
    assert encode_content(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert encode_content(b"a") != encode_content(b"b")
