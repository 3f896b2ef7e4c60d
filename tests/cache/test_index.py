"""The index file: what it finds, and that it is never believed beyond what is there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from weber.cache import catalog
from weber.cache.index import Index, read_index, write_index
from weber.cache.shard import Shard, load_shard
from weber.cache.store import Store
from weber.errors import CacheError

NUM_SHARDS = 5


def _draw_keys(seed: int, num: int) -> list[str]:
    numbers = random.Random(seed)
    return [f"{numbers.getrandbits(128):032x}" for _ in range(num)]


def _find(index: Index | None, key: str) -> list[str]:
    assert index is not None
    return list(index.find(key))


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards whose headers are read, as they are."""
    read: list[str] = []

    def load(path: Path) -> Shard:
        read.append(path.name)
        return load_shard(path)

    monkeypatch.setattr(catalog, "load_shard", load)
    monkeypatch.setattr(catalog, "MIN_NEW_SHARDS", 2)
    return read


@pytest.fixture
def keys(tmp_path: Path, headers: list[str]) -> list[str]:
    """One sample in each of five shards of a folder that has an index; the last two samples are in the first shard too."""
    keys = _draw_keys(0, NUM_SHARDS)
    store = Store(tmp_path)
    store.publish({key: _build_sample(key) for key in [keys[0], *keys[-2:]]})
    for key in keys[1:]:
        store.publish({key: _build_sample(key)})
    store.catalog.keep_index()
    headers.clear()
    return keys


def _build_sample(key: str) -> dict[str, torch.Tensor]:
    return {"x": torch.tensor([int(key[:8], 16)])}


def _holders(folder: Path, key: str) -> list[Path]:
    return [path for path in sorted(folder.glob("*.safetensors")) if key in load_shard(path).samples]


def test_every_key_is_found_in_each_of_its_shards_and_no_other(tmp_path: Path) -> None:
    drawn = _draw_keys(1, 3000)
    alike = [f"{number:032x}" for number in range(50)] + ["ab" * 16, "ab" * 15 + "ba", "ba" * 16, "f" * 32]
    shards = {"a": (10, drawn[:1000] + alike[::2]), "b": (20, []), "c": (30, drawn[900:2000] + alike)}
    file = tmp_path / "index"
    write_index(file, shards, known=None, keep=[])
    index = read_index(file)
    assert (
        index is not None and index.sizes == {"a": 10, "b": 20, "c": 30} and len(index) == sum(len(names) for _, names in shards.values())
    )
    for key in [*drawn, *alike]:
        assert _find(index, key) == [name for name, (_, held) in shards.items() if key in held]
    assert all(_find(index, key) == [] for key in ["", "0", "zz" * 16, "AB" * 16, "1" * 33])


def test_what_is_known_goes_into_the_next_one(tmp_path: Path) -> None:
    drawn = _draw_keys(2, 300)
    write_index(tmp_path / "first", {"a": (1, drawn[:100]), "b": (2, drawn[50:200])}, known=None, keep=[])
    first = read_index(tmp_path / "first")
    write_index(tmp_path / "second", {"c": (3, drawn[150:])}, known=first, keep=["b"])
    second = read_index(tmp_path / "second")
    assert second is not None and second.sizes == {"b": 2, "c": 3}
    assert [_find(second, drawn[place]) for place in (0, 60, 160, 250)] == [[], ["b"], ["b", "c"], ["c"]]


@pytest.mark.parametrize("place", [0, 5, 22, 30, 1000, -1])
def test_a_changed_byte_makes_it_none(tmp_path: Path, place: int) -> None:
    file = tmp_path / "index"
    write_index(file, {"a": (10, _draw_keys(3, 100))}, known=None, keep=[])
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert read_index(file) is None
    file.write_bytes(data[:place])
    assert read_index(file) is None


def test_a_known_store_is_opened_without_headers(tmp_path: Path, keys: list[str], headers: list[str]) -> None:
    store = Store(tmp_path)
    assert all(key in store for key in keys) and "0" * 32 not in store and "1" not in store
    assert headers == []
    assert torch.equal(store.read(keys[1])["x"], _build_sample(keys[1])["x"])
    assert headers == [path.name for path in _holders(tmp_path, keys[1])]
    assert len(store) == NUM_SHARDS and len(headers) == NUM_SHARDS


