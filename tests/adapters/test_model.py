"""Whole models as files: the library opens its layout, the makers' layout comes back equal, and nothing is left half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.merge import build_merged_weights
from weber.adapters.model import save_model_file, save_model_folder
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1.keys import PAIRINGS
from weber.families.pairing import build_library_weights
from weber.families.tensors import Entry, build_entry, open_weights, read_metadata


@pytest.fixture
def source(tiny_model: Path) -> tuple[dict[str, object], dict[str, Entry]]:
    """The configuration and the weights of a tiny transformer."""
    folder = tiny_model / "transformer"
    return json.loads((folder / "config.json").read_text()), open_weights(sorted(folder.glob("*.safetensors")))


def _same(first: dict[str, Entry], second: dict[str, Entry]) -> bool:
    return set(first) == set(second) and all(torch.equal(entry.read(), second[name].read()) for name, entry in first.items())


@pytest.mark.parametrize("shard_bytes", [10**10, 60_000])
def test_the_library_opens_what_was_merged(
    shard_bytes: int,
    source: tuple[dict[str, object], dict[str, Entry]],
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    draw_factors: Callable[..., dict[str, Factors]],
    apply_factors: Callable[..., nn.Module],
    predict: Callable[[nn.Module], Tensor],
) -> None:
    config, base = source
    modules = draw_factors(load_network(), list_targets(load_network(), ["attn.*"], sets={}), alphas=(3.0,))
    folder, steps = tmp_path / "merged" / "transformer", []
    save_model_folder(
        folder,
        build_merged_weights(base, [(modules, 1.0)]),
        config=config,
        metadata={"a": "b"},
        shard_bytes=shard_bytes,
        progress=lambda what, done, total: steps.append((done, total)),
    )
    files = sorted(file.name for file in folder.iterdir())
    stem = "diffusion_pytorch_model"
    if shard_bytes > 10**9:
        assert files == ["config.json", f"{stem}.safetensors"]
    else:
        index = json.loads((folder / f"{stem}.safetensors.index.json").read_text())
        shards = sorted(set(index["weight_map"].values()))
        assert len(shards) > 2
        assert files == ["config.json", *shards, f"{stem}.safetensors.index.json"]
        assert shards[0] == f"{stem}-00001-of-{len(shards):05d}.safetensors"
        assert index["metadata"]["total_size"] == sum(entry.num_bytes for entry in base.values())
        assert all(sum(entry.num_bytes for entry in open_weights([folder / shard]).values()) <= shard_bytes for shard in shards)
    assert steps[-1][0] == steps[-1][1]
    loaded, report = FluxTransformer2DModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        assert torch.allclose(predict(loaded.requires_grad_(False)), predict(apply_factors(load_network(), modules)), atol=1e-5)


def test_the_makers_layout_comes_back_equal(source: tuple[dict[str, object], dict[str, Entry]], tmp_path: Path) -> None:
    config, base = source
    save_model_file(tmp_path / "model.safetensors", base, pairings=PAIRINGS, config=config, metadata={"a": "b"})
    originals = open_weights([tmp_path / "model.safetensors"])
    assert {"double_blocks.0.img_attn.qkv.weight", "single_blocks.1.linear1.bias", "single_blocks.0.norm.key_norm.scale"} <= set(originals)
    weights, unknown = build_library_weights(originals, PAIRINGS)
    assert unknown == []
    assert _same(weights, base)
    metadata = read_metadata(tmp_path / "model.safetensors")
    assert (json.loads(metadata["weber_config"]), metadata["a"]) == (config, "b")


def test_an_earlier_model_is_replaced_and_anything_else_is_not(
    source: tuple[dict[str, object], dict[str, Entry]], tmp_path: Path
) -> None:
    config, base = source
    save_model_folder(tmp_path / "t", base, config=config, metadata={}, shard_bytes=60_000)
    save_model_folder(tmp_path / "t", base, config=config, metadata={})
    assert sorted(file.name for file in (tmp_path / "t").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    (tmp_path / "t" / "notes.txt").write_text("mine")
    with pytest.raises(AdapterError, match=r"The model would replace other files.*\n.*notes\.txt"):
        save_model_folder(tmp_path / "t", base, config=config, metadata={})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AdapterError, match="would replace other files"):
        save_model_folder(tmp_path / "file", base, config=config, metadata={})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "t"]


def test_a_failure_leaves_nothing(source: tuple[dict[str, object], dict[str, Entry]], tmp_path: Path) -> None:
    def fail() -> Tensor:
        raise OSError("the disk is gone")

    config, base = source
    name = list(base)[-1]
    broken = base | {name: Entry(base[name].shape, base[name].dtype, fail)}
    with pytest.raises(OSError, match="the disk is gone"):
        save_model_folder(tmp_path / "t", broken, config=config, metadata={}, shard_bytes=60_000)
    with pytest.raises(OSError, match="the disk is gone"):
        save_model_file(tmp_path / "f", broken, pairings=PAIRINGS, config=config, metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_larger_than_a_shard_has_its_own(tmp_path: Path) -> None:
    weights = {name: build_entry(torch.ones(size)) for name, size in (("a", 10), ("b", 100), ("c", 10))}
    save_model_folder(tmp_path / "t", weights, config={}, metadata={}, shard_bytes=100)
    assert len(list((tmp_path / "t").glob("*.safetensors"))) == 3
