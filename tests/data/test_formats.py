"""What files are: pictures of every kind by content, and what would read the others."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from weber.config.data import DataConfig
from weber.data import images
from weber.data.dataset import Dataset
from weber.data.formats import explain_ending, explain_start, is_picture
from weber.data.images import read_image
from weber.data.sets import PictureLimits
from weber.errors import DataError, MissingExtraError

Read = Callable[..., Dataset]
Write = Callable[..., Path]

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"
AVIF = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf"
JPEG_XL = b"\0\0\0\x0cJXL \r\n\x87\n\0\0"


def _encode(kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def _config(folder: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=folder, **{"resolution": 64, "bucket_step": 16, "captions": "none", **keys})


def test_pictures_are_read_whatever_they_are_called(tmp_path: Path, read_sets: Read) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.JPG_LARGE": "JPEG", "d": "PNG", "e.ppm": "PPM", "f.jp2": "JPEG2000", "g.tga": "TGA"}
    for name, kind in {**names, "h.png": "WEBP", "i.image": "AVIF", "j.qoi": "QOI"}.items():
        (folder / name).write_bytes(_encode(kind))
    dataset = read_sets(_config(folder))
    assert "".join(sorted(example.path.name[0] for example in dataset.examples)) == "abcdefghij"
    assert not dataset.set_aside


def test_heic_is_read_by_its_plugin(tmp_path: Path, read_sets: Read) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "set").mkdir()
    for name in ("a.heic", "b.jpg"):  # phones and messengers rename them
        (tmp_path / "set" / name).write_bytes(_encode("HEIF", quality=95))
    dataset = read_sets(_config(tmp_path / "set"))
    assert [(example.width, example.height) for example in dataset.examples] == [(64, 64)] * 2
    assert np.abs(np.asarray(read_image(_encode("HEIF", quality=95)), dtype=int).mean() - 127) < 10


def test_a_missing_plugin_is_named_and_not_remembered(tmp_path: Path, read_sets: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.heic").write_bytes(_encode("HEIF"))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DataError) as error:  # a folder of nothing else gets the advice too
            read_sets(_config(tmp_path / "set"))
        assert "HEIC picture: pip install 'weber[heic]' to read it" in str(error.value)
        with pytest.raises(MissingExtraError, match="pip install pillow-jxl-plugin"):
            read_image(JPEG_XL)
    assert len(read_sets(_config(tmp_path / "set")).examples) == 1


def test_all_else_beside_good_pictures_is_said(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = tmp_path / "set"
    write_picture(folder / "good.png", caption=None)
    others = {
        "a.dng": ("raw picture of a camera", b"II*\0"),
        "b.mp4": ("video", b""),
        "c.mov.jpg": ("video", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        "d.psd": ("document of layers", b"8BPS"),
        "e.svg": ("drawing, not pixels", b"<svg>"),
        "f.zip": ("archive", b"PK\3\4"),
        "g.jpg": ("web page, not a picture", b"<!DOCTYPE html><html>"),
        "h.png": ("pointer of Git LFS, not the picture", b"version https://git-lfs.github.com/spec/v1\noid"),
        "i.png~": ("unfinished download, or a copy that a program keeps", b"\x89PNG\r\n\x1a\n"),
        "j.exr": ("picture in a format that is not read", b"v/1\1"),
        "k": ("drawing, not pixels", b"%PDF-1.7"),
    }
    for name, (_, data) in others.items():
        (folder / name).write_bytes(data)
    for name in ("notes.md", "x.npz", "y.npz", "LICENSE"):
        (folder / name).write_bytes(b"whatever")
    dataset = read_sets(_config(folder))
    assert [example.path.name for example in dataset.examples] == ["good.png"]
    kinds = {item.path.name: item.reason.partition(":")[0] for item in dataset.set_aside}
    assert kinds == {name: kind for name, (kind, _) in others.items()}
    assert all(": " in item.reason for item in dataset.set_aside)  # and what would help
    assert dataset.notes == ("set: 4 files of other kinds beside the pictures: 2 x .npz, 1 x no ending, 1 x .md",)


def test_references_and_masks_likewise(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "set" / f"{name}.png", seed=ord(name), caption=None)
    (tmp_path / "masks").mkdir()
    Image.new("L", (64, 64), 0).save(tmp_path / "masks" / "other.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "masks" / "a.ppm")
    (tmp_path / "masks" / "b.mp4").touch()
    dataset = read_sets(_config(tmp_path / "set", loss_masks=tmp_path / "masks"))
    assert [(one.path.name, one.loss_mask is not None) for one in dataset.examples] == [("a.png", True), ("c.png", False)]
    assert [item.reason for item in dataset.set_aside] == ["unusable loss mask: b.mp4: video: save the frames that you want as PNG"]
    (note,) = dataset.notes
    assert note.endswith("masks: 1 loss mask without a picture of that name: other.png")
    dataset = read_sets(_config(tmp_path / "set", conditioning=[tmp_path / "masks"]), inputs=PictureLimits(max_references=1))
    reasons = [item.reason.partition(" in ")[0] for item in dataset.set_aside]
    assert reasons == ["unusable reference: b.mp4: video: save the frames that you want as PNG", "no reference: c"]


@pytest.mark.parametrize(
    ("tags", "is_raw"),
    [({50706: b"\1\4\0\0"}, True), ({254: 1, 330: 8}, True), ({254: 1}, False), ({}, False)],
)
def test_thumbnails_of_raw_pictures_are_not_trained(tags: dict[int, Any], is_raw: bool) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    data = _encode("TIFF", tiffinfo=info)
    if not is_raw:
        assert read_image(data).size == (64, 64)
        return
    with pytest.raises(DataError, match="^raw picture of a camera: develop it"):
        read_image(data)


@pytest.mark.parametrize(
    ("start", "is_one"),
    [(HEIC, True), (AVIF, True), (JPEG_XL, True), (b"BM plain text", False), (b"\0\0\0\x18ftypmp42", False), (b"P6 or not", False)],
)
def test_starts(start: bytes, is_one: bool) -> None:
    assert is_picture(start) == is_one
    assert bool(explain_start(start)) == (start[4:12] == b"ftypmp42")


def test_endings() -> None:
    assert explain_ending("A.NEF").startswith("raw picture") and explain_ending("a.heic") == explain_ending("a") == ""


def test_photos_of_200_megapixels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    Image.new("1", (16320, 12240)).save(buffer, "PNG")
    with Image.open(BytesIO(buffer.getvalue())) as image:  # Pillow's own limit is below that
        assert image.size == (16320, 12240)
    monkeypatch.setattr(images, "_MANY_PIXELS", 100)
    held: list[bool] = []
    monkeypatch.setattr(images, "_read_first_frame", lambda image: held.append(images._one_large.locked()) or images.Colors(image))
    threads = [threading.Thread(target=read_image, args=(_encode("PNG"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == [True] * 4
