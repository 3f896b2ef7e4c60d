"""The table of names beside the readers themselves: the library's, LyCORIS', and the table of ComfyUI's weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, Flux3LoraLoaderMixin, FluxLoraLoaderMixin
from lycoris.wrapper import create_lycoris_from_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.adapters.comfyui import read_file
from tests.adapters.conftest import DrawFactors
from tests.adapters.test_lycoris import FORMS, put, shake
from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.adapters.lycoris_files import save_lycoris
from weber.adapters.readers import (
    AI_TOOLKIT,
    BFL,
    COMFYUI,
    DIFFUSERS,
    KOHYA,
    LYCORIS,
    PROGRAMS,
    Reading,
    build_merged_reading,
    list_model_readings,
    list_readings,
)
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.flux3 import keys as flux3
from weber.families.pairing import Pairing, build_original_weights, find_module
from weber.families.tensors import build_entry

Build = Callable[[], nn.Module]
WITH_FIXED_WIDTHS = ("single_transformer_blocks.*.attn.to_*", "single_transformer_blocks.*.proj_mlp")
"""Layers that the library's reader of the first family takes apart with the widths of the published model."""


@pytest.fixture(params=["first", "second"])
def family(request: pytest.FixtureRequest, load_network: Build, build_second: Build) -> Iterator[tuple[nn.Module, Any, Any]]:
    first = request.param == "first"
    yield (load_network(), flux1, FluxLoraLoaderMixin) if first else (build_second(), flux2, Flux2LoraLoaderMixin)


def _read(names: Sequence[str] | Mapping[str, Any], pairings: Sequence[Pairing]) -> dict[str, Reading]:
    return {one.program: one for one in list_readings(names, pairings)}


def _ask_the_library(mixin: Any, path: Path, modules: set[str]) -> set[str]:
    """The modules of the library's model that its own reader finds changes of."""
    try:
        read = mixin.lora_state_dict(str(path.parent), weight_name=path.name, return_lora_metadata=True, local_files_only=True)[0]
    except ValueError:
        return set()
    stems = {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in read if name.startswith("transformer.")}
    return {name for name in modules if name in stems}


def test_every_layer_in_every_layout(family: tuple[nn.Module, Any, Any], tmp_path: Path, draw_factors: DrawFactors) -> None:
    """One at a time. What weber does not write is written as it would be, so that the table is asked for that too."""
    network, keys, mixin = family
    originals = {
        name: entry.read()
        for name, entry in build_original_weights(
            {name: build_entry(tensor) for name, tensor in network.state_dict().items()}, keys.PAIRINGS
        ).items()
    }
    fixed = set(list_targets(network, list(WITH_FIXED_WIDTHS), sets={})) if keys is flux1 else set()
    path = tmp_path / "a.safetensors"
    seen: set[tuple[str, bool]] = set()
    for name in list_targets(network, ["*"], sets={}):
        modules = draw_factors(network, [name])
        for layout in LAYOUTS:
            tensors, _ = LAYOUTS[layout].write(modules, keys.PAIRINGS)
            save_file(tensors, path)
            readings = _read(tensors, keys.PAIRINGS)
            loads = {program: not reading.left for program, reading in readings.items()}
            assert all(not reading.loaded or not reading.left for reading in readings.values()), "a layer is loaded whole or not at all"
            assert loads[COMFYUI] == (not read_file(path, originals)[1])
            is_kohyas = "transformer_blocks" in name or keys is flux1 and name not in ("proj_out", "norm_out.linear")
            assert not loads[LYCORIS] and loads[KOHYA] == (layout == "kohya" and is_kohyas)
            if name == "norm_out.linear" and layout != "diffusers":
                assert not loads[DIFFUSERS], "it takes the rows in another order, or not at all"
            elif name not in fixed or layout == "diffusers":
                assert loads[DIFFUSERS] == (_ask_the_library(mixin, path, {name}) == {name}), (name, layout)
            seen |= set(loads.items())
    assert seen >= {(program, one) for program in (DIFFUSERS, KOHYA) for one in (True, False)} | {(COMFYUI, keys is flux1)}


