"""A thousand files that nobody would want: each is used or reported with its reason, and nothing crashes."""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.set_aside import list_reasons
from weber.data.views import read_pixels

Read = Callable[..., Dataset]

NUM = 1000
SCRIPTS = (
    *("猫", "кошка", "بسة", "חתול", "แมว", "बिल्ली", "고양이", "😺"),
    *("e\u0301te\u0301", "ﬁ", "a b'c\"d", "-rf", "x..", "%20", "a\tb", "ǅ"),
)
GOOD = ("plain", "cmyk", "gray 16", "wide gamut", "palette", "bits", "small alpha")


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def _draw(number: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def _build_bomb(width: int, height: int) -> bytes:
    """A PNG that says that it is so large, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _list_kinds() -> dict[str, Callable[[int], bytes]]:
    """Of each kind a file by its number; those of `GOOD` can be used."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    jpeg, png = _encode(_draw(0), "JPEG"), _encode(_draw(0), "PNG")

    def cut(data: bytes, number: int) -> bytes:
        return data[: len(data) * (1 + number % 7) // 9]

    def scramble(number: int) -> bytes:
        data, draw = bytearray(png), random.Random(number)
        for _ in range(20):
            data[draw.randrange(8, len(data))] = draw.randrange(256)
        return bytes(data)

    return {
        "plain": lambda number: _encode(_draw(number), "PNG"),
        "cmyk": lambda number: _encode(_draw(number).convert("CMYK"), "JPEG"),
        "gray 16": lambda number: _encode(Image.fromarray(np.full((64, 64), 99 * number % 65536, np.uint16)), "PNG"),
        "wide gamut": lambda number: _encode(_draw(number), "PNG", icc_profile=profile),
        "palette": lambda number: _encode(_draw(number).quantize(8), "GIF"),
        "bits": lambda number: _encode(_draw(number).convert("1"), "TIFF"),
        "small alpha": lambda number: _encode(_draw(number).convert("RGBA"), "WEBP", lossless=True),
        "half a jpeg": lambda number: cut(jpeg, number),
        "half a png": lambda number: cut(png, number),
        "scrambled": scramble,
        "bomb": lambda number: _build_bomb(60_000 + number, 60_000),
        "30,000 wide": lambda number: _encode(Image.new("1", (30_000, 20 + number % 3)), "PNG"),
        "1x1": lambda number: _encode(_draw(number, (1, 1)), "PNG"),
        "empty": lambda number: b"",
        "page": lambda number: b"<!DOCTYPE html><html>404</html>",
        "noise": lambda number: random.Random(number).randbytes(300),
        "heic": lambda number: b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(40),
        "jpeg xl": lambda number: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
        "video": lambda number: b"\0\0\0\x18ftypisom" + bytes(40),
        "pointer": lambda number: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "drawing": lambda number: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names, and links")
def test_a_thousand_hostile_files(tmp_path: Path, read_sets: Read) -> None:
    folder, kinds = tmp_path / "set", _list_kinds()
    names = {}
    for number in range(NUM):
        kind = list(kinds)[number % len(kinds)]
        home = folder / SCRIPTS[number % len(SCRIPTS)] / str(number % 5)
        home.mkdir(parents=True, exist_ok=True)
        ending = (".png", ".jpg", ".JPEG", ".webp")[number % 4]  # mostly not what the file is
        name = f"{number} {SCRIPTS[number // 7 % len(SCRIPTS)]}"
        (home / f"{name}{ending}").write_bytes(kinds[kind](number))
        (home / f"{name}.txt").write_text(f"a caption in {SCRIPTS[number % len(SCRIPTS)]}")
        names[(home / f"{name}{ending}").relative_to(folder).as_posix()] = kind
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "nothing.png").symlink_to(folder / "missing.png")
    os.mkfifo(folder / "pipe.png")
    os.link(next(folder.rglob("0 *.png")), os.fsencode(folder) + b"/k\xe4tzchen.png")

    config = DataConfig(path=folder, resolution=64, bucket_step=16)
    dataset = read_sets(config)
    used = {one.path.relative_to(folder).as_posix() for one in dataset.examples}
    aside = {item.path.relative_to(folder).as_posix() for item in dataset.set_aside}
    assert not used & aside and len(used) + len(aside) == NUM + 4  # the loop is the folder itself
    assert used | aside >= names.keys() and {names[name] for name in used} <= {*GOOD, "scrambled", "half a png"}
    assert {name for name, kind in names.items() if kind in GOOD} <= used
    for item in dataset.set_aside:
        assert item.reason and "\n" not in item.reason, item
    reasons = {kind: len(items) for kind, items in list_reasons(dataset.set_aside)}
    assert {"too small", "too long", "too many pixels", "damaged picture", "empty file", "unreadable file"} <= reasons.keys(), reasons
    found = {item.path.relative_to(folder).as_posix(): item.reason for item in dataset.set_aside}
    for name in (name for name, kind in names.items() if kind in ("heic", "jpeg xl")):
        # with the package that reads them, or that it is damaged where that is here
        assert "pip install" in found[name] or found[name].startswith(("damaged picture", "not a picture")), found[name]
    for place in range(0, len(dataset.examples), 29):
        assert read_pixels(dataset.examples[place].target(0)).shape == (64, 64, 3)
    again = read_sets(config)
    assert (again.examples, again.set_aside) == (dataset.examples, dataset.set_aside)
