"""FLUX.2 as a family: sizes without weights, the sampler's noise levels, identities, and models that are refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, retrieve_timesteps
from safetensors.torch import load_file, save_file

from weber.config.model import ModelConfig
from weber.errors import ModelError
from weber.families.family import SampleDefaults
from weber.families.flux2.components import Flux2
from weber.families.flux2.keys import PAIRINGS
from weber.families.flux2.variants import VARIANTS
from weber.families.pairing import build_original_weights
from weber.families.table import build_family
from weber.families.tensors import save_weights
from weber.memory.load import load_predictor
from weber.pocket.random_flux2 import build_random_flux2

CPU = torch.device("cpu")
FOLDERS = ("transformer", "vae", "text_encoder", "tokenizer")
ENCODERS = {
    "flux2-dev": {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": {"hidden_size": 5120, "model_type": "mistral", "num_hidden_layers": 40, "vocab_size": 131072},
    },
    "flux2-klein-4b": {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "model_type": "qwen3", "num_hidden_layers": 36},
    "flux2-klein-9b": {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "model_type": "qwen3", "num_hidden_layers": 36},
}
TRANSFORMERS = {
    "flux2-dev": {"num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48, "joint_attention_dim": 15360},
    "flux2-klein-4b": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    "flux2-klein-9b": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
}
NUM_PARAMETERS = {"flux2-dev": 32_223_281_152, "flux2-klein-4b": 3_875_544_576, "flux2-klein-9b": 9_078_581_248}
SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "time_shift_type": "exponential"}
PUBLISHED = [(row.name, row.name.replace("-base", "")) for row in VARIANTS]


def _write_published(folder: Path, size: str, *, is_distilled: bool) -> Path:
    """The configuration files of a published model, beside weights that hold nothing."""
    transformer = {
        "_class_name": "Flux2Transformer2DModel",
        "_diffusers_version": "0.36.0.dev0",
        "attention_head_dim": 128,
        "axes_dims_rope": [32, 32, 32, 32],
        "guidance_embeds": size == "flux2-dev",
        "in_channels": 128,
        "mlp_ratio": 3.0,
        "rope_theta": 2000,
        **TRANSFORMERS[size],
    }
    index = {"_class_name": "Flux2Pipeline"} if size == "flux2-dev" else {"_class_name": "Flux2KleinPipeline", "is_distilled": is_distilled}
    files: dict[str, dict[str, Any]] = {
        "model_index.json": index,
        "transformer/config.json": transformer,
        "vae/config.json": {"_class_name": "AutoencoderKLFlux2", "latent_channels": 32},
        "scheduler/scheduler_config.json": {"_class_name": "FlowMatchEulerDiscreteScheduler", **SCHEDULER},
        "text_encoder/config.json": ENCODERS[size],
        "tokenizer/tokenizer.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name in ("transformer", "vae", "text_encoder"):
        save_file({"nothing": torch.zeros(1)}, folder / name / "model.safetensors")
    return folder


@pytest.fixture
def copy(models: dict[str, Path], tmp_path: Path) -> Path:
    """A model that a test may change, of the kind klein-base."""
    return shutil.copytree(models["klein-base"], tmp_path / "model")


def _edit(file: Path, **changes: object) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | changes), encoding="utf-8")


def _load(family: Flux2, part: str) -> Any:
    if part == "transformer":
        return load_predictor(family, device=CPU, dtype=torch.float32)
    return family.load("vae" if part == "vae" else family.text_parts[0], device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(("variant", "size"), PUBLISHED)
def test_the_published_model_without_its_weights(build: Callable[..., Flux2], tmp_path: Path, variant: str, size: str) -> None:
    family = build(_write_published(tmp_path, size, is_distilled=variant == size))
    assert (family.variant, family.architecture) == (variant, size.replace("flux2", "flux-2"))
    assert family.is_local
    skeleton = family.load_skeleton()
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == NUM_PARAMETERS[size]
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert family.text_parts == (("mistral",) if size == "flux2-dev" else ("qwen",))
    assert family.text_shapes(family.text_parts[0]) == {"text": (512, TRANSFORMERS[size]["joint_attention_dim"])}
    assert family.latent_shape(1024, 768) == (128, 64, 48)
    assert family.num_tokens(64, 48) == 64 * 48


@pytest.mark.parametrize(
    ("kind", "variant", "defaults"),
    [
        ("dev", "flux2-dev", SampleDefaults(50, 4.0, 1.0)),
        ("klein", "flux2-klein-4b", SampleDefaults(4, None, None)),
        ("klein-base", "flux2-klein-base-4b", SampleDefaults(50, None, None, 4.0)),
    ],
)
def test_tiny_models_are_recognized_too(families: dict[str, Flux2], kind: str, variant: str, defaults: SampleDefaults) -> None:
    family = families[kind]
    assert (family.variant, family.sample_defaults, family.native_pixels) == (variant, defaults, 1024)
    assert (family.picture_inputs.max_references, family.picture_inputs.repaints, family.picture_inputs.sizes) == (10, False, ())
    assert (family.assistant, family.takes_reference_t, family.prompts_per_batch) == (None, False, None)


def test_a_named_variant_says_what_the_files_do_not(build: Callable[..., Flux2], copy: Path) -> None:
    (copy / "model_index.json").unlink()
    assert build(copy, "flux2-klein-9b").sample_defaults == SampleDefaults(4, None, None)


def test_without_an_index_it_is_a_base_model(build: Callable[..., Flux2], models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["klein"], tmp_path / "model")
    (folder / "model_index.json").unlink()
    assert build(folder).variant == "flux2-klein-base-4b"


def test_the_skeleton_has_the_names_and_shapes_of_the_network(families: dict[str, Flux2]) -> None:
    family = families["dev"]
    skeleton = {name: parameter.shape for name, parameter in family.load_skeleton().named_parameters()}
    network = _load(family, "transformer").transformer
    assert skeleton == {name: parameter.shape for name, parameter in network.named_parameters()}
    assert skeleton == {name: entry.shape for name, entry in family.open_transformer().items()}
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("num_tokens", [256, 1024, 4096, 4300, 4301, 16384])
@pytest.mark.parametrize("kind", ["dev", "klein", "klein-base"])
def test_shift_is_that_of_the_variants_own_steps(families: dict[str, Flux2], kind: str, num_tokens: int) -> None:
    steps = {"dev": 50, "klein": 4, "klein-base": 50}[kind]
    assert families[kind].shift(num_tokens) == pytest.approx(math.exp(compute_empirical_mu(num_tokens, steps)), rel=1e-12)


def test_shift_at_1024_pixels_by_hand(families: dict[str, Flux2]) -> None:
    """peers.md 1.3: mu = 2.02 for 4096 tokens and 50 steps."""
    assert math.log(families["dev"].shift(4096)) == pytest.approx(2.02, abs=0.005)


@pytest.mark.parametrize("num_steps", [1, 4, 20, 50])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (512, 512), (1024, 1024), (768, 1344), (2048, 2048)])
def test_sigmas_are_the_pipelines(families: dict[str, Flux2], num_steps: int, height: int, width: int) -> None:
    family = families["klein"]
    num_tokens = family.num_tokens(*family.latent_shape(height, width)[1:])
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(family.scheduler.config)
    mu = compute_empirical_mu(image_seq_len=num_tokens, num_steps=num_steps)
    retrieve_timesteps(scheduler, num_steps, CPU, sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
    sigmas = family.sigmas(num_steps, num_tokens)
    assert torch.equal(torch.tensor(sigmas), scheduler.sigmas)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (num_steps + 1, 1.0, 0.0)
    assert all(before > after for before, after in zip(sigmas[:-1], sigmas[1:], strict=True))


def test_the_steps_of_a_distilled_model(families: dict[str, Flux2]) -> None:
    """Why its timesteps in training are not those of the schedule 1, 0.75, 0.5, 0.25."""
    assert [round(sigma, 2) for sigma in families["klein"].sigmas(4, 4096)] == [1.0, 0.97, 0.91, 0.77, 0.0]


def test_a_scheduler_without_dynamic_shift(build: Callable[..., Flux2], copy: Path) -> None:
    _edit(copy / "scheduler" / "scheduler_config.json", use_dynamic_shifting=False)
    family = build(copy)
    assert [family.shift(num_tokens) for num_tokens in (16, 4096)] == [3.0, 3.0]
    assert family.sigmas(2, 16) == pytest.approx([1.0, 0.75, 0.0])


def test_a_single_file_is_scheduled_by_its_row(build: Callable[..., Flux2], families: dict[str, Flux2], copy: Path, tmp_path: Path) -> None:
    """A transformer in the makers' layout, which says neither how it is scheduled nor whether it is distilled."""
    originals = build_original_weights(families["klein-base"].open_transformer(), PAIRINGS)
    save_weights(tmp_path / "flux-2-klein.safetensors", originals, metadata={})
    parts = {"vae": str(copy), "text_encoder": str(copy), "tokenizer_path": str(copy)}
    for variant, kind in ((None, "klein-base"), ("flux2-klein-4b", "klein")):
        family = build(tmp_path / "flux-2-klein.safetensors", variant, **parts)
        assert family.sample_defaults == families[kind].sample_defaults
        assert family.sigmas(4, 1024) == families[kind].sigmas(4, 1024)
        assert family.shift(1024) == families[kind].shift(1024)


