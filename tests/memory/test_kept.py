"""Quantized models on disk: the second start has the same bits, nothing stale or damaged is read, and what is not needed can go."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.errors import CacheError
from weber.families.family import Family
from weber.families.table import build_family
from weber.families.tensors import Entry, save_weights
from weber.memory import kept
from weber.memory.formats import FORMATS
from weber.memory.kept import FOLDER, build_kept_key, build_packed_weights, collect_kept, list_kept, load_kept
from weber.memory.load import list_kept_keys, load_predictor
from weber.progress import ignore_progress

CPU = torch.device("cpu")
NF4 = MemoryConfig(quantize="nf4")


class Told:
    """What progress was told, without its counts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.texts[-1:]:
            self.texts.append(what)


def _load(family: Family, cache: Path, memory: MemoryConfig = NF4, dtype: torch.dtype = torch.bfloat16) -> tuple[dict[str, Tensor], Told]:
    told = Told()
    predictor = load_predictor(family, device=CPU, dtype=dtype, memory=memory, folder=cache, progress=told)
    return predictor.transformer.state_dict(), told


def _is_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def family(tiny_model: Path) -> Family:
    return build_family(ModelConfig(path=str(tiny_model)))


@pytest.mark.parametrize("precision", FORMATS)
def test_the_second_start_reads_the_same_bits(precision: str, family: Family, tmp_path: Path) -> None:
    memory = MemoryConfig.model_validate({"quantize": precision})
    first, told = _load(family, tmp_path, memory)
    assert told.texts == ["quantizing the model", "loading the model"]
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    second, told = _load(family, tmp_path, memory)
    assert told.texts == ["loading the model"]
    assert _is_equal(first, second)
    direct, _ = _load(family, tmp_path / "none", MemoryConfig.model_validate({"quantize": precision, "keep_quantized": False}))
    assert _is_equal(first, direct)
    assert not (tmp_path / "none").exists()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == written
    assert len(written) == 1


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5000] ^= 1
    file.write_bytes(content)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _drop(file: Path) -> None:
    tensors = load_file(file)
    del tensors[sorted(tensors)[3]]
    save_file(tensors, file)


def _shorten(file: Path) -> None:
    save_file({"checksums": torch.zeros(3, dtype=torch.int64)}, file)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _drop, _shorten])
def test_a_damaged_file_is_set_aside_and_made_again(damage: Callable[[Path], None], family: Family, tmp_path: Path) -> None:
    first, _ = _load(family, tmp_path)
    (file,) = list_kept(tmp_path).values()
    good = file.read_bytes()
    damage(file)
    bad = file.read_bytes()
    again, told = _load(family, tmp_path)
    assert _is_equal(first, again)
    notes = [text for text in told.texts if text.startswith("quantizing the model again")]
    assert len(notes) == 1 and f"{file.name} was damaged: " in notes[0]
    assert file.read_bytes() == good
    assert file.with_name(file.name + ".damaged").read_bytes() == bad
    assert _load(family, tmp_path)[1].texts == ["loading the model"]


def test_a_disk_that_damages_what_is_written_is_said(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_badly(path: Path, *arguments: Any, **settings: Any) -> None:
        save_weights(path, *arguments, **settings)
        _flip(path)

    monkeypatch.setattr(kept, "save_weights", save_badly)
    with pytest.raises(CacheError, match="not read as it was written") as caught:
        _load(family, tmp_path)
    assert "check the disk" in str(caught.value)


def test_the_key_follows_the_model_the_formats_and_the_precision(tiny_model: Path, family: Family, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    file = next((copy / "transformer").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    other = build_family(ModelConfig(path=str(copy)))
    _load(family, tmp_path)
    _load(other, tmp_path)
    _load(family, tmp_path, dtype=torch.float32)
    _load(family, tmp_path, MemoryConfig(quantize="int4"))
    _load(family, tmp_path, MemoryConfig(quantize="nf4", modulation="int8"))
    assert len(list_kept(tmp_path)) == 5
    assert build_kept_key("a", {"x": "nf4"}, dtype=torch.float32) != build_kept_key("a", {"y": "nf4"}, dtype=torch.float32)
    assert len(build_kept_key("a", {}, dtype=torch.float32)) == 32


def test_what_no_run_needs_is_deleted(family: Family, tmp_path: Path) -> None:
    _load(family, tmp_path)
    _load(family, tmp_path, dtype=torch.float32)
    _load(family, tmp_path, MemoryConfig(quantize="int8"))
    files = list_kept(tmp_path)
    keep = list_kept_keys(family, NF4)
    assert len(keep) == 2 and keep < set(files)
    assert list_kept_keys(family, MemoryConfig()) == list_kept_keys(family, MemoryConfig(quantize="nf4", keep_quantized=False)) == set()
    damaged = tmp_path / FOLDER / "0.safetensors.damaged"
    old, new = (tmp_path / FOLDER / f".{number}.safetensors.77.tmp" for number in range(2))
    for leftover in (damaged, old, new):
        leftover.write_bytes(b"12345")
    os.utime(old, (0, 0))
    gone = next(path for key, path in files.items() if key not in keep)
    size = gone.stat().st_size
    assert collect_kept(tmp_path, keep) == (3, size + 10)
    assert set(list_kept(tmp_path)) == keep
    assert new.exists() and not gone.exists() and not damaged.exists() and not old.exists()
    assert collect_kept(tmp_path / "nowhere", set()) == (0, 0)


def test_leftovers_of_a_killed_start_go_with_the_next_one(family: Family, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    old = tmp_path / FOLDER / ".0.safetensors.77.tmp"
    old.write_bytes(b"1")
    os.utime(old, (0, 0))
    _load(family, tmp_path)
    assert not old.exists()


def test_a_full_disk_is_said_before_anything_is_quantized(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**40, 2**40, 2**20))
    with pytest.raises(CacheError) as caught:
        _load(family, tmp_path / "cache" / "deep")
    assert "memory.keep_quantized = false" in str(caught.value)
    assert f"free in {tmp_path}" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written(family: Family, tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(CacheError, match="cannot be kept") as caught:
        _load(family, tmp_path)
    assert "memory.keep_quantized = false" in str(caught.value)


def test_each_layer_is_read_and_packed_once(tmp_path: Path) -> None:
    num_reads: dict[str, int] = {}

    def build(name: str) -> Entry:
        def read() -> Tensor:
            num_reads[name] = num_reads.get(name, 0) + 1
            return torch.randn(8, 64)

        return Entry((8, 64), torch.float32, read)

    weights = {f"{name}.weight": build(name) for name in ("one", "two", "three")}
    packed = build_packed_weights(weights, {"one": "nf4", "three": "int4"}, device=CPU)
    assert list(packed) == [
        *(f"one.{leaf}" for leaf in ("packed", "absmax", "nested_absmax", "nested_code", "offset")),
        *(f"three.{leaf}" for leaf in ("packed", "step", "least")),
    ]
    read = load_kept(tmp_path / "file.safetensors", packed, progress=ignore_progress)
    assert num_reads == {"one": 1, "three": 1}
    assert all((read[name].shape, read[name].dtype) == (entry.shape, entry.dtype) for name, entry in packed.items())
