"""FLUX.1 as a family: sizes without weights, the sampler's noise levels, identities, and models that are refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from weber.config.model import ModelConfig
from weber.errors import ModelError
from weber.families.flux1.components import Flux1
from weber.families.flux1.variants import VARIANTS, Variant
from weber.families.pairing import find_module
from weber.families.table import build_family
from weber.memory.load import load_predictor
from weber.pocket.folder import build_scheduler

CPU = torch.device("cpu")
FOLDERS = {"transformer": "transformer", "vae": "vae", "clip": "text_encoder", "t5": "text_encoder_2"}


def _write_published(folder: Path, *, is_dev: bool, in_channels: int = 64) -> Path:
    """The configuration files of the published model, beside weights that hold nothing."""
    transformer = {
        "_class_name": "FluxTransformer2DModel",
        "_diffusers_version": "0.30.0.dev0",
        "attention_head_dim": 128,
        "guidance_embeds": is_dev,
        "in_channels": in_channels,
        "out_channels": 64,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 19,
        "num_single_layers": 38,
        "patch_size": 1,
        "pooled_projection_dim": 768,
    }
    vae = {"_class_name": "AutoencoderKL", "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 3.0 if is_dev else 1.0,
        "use_dynamic_shifting": is_dev,
    }
    files = {
        "transformer/config.json": transformer,
        "vae/config.json": vae,
        "scheduler/scheduler_config.json": scheduler,
        "text_encoder/config.json": {},
        "text_encoder_2/config.json": {},
        "tokenizer/vocab.json": {},
        "tokenizer_2/tokenizer.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name in FOLDERS.values():
        save_file({"nothing": torch.zeros(1)}, folder / name / "model.safetensors")
    return folder


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that a test may change."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def _edit(file: Path, **changes: object) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | changes), encoding="utf-8")


def _build(folder: Path, variant: str | None = None) -> Flux1:
    family = build_family(ModelConfig(path=str(folder), variant=variant))
    assert isinstance(family, Flux1)
    return family


def _load(family: Flux1, part: str) -> Any:
    if part == "transformer":
        return load_predictor(family, device=CPU, dtype=torch.float32)
    return family.load(part, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("is_dev", "in_channels", "variant", "num_parameters"),
    [
        (True, 64, "flux1-dev", 11_901_408_320),
        (False, 64, "flux1-schnell", 11_891_178_560),
        (True, 384, "flux1-fill", 11_902_391_360),
    ],
)
def test_the_published_model_without_its_weights(
    tmp_path: Path, is_dev: bool, in_channels: int, variant: str, num_parameters: int
) -> None:
    """Numbers of parameters: ecosystem.md 1.2."""
    family = _build(_write_published(tmp_path, is_dev=is_dev, in_channels=in_channels))
    assert family.variant == variant
    assert family.is_local
    skeleton = family.load_skeleton()
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == num_parameters
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert family.latent_shape(1024, 768) == (16, 128, 96)
    assert family.num_tokens(128, 96) == 64 * 48
    assert family.text_shapes("clip") == {"pooled": (768,)}
    assert family.text_shapes("t5") == {"text": (512 if is_dev else 256, 4096)}


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_a_row_knows_the_sampler_of_files_that_come_without_one(row: Variant) -> None:
    config = FlowMatchEulerDiscreteScheduler.from_config(row.scheduler).config
    published = build_scheduler("dev" if row.is_shifted else "schnell").config
    assert {name: config[name] for name in row.scheduler} == {name: published[name] for name in row.scheduler}
    assert row.is_shifted == (row.name not in ("flux1-schnell", "libreflux"))


def test_what_the_family_says_of_a_variant(dev: Flux1, schnell: Flux1, kontext: Flux1, fill: Flux1) -> None:
    assert [family.architecture for family in (dev, schnell, kontext, fill)] == [
        "flux-1-dev",
        "flux-1-schnell",
        "flux-1-kontext",
        "flux-1-fill",
    ]
    assert [family.assistant for family in (dev, schnell)] == [None, "ostris/FLUX.1-schnell-training-adapter"]
    assert [family.picture_inputs.max_references for family in (dev, kontext, fill)] == [0, 8, 0]
    assert [family.picture_inputs.repaints for family in (dev, kontext, fill)] == [False, False, True]
    assert schnell.sample_defaults.timesteps == "fast"


def test_every_tensor_of_the_network_has_a_name_of_its_makers(dev: Flux1) -> None:
    weights, network = dev.open_transformer(), _load(dev, "transformer").transformer.state_dict()
    assert {name: entry.shape for name, entry in weights.items()} == {name: tuple(tensor.shape) for name, tensor in network.items()}
    assert all(torch.equal(weights[name].read(), tensor) for name, tensor in network.items())
    assert all(find_module(dev.pairings, name.rpartition(".")[0]) for name in weights)


@pytest.mark.parametrize(
    ("size", "chosen"), [((512, 512), (1024, 1024)), ((3000, 2000), (1248, 832)), ((100, 900), (672, 1568)), ((943, 1104), (944, 1104))]
)
def test_a_loose_reference_has_the_size_that_the_pipeline_gives_it(kontext: Flux1, size: tuple[int, int], chosen: tuple[int, int]) -> None:
    assert kontext.reference_size(*size) == chosen


@given(width=st.integers(16, 4096), height=st.integers(16, 4096))
def test_loose_references_at_any_size(width: int, height: int) -> None:
    row = next(row for row in VARIANTS if row.name == "flux1-kontext")
    family = Flux1.__new__(Flux1)
    family.picture_inputs = row.picture_inputs
    aspect = width / height  # as in FluxKontextPipeline.__call__
    _, *theirs = min((abs(aspect - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    assert family.reference_size(width, height) == tuple(theirs)


def test_other_variants_leave_a_size_as_it_is(dev: Flux1) -> None:
    assert dev.reference_size(700, 513) == (688, 512)


def test_the_skeleton_has_the_names_and_shapes_of_the_network(dev: Flux1) -> None:
    skeleton = {name: parameter.shape for name, parameter in dev.load_skeleton().named_parameters()}
    network = _load(dev, "transformer").transformer
    assert skeleton == {name: parameter.shape for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("num_tokens", "mu"), [(256, 0.5), (4096, 1.15), (1024, 0.63), (2304, 0.8466666666666667), (16384, 3.23)]
)
def test_shift_lies_on_the_line(dev: Flux1, num_tokens: int, mu: float) -> None:
    assert dev.shift(num_tokens) == pytest.approx(math.exp(mu), rel=1e-12)
    assert math.log(dev.shift(num_tokens)) == pytest.approx(calculate_shift(num_tokens), rel=1e-12)


def test_schnell_does_not_shift(schnell: Flux1) -> None:
    assert [schnell.shift(num_tokens) for num_tokens in (16, 256, 4096)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("num_steps", [1, 4, 20, 28, 50])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (512, 512), (1024, 1024), (768, 1344), (2048, 2048)])
def test_sigmas_are_the_pipelines(family: Flux1, num_steps: int, height: int, width: int) -> None:
    num_tokens = family.num_tokens(*family.latent_shape(height, width)[1:])
    config = family.scheduler.config
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = calculate_shift(num_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
    retrieve_timesteps(scheduler, num_steps, CPU, sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
    sigmas = family.sigmas(num_steps, num_tokens)
    assert torch.equal(torch.tensor(sigmas), scheduler.sigmas)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (num_steps + 1, 1.0, 0.0)
    assert all(before > after for before, after in zip(sigmas[:-1], sigmas[1:], strict=True))


def test_network_is_frozen(dev: Flux1) -> None:
    transformer = _load(dev, "transformer").transformer
    assert not any(parameter.requires_grad for parameter in transformer.parameters())


def test_identity_is_stable_and_follows_every_file_of_its_part(dev: Flux1, copy: Path) -> None:
    family = _build(copy)
    before = {part: family.identify(part) for part in FOLDERS if part != "transformer"}
    assert before == {part: dev.identify(part) for part in before}
    assert len(set(before.values())) == 3
    _edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=76)
    assert {part for part in before if family.identify(part) != before[part]} == {"clip"}
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"][0] += 1
    save_file(tensors, weights)
    assert {part for part in before if family.identify(part) != before[part]} == {"clip", "vae"}


def test_identity_of_t5_follows_the_padded_length(copy: Path) -> None:
    dev, pocket = _build(copy, "flux1-dev"), _build(copy, "pocket")
    assert dev.identify("clip") == pocket.identify("clip")
    assert dev.identify("t5") != pocket.identify("t5")
    assert pocket.text_shapes("t5") == {"text": (24, 32)}


def test_identity_of_t5_follows_the_mask(schnell: Flux1, libre: Flux1) -> None:
    assert schnell.identify("clip") == libre.identify("clip")
    assert len({schnell.identify("t5"), libre.identify("t5")}) == 2
    assert libre.text_shapes("t5") == {"text": (512, 32), "text_mask": (512,)}


@pytest.mark.parametrize("folder", [*FOLDERS.values(), "tokenizer", "tokenizer_2"])
def test_a_missing_or_empty_part_is_refused(copy: Path, folder: str) -> None:
    files = sorted((copy / folder).iterdir())
    for file in files:
        file.unlink()
    with pytest.raises(ModelError, match=f"part {folder} is not complete"):
        _build(copy)
    (copy / folder).rmdir()
    with pytest.raises(ModelError, match=f"no part named {folder}"):
        _build(copy)


def _cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def _point_to_lfs(weights: Path) -> None:
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", encoding="utf-8")


def _rename(weights: Path) -> None:
    weights.rename(weights.with_name("weights.safetensors"))


def _drop_tensor(weights: Path) -> None:
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights, metadata={"format": "pt"})


def _reshape_tensor(weights: Path) -> None:
    tensors = load_file(weights)
    tensors[sorted(tensors)[0]] = torch.zeros(3, 5)
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("part", "damage"),
    [
        (part, damage)
        for part in FOLDERS
        for damage in (_cut, _point_to_lfs, _rename, _drop_tensor, _reshape_tensor)
        if (part, damage) != ("transformer", _rename)  # read by its names and shapes, whatever its file is called
    ],
)
def test_damaged_weights_are_refused_in_words(copy: Path, part: str, damage: Any) -> None:
    damage(next((copy / FOLDERS[part]).glob("*.safetensors")))
    family = _build(copy)
    with pytest.raises(ModelError) as caught:
        _load(family, part)
    message = str(caught.value)
    assert str(copy / FOLDERS[part]) in message or (part == "transformer" and "flux1-dev: 1 tensors are" in message)
    assert ("git lfs pull" if damage is _point_to_lfs and "git lfs" in message else "fix: download the") in message
    if damage is _drop_tensor:
        assert "1 tensors are missing" in message


@pytest.mark.parametrize(("part", "folder"), [("clip", "tokenizer"), ("t5", "tokenizer_2")])
def test_a_damaged_tokenizer_is_refused_in_words(copy: Path, part: str, folder: str) -> None:
    (copy / folder / "tokenizer.json").write_text('{"model": ', encoding="utf-8")
    with pytest.raises(ModelError, match=f"tokenizer in .*{folder} cannot be read"):
        _load(_build(copy), part)
