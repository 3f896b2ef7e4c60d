"""Where a model's files are, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weber.errors import ModelError
from weber.families.source import WEIGHTS, Source, build_identity


def _message(source: Source, part: str = "transformer") -> str:
    with pytest.raises(ModelError) as caught:
        source.read_config(part)
    return str(caught.value)


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "~/no-such-folder-of-weber", "a/b/c", "one-word", r"C:\models\x"])
def test_a_folder_that_does_not_exist(path: str) -> None:
    with pytest.raises(ModelError) as caught:
        Source(path, None)
    assert f"got: model.path = {path!r}" in str(caught.value)
    assert "fix: correct model.path" in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="does not exist"):
        Source(str(tmp_path / "model.safetensors"), None)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model" / "vae").mkdir(parents=True)
    (tmp_path / "model" / "vae" / "config.json").write_text('{"a": 1}', encoding="utf-8")
    source = Source("~/model", None)
    assert source.is_local
    assert source.read_config("vae") == {"a": 1}
    assert source.load_folder("vae") == tmp_path / "model" / "vae"


def test_a_revision_of_a_local_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Source(str(tmp_path), "v2")
    assert "model.revision = 'v2'" in str(caught.value)
    assert "fix: remove model.revision" in str(caught.value)


def test_a_folder_without_parts(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    source = Source(str(tmp_path), None)
    message = _message(source)
    assert "transformer/config.json" in message
    assert "picture.png" in message
    assert "fix: point model.path at such a folder" in message
    with pytest.raises(ModelError, match="no part named transformer"):
        source.check_part("transformer", holds=WEIGHTS)


def test_a_part_without_weights(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError) as caught:
        Source(str(tmp_path), None).check_part("transformer", holds=WEIGHTS)
    message = str(caught.value)
    assert "got: " in message
    assert "diffusion_pytorch_model.bin" in message
    assert "expected: *.safetensors" in message
    assert "fix: download" in message


@pytest.mark.parametrize(("text", "what"), [("{", "is not valid JSON"), ("", "is not valid JSON"), ("[1]", "does not hold a JSON object")])
def test_bad_json(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "vae").mkdir()
    file = tmp_path / "vae" / "config.json"
    file.write_text(text, encoding="utf-8")
    message = _message(Source(str(tmp_path), None), "vae")
    assert f"{file} {what}" in message
    assert "fix: download the file again" in message


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in _message(Source(str(tmp_path), None), "vae")


def test_a_hub_id_offline_and_not_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = Source("somebody/some-model", None)
    assert not source.is_local
    message = _message(source)
    assert "The model somebody/some-model is not on this machine and could not be downloaded." in message
    assert "got: " in message
    assert "HF_HUB_OFFLINE" in message
    assert "set model.path to a local folder" in message


def test_a_hub_id_with_letters_that_ids_do_not_have() -> None:
    assert "The hub has no model owner/na me" in _message(Source("owner/na me", None))


def test_identity_is_of_content_not_of_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"x": torch.arange(5000.0)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    identity = build_identity(tmp_path / "a")
    assert len(identity) == 32
    assert build_identity(tmp_path / "b") == identity
    (tmp_path / "b" / "README.md").write_text("not part of the model", encoding="utf-8")
    assert build_identity(tmp_path / "b") == identity
    assert build_identity(tmp_path / "b", extra=["tokens=64"]) != identity
    (tmp_path / "b" / "config.json").write_text("{ }", encoding="utf-8")
    assert build_identity(tmp_path / "b") != identity


def test_identity_sees_each_byte_of_small_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(100, dtype=torch.uint8)}, file)
    data, original = file.read_bytes(), build_identity(tmp_path)
    for position in range(len(data)):
        file.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert build_identity(tmp_path) != original, position


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_identity_of_a_damaged_file_does_not_fail(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * size)
    assert len(build_identity(tmp_path)) == 32