def test_identity_is_stable_and_follows_every_file_of_its_part(build: Callable[..., Flux2], families: dict[str, Flux2], copy: Path) -> None:
    family = build(copy)
    before = {part: family.identify(part) for part in ("vae", "qwen")}
    assert before == {part: families["klein-base"].identify(part) for part in before}
    assert len(set(before.values())) == 2
    for change in (
        lambda: _edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=500),
        lambda: (copy / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8"),
        lambda: _edit(copy / "text_encoder" / "config.json", rms_norm_eps=1e-3),
    ):
        text = family.identify("qwen")
        change()
        assert family.identify("qwen") != text
    assert family.identify("vae") == before["vae"]


def test_identities_of_text_differ_between_recipes(families: dict[str, Flux2]) -> None:
    assert families["dev"].identify("mistral") != families["klein"].identify("qwen")
    assert families["klein"].identify("qwen") == families["klein-base"].identify("qwen")  # one encoder for both


def test_more_input_channels_are_refused(build: Callable[..., Flux2], copy: Path) -> None:
    _edit(copy / "transformer" / "config.json", in_channels=256)
    with pytest.raises(ModelError) as caught:
        build(copy)
    assert "in_channels = 256" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "variant", "fitting"), [("dev", "flux2-klein-4b", "flux2-dev"), ("klein", "flux2-dev", "flux2-klein-base-4b")]
)
def test_a_variant_that_does_not_fit_the_guidance_input_is_refused(
    build: Callable[..., Flux2], models: dict[str, Path], kind: str, variant: str, fitting: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build(models[kind], variant)
    message = str(caught.value)
    assert f"model.variant = {variant!r}" in message
    assert f"got: guidance_embeds = {kind == 'dev'}" in message
    assert f"fix: set model.variant to one of {fitting}" in message


def test_a_variant_of_another_size_is_refused(build: Callable[..., Flux2], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        build(_write_published(tmp_path, "flux2-klein-9b", is_distilled=False), "flux2-klein-base-4b")
    message = str(caught.value)
    assert "joint_attention_dim = 12288" in message
    assert "one of flux2-klein-base-9b, flux2-klein-9b, or leave it out" in message


def test_an_encoder_of_another_size_is_refused(build: Callable[..., Flux2], tmp_path: Path) -> None:
    folder = _write_published(tmp_path, "flux2-klein-4b", is_distilled=False)
    (folder / "text_encoder" / "config.json").write_text(json.dumps(ENCODERS["flux2-klein-9b"]), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        build(folder)
    message = str(caught.value)
    assert "hidden_size = 4096" in message
    assert "hidden_size = 2560, a third of the transformer's joint_attention_dim = 7680" in message


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_missing_part_is_refused(build: Callable[..., Flux2], copy: Path, folder: str) -> None:
    shutil.rmtree(copy / folder)
    with pytest.raises(ModelError) as caught:
        build(copy)
    assert folder in str(caught.value)


def _cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def _point_to_lfs(weights: Path) -> None:
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", encoding="utf-8")


def _drop_tensor(weights: Path) -> None:
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights, metadata={"format": "pt"})


def _reshape_tensor(weights: Path) -> None:
    tensors = load_file(weights)
    tensors[sorted(tensors)[0]] = torch.zeros(3, 5)
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [_cut, _point_to_lfs, _drop_tensor, _reshape_tensor])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_damaged_weights_are_refused_in_words(build: Callable[..., Flux2], copy: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(next((copy / part).glob("*.safetensors")))
    with pytest.raises(ModelError) as caught:
        _load(build(copy), part)
    message = str(caught.value)
    assert str(copy / part) in message or (part == "transformer" and "flux2-klein-base-4b: 1 tensors are" in message)
    assert "fix: " in message


def test_a_damaged_tokenizer_is_refused_in_words(build: Callable[..., Flux2], copy: Path) -> None:
    (copy / "tokenizer" / "tokenizer.json").write_text('{"model": ', encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer in .* cannot be read"):
        _load(build(copy), "text_encoder")


@pytest.mark.parametrize(("kind", "variant"), [("klein", "flux2-klein-base-4b"), ("klein-base", "flux2-klein-4b")])
def test_a_variant_that_the_models_own_index_contradicts(tmp_path: Path, kind: Any, variant: str) -> None:
    folder = build_random_flux2(tmp_path / "model", kind)
    with pytest.raises(ModelError, match="is_distilled"):
        build_family(ModelConfig(path=str(folder), variant=variant))


@pytest.mark.parametrize(("width", "height", "num_steps"), [(1024, 1024, 28), (512, 256, 4), (2048, 1024, 50)])
def test_noise_levels_are_those_of_comfyui(
    build: Callable[..., Flux2], models: dict[str, Path], width: int, height: int, num_steps: int
) -> None:
    """`Flux2Scheduler` as its source has it, so that the graph in a picture needs no levels of its own."""
    tokens = width * height // 256
    many = 0.00016927 * tokens + 0.45666666
    few = 8.73809524e-05 * tokens + 1.89833333
    slope = (many - few) / 190
    mu = many if tokens > 4300 else slope * num_steps + many - 200 * slope
    theirs = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) if t else 0.0 for t in torch.linspace(1, 0, num_steps + 1).tolist()]
    assert build(models["klein"]).sigmas(num_steps, tokens) == pytest.approx(theirs, abs=1e-5)
