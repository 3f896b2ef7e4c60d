"""Files of tensors that are read and written one tensor at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from weber.errors import ModelError
from weber.families.flux1.keys import PAIRINGS
from weber.families.pairing import build_library_weights
from weber.families.tensors import Entry, build_entry, open_weights, read_metadata, save_weights

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def _draw() -> dict[str, Tensor]:
    tensors = {f"x.{number}": (10 * torch.randn(3, number + 1)).to(dtype) for number, dtype in enumerate(DTYPES)}
    return tensors | {"scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "turned": torch.randn(4, 6).t()}


def test_what_is_written_is_read_by_the_library_and_by_us(tmp_path: Path) -> None:
    tensors = _draw()
    save_weights(tmp_path / "new" / "x.safetensors", {name: build_entry(t) for name, t in tensors.items()}, metadata={"a": "b"})
    theirs, mine = load_file(tmp_path / "new" / "x.safetensors"), open_weights([tmp_path / "new" / "x.safetensors"])
    assert theirs.keys() == mine.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (theirs[name].dtype, mine[name].dtype, mine[name].shape) == (tensor.dtype, tensor.dtype, tuple(tensor.shape))
        assert torch.equal(theirs[name].double(), tensor.double())
        assert torch.equal(mine[name].read().double(), tensor.double())
        assert mine[name].num_bytes == tensor.numel() * tensor.element_size()
    assert read_metadata(tmp_path / "new" / "x.safetensors") == {"format": "pt", "a": "b"}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    entries = {name: build_entry(tensor) for name, tensor in _draw().items()}
    for name in ("a", "b"):
        save_weights(tmp_path / name, entries, metadata={"z": "1", "y": "2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> Tensor:
        raise OSError("the disk refused")

    save_weights(tmp_path / "x.safetensors", {"x": build_entry(torch.zeros(3))}, metadata={})
    before = (tmp_path / "x.safetensors").read_bytes()
    with pytest.raises(OSError, match="refused"):
        save_weights(tmp_path / "x.safetensors", {"x": Entry((3,), torch.float32, fail)}, metadata={})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_progress_counts_tensors(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    entries = {name: build_entry(torch.zeros(1)) for name in "abc"}
    save_weights(tmp_path / "x.safetensors", entries, metadata={}, progress=lambda *step: seen.append(step))
    assert seen == [("writing x.safetensors", number, 3) for number in range(4)]


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1000), "y": torch.ones(1000)}, tmp_path / "x.safetensors")
    opened = open_weights([tmp_path / "x.safetensors"])
    (tmp_path / "x.safetensors").unlink()
    assert opened["x"].shape == (1000,)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        opened["x"].read()


MANY = """
import resource, sys
from pathlib import Path
from weber.families.tensors import open_weights

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = [entry.read() for entry in open_weights([Path(sys.argv[1])]).values()]
print(len(kept), sum(float(tensor.sum()) for tensor in kept))
"""


@pytest.mark.skipif(os.name != "posix", reason="only posix limits the number of open files")
def test_tensors_that_are_kept_hold_no_file_open(tmp_path: Path) -> None:
    save_file({str(number): torch.full((3,), float(number)) for number in range(200)}, tmp_path / "x.safetensors")
    command = [sys.executable, "-c", MANY, str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["200", "59700.0"], done.stderr


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1000)}, tmp_path / "x.safetensors")
    read = open_weights([tmp_path / "x.safetensors"])["x"].read()
    size = (tmp_path / "x.safetensors").stat().st_size
    (tmp_path / "x.safetensors").write_bytes(bytes(size))
    assert torch.equal(read, torch.ones(1000))


def test_a_file_that_was_cut_off_meanwhile(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1000)}, tmp_path / "x.safetensors")
    entry = open_weights([tmp_path / "x.safetensors"])["x"]
    with (tmp_path / "x.safetensors").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        entry.read()


def test_several_files_are_one(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    assert set(open_weights([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])) == {"a", "b"}


@pytest.mark.parametrize("header", [{"__metadata__": 3}, [], {"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}])
def test_a_header_that_makes_no_sense(header: object, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        read_metadata(tmp_path / "x.safetensors")
        open_weights([tmp_path / "x.safetensors"])


@pytest.mark.parametrize("code", ["F4", "F8_E8M0", "U16", "C64"])
def test_a_type_that_is_not_read(code: str, tmp_path: Path) -> None:
    text = json.dumps({"x": {"dtype": code, "shape": [2], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(1))
    with pytest.raises(ModelError) as caught:
        open_weights([tmp_path / "x.safetensors"])
    assert "holds tensors of a type that weber does not read" in str(caught.value)
    assert f"got: x is {code}" in str(caught.value)
    assert "fix: use the file in bf16, fp16, fp32 or fp8" in str(caught.value)


def test_a_fused_tensor_is_read_once_for_all_its_layers() -> None:
    num_read = []

    def read() -> Tensor:
        num_read.append(1)
        return torch.arange(18.0).view(9, 2)

    fused = {"double_blocks.0.img_attn.qkv.weight": Entry((9, 2), torch.float32, read)}
    weights, unknown = build_library_weights(fused, PAIRINGS)
    parts = [weights[f"transformer_blocks.0.attn.{name}.weight"].read() for name in ("to_q", "to_k", "to_v")]
    assert (torch.cat(parts).tolist(), unknown, len(num_read)) == (torch.arange(18.0).view(9, 2).tolist(), [], 1)
    assert weights["transformer_blocks.0.attn.to_k.weight"].read().tolist() == parts[1].tolist()


@pytest.mark.parametrize("length", [640, 896, 1152])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path, length: int) -> None:
    """640 is 80 02 in bytes, with which pickles begin too."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + torch.ones(1).numpy().tobytes())
    assert open_weights([path])["x"].read() == 1
