"""Adapters that change CLIP too: in every layout, here and in the library's hands, and refused where that part would be lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.inspect import inspect_file
from weber.adapters.merge import build_merged_adapter, check_base
from weber.adapters.start import load_start
from weber.adapters.text import TEXT_PREFIX, find_text_module, split_modules
from weber.config.adapter import AdapterConfig
from weber.config.model import FrozenConfig, ModelConfig
from weber.errors import AdapterError
from weber.families.flux1.keys import PAIRINGS
from weber.families.flux2.keys import PAIRINGS as OTHER_PAIRINGS
from weber.families.table import build_family
from weber.planning.assistant import load_frozen
from weber.progress import ignore_progress
from weber.results.export import export
from weber.results.merge import merge

LAYOUTS = ("diffusers", "kohya", "comfyui")
ATTENTION = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
WIDTH, INNER = 32, 64  # of the tiny model's CLIP


def _draw(inputs: int, outputs: int, *, rank: int, alpha: float, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator), alpha)


def _draw_modules() -> dict[str, Factors]:
    """Of the tiny model: some of its transformer, and CLIP's attention and feed-forward, with ranks and alphas that differ."""
    modules = {f"transformer_blocks.0.attn.{name}": _draw(32, 32, rank=4, alpha=8.0, seed=n) for n, name in enumerate(("to_q", "to_k"))}
    for number in range(2):
        layer = f"{TEXT_PREFIX}text_model.encoder.layers.{number}."
        modules |= {layer + name: _draw(WIDTH, WIDTH, rank=3, alpha=6.0, seed=10 + number) for name in ATTENTION}
        modules[f"{layer}mlp.fc1"] = _draw(WIDTH, INNER, rank=3, alpha=1.5, seed=20 + number)
        modules[f"{layer}mlp.fc2"] = _draw(INNER, WIDTH, rank=2, alpha=6.0, seed=30 + number)
    return modules


def _save(path: Path, layout: str = "diffusers", modules: Mapping[str, Factors] | None = None) -> Path:
    save_adapter(path, modules or _draw_modules(), layout=layout, facts={}, metadata={}, pairings=PAIRINGS)
    return path


def _check_same(got: Mapping[str, Factors], expected: Mapping[str, Factors]) -> None:
    assert set(got) == set(expected)
    for name, factors in expected.items():
        assert torch.equal(got[name].build_delta(), factors.build_delta()), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_back_what_was_written(tmp_path: Path, layout: str) -> None:
    modules = _draw_modules()
    adapter = load_adapter(_save(tmp_path / "adapter.safetensors", layout))
    assert (adapter.layout, adapter.classes, adapter.notes) == (layout, ("FluxTransformer2DModel",), ())
    _check_same(adapter.modules, modules)
    assert all(one.alpha == one.rank == modules[name].rank for name, one in adapter.modules.items()), "the scale is in the numbers"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_export_goes_from_each_layout_to_each(tmp_path: Path, layout: str) -> None:
    path = _save(tmp_path / "adapter.safetensors", layout)
    for written in export(path, LAYOUTS, base=None, out=tmp_path / "out", progress=ignore_progress):
        _check_same(load_adapter(written).modules, _draw_modules())


