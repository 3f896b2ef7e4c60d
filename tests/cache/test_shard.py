"""One file: every byte of it is guarded, and any safetensors reader can open it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from weber.cache.shard import DamagedShardError, load_shard, write_shard
from weber.families.tensors import DTYPES


def _samples() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        "aa": {"odd": torch.tensor([1, 2, 3], dtype=torch.uint8), "latents": torch.randn(2, 3, 4, generator=generator).bfloat16()},
        "bb": {"scalar": torch.tensor(7.5), "empty": torch.zeros(0, 4), "ids": torch.arange(5), "mask": torch.tensor([True, False])},
        "cc": {"ünïcode / slash": torch.randn(3, generator=generator).double()},
    }


def _check_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        assert torch.equal(got[name], tensor)


def test_round_trip(tmp_path: Path) -> None:
    samples = _samples()
    write_shard(tmp_path / "s", samples)
    shard = load_shard(tmp_path / "s")
    assert shard.num_bytes == (tmp_path / "s").stat().st_size
    data = shard.load()
    for key, sample in samples.items():
        assert shard.check(key, data) is None
        _check_equal(shard.read(key, data), sample)
    assert shard.samples.keys() == samples.keys() == shard.checked


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_after_odd_neighbors(tmp_path: Path, dtype: torch.dtype) -> None:
    odd = torch.tensor([9, 8, 7], dtype=torch.uint8)
    tensor = torch.tensor([[0.0, 1.0, 2.0]]).to(dtype)
    samples = {"a": {"first": odd, "x": tensor}, "b": {"first": odd, "x": tensor}}
    write_shard(tmp_path / "s", samples)
    shard = load_shard(tmp_path / "s")
    got = shard.read("b", shard.load())["x"]
    assert got.dtype == dtype
    assert torch.equal(got.float(), tensor.float())


def test_plain_safetensors_reads_it(tmp_path: Path) -> None:
    samples = _samples()
    write_shard(tmp_path / "s", samples)
    flat = {f"{key}/{name}": tensor for key, sample in samples.items() for name, tensor in sample.items()}
    _check_equal(load_file(tmp_path / "s"), flat)


def test_reading_copies_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", _samples())
    shard = load_shard(tmp_path / "s")
    data = shard.load()
    view = shard.read("aa", data)["latents"]
    assert view.untyped_storage().data_ptr() == data[torch.uint8].untyped_storage().data_ptr()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_shard(path, _samples())
    whole = path.read_bytes()
    for position in [*range(0, len(whole), 2), len(whole) - 1]:
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        path.write_bytes(broken)
        try:
            shard = load_shard(path)
        except DamagedShardError:
            continue
        data = shard.load()
        assert [key for key in shard.samples if shard.check(key, data)], f"byte {position} of {len(whole)}"


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_shard(path, _samples())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 11), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            load_shard(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedShardError, match="bytes instead of"):
        load_shard(path)


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_shard(tmp_path / "s", _samples())
    assert (tmp_path / "s").read_bytes() == b"mine"
