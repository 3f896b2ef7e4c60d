"""Three layouts: nothing is lost on the way through all of them, and full-size names are as recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.layouts import LAYOUTS, check_layout, find_layout
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.flux3 import keys as flux3
from weber.families.pairing import Pairing, find_module
from weber.families.tensors import read_metadata
from weber.progress import ignore_progress
from weber.results.export import export

KEYS = Path(__file__).parent / "keys"
FULL_SIZE: dict[str, tuple[Callable[[], nn.Module], Sequence[Pairing]]] = {
    "flux1-dev": (lambda: FluxTransformer2DModel(guidance_embeds=True), flux1.PAIRINGS),
    "flux2-klein-4b": (
        lambda: Flux2Transformer2DModel(
            num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
        ),
        flux2.PAIRINGS,
    ),
}
BLOCKS = ["transformer_blocks.*", "single_transformer_blocks.*"]


def _save(path: Path, modules: dict[str, Factors], layout: str, pairings: Sequence[Pairing]) -> Path:
    save_adapter(path, modules, layout=layout, facts={}, metadata={}, pairings=pairings)
    return path


def _collapse(names: Iterable[str]) -> list[str]:
    """One line per distinct name, with the range of its blocks."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        found = re.search(r"(?<=blocks[._])\d+", name)
        template = name if found is None else f"{name[: found.start()]}{{}}{name[found.end() :]}"
        numbers.setdefault(template, []).append(int(found[0]) if found else 0)
    assert all(sorted(listed) == list(range(len(listed))) for listed in numbers.values()), "blocks are numbered without a gap"
    return sorted(template.replace("{}", f"0-{len(listed) - 1}") for template, listed in numbers.items())


def _build_small(layer: nn.Linear) -> Factors:
    """Factors of rank 1 that no other layer has, of which one takes no memory, for layers of full size."""
    return Factors(torch.randn(1, layer.in_features), torch.ones(()).expand(layer.out_features, 1), 1.0)


@pytest.mark.parametrize("family", ["first", "second"])
@pytest.mark.parametrize(
    ("ranks", "alphas"),
    [((4,), ()), ((4,), (6.0,)), ((4,), (0.1,)), ((3,), (1.0,)), ((1, 2, 5, 3), (6.0, 0.5, 1 / 3)), ((2, 4), (1.0, 2.0))],
)
@pytest.mark.parametrize("targets", [BLOCKS, ["attn.to_q", "attn.to_v"]])
def test_round_trip(
    family: str,
    ranks: tuple[int, ...],
    alphas: tuple[float, ...],
    targets: list[str],
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    build_second: Callable[[], nn.Module],
    draw_factors: Callable[..., dict[str, Factors]],
) -> None:
    """diffusers -> kohya -> ComfyUI -> diffusers: the same layers, and not one bit of any change is another."""
    network, keys = (load_network(), flux1) if family == "first" else (build_second(), flux2)
    modules = list_targets(network, targets, sets={})
    before = draw_factors(network, modules, ranks=ranks, alphas=alphas)
    now = before
    for number, layout in enumerate(("diffusers", "kohya", "comfyui", "diffusers")):
        adapter = load_adapter(_save(tmp_path / f"{number}.safetensors", now, layout, keys.PAIRINGS))
        now = adapter.modules
        assert adapter.layout == layout
        assert adapter.notes == ()
        assert set(now) == set(modules)
        assert max(float((now[name].build_delta() - before[name].build_delta()).abs().max()) for name in modules) == 0
        assert {name: factors.rank for name, factors in now.items()} == {name: factors.rank for name, factors in before.items()}