@pytest.mark.parametrize("form", ["lokr", "loha", "full"])
def test_files_of_lycoris(form: str, family: tuple[nn.Module, Any, Any], tmp_path: Path) -> None:
    """On the blocks, and on all layers: of those outside LyCORIS does not see what has the makers' names."""
    _, keys, mixin = family
    for targets in (None, "all"):
        network = type(family[0]).from_config(family[0].config)
        names = None if targets is None else list_targets(network, ["*"], sets={})
        plain = type(network).from_config(network.config)
        originals = {
            name: entry.read()
            for name, entry in build_original_weights(
                {name: build_entry(tensor) for name, tensor in plain.state_dict().items()}, keys.PAIRINGS
            ).items()
        }
        table = FORMS[form]
        shake(put(network, table, names=names))
        path = tmp_path / "a.safetensors"
        save_lycoris(path, network, architecture="", title="", facts={}, pairings=keys.PAIRINGS)
        readings = _read(load_file(path), keys.PAIRINGS)
        loaded = create_lycoris_from_weights(1.0, str(path), plain)[0].loras
        assert {name.partition(".")[0] for name in readings[LYCORIS].loaded} == {lora.lora_name for lora in loaded}
        lost = set(read_file(path, originals)[1])
        assert {name for name in readings[COMFYUI].left if not name.endswith(".diff_b")} == {name for name in lost if "diff_b" not in name}
        assert not readings[KOHYA].loaded
        library = bool(readings[DIFFUSERS].loaded) and not readings[DIFFUSERS].left
        assert library == (form == "lokr" and keys is flux2 and targets is None)
        try:
            mixin.lora_state_dict(str(path.parent), weight_name=path.name, return_lora_metadata=True, local_files_only=True)
            ends = False
        except (ValueError, KeyError):
            ends = True
        assert not (library and ends)


def test_the_third_family(tmp_path: Path) -> None:
    """Of what it has outside of blocks its reader makes names that the model does not have."""
    inner, outer = "mode_blocks.image.0.attn.to_q", "x_embedders.image"
    modules = {name: Factors(torch.ones(2, 6), torch.ones(4, 2), 2.0) for name in (inner, outer)}
    path = tmp_path / "a.safetensors"
    for layout, loads in (("diffusers", {inner, outer}), ("comfyui", {inner})):
        save_adapter(path, modules, layout=layout, facts={}, metadata={}, pairings=flux3.PAIRINGS)
        readings = _read(load_file(path), flux3.PAIRINGS)
        assert _ask_the_library(Flux3LoraLoaderMixin, path, set(modules)) == loads
        assert len(readings[DIFFUSERS].loaded) == 2 * len(loads)
        assert len(readings[COMFYUI].loaded) == (4 if layout == "comfyui" else 0)
        assert not readings[KOHYA].loaded and not readings[LYCORIS].loaded


