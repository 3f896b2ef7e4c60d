"""The folder: damage, foreign files, other processes, cleaning."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from weber.cache import catalog
from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.errors import CacheError
from weber.families.tensors import ABANDONED_SECONDS


def _build_sample(key: str) -> dict[str, Tensor]:
    return {"latents": torch.arange(1000).remainder(int(key, 16) + 7).bfloat16(), "ids": torch.tensor(int(key, 16))}


def _write(store: Store, *keys: str) -> Path:
    before = set(store.folder.glob("*.safetensors"))
    with Writer(store) as writer:
        for key in keys:
            writer.add(key, _build_sample(key))
    (path,) = set(store.folder.glob("*.safetensors")) - before
    return path


def _check_samples(store: Store, *keys: str) -> None:
    for key in keys:
        got, expected = store.read(key), _build_sample(key)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def test_a_new_store_reads_what_another_wrote(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "cache")
    assert len(store) == 0
    assert not store.folder.exists()
    _write(store, "1", "2")
    _write(store, "3")
    for opened in (store, Store(store.folder)):
        assert len(opened) == 3
        assert "4" not in opened
        _check_samples(opened, "1", "2", "3")


def test_missing_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"(?s)Sample 77 cannot be read from the cache .*no such sample"):
        Store(tmp_path).read("77")


def test_refresh_shows_the_shards_of_others(tmp_path: Path) -> None:
    reader = Store(tmp_path)
    _write(Store(tmp_path), "1")
    assert "1" not in reader
    reader.refresh()
    _check_samples(reader, "1")


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no mapped file")
def test_views_outlive_their_shard(tmp_path: Path) -> None:
    path = _write(Store(tmp_path), "1")
    store = Store(tmp_path)
    view = store.read("1")["latents"]
    path.unlink()
    store.refresh()
    assert len(store) == 0
    assert torch.equal(view, _build_sample("1")["latents"])


def test_a_shard_moved_by_another_collector_is_found_again(tmp_path: Path) -> None:
    _write(Store(tmp_path), "1", "2")
    reader = Store(tmp_path)
    Store(tmp_path).collect({"1"})
    _check_samples(reader, "1")
    assert "2" not in reader


@pytest.mark.parametrize("damage", ["header", "length", "truncated", "empty"])
def test_shard_with_a_broken_header_is_set_aside(tmp_path: Path, damage: str) -> None:
    good, bad = _write(Store(tmp_path), "1"), _write(Store(tmp_path), "2", "3")
    if damage == "header":
        _flip(bad, 100)
    elif damage == "length":
        _flip(bad, 3)
    else:
        bad.write_bytes(bad.read_bytes()[: 0 if damage == "empty" else -1])
    store = Store(tmp_path)
    assert [(event.shard, event.key) for event in store.set_aside] == [(bad.name, None)]
    assert store.set_aside[0].reason
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([good.name, f"{bad.name}.damaged"])
    _write(store, "2", "3")
    _check_samples(store, "1", "2", "3")
    again = Store(tmp_path)
    assert not again.set_aside
    _check_samples(again, "1", "2", "3")


def test_sample_with_a_flipped_bit_counts_as_missing_from_then_on(tmp_path: Path) -> None:
    path = _write(Store(tmp_path), "1", "2")
    _flip(path, -3)
    store = Store(tmp_path)
    assert len(store) == 2
    with pytest.raises(CacheError, match="(?s)Sample 2 cannot be read.*bytes of 2/latents do not match their checksum"):
        store.read("2")
    assert [(event.shard, event.key) for event in store.set_aside] == [(path.name, "2")]
    for opened in (store, Store(tmp_path)):
        assert "2" not in opened
        _check_samples(opened, "1")
    _write(store, "2")
    for opened in (store, Store(tmp_path)):
        _check_samples(opened, "1", "2")


def test_a_good_copy_in_another_shard_is_used(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    paths = [_write(first, "1"), _write(second, "1")]
    for path in paths:
        whole = path.read_bytes()
        _flip(path, -3)
        store = Store(tmp_path)
        _check_samples(store, "1")
        path.write_bytes(whole)
        (tmp_path / "damaged.txt").unlink(missing_ok=True)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _write(store, "1")
    foreign = ["model.safetensors", "notes.txt", "index.sqlite", "x.tmp", "20250101T000000-1-0000.safetensors.damaged"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"not ours")
    (tmp_path / "folder.safetensors").mkdir()
    opened = Store(tmp_path)
    assert len(opened) == 1
    assert not opened.set_aside
    opened.collect(set())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*foreign, "folder.safetensors"])


def test_verify_reads_everything(tmp_path: Path) -> None:
    paths = [_write(Store(tmp_path), "1", "2"), _write(Store(tmp_path), "3"), _write(Store(tmp_path), "4")]
    store = Store(tmp_path)
    _check_samples(store, "1", "2", "3", "4")
    report = store.verify()
    assert (report.num_shards, report.num_samples, report.set_aside) == (3, 4, ())
    assert report.num_bytes == sum(path.stat().st_size for path in paths)
    _flip(paths[1], -1)
    _flip(paths[2], 60)
    (tmp_path / f"{paths[0].name}.tmp").touch()
    seen: list[tuple[str, int, int]] = []
    report = Store(tmp_path).verify(progress=lambda *event: seen.append(event))
    assert (report.num_shards, report.num_samples) == (2, 2)
    assert sorted((damage.shard, damage.key) for damage in report.set_aside if damage.key) == [(paths[1].name, "3")]
    assert [damage.shard for damage in report.set_aside if damage.key is None] == [paths[2].name]
    assert report.damaged_files == (tmp_path / f"{paths[2].name}.damaged",)
    assert report.temporary_files == (tmp_path / f"{paths[0].name}.tmp",)
    assert seen[-1] == ("checking the cache", 2, 2)


def test_collect_keeps_exactly_what_is_asked(tmp_path: Path) -> None:
    whole = _write(Store(tmp_path), "1", "2")
    mixed = _write(Store(tmp_path), "3", "4", "5")
    gone = _write(Store(tmp_path), "6")
    broken = _write(Store(tmp_path), "7")
    _flip(broken, 50)
    store = Store(tmp_path)
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    files = sorted(tmp_path.iterdir())
    told = store.weigh({"1", "2", "4", "7", "8"})
    assert sorted(tmp_path.iterdir()) == files
    report = store.collect({"1", "2", "4", "7", "8"})
    assert (told.num_kept, told.num_removed) == (report.num_kept, report.num_removed)
    assert abs(told.freed_bytes - report.freed_bytes) < 1000  # headers
    assert (report.num_kept, report.num_removed, report.left_files) == (3, 3, ())
    assert report.freed_bytes == before - sum(path.stat().st_size for path in tmp_path.iterdir())
    assert whole.exists()
    assert not mixed.exists()
    assert not gone.exists()
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors", ".safetensors"]
    for opened in (store, Store(tmp_path)):
        assert len(opened) == 3
        _check_samples(opened, "1", "2", "4")
    assert store.collect({"1", "2", "4"}).freed_bytes == 0


def test_collect_drops_duplicates_and_damaged_samples(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    _write(first, "1", "2")
    _write(second, "1", "2", "3")
    damaged = _write(second, "4")
    _flip(damaged, -1)
    store = Store(tmp_path)
    with pytest.raises(CacheError):
        store.read("4")
    assert (tmp_path / "damaged.txt").exists()
    store.collect({"1", "2", "3", "4"})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10_000
    assert not (tmp_path / "damaged.txt").exists()
    opened = Store(tmp_path)
    _check_samples(opened, "1", "2", "3")
    assert len(opened) == 3
    assert opened.verify().set_aside == ()


def test_collect_deletes_only_temporary_files_without_a_writer(tmp_path: Path) -> None:
    path = _write(Store(tmp_path), "1")
    fresh, stale = (tmp_path / f"20250101T000000-1-{digit * 8}.safetensors.tmp" for digit in "ab")
    fresh.touch()
    stale.touch()
    long_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(stale, (long_ago, long_ago))
    Store(tmp_path).collect({"1"})
    assert set(tmp_path.iterdir()) == {path, fresh}


KILLED_COLLECTOR = """
import os, sys
from pathlib import Path
from weber.cache.store import Store
Path.unlink = lambda path, missing_ok=False: os._exit(9) if path.suffix == ".safetensors" else os.unlink(path) if path.exists() else None
Store(Path(sys.argv[1])).collect({"1", "3"})
"""


def test_killed_collector_loses_nothing(tmp_path: Path) -> None:
    _write(Store(tmp_path), "1", "2")
    _write(Store(tmp_path), "3", "4")
    assert subprocess.run([sys.executable, "-c", KILLED_COLLECTOR, str(tmp_path)]).returncode == 9
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    store = Store(tmp_path)
    assert store.verify().set_aside == ()
    _check_samples(store, "1", "3")
    store.collect({"1", "3"})
    assert len(Store(tmp_path)) == 2


def test_more_shards_than_are_mapped_at_once(tmp_path: Path) -> None:
    keys = [f"{number:x}" for number in range(150)]
    with Writer(Store(tmp_path), max_shard_bytes=1) as writer:
        for key in keys:
            writer.add_batch({name: _build_sample(name) for name in (key, f"{key}000")})
    store = Store(tmp_path)
    views = {key: store.read(key)["ids"] for key in keys}
    _check_samples(store, *keys)
    assert all(view == int(key, 16) for key, view in views.items())
    store.collect(set(keys))
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    _check_samples(Store(tmp_path), *keys)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheError, match="The cache .*cache cannot be read"):
        Store(tmp_path / "cache")


_KEYS = st.sampled_from([f"{number:032x}" for number in range(8)])
_DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.uint8, torch.bool])
_SHAPES = st.lists(st.integers(0, 3), max_size=3)
_STEPS = st.one_of(
    st.tuples(st.just("add"), _KEYS, _DTYPES, _SHAPES, st.integers(0, 255)),
    st.tuples(st.sampled_from(["flush", "reopen", "verify", "keep"])),
    st.tuples(st.just("collect"), st.sets(_KEYS)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=20), num_shards=st.sampled_from([1, 2, catalog.MIN_NEW_SHARDS]))
def test_a_store_is_a_dict_that_never_replaces(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]], num_shards: int
) -> None:
    """Whether the index file knows all shards, some of them, or is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "MIN_NEW_SHARDS", num_shards)
        _check_steps(Store(tmp_path_factory.mktemp("cache")), steps)