def test_names_are_those_of_the_programs(tmp_path: Path) -> None:
    names = {layout: set(load_file(_save(tmp_path / f"{layout}.safetensors", layout))) for layout in LAYOUTS}
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in names["diffusers"]
    stem = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    assert {f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"} <= names["kohya"]
    assert "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc2.lora_down.weight" in names["comfyui"]
    with safe_open(tmp_path / "diffusers.safetensors", framework="pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (settings["transformer.r"], settings["text_encoder.r"], settings["text_encoder.lora_alpha"]) == (4, 3, 3)
    assert settings["text_encoder.rank_pattern"] == {f"encoder.layers.{number}.mlp.fc2": 2 for number in range(2)}


def _list_weights(pipeline: Any) -> dict[str, Tensor]:
    """The weights of both parts as adapters leave them, by our names."""
    weights = {}
    for start, part in (("", pipeline.transformer), (f"{TEXT_PREFIX}text_model.", pipeline.text_encoder)):
        for name, module in part.named_modules():
            layer = module.get_base_layer() if hasattr(module, "get_base_layer") else module
            if isinstance(layer, nn.Linear) and "lora" not in name:
                weights[start + name.removesuffix(".base_layer")] = layer.weight.detach().clone()
    return weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_library_changes_both_parts(tiny_model: Path, tmp_path: Path, layout: str) -> None:
    modules = _draw_modules()
    if layout != "diffusers":  # the library's readers of these take other layers apart with the widths of the published model
        modules = {name: one for name, one in modules.items() if name.startswith(TEXT_PREFIX)} | {
            "transformer_blocks.0.attn.to_out.0": _draw(32, 32, rank=4, alpha=8.0, seed=0)
        }
    path = _save(tmp_path / "adapter.safetensors", layout, modules)
    pipeline = FluxPipeline.from_pretrained(tiny_model)
    before = _list_weights(pipeline)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    pipeline.fuse_lora(components=["transformer", "text_encoder"])
    after = _list_weights(pipeline)
    for name, weight in before.items():
        change = modules[name].build_delta() if name in modules else torch.zeros_like(weight)
        torch.testing.assert_close(after[name] - weight, change, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"),
        ("text_model_encoder_layers_11_self_attn_out_proj", "text_model.encoder.layers.11.self_attn.out_proj"),
        ("text_model.embeddings.token_embedding", None),
        ("transformer_blocks.0.attn.to_q", None),
    ],
)
def test_modules_of_clip_are_told_from_others(name: str, module: str | None) -> None:
    assert find_text_module(name) == (None if module is None else TEXT_PREFIX + module)


def test_files_of_newer_releases_of_the_library_are_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "adapter.safetensors")
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = {name.replace("text_encoder.text_model.", "text_encoder."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata=header)
    _check_same(load_adapter(path).modules, _draw_modules())


@pytest.mark.parametrize("prefix", ["lora_te2_", "lora_te3_encoder_", "text_encoder_2.", "text_encoders.t5xxl.transformer."])
def test_other_text_encoders_are_refused(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "adapter.safetensors"
    other = {f"{prefix}x.lora_down.weight": torch.zeros(1, 2), f"{prefix}x.lora_up.weight": torch.zeros(2, 1)}
    save_file(load_file(_save(path, "kohya")) | other, path)
    with pytest.raises(AdapterError, match="a text encoder other than CLIP-L"):
        load_adapter(path)
    assert inspect_file(path).kind.startswith("LoRA that also changes a text encoder other than CLIP-L")


def test_a_model_without_clip_is_refused(tmp_path: Path) -> None:
    """The layer is one that the second family alone has."""
    path = tmp_path / "adapter.safetensors"
    modules = {"single_transformer_blocks.0.attn.to_qkv_mlp_proj": _draw(32, 288, rank=2, alpha=2.0, seed=0)}
    save_adapter(path, modules | split_modules(_draw_modules())[1], layout="comfyui", facts={}, metadata={}, pairings=OTHER_PAIRINGS)
    with pytest.raises(AdapterError, match="CLIP too, which its model does not have"):
        load_adapter(path)


def test_inspect_says_that_clip_is_changed(tmp_path: Path) -> None:
    told = str(inspect_file(_save(tmp_path / "adapter.safetensors", "kohya")))
    assert "14, of which 12 of CLIP, the text encoder" in told
    assert "transformer_blocks.0.attn.to_q" in told and "adapter.text_encoder = true" in told


def test_adapters_with_clip_add_up(tmp_path: Path) -> None:
    modules = _draw_modules()
    merged = build_merged_adapter([(modules, 0.5), (modules, 0.25)])
    for name, factors in merged.items():
        torch.testing.assert_close(factors.build_delta(), 0.75 * modules[name].build_delta(), atol=1e-5, rtol=1e-5)
    one, out = _save(tmp_path / "one.safetensors"), tmp_path / "both.safetensors"
    merge([(one, 1.0), (one, 1.0)], base=None, out=out, layout="kohya", rank=None, progress=ignore_progress)
    assert set(load_adapter(out).modules) == set(modules)


def test_merging_into_the_transformer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = _save(tmp_path / "adapter.safetensors")
    calls = [
        lambda: merge([(path, 1.0)], base=str(tiny_model), out=tmp_path / "out", layout=None, rank=None, progress=ignore_progress),
        lambda: export(path, ["merged-bfl"], base=str(tiny_model), out=tmp_path, progress=ignore_progress),
        lambda: check_base({}, _draw_modules()),
    ]
    for call in calls:
        with pytest.raises(AdapterError, match="CLIP too, and a merged model is the transformer alone"):
            call()


@pytest.mark.parametrize("settings", [{"assistant": "PATH"}, {"adapters": [FrozenConfig(path="PATH")]}])
def test_frozen_adapters_with_clip_are_refused(tiny_model: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    path = str(_save(tmp_path / "adapter.safetensors"))
    named = {key: path if value == "PATH" else [FrozenConfig(path=path)] for key, value in settings.items()}
    config = ModelConfig(path=str(tiny_model), **named)
    with pytest.raises(AdapterError, match="changes CLIP too, which stays as it is"):
        load_frozen(config, build_family(config))


def test_starts_with_clip_need_the_setting_and_the_rank(tmp_path: Path) -> None:
    path, modules = _save(tmp_path / "adapter.safetensors"), _draw_modules()
    shapes = {name: (one.down.shape[1], one.up.shape[0]) for name, one in modules.items()}
    with pytest.raises(AdapterError, match="changes CLIP too, and the settings do not train that"):
        load_start(AdapterConfig(start_from=str(path)), split_modules(shapes)[0])
    with pytest.raises(AdapterError, match="higher rank"):
        load_start(AdapterConfig(start_from=str(path), text_encoder=True, text_encoder_rank=2), shapes)
    linears, config = split_modules(shapes)[0], AdapterConfig(start_from=str(path), text_encoder=True, text_encoder_rank=3)
    start = load_start(config, shapes, linears=linears)
    assert start is not None and set(start.modules) == set(modules)


def test_a_file_of_clip_alone_has_no_targets(tmp_path: Path) -> None:
    """Nor is it a set that means no layer of a small model."""
    modules = {name: one for name, one in _draw_modules().items() if name.startswith("text_encoder.")}
    path = _save(tmp_path / "adapter.safetensors", modules=modules)
    assert dict(inspect_file(path).lines)["targets"] == "none of the transformer"