def test_shards_that_came_since_are_read_and_those_that_went_are_not_promised(tmp_path: Path, keys: list[str], headers: list[str]) -> None:
    (new,) = _draw_keys(4, 1)
    Store(tmp_path).publish({new: _build_sample(new)})
    _holders(tmp_path, keys[2])[0].unlink()
    headers.clear()
    store = Store(tmp_path)
    assert headers == [path.name for path in _holders(tmp_path, new)]
    assert [key in store for key in [new, *keys]] == [True, True, True, False, True, True]


def test_a_broken_header_is_found_when_it_is_read_and_another_copy_is_taken(tmp_path: Path, keys: list[str]) -> None:
    for path in [_holders(tmp_path, key)[-1] for key in (keys[1], keys[-1])]:
        data = bytearray(path.read_bytes())
        data[100] ^= 4
        path.write_bytes(data)
    store = Store(tmp_path)
    assert keys[1] in store and not store.set_aside
    with pytest.raises(CacheError, match="header does not match its checksum"):
        store.read(keys[1])
    assert keys[1] not in store
    assert torch.equal(store.read(keys[-1])["x"], _build_sample(keys[-1])["x"])
    assert len(list(tmp_path.glob("*.damaged"))) == len(store.set_aside) > 0


def test_a_shorter_shard_is_found_at_once(tmp_path: Path, keys: list[str]) -> None:
    (path,) = _holders(tmp_path, keys[1])
    path.write_bytes(path.read_bytes()[:-1])
    store = Store(tmp_path)
    assert [damage.shard for damage in store.set_aside] == [path.name] and keys[1] not in store


def test_damaged_bytes_are_noted_for_all(tmp_path: Path, keys: list[str], headers: list[str]) -> None:
    (path,) = _holders(tmp_path, keys[1])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match="do not match their checksum"):
        Store(tmp_path).read(keys[1])
    headers.clear()
    store = Store(tmp_path)
    assert keys[1] not in store and headers == []


def test_cleaning_writes_it_anew(tmp_path: Path, keys: list[str], headers: list[str]) -> None:
    for number in range(3):
        Store(tmp_path).publish({f"{number:032x}": _build_sample(keys[0])})
    Store(tmp_path).collect({keys[0], *(f"{number:032x}" for number in range(3))})
    headers.clear()
    store = Store(tmp_path)
    assert keys[0] in store and keys[1] not in store and len(store) == 4
    assert not list(tmp_path.glob("*.tmp"))


def test_a_damaged_index_or_none_changes_nothing(tmp_path: Path, keys: list[str], headers: list[str]) -> None:
    file = tmp_path / catalog.INDEX_NAME
    file.write_bytes(file.read_bytes()[:-1])
    assert all(key in Store(tmp_path) for key in keys) and len(headers) >= NUM_SHARDS
    headers.clear()
    assert all(key in Store(tmp_path) for key in keys) and headers == []  # it was written anew
    file.unlink()
    assert all(key in Store(tmp_path) for key in keys)


def test_it_is_not_written_again_for_nothing(tmp_path: Path, keys: list[str]) -> None:
    store = Store(tmp_path)
    for key in _draw_keys(5, 3):
        store.publish({key: _build_sample(key)})
    store.catalog.keep_index()
    written = (tmp_path / catalog.INDEX_NAME).stat().st_ino
    store.catalog.keep_index()
    assert (tmp_path / catalog.INDEX_NAME).stat().st_ino == written


def test_a_shard_that_goes_while_the_folder_is_listed_takes_no_other_with_it(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = _holders(tmp_path, keys[1])
    scandir = os.scandir

    @contextmanager
    def scan(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            listed = list(entries)
        path.unlink(missing_ok=True)  # by another process
        yield listed

    monkeypatch.setattr(catalog.os, "scandir", scan)
    store = Store(tmp_path)
    assert [key in store for key in keys] == [key != keys[1] for key in keys]
