"""Tar archives: folders like any other, read at random, and broken ones as far as they can be."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.backends import tar_index
from weber.data.backends.sources import Sources
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits
from weber.data.views import read_pixels
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


def _pack(archive: Path, folder: Path, *names: str) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as file:
        for name in names or sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()):
            file.add(folder / name, name)
    return archive


def _write_set(folder: Path, write: Write) -> Path:
    for number in range(4):
        write(folder / f"{number:03}.png", 64 + 16 * number, seed=number, caption=f"picture {number}\nfoto {number}")
    return folder


def _facts(dataset: Dataset) -> list[object]:
    return [(one.content, one.captions, one.bucket, one.crops) for one in dataset.examples]


def test_an_archive_is_the_folder_that_it_was(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    _pack(tmp_path / "packed" / "a.tar", folder, "000.png", "000.txt", "001.png", "001.txt")
    _pack(tmp_path / "packed" / "deep" / "b.tar", folder, "002.txt", "002.png", "003.png", "003.txt")
    plain, packed = read_sets(_config(folder)), read_sets(_config(tmp_path / "packed"))
    assert _facts(packed) == _facts(plain) and not packed.set_aside and not packed.notes
    assert [one.path.relative_to(tmp_path / "packed").as_posix() for one in packed.examples][::3] == ["a.tar/000.png", "deep/b.tar/003.png"]
    views = [(one.target(0), two.target(0)) for one, two in zip(plain.examples, packed.examples, strict=True)]
    assert all((read_pixels(one, plain.files) == read_pixels(two, packed.files)).all() for one, two in views)
    assert _facts(read_sets(_config(tmp_path / "packed" / "a.tar"))) == _facts(plain)[:2]


def test_the_next_start_opens_nothing_and_a_change_is_seen(
    tmp_path: Path, write_picture: Write, read_sets: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    archive = _pack(tmp_path / "packed" / "a.tar", folder)
    config = _config(tmp_path / "packed")
    first = read_sets(config)
    with monkeypatch.context() as patch:
        patch.delattr(tar_index, "_read_index")
        again = read_sets(config)
    assert (again.num_opened, again.examples) == (0, first.examples)
    write_picture(folder / "001.png", 80, seed=9, caption="another")
    _pack(archive, folder)
    changed = read_sets(config)
    assert _facts(changed) == _facts(read_sets(_config(folder))) != _facts(first)


def test_references_and_masks_in_archives(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    for number in range(4):
        write_picture(tmp_path / "before" / f"{number:03}.png", 64 + 16 * number, seed=10 + number, caption=None)
    _pack(tmp_path / "set.tar", folder)
    _pack(tmp_path / "before.tar", tmp_path / "before")
    takes = PictureLimits(max_references=1)
    plain = read_sets(_config(folder, conditioning=[tmp_path / "before"]), inputs=takes)
    packed = read_sets(_config(tmp_path / "set.tar", conditioning=[tmp_path / "before.tar"]), inputs=takes)
    assert [one.references[0].content for one in packed.examples] == [one.references[0].content for one in plain.examples]


def _add(file: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    file.addfile(member, io.BytesIO(data))


def test_what_else_is_in_archives(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    good = write_picture(tmp_path / "good.png", caption=None).read_bytes()
    old = write_picture(tmp_path / "old.png", seed=5, caption=None).read_bytes()
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "a.tar", "w") as file:
        _add(file, "./a.png", old)
        _add(file, "./a.txt", b"twice")
        _add(file, "./._a.png", b"of macOS")
        _add(file, "./a.png", good)
        _add(file, "b.png", type=tarfile.LNKTYPE, linkname="./a.png")
        _add(file, "c.png", type=tarfile.SYMTYPE, linkname="missing.png")
        _add(file, "../d.png", good)
        _add(file, "inner.tar", b"x")
        _add(file, "e.png", b"no picture")
        _add(file, "e.txt", b"of none")
    found = read_sets(_config(tmp_path / "set", caption_fallback="linked"))
    plain = read_sets(DataConfig(path=tmp_path, recursive=False, resolution=64, bucket_step=16, captions="none"))
    assert {one.content for one in found.examples} == {plain.examples[0].content}
    assert {one.path.name: one.captions for one in found.examples} == {"a.png": ("twice",), "b.png": ("linked",)}
    reasons = {one.path.name: one.reason.partition(":")[0] for one in found.set_aside}
    assert reasons.pop("e.png")
    assert reasons == {"c.png": "link that leads nowhere", "d.png": "file outside of its archive", "inner.tar": "archive in an archive"}


@pytest.mark.parametrize("cut", ["in a picture", "in a header", "at the end mark", "damaged"])
def test_a_broken_archive_is_used_as_far_as_it_goes(tmp_path: Path, write_picture: Write, read_sets: Read, cut: str) -> None:
    archive = _pack(tmp_path / "packed" / "a.tar", _write_set(tmp_path / "set", write_picture))
    with tarfile.open(archive) as file:
        last, end = file.getmember("003.png"), file.getmember("003.txt")
    data = bytearray(archive.read_bytes())
    if cut == "damaged":
        data[last.offset : last.offset + 512] = b"x" * 512
    places = {"in a picture": last.offset_data + 100, "in a header": last.offset + 100, "at the end mark": end.offset_data + 512}
    archive.write_bytes(data[: places.get(cut, len(data))])
    found = read_sets(_config(tmp_path / "packed"))
    assert len(found.examples) == (4 if cut == "at the end mark" else 3)
    reasons = {one.path.name: one.reason for one in found.set_aside}
    assert reasons["a.tar"].startswith("damaged archive" if cut == "damaged" else "archive that is cut off")
    assert set(reasons) == {"a.tar", "003.png"} if cut == "in a picture" else {"a.tar"}


@pytest.mark.parametrize("data", [b"", b"<html>no archive</html>" * 100, b"\x1f\x8b\x08" + bytes(2000)])
def test_what_is_no_archive_is_said(tmp_path: Path, write_picture: Write, read_sets: Read, data: bytes) -> None:
    write_picture(tmp_path / "set" / "good.png")
    (tmp_path / "set" / "bad.tar").write_bytes(data)
    [bad] = read_sets(_config(tmp_path / "set")).set_aside
    assert bad.path.name == "bad.tar" and bad.reason.startswith("damaged archive")
    with pytest.raises(DataError, match="damaged archive"):
        read_sets(_config(tmp_path / "set" / "bad.tar"))


def test_a_folder_that_is_called_as_an_archive_is(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "x.tar" / "a.png")
    [one] = read_sets(_config(tmp_path / "set")).examples
    assert one.path == tmp_path / "set" / "x.tar" / "a.png"
    assert Sources(tmp_path).stat(one.path).size_bytes == one.path.stat().st_size