@pytest.mark.parametrize("ranks", [(4,), (1, 3, 2, 4)])
def test_alpha_is_the_rank_in_every_layout(
    ranks: tuple[int, ...], tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    """ComfyUI reads the tensors of all three, and no header: what it takes for alpha is the rank, or the tensor that says so."""
    network = load_network()
    before = draw_factors(network, list_targets(network, BLOCKS, sets={}), ranks=ranks, alphas=(6.0, 2**0.5))
    for layout in LAYOUTS:
        path = _save(tmp_path / layout, before, layout, flux1.PAIRINGS)
        tensors = load_file(path)
        downs = {name.replace(".lora_A.weight", "").replace(".lora_down.weight", ""): one for name, one in tensors.items() if one.dim()}
        assert all(float(tensors[name]) == len(downs[name.removesuffix(".alpha")]) for name in tensors if name.endswith(".alpha"))
        assert any(name.endswith(".alpha") for name in tensors) == (layout == "kohya")
        settings = json.loads(read_metadata(path).get("lora_adapter_metadata", "{}"))
        assert settings.get("transformer.alpha_pattern") == settings.get("transformer.rank_pattern")
        after = load_adapter(path).modules
        assert all(after[name].alpha == one.rank == after[name].rank for name, one in before.items())
        assert all(torch.equal(after[name].build_delta(), one.build_delta()) for name, one in before.items())


def test_a_layer_that_was_trained_as_one_is_written_as_one(tmp_path: Path) -> None:
    """From kohya's file to kohya's file: the rank does not grow, and the header says it."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for stem, rows in (("double_blocks_0_img_attn_qkv", 96), ("single_blocks_1_linear1", 224)):
        tensors[f"lora_unet_{stem}.lora_down.weight"] = torch.randn(4, 32, generator=generator)
        tensors[f"lora_unet_{stem}.lora_up.weight"] = torch.randn(rows, 4, generator=generator)
        tensors[f"lora_unet_{stem}.alpha"] = torch.tensor(4.0)
    save_file(tensors, tmp_path / "a.safetensors")
    written = export(tmp_path / "a.safetensors", ["kohya", "comfyui"], base=None, out=tmp_path / "out", progress=ignore_progress)
    assert {name: tensor.shape for name, tensor in load_file(written[0]).items()} == {name: one.shape for name, one in tensors.items()}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(written[0]).items())
    assert {min(tensor.shape) for tensor in load_file(written[1]).values()} == {4}
    assert all(read_metadata(path)["ss_network_dim"] == "4" for path in written)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_survives_without_loss(
    dtype: torch.dtype, tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    drawn = draw_factors(network, list_targets(network, BLOCKS, sets={}), ranks=(4,), alphas=(3.0,))
    before = {name: Factors(one.down.to(dtype), one.up.to(dtype), one.alpha) for name, one in drawn.items()}
    now = before
    for number, layout in enumerate(LAYOUTS):
        now = load_adapter(_save(tmp_path / str(number), now, layout, flux1.PAIRINGS)).modules
        assert all(torch.equal(now[name].build_delta(), before[name].build_delta()) for name in before)
        assert {factors.down.dtype for factors in now.values()} == {dtype}


def test_a_dora_survives_in_the_librarys_layout(
    tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    before = draw_factors(network, list_targets(network, ["attn.to_q", "x_embedder"], sets={}), ranks=(2,), alphas=(3.0,), dora=True)
    after = load_adapter(_save(tmp_path / "a", before, "diffusers", flux1.PAIRINGS)).modules
    for name, factors in before.items():
        magnitude, base = after[name].magnitude, network.get_submodule(name).weight.detach()
        assert magnitude is not None and factors.magnitude is not None
        assert torch.equal(magnitude, factors.magnitude)
        assert torch.equal(after[name].build_weight(base), factors.build_weight(base))


@pytest.mark.parametrize("layout", ["kohya", "comfyui"])
def test_a_dora_is_refused_where_its_readers_do_not_agree(
    layout: str, tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    modules = draw_factors(network, list_targets(network, ["attn.to_q"], sets={}), dora=True)
    with pytest.raises(AdapterError, match=f"The {layout} layout cannot carry a DoRA") as caught:
        _save(tmp_path / "a", modules, layout, flux1.PAIRINGS)
    assert "take the diffusers layout" in str(caught.value)
    with pytest.raises(AdapterError, match=f"The {layout} layout cannot carry a DoRA"):
        check_layout(modules, layout=layout, pairings=flux1.PAIRINGS)
    check_layout(modules, layout="diffusers", pairings=flux1.PAIRINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_mixture_is_refused(
    tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    names = list_targets(network, ["attn.to_q"], sets={})
    modules = draw_factors(network, names, dora=True) | draw_factors(network, names[:1])
    with pytest.raises(AdapterError, match="a LoRA in some layers and a DoRA in others"):
        _save(tmp_path / "a", modules, "diffusers", flux1.PAIRINGS)
    with pytest.raises(AdapterError, match="a LoRA in some layers and a DoRA in others"):
        check_layout(modules, layout="diffusers", pairings=flux1.PAIRINGS)


@pytest.mark.parametrize(
    ("layout", "pairings", "modules"),
    [
        ("kohya", flux1.PAIRINGS, ["proj_out", "norm_out.linear"]),
        ("kohya", flux2.PAIRINGS, ["double_stream_modulation_img.linear", "single_stream_modulation.linear", "proj_out"]),
        ("comfyui", flux1.PAIRINGS, ["norm_out.linear"]),
        ("comfyui", flux2.PAIRINGS, ["norm_out.linear"]),
        ("comfyui", flux1.PAIRINGS, ["transformer_blocks.0.attn.norm_q", "stranger.0.to_q"]),
        ("comfyui", flux3.PAIRINGS, ["norm_out.linear"]),
    ],
)
def test_what_a_reader_would_lose_is_refused_by_name(layout: str, pairings: Sequence[Pairing], modules: list[str]) -> None:
    fine = ["single_transformer_blocks.0.attn.to_q"] if pairings is not flux2.PAIRINGS else ["transformer_blocks.0.attn.to_q"]
    check_layout(fine, layout=layout, pairings=pairings)
    for module in modules:
        with pytest.raises(AdapterError, match=f"Programs that read the {layout} layout would lose or misread 1 layers") as caught:
            check_layout([*fine, module], layout=layout, pairings=pairings)
        assert f"got: {module}\n" in str(caught.value)
        assert "take another layout" in str(caught.value)
    check_layout(modules, layout="diffusers", pairings=pairings)


def test_a_family_that_no_kohya_tool_trains() -> None:
    with pytest.raises(AdapterError, match="No program reads adapters of this model in the kohya layout"):
        check_layout(["single_transformer_blocks.0.attn.to_q"], layout="kohya", pairings=flux3.PAIRINGS)


def test_an_unknown_layout() -> None:
    with pytest.raises(AdapterError, match=r"expected: diffusers, kohya, comfyui"):
        find_layout("xlabs")


@pytest.mark.parametrize("name", FULL_SIZE)
def test_names_of_full_size_models_are_as_recorded(name: str) -> None:
    """Every linear layer of the published model has a name in each layout that can carry it."""
    build, pairings = FULL_SIZE[name]
    with torch.device("meta"):
        network = build()
    linears = {path: module for path, module in network.named_modules() if isinstance(module, nn.Linear)}
    recorded: dict[str, list[str]] = {}
    for line in (KEYS / f"{name}.txt").read_text().splitlines():
        layout, _, key = line.partition(" ")
        recorded.setdefault(layout, []).append(key)
    assert recorded["model"] == _collapse(f"{path} {layer.out_features}x{layer.in_features}" for path, layer in linears.items())
    for layout, row in LAYOUTS.items():
        carried = {path: _build_small(layer) for path, layer in linears.items() if _is_carried(path, layout, pairings)}
        tensors, _ = row.write(carried, pairings)
        assert recorded[layout] == _collapse(f"{key} {'x'.join(map(str, tensor.shape)) or 'scalar'}" for key, tensor in tensors.items())


def _is_carried(module: str, layout: str, pairings: Sequence[Pairing]) -> bool:
    match = find_module(pairings, module)
    assert match is not None, f"{module} has no name in the makers' files"
    try:
        check_layout([module], layout=layout, pairings=pairings)
    except AdapterError:
        return False
    return True


def test_an_untrained_adapter_can_be_converted(
    tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]
) -> None:
    network = load_network()
    drawn = draw_factors(network, list_targets(network, BLOCKS, sets={}))
    before = {name: Factors(one.down, torch.zeros_like(one.up), one.alpha) for name, one in drawn.items()}
    after = load_adapter(_save(tmp_path / "a", before, "kohya", flux1.PAIRINGS)).modules
    assert set(after) == set(before)
    assert not any(factors.build_delta().any() for factors in after.values())


def test_names_in_files(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Callable[..., dict[str, Factors]]) -> None:
    network = load_network()
    modules = draw_factors(network, ["transformer_blocks.0.attn.to_k", "transformer_blocks.0.ff.net.2"], alphas=(3.0,))
    shapes = {
        layout: {name: tuple(tensor.shape) for name, tensor in load_file(_save(tmp_path / layout, modules, layout, flux1.PAIRINGS)).items()}
        for layout in LAYOUTS
    }
    assert shapes["kohya"] == {
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": (),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (2, 32),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": (96, 2),
        "lora_unet_double_blocks_0_img_mlp_2.alpha": (),
        "lora_unet_double_blocks_0_img_mlp_2.lora_down.weight": (2, 128),
        "lora_unet_double_blocks_0_img_mlp_2.lora_up.weight": (32, 2),
    }
    assert shapes["comfyui"] == {
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight": (2, 32),
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_up.weight": (96, 2),
        "diffusion_model.double_blocks.0.img_mlp.2.lora_down.weight": (2, 128),
        "diffusion_model.double_blocks.0.img_mlp.2.lora_up.weight": (32, 2),
    }
    assert set(shapes["diffusers"]) == {f"transformer.{name}.lora_{which}.weight" for name in modules for which in "AB"}
