"""Storage of fsspec: a set in S3 (a real server on loopback) is the set that it is in a folder, also where the server misbehaves."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.config import conf

from tests.data.s3 import serve_s3
from tests.data.servers import Web, fail_first, hang, send
from weber.config.data import DataConfig
from weber.data.backends import stores, tar_index
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits
from weber.data.views import read_pixels
from weber.errors import DataError, MissingExtraError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def served() -> Iterator[Web]:
    with serve_s3() as web:
        yield web


@pytest.fixture
def s3(served: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """An S3 with an empty bucket, and the settings of fsspec for it."""
    settings = {"read_timeout": 0.5, "connect_timeout": 1, "retries": {"max_attempts": 1}}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(conf, "s3", {"endpoint_url": served.address, "key": "a", "secret": "b", "config_kwargs": settings})
    system = fsspec.filesystem("s3")
    monkeypatch.setattr(system, "retries", 2)
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    served.pages.clear()
    served.asked.clear()
    return served


def _config(path: Path | str, **keys: Any) -> DataConfig:
    return DataConfig(path=Path(path), **{"resolution": 64, "bucket_step": 16, **keys})


def _write_set(folder: Path, write: Write, *, first: int = 0) -> Path:
    for number in range(3):
        write(folder / f"{number:03}.png", 64 + 16 * number, seed=first + number, caption=f"picture {number}")
    return folder


def _put(folder: Path, address: str) -> None:
    fsspec.filesystem(address.partition("://")[0]).put(f"{folder}/", address + "/", recursive=True)


def _facts(dataset: Dataset) -> list[object]:
    return [(one.content, one.captions, one.bucket, one.crops) for one in dataset.examples]


def _count(web: Web, ending: str) -> int:
    return sum(number for name, number in web.asked.items() if name.startswith("GET") and name.partition("?")[0].endswith(ending))


def test_a_set_in_s3(tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    write_picture(folder / "deep" / "003.png", seed=7)
    (folder / "broken.png").write_bytes(b"no picture")
    _put(folder, "s3://bucket/set")
    plain, far = read_sets(_config(folder)), read_sets(_config("s3://bucket/set"))
    assert _facts(far) == _facts(plain) and [one.reason for one in far.set_aside] == [one.reason for one in plain.set_aside]
    view, own = far.examples[0].target(0), plain.examples[0].target(0)
    assert (read_pixels(view, far.files) == read_pixels(own)).all()
    s3.asked.clear()
    again = read_sets(_config("s3://bucket/set"))
    assert (again.num_opened, again.examples) == (0, far.examples)
    assert (_count(s3, ".png"), _count(s3, ".txt")) == (0, 0)
    write_picture(folder / "001.png", 80, seed=9, caption="another")
    _put(folder, "s3://bucket/set")
    s3.asked.clear()
    assert _facts(read_sets(_config("s3://bucket/set"))) == _facts(read_sets(_config(folder))) != _facts(plain)


def test_references_in_s3(tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    before = _write_set(tmp_path / "before", write_picture, first=10)
    _put(before, "s3://bucket/before")
    takes = PictureLimits(max_references=1)
    plain = read_sets(_config(folder, conditioning=[before]), inputs=takes)
    far = read_sets(_config(folder, conditioning=[Path("s3://bucket/before")]), inputs=takes)
    assert [one.references[0].content for one in far.examples] == [one.references[0].content for one in plain.examples]


def test_archives_in_s3_are_read_at_random(
    tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "a.tar", "w") as file:
        for one in sorted(folder.iterdir()):
            file.add(one, one.name)
    _put(tmp_path / "packed", "s3://bucket/packed")
    plain, far = read_sets(_config(folder)), read_sets(_config("s3://bucket/packed"))
    assert _facts(far) == _facts(plain) == _facts(read_sets(_config("s3://bucket/packed/a.tar")))
    s3.asked.clear()
    monkeypatch.delattr(tar_index, "_read_index")
    assert read_sets(_config("s3://bucket/packed")).num_opened == 0 and _count(s3, "a.tar") == 0


FAULTS: dict[str, Any] = {
    "fails": lambda handler: send(handler, b"", code=503),
    "hangs": hang,
    "truncates": lambda handler: (send(handler, b"\x89PNG", length=500), setattr(handler, "close_connection", True)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_misbehaves(tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read, fault: str) -> None:
    _put(_write_set(tmp_path / "set", write_picture), "s3://bucket/set")
    s3.pages["/bucket/set/001.png"] = FAULTS[fault]
    found = read_sets(_config("s3://bucket/set"))
    assert len(found.examples) == 2 and found.set_aside[0].reason.startswith("unreadable file: ")
    s3.pages.clear()
    assert len(read_sets(_config("s3://bucket/set")).examples) == 3


def test_a_server_that_fails_for_a_moment(tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    _put(folder, "s3://bucket/set")
    s3.pages["/bucket/set/001.png"] = fail_first((folder / "001.png").read_bytes(), 1)
    assert len(read_sets(_config("s3://bucket/set")).examples) == 3


def test_a_table_of_objects(tmp_path: Path, s3: Web, write_picture: Write, read_sets: Read) -> None:
    _put(_write_set(tmp_path / "set", write_picture), "s3://bucket/set")
    (tmp_path / "t.csv").write_text("image,text\ns3://bucket/set/000.png,one\ns3://bucket/set/missing.png,two\n")
    found = read_sets(DataConfig(metadata=tmp_path / "t.csv", resolution=64, bucket_step=16))
    assert [one.captions for one in found.examples] == [("one",)]
    assert found.set_aside[0].reason == "unreadable file: it is not there"


def test_what_is_not_there_is_said(tmp_path: Path, s3: Web, read_sets: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("s3://missing/set", "s3://bucket/missing", "memory://nothing"):
        with pytest.raises(DataError, match=f'there is nothing at "{address}"'):
            read_sets(_config(address))
    with pytest.raises(DataError, match="address of an unknown kind") as error:
        read_sets(_config("ftp://host/set"))
    assert "s3://" in error.value.expected
    monkeypatch.setitem(stores.STORES, "memory", stores.Store("not_installed", "pip install it"))  # type: ignore[index]
    with pytest.raises(MissingExtraError, match="not_installed is not installed"):
        read_sets(_config("memory://nothing"))


def test_without_keys(read_sets: Read, s3: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setitem(conf, "s3", {key: value for key, value in conf["s3"].items() if key not in ("key", "secret")})
    with pytest.raises(DataError, match='"s3://bucket/set" cannot be listed') as error:
        read_sets(_config("s3://bucket/set"))
    assert "AWS_ACCESS_KEY_ID" in error.value.fix


def test_any_storage_of_fsspec(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = _write_set(tmp_path / "set", write_picture)
    _put(folder, "memory://set")
    assert _facts(read_sets(_config("memory://set"))) == _facts(read_sets(_config(folder)))
    assert read_sets(_config("memory://set")).num_opened == 0
