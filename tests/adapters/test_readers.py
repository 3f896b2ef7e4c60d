"""Files of ours in the library's hands: its loaders read each layout, and its networks then give what the formula gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, Flux3LoraLoaderMixin, FluxLoraLoaderMixin
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.target import list_targets
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.flux3 import keys as flux3
from weber.families.pairing import Pairing

Draw = Callable[..., dict[str, Factors]]
Apply = Callable[[nn.Module, Mapping[str, Factors]], nn.Module]
Predict = Callable[[nn.Module], Tensor]
FIRST_TARGETS = ["transformer_blocks.*", "single_transformer_blocks.*.proj_out", "single_transformer_blocks.*.norm.linear"]
"""Without the layers that the library's kohya reader takes apart with the widths of the published model, which a tiny one has not."""


def _save(path: Path, modules: Mapping[str, Factors], layout: str, pairings: Sequence[Pairing]) -> Path:
    save_adapter(path, modules, layout=layout, facts={"steps": 1}, metadata={"ss_steps": "1"}, pairings=pairings)
    return path


def _read(mixin: Any, path: Path) -> dict[str, Any]:
    """What the library's loader makes of a file: tensors, alphas, settings."""
    options = {"return_alphas": True} if mixin is FluxLoraLoaderMixin else {}
    read = mixin.lora_state_dict(str(path.parent), weight_name=path.name, return_lora_metadata=True, local_files_only=True, **options)
    return {"state_dict": read[0], "metadata": read[-1]} | ({"network_alphas": read[1]} if options else {})


def _load(mixin: Any, network: nn.Module, path: Path) -> nn.Module:
    mixin.load_lora_into_transformer(transformer=network, adapter_name="ours", **_read(mixin, path))
    return network.eval()


def _read_factors(mixin: Any, path: Path) -> dict[str, Factors]:
    """The changes that the library's loader reads from a file without settings."""
    read = _read(mixin, path)
    assert not read["metadata"] and not read.get("network_alphas")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in read["state_dict"].items() if name.startswith("transformer.")}
    downs = {name.removesuffix(".lora_A.weight"): down for name, down in tensors.items() if name.endswith(".lora_A.weight")}
    return {name: Factors(down, tensors[f"{name}.lora_B.weight"], float(len(down))) for name, down in downs.items()}


def _probe(factors: Factors) -> Tensor:
    """What a change adds to the output for one fixed input."""
    probe = torch.randn(factors.down.shape[1], generator=torch.Generator().manual_seed(0))
    return factors.scale * factors.up @ (factors.down @ probe)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
@pytest.mark.parametrize(("ranks", "alphas"), [((4,), (6.0,)), ((1, 3, 2, 5, 4), (0.5, 7.0, 1.0))])
@pytest.mark.parametrize("family", ["first", "second"])
def test_the_library_gives_what_the_formula_gives(
    family: str,
    layout: str,
    ranks: tuple[int, ...],
    alphas: tuple[float, ...],
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    build_second: Callable[[], nn.Module],
    draw_factors: Draw,
    apply_factors: Apply,
    predict: Predict,
) -> None:
    is_first = family == "first"
    build, keys, mixin = (load_network, flux1, FluxLoraLoaderMixin) if is_first else (build_second, flux2, Flux2LoraLoaderMixin)
    names = list_targets(build(), FIRST_TARGETS if is_first else "all+ffs", sets=flux2.ADAPTER_TARGETS)
    modules = draw_factors(build(), names, ranks=ranks, alphas=alphas)
    path = _save(tmp_path / "adapter.safetensors", modules, layout, keys.PAIRINGS)
    with torch.no_grad():
        base, ours = predict(build()), predict(apply_factors(build(), modules))
        theirs = predict(_load(mixin, build(), path))
    assert (ours - base).abs().max() > 0.1, "an adapter without effect would show nothing"
    assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("family", ["first", "second"])
