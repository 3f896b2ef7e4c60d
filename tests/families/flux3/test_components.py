"""FLUX.3 as a family: sizes without weights, the sampler's noise levels, identities, files, and models that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import Flux3Transformer2DModel
from diffusers.modular_pipelines.flux3.before_denoise import Flux3SetTimestepsStep
from diffusers.modular_pipelines.flux3.denoise import Flux3LoopDenoiser
from safetensors.torch import load_file, save_file

from weber.errors import ModelError
from weber.families.family import Family, PictureInputs, SampleDefaults
from weber.families.flux3.components import Flux3, build_flux3
from weber.families.flux3.keys import PAIRINGS
from weber.families.flux3.variants import VARIANTS
from weber.families.pairing import build_original_weights
from weber.families.source import Source
from weber.families.tensors import save_weights
from weber.memory.load import load_predictor
from weber.pocket.random_flux3 import build_random_flux3

CPU = torch.device("cpu")


@pytest.fixture
def copy(flux3_folder: Path, tmp_path: Path) -> Path:
    """A model that a test may change."""
    return shutil.copytree(flux3_folder, tmp_path / "model")


def _edit(file: Path, **changes: object) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | changes), encoding="utf-8")


def _build(folder: Path, variant: str | None = None) -> Flux3:
    return build_flux3(Source(str(folder)), variant)


def _write_published(folder: Path) -> Path:
    """The configuration files of the published model, beside weights that hold nothing."""
    text = {"model_type": "qwen3_vl_text", "hidden_size": 2560, "num_hidden_layers": 36}
    files = {
        "transformer/config.json": {"_class_name": "Flux3Transformer2DModel", "_diffusers_version": "0.42.0", "flow_map": False},
        "vae/config.json": {"_class_name": "AutoencoderKLFlux2"},
        "text_encoder/config.json": {"model_type": "qwen3_vl", "text_config": text},
        "tokenizer/tokenizer.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name in ("transformer", "vae", "text_encoder"):
        save_file({"nothing": torch.zeros(1)}, folder / name / "model.safetensors")
    return folder


def test_the_published_model_without_its_weights(tmp_path: Path) -> None:
    family: Family = _build(_write_published(tmp_path))
    assert (family.variant, family.architecture, family.native_pixels) == ("flux3-klein-base", "flux-3-klein", 1024)
    assert family.is_local
    skeleton = family.load_skeleton()
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == 5_538_458_368
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert family.latent_shape(1024, 768) == (128, 64, 48)
    assert family.num_tokens(64, 48) == 64 * 48
    assert family.text_shapes("qwen") == {"text": (80, 20480)}
    assert family.sample_defaults == SampleDefaults(50, None, None, cfg=3.5)
    assert family.picture_inputs == PictureInputs(max_references=10)
    assert (family.assistant, family.takes_reference_t, family.prompts_per_batch) == (None, False, 1)


def test_the_distilled_model_has_an_embedder_more() -> None:
    with torch.device("meta"):
        model = Flux3Transformer2DModel(flow_map=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_548_681_984


def test_the_row_samples_as_the_library_does() -> None:
    (base,) = VARIANTS
    assert base.home == "black-forest-labs/flux-3-image-klein-base"
    assert base.sample_defaults == SampleDefaults(
        Flux3SetTimestepsStep().num_inference_steps, None, None, Flux3LoopDenoiser().guidance_scale
    )
    assert base.summary and "\n" not in base.summary


@pytest.mark.parametrize("num_steps", [1, 4, 16, 50])
def test_sigmas_are_the_pipelines(family: Flux3, num_steps: int) -> None:
    step = Flux3SetTimestepsStep().init_pipeline()
    step(num_inference_steps=num_steps)
    sigmas = family.sigmas(num_steps, 4096)
    assert torch.equal(torch.tensor(sigmas), step.scheduler.sigmas)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (num_steps + 1, 1.0, 0.0)
    assert {family.shift(num_tokens) for num_tokens in (16, 4096)} == {step.scheduler.config.shift} == {6.93}


def test_the_skeleton_has_the_names_and_shapes_of_the_network(family: Flux3) -> None:
    skeleton = {name: parameter.shape for name, parameter in family.load_skeleton().named_parameters()}
    network = load_predictor(family, device=CPU, dtype=torch.float32).transformer
    assert skeleton == {name: parameter.shape for name, parameter in network.named_parameters()}
    assert skeleton == {name: entry.shape for name, entry in family.open_transformer().items()}
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_identity_is_stable_and_follows_every_file_of_its_part(family: Flux3, copy: Path) -> None:
    changed = _build(copy)
    before = {part: changed.identify(part) for part in ("vae", "qwen")}
    assert before == {part: family.identify(part) for part in before}
    _edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=76)
    assert {part for part in before if changed.identify(part) != before[part]} == {"qwen"}
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["bn.running_mean"][0] += 1
    save_file(tensors, weights)
    assert {part for part in before if changed.identify(part) != before[part]} == {"qwen", "vae"}


def test_a_transformer_in_a_file_of_the_makers(family: Flux3, flux3_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "flux3.safetensors"
    originals = build_original_weights(family.open_transformer(), PAIRINGS)
    save_weights(file, {f"model.diffusion_model.{name}": entry for name, entry in originals.items()}, metadata={})
    single = build_flux3(Source(str(flux3_folder), own={"transformer": str(file)}), None)
    networks = [load_predictor(one, device=CPU, dtype=torch.bfloat16).transformer for one in (family, single)]
    expected, found = (network.state_dict() for network in networks)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items())


def test_a_step_distilled_model_is_refused(tmp_path: Path) -> None:
    folder = build_random_flux3(tmp_path / "distilled", is_flow_map=True)
    with pytest.raises(ModelError) as caught:
        _build(folder)
    assert "cannot be trained" in str(caught.value)
    assert f"got: flow_map = True in model.path = {str(folder)!r}" in str(caught.value)
    assert "fix: set model.variant = 'flux3-klein-base'" in str(caught.value)


@pytest.mark.parametrize("name", ["in_channels", "cond_in_channels"])
def test_other_latents_are_refused(copy: Path, name: str) -> None:
    _edit(copy / "transformer" / "config.json", **{name: 64})
    with pytest.raises(ModelError, match=f"{name} = 64"):
        _build(copy)


def test_an_encoder_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = _write_published(tmp_path)
    text = {"model_type": "qwen3_vl_text", "hidden_size": 4096, "num_hidden_layers": 36}
    _edit(folder / "text_encoder" / "config.json", text_config=text)
    with pytest.raises(ModelError) as caught:
        _build(folder)
    message = str(caught.value)
    assert f"hidden_size = 4096 in model.path = {str(folder)!r}" in message
    assert "hidden_size = 2560, an eighth of the transformer's joint_attention_dim = 20480" in message


@pytest.mark.parametrize("folder", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_refused(copy: Path, folder: str) -> None:
    shutil.rmtree(copy / folder)
    with pytest.raises(ModelError, match=folder):
        build_flux3(Source(str(copy)), "flux3-klein-base")


def test_the_random_model_is_the_same_every_time(flux3_folder: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    again = build_random_flux3(tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)
    files = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert files == {path.relative_to(flux3_folder): path.read_bytes() for path in flux3_folder.rglob("*") if path.is_file()}
