"""Identity of weights: of their content, of every byte of small ones, and of nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weber.families import identity as room
from weber.families.identity import build_identity


def _identify(folder: Path, extra: Sequence[str] = ()) -> str:
    return build_identity(folder, sorted(folder.glob("*.safetensors")), extra=extra)


def test_identity_is_of_content_not_of_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"x": torch.arange(5000.0)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    identity = _identify(tmp_path / "a")
    assert len(identity) == 32
    assert _identify(tmp_path / "b") == identity
    (tmp_path / "b" / "README.md").write_text("not part of the model", encoding="utf-8")
    assert _identify(tmp_path / "b") == identity
    assert _identify(tmp_path / "b", extra=["tokens=64"]) != identity
    (tmp_path / "b" / "config.json").write_text("{ }", encoding="utf-8")
    assert _identify(tmp_path / "b") != identity


def test_identity_is_of_the_parts_own_files(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(9)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    identity = build_identity(tmp_path, [tmp_path / "model.safetensors"])
    (tmp_path / "vae").mkdir()
    for name in ("other.safetensors", "vae/model.safetensors"):
        save_file({"x": torch.ones(9)}, tmp_path / name)
    (tmp_path / "vae" / "config.json").write_text("{}", encoding="utf-8")
    assert build_identity(tmp_path, [tmp_path / "model.safetensors"]) == identity
    assert build_identity(tmp_path, []) != identity


def test_identity_of_a_folder_is_as_it_was(tmp_path: Path) -> None:
    """Caches of earlier runs are found by it."""
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    save_file({"x": torch.arange(5000.0)}, tmp_path / "model.safetensors")
    assert build_identity(tmp_path, [tmp_path / "model.safetensors"], extra=["vae"]) == "17846f8bd26cb348d05ed1cc55f9460b"


def test_identity_sees_each_byte_of_small_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(100, dtype=torch.uint8)}, file)
    data, original = file.read_bytes(), _identify(tmp_path)
    for position in range(len(data)):
        file.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert _identify(tmp_path) != original, position


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_identity_of_a_damaged_file_does_not_fail(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * size)
    assert len(_identify(tmp_path)) == 32


def test_what_is_known_of_files_is_of_these_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file in the place of one, of the same size and date, is read; so is what has just changed, whatever its date."""
    monkeypatch.setattr(room, "_KNOWN", {})
    file, other = tmp_path / "model.safetensors", tmp_path / "other"
    save_file({"x": torch.zeros(100)}, file)
    original = _identify(tmp_path)
    assert not room._KNOWN
    monkeypatch.setattr(room, "_SETTLED_NS", -(10**18))
    assert _identify(tmp_path) == original and len(room._KNOWN) == 1
    with monkeypatch.context() as patch:
        patch.setattr(room, "_hash_sample", pytest.fail)
        assert _identify(tmp_path) == original
    save_file({"x": torch.ones(100)}, other)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert _identify(tmp_path) != original