def test_the_librarys_own_layout_carries_everything(
    family: str,
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    build_second: Callable[[], nn.Module],
    draw_factors: Draw,
    apply_factors: Apply,
    predict: Predict,
) -> None:
    """All linear layers, `norm_out` and layers with equal ends of names among them, each with a rank and an alpha of its own."""
    build, mixin = (load_network, FluxLoraLoaderMixin) if family == "first" else (build_second, Flux2LoraLoaderMixin)
    modules = draw_factors(build(), list_targets(build(), ["*"], sets={}), ranks=(1, 3, 2, 5, 4), alphas=(0.5, 7.0, 1.0))
    path = _save(tmp_path / "adapter.safetensors", modules, "diffusers", ())
    with torch.no_grad():
        ours, theirs = predict(apply_factors(build(), modules)), predict(_load(mixin, build(), path))
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("family", ["first", "second"])
def test_a_dora_in_the_librarys_layout(
    family: str,
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    build_second: Callable[[], nn.Module],
    draw_factors: Draw,
    apply_factors: Apply,
    predict: Predict,
) -> None:
    build, mixin = (load_network, FluxLoraLoaderMixin) if family == "first" else (build_second, Flux2LoraLoaderMixin)
    modules = draw_factors(build(), list_targets(build(), ["attn.to_q", "attn.to_out.0"], sets={}), ranks=(2, 3), alphas=(5.0,), dora=True)
    path = _save(tmp_path / "adapter.safetensors", modules, "diffusers", ())
    with torch.no_grad():
        base, ours = predict(build()), predict(apply_factors(build(), modules))
        theirs = predict(_load(mixin, build(), path))
    assert (ours - base).abs().max() > 0.1
    assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("layout", ["kohya", "comfyui"])
@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (1, 2, 3, 4)])
@pytest.mark.parametrize("without", [(), ("proj_mlp",), ("attn.to_k", "attn.to_q")])
def test_a_single_stream_block_of_full_size(layout: str, ranks: tuple[int, ...], without: tuple[str, ...], tmp_path: Path) -> None:
    """Four of the library's layers are one of the makers', which the library's reader takes apart with fixed widths."""
    generator = torch.Generator().manual_seed(0)
    rows = {"attn.to_q": 3072, "attn.to_k": 3072, "attn.to_v": 3072, "proj_mlp": 12288}
    modules = {
        f"single_transformer_blocks.5.{name}": Factors(
            torch.randn(rank, 3072, generator=generator), torch.randn(rows[name], rank, generator=generator), 3.0
        )
        for name, rank in zip(rows, ranks, strict=True)
        if name not in without
    }
    theirs = _read_factors(FluxLoraLoaderMixin, _save(tmp_path / "a.safetensors", modules, layout, flux1.PAIRINGS))
    for name, factors in modules.items():
        assert torch.allclose(_probe(theirs.pop(name)), _probe(factors), atol=1e-3)
    assert not any(factors.up.any() for factors in theirs.values())


def test_what_the_librarys_reader_leaves_out_of_comfyui_files(
    tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw
) -> None:
    """Why kohya files have layers of blocks only: of the rest this reader forgets the prefix, and then the layers."""
    modules = draw_factors(load_network(), ["proj_out", "x_embedder", "transformer_blocks.0.attn.to_out.0"])
    path = _save(tmp_path / "a.safetensors", modules, "comfyui", flux1.PAIRINGS)
    assert set(_read_factors(FluxLoraLoaderMixin, path)) == {"transformer_blocks.0.attn.to_out.0"}


def test_the_second_familys_reader_takes_all_that_comfyui_files_have(
    tmp_path: Path, build_second: Callable[[], nn.Module], draw_factors: Draw
) -> None:
    network = build_second()
    names = [name for name in list_targets(network, ["*"], sets={}) if name != "norm_out.linear"]
    modules = draw_factors(network, names, alphas=(3.0,))
    theirs = _read_factors(Flux2LoraLoaderMixin, _save(tmp_path / "a.safetensors", modules, "comfyui", flux2.PAIRINGS))
    assert set(theirs) == set(names)
    assert all(torch.allclose(_probe(theirs[name]), _probe(modules[name]), atol=1e-5) for name in names)


def test_the_third_familys_reader_takes_layers_of_blocks(tmp_path: Path) -> None:
    blocks = ("mode_blocks.image.0", "mode_blocks.image_cond.4", "txt_mode_blocks.3", "single_transformer_blocks.27")
    layers = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.linear_in", "ff.linear_out")
    modules = {f"{block}.{layer}": Factors(torch.randn(2, 6), torch.randn(4, 2), 3.0) for block in blocks for layer in layers}
    theirs = _read_factors(Flux3LoraLoaderMixin, _save(tmp_path / "a.safetensors", modules, "comfyui", flux3.PAIRINGS))
    assert set(theirs) == set(modules)
    assert all(torch.allclose(_probe(theirs[name]), _probe(modules[name]), atol=1e-5) for name in modules)
    assert set(load_adapter(tmp_path / "a.safetensors").modules) == set(modules)