def test_reasons_are_said(tmp_path: Path) -> None:
    names = [
        *("lora_unet_img_in.lora_down.weight", "lora_unet_img_in.lora_up.weight", "lora_unet_img_in.alpha"),
        *("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "bundle_emb.word", "transformer.proj_out.lora_magnitude_vector"),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    ]
    readings = _read(names, flux1.PAIRINGS)
    left = readings[DIFFUSERS].left
    assert left[names[0]] == "with these names it reads blocks only"
    assert left[names[3]] == "it does not read lora_A.weight there"
    assert left["bundle_emb.word"] == "no layer of the model"
    assert names[5] in readings[DIFFUSERS].loaded and names[6] in readings[DIFFUSERS].loaded
    assert readings[COMFYUI].left == {
        "bundle_emb.word": "no layer of the model",
        "transformer.proj_out.lora_magnitude_vector": "it does not read lora_magnitude_vector there",
    }
    assert readings[KOHYA].loaded == (*names[:3], names[6])
    assert readings[KOHYA].left[names[3]] == "it does not read names that begin with diffusion_model."
    told = str(readings[LYCORIS])
    assert told.startswith("loads none of 7 tensors: it does not read names that begin with lora_unet_ (3, such as lora_unet_img_in.lora")
    assert str(_read(names[:3], flux1.PAIRINGS)[COMFYUI]) == "loads all 3 tensors"


def test_an_alpha_that_ends_the_reader_of_the_second_family(tmp_path: Path) -> None:
    stem, path = "diffusion_model.single_blocks.0.linear2", tmp_path / "a.safetensors"
    tensors: dict[str, Tensor] = {f"{stem}.lora_A.weight": torch.ones(2, 4), f"{stem}.lora_B.weight": torch.ones(4, 2)}
    for more, loads in ({}, True), ({f"{stem}.alpha": torch.tensor(2.0)}, False):
        save_file(tensors | more, path)
        reading = _read(tensors | more, flux2.PAIRINGS)[DIFFUSERS]
        module = "single_transformer_blocks.0.attn.to_out"
        assert bool(reading.loaded) == loads == (_ask_the_library(Flux2LoraLoaderMixin, path, {module}) == {module})


def test_whole_models() -> None:
    reading = build_merged_reading(["transformer_blocks.0.attn.to_k", "proj_out", "controlnet_blocks.0"], flux1.PAIRINGS)
    assert reading.program == BFL and reading.loaded == ("double_blocks.0.img_attn.qkv.weight", "final_layer.linear.weight")
    assert reading.left == {"controlnet_blocks.0": "no layer of the makers' files"}
    makers = ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.norm.query_norm.scale", "time_in.in_layer.bias"]
    library = ["transformer_blocks.0.attn.to_q.weight", "time_guidance_embed.timestep_embedder.linear_1.weight"]
    readings = {one.program: one for one in list_model_readings([*makers, *library, "odd.weight"], flux2.PAIRINGS)}
    assert readings.keys() == {DIFFUSERS, COMFYUI, BFL} and set(PROGRAMS) > readings.keys()
    assert readings[DIFFUSERS].loaded == (*makers, *library)
    assert readings[COMFYUI].loaded == (*makers, library[0])
    assert readings[BFL].loaded == tuple(makers) and set(readings[BFL].left) == {*library, "odd.weight"}


def test_what_weber_writes_for_a_program_is_loaded_by_it(family: tuple[nn.Module, Any, Any], draw_factors: DrawFactors) -> None:
    """`check_layout` and the table say the same."""
    network, keys, _ = family
    for name in list_targets(network, ["*"], sets={}):
        for layout, program in (("kohya", COMFYUI), ("comfyui", COMFYUI), ("diffusers", DIFFUSERS)):
            try:
                check_layout([name], layout=layout, pairings=keys.PAIRINGS)
            except AdapterError:
                continue
            tensors, _ = LAYOUTS[layout].write(draw_factors(network, [name]), keys.PAIRINGS)
            assert not _read(tensors, keys.PAIRINGS)[program].left


@pytest.mark.parametrize("form", ["lora", "lokr"])
def test_ai_toolkit_as_its_own_code_loads(form: str, family: tuple[nn.Module, Any, Any]) -> None:
    """The names that its networks took, each asked for alone: networks of one block of each kind, made by its code (27a03a9)."""
    network, keys, _ = family
    sections = (Path(__file__).parent / "keys" / "ai-toolkit.txt").read_text(encoding="utf-8").split("[")
    name = f"{'flux1' if keys is flux1 else 'flux2'} {form}]"
    expected = set(next(one for one in sections if one.startswith(name)).splitlines()[1:])
    modules = {re.sub(r"blocks\.\d+", "blocks.0", name) for name in list_targets(network, ["*"], sets={})}
    originals = {match.original for one in modules if (match := find_module(keys.PAIRINGS, one)) is not None}
    stems = [f"transformer.{one}" for one in modules | originals] + [f"diffusion_model.{one}" for one in originals] + list(modules)
    stems += [f"lora_unet_{one}".replace(".", "_") for one in originals]
    stems += [f"{start}{one.replace('.', '_')}" for one in modules for start in ("lycoris_", "lora_transformer_")]
    parts = {
        "lora": ("lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_up.weight", "lora_A.default.weight", "alpha"),
        "lokr": ("lokr_w1", "alpha"),
    }
    loaded = set(_read([f"{stem}.{part}" for stem in stems for part in parts[form]], keys.PAIRINGS)[AI_TOOLKIT].loaded)
    assert loaded == expected and len(expected) > 15
