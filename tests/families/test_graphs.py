"""Graphs of ComfyUI for every variant, against the signatures that were read in its source."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui import TABLE, check_prompt, check_workflow, find, is_widget, list_values
from weber.config.model import ModelConfig
from weber.families.family import Family
from weber.families.flux1 import graph as flux1
from weber.families.flux1.components import Flux1
from weber.families.flux1.variants import VARIANTS as FLUX1
from weber.families.flux2 import graph as flux2
from weber.families.flux2.variants import VARIANTS as FLUX2
from weber.families.graphs import NODES, Added, Given, Graph, Painted, build_file_name
from weber.families.pairing import build_original_weights
from weber.families.table import build_family
from weber.families.tensors import save_weights

SHIFTS = {"max_shift": 1.15, "base_shift": 0.5}
ROWS: dict[str, Any] = {row.name: row for row in (*FLUX1, *FLUX2)}


def _paint(name: str, **said: Any) -> Painted:
    defaults = ROWS[name].sample_defaults
    facts = {"guidance": defaults.guidance, "cfg": defaults.cfg, "steps": defaults.steps} | said
    return Painted(variant=name, prompt="a (red) cat", seed=2**61, width=1024, height=768, **facts)


def _build(painted: Painted) -> dict[str, Any]:
    row = ROWS[painted.variant]
    if row in FLUX2:
        graph = flux2.build_graph(painted, flux2.build_files(row))
    else:
        graph = flux1.build_graph(painted, flux1.build_files(row), shifts=SHIFTS if row.is_shifted else None)
    prompt, workflow = json.loads(json.dumps([graph.build_prompt(), graph.build_workflow()]))
    check_prompt(prompt)
    check_workflow(workflow, prompt)
    return dict(prompt)


@pytest.mark.parametrize("kind", NODES)
def test_nodes_are_those_of_comfyui(kind: str) -> None:
    ours, theirs = NODES[kind], TABLE[kind]
    widgets = [row for row in theirs["inputs"] if is_widget(row)]
    assert list(ours.links.items()) == [(row["name"], row["type"]) for row in theirs["inputs"] if not is_widget(row)]
    assert list(ours.widgets) == [row["name"] for row in widgets]
    assert list(ours.outputs) == theirs["outputs"]
    values = [[name, *([ours.hidden[name]] if name in ours.hidden else [])] for name in ours.widgets]
    assert [value for some in values for value in some] == list_values(kind, {name: name for name in ours.widgets})


@pytest.mark.parametrize("name", ROWS)
def test_every_variant_has_its_own_graph(name: str) -> None:
    defaults, masked = ROWS[name].sample_defaults, {}
    if name == "flux1-fill":
        masked = {"masked": Given("room.png", (1024, 768)), "mask": "wall.png"}
    adapter = Added("style.safetensors", 0.8)
    prompt = _build(_paint(name, adapter=adapter, others=(Added("other.safetensors", 0.0),), negative="blurry", **masked))
    assert find(prompt, "LoraLoaderModelOnly") == [{"model": ["1", 0], "lora_name": "style.safetensors", "strength_model": 0.8}]
    assert [one["guidance"] for one in find(prompt, "FluxGuidance")] == ([] if defaults.guidance is None else [defaults.guidance]) * (
        2 if defaults.cfg != 1 or masked else 1
    )
    assert [one["cfg"] for one in find(prompt, "CFGGuider")] == ([] if defaults.cfg == 1 else [defaults.cfg])
    assert len(find(prompt, "BasicGuider")) == (1 if defaults.cfg == 1 else 0)
    texts = [one["text"] for one in find(prompt, "CLIPTextEncode")]
    assert texts[0] == "a \\(red\\) cat" and texts[1:] == (["blurry"] if defaults.cfg != 1 or masked else [])
    assert find(prompt, "RandomNoise") == [{"noise_seed": 2**61}]
    if ROWS[name] in FLUX2:
        assert find(prompt, "CLIPLoader")[0]["type"] == "flux2" and len(find(prompt, "EmptyFlux2LatentImage")) == 1
        assert find(prompt, "Flux2Scheduler") == [{"steps": defaults.steps, "width": 1024, "height": 768}]
    else:
        assert find(prompt, "DualCLIPLoader")[0]["type"] == "flux"
        assert len(find(prompt, "ModelSamplingFlux")) == ROWS[name].is_shifted
        assert len(find(prompt, "InpaintModelConditioning")) == bool(masked) == 1 - len(find(prompt, "EmptySD3LatentImage"))


@pytest.mark.parametrize("name", ["flux1-dev", "flux2-klein-base-4b"])
def test_first_steps_without_guidance_are_a_sampler_of_their_own(name: str) -> None:
    prompt = _build(_paint(name, **{"cfg": 4.0, "negative": "blurry", "no_cfg_until": 3}))
    first, second = find(prompt, "SamplerCustomAdvanced")
    kinds = [[prompt[one[key][0]]["class_type"] for key in ("noise", "guider", "sigmas")] for one in (first, second)]
    assert kinds == [["RandomNoise", "BasicGuider", "SplitSigmas"], ["DisableNoise", "CFGGuider", "SplitSigmas"]]
    assert [one["sigmas"][1] for one in (first, second)] == [0, 1] and find(prompt, "SplitSigmas")[0]["step"] == 3
    assert prompt[second["latent_image"][0]]["inputs"] == first and second["latent_image"][1] == 0
    assert prompt[find(prompt, "VAEDecode")[0]["samples"][0]]["inputs"] == second


@pytest.mark.parametrize(("name", "is_clean"), [("flux1-kontext", False), ("flux1-kontext", True), ("flux2-klein-base-4b", False)])
def test_references_are_a_chain(name: str, is_clean: bool) -> None:
    given = (Given("a.png", (640, 512)), Given("b.png", (512, 512)))
    prompt = _build(_paint(name, references=given, references_are_clean=is_clean))
    assert [one["image"] for one in find(prompt, "LoadImage")] == ["a.png", "b.png"]
    assert [(one["width"], one["height"]) for one in find(prompt, "ImageScale")] == [(640, 512), (512, 512)]
    num_texts = len(find(prompt, "CLIPTextEncode"))
    chain = find(prompt, "ReferenceLatent")
    assert len(chain) == 2 * num_texts and prompt[chain[1]["conditioning"][0]]["class_type"] == "ReferenceLatent"
    methods = [one["reference_latents_method"] for one in find(prompt, "FluxKontextMultiReferenceLatentMethod")]
    assert methods == ["index_timestep_zero"] * num_texts * is_clean


def test_a_trained_model_and_clip_are_loaded() -> None:
    prompt = _build(_paint("flux1-dev", transformer="model.safetensors", adapter=Added("style.safetensors", 1.0, has_text=True)))
    assert find(prompt, "UNETLoader")[0]["unet_name"] == "model.safetensors"
    [lora] = find(prompt, "LoraLoader")
    assert lora["strength_model"] == lora["strength_clip"] == 1.0
    assert prompt[find(prompt, "CLIPTextEncode")[0]["clip"][0]]["class_type"] == "LoraLoader"


def test_models_from_elsewhere_are_called_as_they_are(dev: Flux1, tiny_model: Path, tmp_path: Path) -> None:
    """A folder as a file of its name, a file as itself, and what was not given as it is published."""
    files = [one["unet_name"] for one in find(_read(dev), "UNETLoader")], find(_read(dev), "VAELoader")[0]["vae_name"]
    assert files == ([f"{tiny_model.name}.safetensors"], "ae.safetensors")
    single = tmp_path / "my-tune.safetensors"
    save_weights(single, build_original_weights(dev.open_transformer(), dev.pairings), metadata={})
    other = build_family(ModelConfig(path=str(tiny_model), transformer=str(single), variant="flux1-dev"))
    assert find(_read(other), "UNETLoader")[0]["unet_name"] == "my-tune.safetensors"


def _read(family: Family) -> dict[str, Any]:
    graph = family.build_graph(_paint("flux1-dev"))
    assert graph is not None
    return dict(graph.build_prompt())


def test_a_link_that_does_not_fit_is_our_own_mistake() -> None:
    graph = Graph()
    [vae] = graph.add("VAELoader", vae_name="ae.safetensors")
    with pytest.raises(AssertionError):
        graph.add("CLIPTextEncode", clip=vae, text="a cat")
    with pytest.raises(AssertionError):
        graph.add("FluxGuidance", guidance=3.5)


def test_noise_levels_there_are_ours(dev: Flux1) -> None:
    """`simple` of ModelSamplingFlux, as the source has it: of a table of 10000 levels."""
    width, height, num_steps = 768, 512, 7
    slope = (1.15 - 0.5) / (4096 - 256)
    shift = width * height / 256 * slope + 0.5 - slope * 256
    table = [math.exp(shift) / (math.exp(shift) + 1 / (number / 10000) - 1) for number in range(1, 10001)]
    theirs = [*(table[-(1 + int(number * len(table) / num_steps))] for number in range(num_steps)), 0.0]
    assert dev.sigmas(num_steps, width * height // 256) == pytest.approx(theirs, abs=2e-4)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/home/me/secret/style.safetensors", "style.safetensors"),
        ("owner/name", "name"),
        ("https://me:key@host/files/style.safetensors?token=abc#key", "style.safetensors"),
    ],
)
def test_names_of_files_tell_nothing_else(place: str, name: str) -> None:
    assert build_file_name(place) == name
