"""Adapter files: whole or not there, the same bytes for the same input, alpha in the metadata, and foreign ones refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from weber.adapters.files import FACTS_KEY, METADATA_KEY, load_adapter, save_adapter
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError
from weber.families.flux1.keys import export_key

CONFIG = AdapterConfig(rank=4, alpha=6.0)
FACTS: dict[str, object] = {"steps": 3, "model": "Ünïcode/model", "guidance": None, "resolutions": ["64x64"]}


def _tensors(rank: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{module}.lora_{which}.weight": torch.randn(*shape, generator=generator)
        for module in ("blocks.1.to_q", "blocks.0.to_k")
        for which, shape in (("B", (7, rank)), ("A", (rank, 5)))
    }


def _save(path: Path, tensors: dict[str, Tensor] | None = None, config: AdapterConfig = CONFIG) -> Path:
    save_adapter(path, _tensors() if tensors is None else tensors, config=config, facts=FACTS, export_key=export_key)
    return path


def _run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _refuse(path: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path, export_key=export_key)
    assert str(path) in str(caught.value)
    assert "fix: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("alpha", "saved_alpha"), [(None, 4.0), (6.0, 6.0), (0.5, 0.5)])
def test_round_trip(tmp_path: Path, alpha: float | None, saved_alpha: float) -> None:
    path = _save(tmp_path / "deep" / "folder" / "a.safetensors", config=AdapterConfig(rank=4, alpha=alpha))
    adapter = load_adapter(path, export_key=export_key)
    assert (adapter.rank, adapter.alpha) == (4, saved_alpha)
    assert adapter.modules == ["blocks.0.to_k", "blocks.1.to_q"]
    assert adapter.facts == FACTS
    assert adapter.tensors.keys() == _tensors().keys()
    assert all(torch.equal(adapter.tensors[name], tensor) for name, tensor in _tensors().items())


def test_layout(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors", config=AdapterConfig(rank=4, alpha=6.0, dropout=0.25))
    assert set(load_file(path)) == {f"transformer.{name}" for name in _tensors()}
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {"format", METADATA_KEY, FACTS_KEY}
    assert json.loads(metadata[METADATA_KEY]) == {
        "transformer.r": 4,
        "transformer.lora_alpha": 6.0,
        "transformer.target_modules": ["blocks.0.to_k", "blocks.1.to_q"],
        "transformer.lora_dropout": 0.25,
        "transformer.bias": "none",
        "transformer.peft_type": "LORA",
    }
    assert json.loads(metadata[FACTS_KEY]) == FACTS


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first = _save(tmp_path / "0.safetensors").read_bytes()
    backwards = dict(reversed(_tensors().items()))
    assert all(_save(tmp_path / f"{number}.safetensors", backwards).read_bytes() == first for number in range(1, 10))


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        import torch
        from weber.adapters.files import save_adapter
        from weber.config.adapter import AdapterConfig
        tensors = {f"{module}.lora_{which}.weight": torch.ones(2, 3) for module in "xyz" for which in "AB"}
        save_adapter(Path(sys.argv[1]), tensors, config=AdapterConfig(), facts={"b": 1, "a": 2}, export_key=lambda name: "t." + name)
    """
    contents = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        assert _run(code, str(path), PYTHONHASHSEED=str(number)).returncode == 0
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_an_odd_layout_in_memory_is_saved_plainly(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).view(3, 4).T
    path = _save(tmp_path / "a.safetensors", {"m.lora_A.weight": tensor})
    assert torch.equal(load_adapter(path, export_key=export_key).tensors["m.lora_A.weight"], tensor)


def test_a_new_file_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors")
    _save(path, _tensors(rank=2), AdapterConfig(rank=2))
    assert load_adapter(path, export_key=export_key).rank == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.safetensors")
    before = path.read_bytes()
    code = """
        import errno, resource, signal, sys
        from pathlib import Path
        import torch
        from weber.adapters.files import save_adapter
        from weber.config.adapter import AdapterConfig
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save_adapter(Path(sys.argv[1]), {"m.lora_A.weight": torch.ones(100, 100)}, config=AdapterConfig(), facts={}, export_key=str)
        except OSError as error:
            sys.exit(errno.errorcode[error.errno])
    """
    assert _run(code, str(path)).stderr == "EFBIG\n"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_no_file(tmp_path: Path) -> None:
    assert "There is no adapter file" in _refuse(tmp_path / "missing.safetensors")
    assert "There is no adapter file" in _refuse(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = _save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    assert "The adapter file is damaged" in _refuse(path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x89PNG\r\n" + bytes(500))
    assert "The adapter file is damaged" in _refuse(tmp_path / "a.safetensors")


def _write_foreign(path: Path, metadata: dict[str, str] | None, names: Callable[[str], str] = export_key) -> Path:
    save_file({names(name): tensor for name, tensor in _tensors().items()}, path, metadata=metadata)
    return path


def test_a_file_of_another_trainer(tmp_path: Path) -> None:
    path = _write_foreign(tmp_path / "a.safetensors", {"ss_network_dim": "4"}, lambda name: "lora_unet_" + name.replace(".", "_"))
    message = _refuse(path)
    assert "was not written by weber" in message
    assert "lora_unet_blocks_" in message
    assert f"expected: header entries {METADATA_KEY} and {FACTS_KEY}" in message


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {METADATA_KEY: '{"transformer.r": 4, "transformer.lora_alpha": 4}'},
        {METADATA_KEY: "{", FACTS_KEY: "{}"},
        {METADATA_KEY: "[]", FACTS_KEY: "{}"},
        {METADATA_KEY: '{"transformer.r": 4}', FACTS_KEY: "{}"},
        {METADATA_KEY: '{"transformer.r": null, "transformer.lora_alpha": 4}', FACTS_KEY: "{}"},
        {METADATA_KEY: '{"r": 4, "lora_alpha": 4}', FACTS_KEY: "{}"},
    ],
)
def test_metadata_that_does_not_say_rank_and_alpha(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    assert "its rank and alpha are not known" in _refuse(_write_foreign(tmp_path / "a.safetensors", metadata))