def _check_steps(store: Store, steps: list[tuple[Any, ...]]) -> None:
    model: dict[str, Tensor] = {}
    waiting: dict[str, Tensor] = {}
    with Writer(store) as writer:
        for step, *values in steps:
            if step == "add":
                key, dtype, shape, value = values
                tensor = torch.full(shape, value).to(dtype)
                writer.add(key, {"x": tensor, "twice": tensor})
                if key not in model:
                    waiting.setdefault(key, tensor)
            elif step == "collect":
                (keep,) = values
                store.collect(keep)
                model = {key: tensor for key, tensor in model.items() if key in keep}
            elif step == "verify":
                assert store.verify().num_samples == len(model)
            elif step == "keep":
                store.catalog.keep_index()
            else:
                writer.flush()
                model |= waiting
                waiting = {}
            _check_model(Store(store.folder) if step == "reopen" else store, model)


def _check_model(store: Store, model: dict[str, Tensor]) -> None:
    assert all((f"{number:032x}" in store) == (f"{number:032x}" in model) for number in range(9))
    for key, tensor in model.items():
        got = store.read(key)
        assert got["x"].dtype == tensor.dtype
        assert torch.equal(got["x"], tensor)
        assert torch.equal(got["twice"], tensor)
    assert len(store) == len(model)
