"""Adapter files: whole or not there, the same bytes for the same input, and what cannot be read said in words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.errors import AdapterError

WITH_METADATA = "b50bab4971a0e04016b6eeac59fd16f0a45f4dd0088414281562a31b010ef939"
EARLIER = "8cf4421cbcd7547928b4f3759dd38afcc9200991e25e4e071a5a1d72dded5202"
FACTS: dict[str, object] = {"steps": 3, "model": "Ünïcode/model", "guidance": None, "resolutions": ["64x64"]}


def _modules(rank: int = 4, alpha: float = 6.0) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: Factors(torch.randn(rank, 5, generator=generator), torch.randn(7, rank, generator=generator), alpha)
        for name in ("blocks.1.to_q", "blocks.0.to_k")
    }


def _save(path: Path, modules: dict[str, Factors] | None = None, metadata: dict[str, str] | None = None) -> Path:
    modules = _modules() if modules is None else modules
    save_adapter(path, modules, layout="diffusers", facts=FACTS, metadata=metadata or {}, pairings=())
    return path


def _refuse(path: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path)
    assert str(path) in str(caught.value)
    assert "fix: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("alpha", [4.0, 6.0, 0.5])
def test_round_trip(tmp_path: Path, alpha: float) -> None:
    before = _modules(alpha=alpha)
    adapter = load_adapter(_save(tmp_path / "deep" / "folder" / "a.safetensors", before))
    assert set(adapter.modules) == set(before)
    assert (adapter.layout, adapter.facts, adapter.notes) == ("diffusers", FACTS, ())
    for name, factors in before.items():
        after = adapter.modules[name]
        assert (after.rank, after.alpha) == (4, 4), "the scale is in the numbers, for readers that know no alpha"
        assert torch.equal(after.down, factors.down) and torch.equal(after.up, factors.up * (alpha / 4))


def test_files_of_earlier_versions_say_their_alpha(tmp_path: Path) -> None:
    """Those of weber 0.1, with alpha in the header alone, are read as before."""
    tensors = {f"transformer.m.lora_{which}.weight": tensor for which, tensor in (("A", torch.ones(4, 5)), ("B", torch.ones(7, 4)))}
    settings = {"transformer.r": 4, "transformer.lora_alpha": 6, "transformer.target_modules": ["m"]}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
    [factors] = load_adapter(tmp_path / "a.safetensors").modules.values()
    assert (factors.rank, factors.alpha, float(factors.build_delta()[0, 0])) == (4, 6.0, 6.0)


def test_layout(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors", metadata={"ss_steps": "3"})
    assert set(load_file(path)) == {f"transformer.{name}.lora_{which}.weight" for name in _modules() for which in "AB"}
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {"format", "lora_adapter_metadata", "weber", "ss_steps"}
    assert json.loads(metadata["lora_adapter_metadata"]) == {
        "transformer.r": 4,
        "transformer.lora_alpha": 4,
        "transformer.target_modules": ["blocks.0.to_k", "blocks.1.to_q"],
        "transformer.lora_dropout": 0.0,
        "transformer.bias": "none",
        "transformer.peft_type": "LORA",
    }
    assert json.loads(metadata["weber"]) == FACTS


def test_the_bytes_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Adapters of one rank and alpha, without metadata for other programs: as weber 0.1 wrote them."""
    modules = {name: Factors(torch.full((2, 3), 0.5), torch.full((4, 2), -1.5), 2.0) for name in ("b.to_q", "a.proj_out")}
    save_adapter(tmp_path / "a", modules, layout="diffusers", facts={"steps": 1}, metadata={}, pairings=())
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == EARLIER


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first = _save(tmp_path / "0.safetensors").read_bytes()
    backwards = dict(reversed(_modules().items()))
    assert all(_save(tmp_path / f"{number}.safetensors", backwards).read_bytes() == first for number in range(1, 10))


@pytest.mark.parametrize("step", [1, -1])
def test_same_bytes_in_another_process(step: int, tmp_path: Path) -> None:
    """The process that recorded the hash, and every run of this test, hash strings differently."""
    ranks = list(zip("wxyz", (2, 2, 1, 3), strict=True))[::step]
    modules = {name: Factors(torch.ones(rank, 3), torch.ones(3, rank), 2.0) for name, rank in ranks}
    facts, metadata = dict([("b", 1), ("a", 2)][::step]), dict([("d", "4"), ("modelspec.sai_model_spec", "1.0.1")][::step])
    save_adapter(tmp_path / "a", modules, layout="diffusers", facts=facts, metadata=metadata, pairings=())
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == WITH_METADATA


def test_an_odd_layout_in_memory_is_saved_plainly(tmp_path: Path) -> None:
    down = torch.arange(12.0).view(3, 4).T
    path = _save(tmp_path / "a.safetensors", {"m": Factors(down, torch.ones(5, 4), 4.0)})
    assert torch.equal(load_adapter(path).modules["m"].down, down)


def test_a_new_file_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors")
    _save(path, _modules(rank=2))
    assert load_adapter(path).modules["blocks.0.to_k"].rank == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    import resource  # posix only

    path = _save(tmp_path / "a.safetensors")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            _save(path, {"m": Factors(torch.ones(100, 100), torch.ones(100, 100), 1.0)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_hash_that_other_programs_show_is_that_of_the_tensors(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors", metadata={"modelspec.sai_model_spec": "1.0.1"})
    content = path.read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    assert load_adapter(path).metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(tensors).hexdigest()


def test_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="There is nothing to save"):
        _save(tmp_path / "a.safetensors", {})
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path: Path) -> None:
    assert "There is no adapter file" in _refuse(tmp_path / "missing.safetensors")
    assert "There is no adapter file" in _refuse(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = _save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read as safetensors" in _refuse(path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x89PNG\r\n" + bytes(500))
    assert "cannot be read as safetensors" in _refuse(tmp_path / "a.safetensors")


@pytest.mark.parametrize("code", ["U16", "F8_E8M0"])
def test_what_is_not_damaged_is_not_said_to_be(code: str, tmp_path: Path) -> None:
    header = json.dumps({"x.lora_A.weight": {"dtype": code, "shape": [0], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    message = _refuse(tmp_path / "a.safetensors")
    assert "holds tensors of a type that weber does not read" in message
    assert f"got: x.lora_A.weight is {code}\n" in message
    assert "fix: use the file in bf16, fp16, fp32 or fp8" in message
