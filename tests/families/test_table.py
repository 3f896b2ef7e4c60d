"""From `[model]` to a family, or to one message."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, Flux2Transformer2DModel, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, Qwen3ForCausalLM, T5EncoderModel

from weber.config.model import ModelConfig
from weber.errors import ConfigError, ModelError, WeberError
from weber.families.family import Family
from weber.families.flux1.components import Flux1
from weber.families.flux2.components import Flux2
from weber.families.pairing import build_original_weights
from weber.families.table import FAMILIES, build_family
from weber.families.tensors import build_entry
from weber.memory.load import load_predictor
from weber.pocket.random_flux2 import build_random_flux2

Write = Callable[..., Path]
CPU = torch.device("cpu")
FLUX1, FLUX2 = FAMILIES[:2]


@pytest.fixture(scope="module")
def tiny_flux2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random FLUX.2 klein as published before distillation. Copy what you change."""
    return build_random_flux2(tmp_path_factory.mktemp("models") / "tiny-flux2", "klein-base")


@pytest.fixture(scope="module")
def singles(tiny_model: Path, tiny_flux2: Path, tmp_path_factory: pytest.TempPathFactory, write_single: Write) -> Path:
    """The parts of two tiny models as single files, and a LoRA. What their shapes do not say stands in their headers."""
    folder = tmp_path_factory.mktemp("singles")
    parts: list[tuple[str, type[Any], Path, str, Any, str]] = [
        ("flux1-dev", FluxTransformer2DModel, tiny_model / "transformer", "", FLUX1.pairings, "model.diffusion_model."),
        ("flux2-klein", Flux2Transformer2DModel, tiny_flux2 / "transformer", "", FLUX2.pairings, ""),
        ("ae", AutoencoderKL, tiny_model / "vae", "", None, ""),
        ("clip_l", CLIPTextModel, tiny_model / "text_encoder", "", None, "text_model."),
        ("t5xxl", T5EncoderModel, tiny_model / "text_encoder_2", "", None, ""),
        ("qwen", Qwen3ForCausalLM, tiny_flux2 / "text_encoder", "", None, ""),
    ]
    for name, kind, place, _, pairings, prefix in parts:
        model = kind.from_pretrained(place)
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        metadata = {"weber_config": json.dumps(config)}
        write_single(folder / f"{name}.safetensors", model, pairings=pairings, prefix=prefix, metadata=metadata)
    save_file({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(2, 2)}, folder / "lora.safetensors")
    return folder


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is out of reach, and nothing of it is on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield


def _say(config: ModelConfig) -> str:
    with pytest.raises(WeberError) as caught:
        build_family(config)
    assert isinstance(caught.value, (ConfigError, ModelError))
    message = str(caught.value)
    assert "  fix: " in message
    return message


@pytest.mark.parametrize(("model", "variant"), [("tiny_model", "flux1-dev"), ("tiny_schnell", "flux1-schnell")])
def test_the_variant_is_recognized(model: str, variant: str, request: pytest.FixtureRequest) -> None:
    family: Family = build_family(ModelConfig(path=str(request.getfixturevalue(model))))
    assert isinstance(family, Flux1)
    assert family.variant == variant


def test_the_second_family(tiny_flux2: Path) -> None:
    family: Family = build_family(ModelConfig(path=str(tiny_flux2)))
    assert isinstance(family, Flux2)
    assert family.variant == "flux2-klein-base-4b"
    assert family.is_local


@pytest.mark.parametrize("variant", ["flux1-krea", "pocket"])
def test_a_variant_may_be_named(tiny_model: Path, variant: str) -> None:
    assert build_family(ModelConfig(path=str(tiny_model), variant=variant)).variant == variant


def test_a_variant_of_another_family(tiny_model: Path) -> None:
    message = _say(ModelConfig(path=str(tiny_model), variant="flux2-dev"))
    assert "The model is not what model.variant = 'flux2-dev' says." in message
    assert "which is a FluxTransformer2DModel" in message
    assert "flux1-dev" in message


def test_an_unknown_variant_names_the_nearest() -> None:
    message = _say(ModelConfig(variant="flux-schnel"))
    assert "got: model.variant = 'flux-schnel'" in message
    assert "flux2-dev" in message
    assert "fix: did you mean 'flux1-schnell'?" in message


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("flux.1-dev", "did you mean 'flux1-dev'?"),
        ("FLUX_DEV_1", "did you mean 'flux1-dev'?"),
        ("black-forest-labs/FLUX.1-dev", "did you mean 'flux1-dev'?"),
        ("flux-dev", "did you mean 'flux1-dev' or 'flux2-dev'?"),
        ("flux2_klein_9b", "did you mean 'flux2-klein-9b'?"),
        ("klein-4b", "did you mean 'flux2-klein-4b'?"),
        ("flux2-klein", "did you mean 'flux2-klein-4b' or 'flux2-klein-9b'?"),
        ("kontext", "did you mean 'flux1-kontext'?"),
        ("flux-fill-dev", "did you mean 'flux1-fill'?"),
        ("pockett", "did you mean 'pocket'?"),
        ("flux", "run `weber variants`"),
        ("flux2-klein-5b", "run `weber variants`"),
        ("sdxl", "run `weber variants`"),
        ("models/flux1-dev-fp8.safetensors", "write model.path = 'models/flux1-dev-fp8.safetensors'"),
        ("zzz", "run `weber variants`"),
    ],
)
def test_another_name_for_a_model_gets_the_right_one_or_none(name: str, fix: str) -> None:
    assert f"fix: {fix}" in _say(ModelConfig(variant=name))


def test_the_pocket_model_comes_with_weber() -> None:
    family = build_family(ModelConfig(variant="pocket"))
    assert family.is_local and family.native_pixels == 64


@pytest.mark.parametrize(
    ("config", "home"),
    [
        (ModelConfig(), "black-forest-labs/FLUX.1-Krea-dev"),
        (ModelConfig(variant="flux1-dev"), "black-forest-labs/FLUX.1-dev"),
        (ModelConfig(variant="flux2-klein-4b"), "black-forest-labs/FLUX.2-klein-4B"),
    ],
)
def test_a_variant_comes_from_the_hub(config: ModelConfig, home: str) -> None:
    message = _say(config)
    assert f"{home} is not on this machine" in message
    assert f"run `hf download {home}`" in message


@pytest.mark.parametrize("variant", [None, "flux1-dev"])
@pytest.mark.parametrize("class_name", ["SD3Transformer2DModel", None])
def test_a_model_of_another_family(tiny_model: Path, tmp_path: Path, variant: str | None, class_name: str | None) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"_class_name": class_name}), encoding="utf-8")
    message = _say(ModelConfig(path=str(folder), variant=variant))
    assert f"_class_name = {class_name!r}" in message
    assert "expected: FluxTransformer2DModel, Flux2Transformer2DModel" in message
    assert "fix: choose another model.path" in message


KLEIN = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False}
LARGER = KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
PUBLISHED: list[tuple[type[Any], dict[str, Any], str]] = [
    (FluxTransformer2DModel, {"guidance_embeds": True}, "FLUX.1-dev"),
    (FluxTransformer2DModel, {}, "FLUX.1-schnell"),
    (FluxTransformer2DModel, {"guidance_embeds": True, "in_channels": 384, "out_channels": 64}, "FLUX.1-Fill-dev"),
    (Flux2Transformer2DModel, {}, "FLUX.2-dev"),
    (Flux2Transformer2DModel, KLEIN, "FLUX.2-klein-base-4B"),
    (Flux2Transformer2DModel, LARGER, "FLUX.2-klein-base-9B"),
]


@pytest.mark.skipif(os.name != "posix", reason="writes a file with a hole in it")
@pytest.mark.parametrize(("kind", "config", "home"), PUBLISHED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_published_single_file_is_told_by_its_shapes(kind: type[Any], config: dict[str, Any], home: str, tmp_path: Path) -> None:
    """A file of full size, of which only the header is written."""
    with torch.device("meta"):
        model = kind(**config)
    row = next(row for row in FAMILIES if row.transformer_class == kind.__name__)
    weights = build_original_weights({name: build_entry(tensor) for name, tensor in model.state_dict().items()}, row.pairings)
    header: dict[str, object] = {}
    offset = 0
    for name, entry in weights.items():
        num_bytes = 2 * math.prod(entry.shape)
        header[f"model.diffusion_model.{name}"] = {"dtype": "BF16", "shape": entry.shape, "data_offsets": [offset, offset + num_bytes]}
        offset += num_bytes
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    message = _say(ModelConfig(path=str(tmp_path / "model.safetensors")))
    assert f"cannot be had from black-forest-labs/{home}." in message


def _load_states(family: Family) -> dict[str, dict[str, torch.Tensor]]:
    parts = {part: family.load(part, device=CPU, dtype=torch.float32) for part in (family.image_part, *family.text_parts)}
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    return {part: module.state_dict() for part, module in {**parts, "transformer": predictor.transformer}.items()}


def test_a_model_of_single_files_is_the_model_of_its_folder(tiny_model: Path, singles: Path) -> None:
    config = ModelConfig(
        path=str(singles / "flux1-dev.safetensors"),
        vae=str(singles / "ae.safetensors"),
        text_encoder=str(singles / "clip_l.safetensors"),
        text_encoder_2=str(singles / "t5xxl.safetensors"),
        tokenizer_path=str(tiny_model),
    )
    family, whole = build_family(config), build_family(ModelConfig(path=str(tiny_model)))
    assert family.is_local
    assert family.variant == "flux1-dev"
    mine, theirs = _load_states(family), _load_states(whole)
    assert mine.keys() == theirs.keys()
    for part, state in theirs.items():
        assert mine[part].keys() == state.keys()
        assert all(torch.equal(mine[part][name], tensor) for name, tensor in state.items())
    encoders = [model.load("t5", device=CPU, dtype=torch.float32) for model in (family, whole)]
    texts = [model.encode_prompts("t5", encoder, ["red apple"])["text"] for model, encoder in zip((family, whole), encoders, strict=True)]
    assert torch.equal(*texts)
    opened = family.open_transformer()
    assert all(torch.equal(opened[name].read(), tensor) for name, tensor in theirs["transformer"].items())
    assert family.sigmas(4, 256) == whole.sigmas(4, 256)
    assert family.identify("vae") != whole.identify("vae")


def test_a_second_family_of_single_files(tiny_flux2: Path, singles: Path) -> None:
    config = ModelConfig(
        path=str(tiny_flux2), transformer=str(singles / "flux2-klein.safetensors"), text_encoder=str(singles / "qwen.safetensors")
    )
    family, whole = build_family(config), build_family(ModelConfig(path=str(tiny_flux2)))
    mine, theirs = _load_states(family), _load_states(whole)
    for part, state in theirs.items():
        assert mine[part].keys() == state.keys()
        assert all(torch.equal(mine[part][name], tensor) for name, tensor in state.items())


def test_a_folder_that_holds_only_a_transformer(tiny_model: Path) -> None:
    config = ModelConfig(
        path=str(tiny_model / "transformer"),
        vae=str(tiny_model / "vae"),
        text_encoder=str(tiny_model / "text_encoder"),
        text_encoder_2=str(tiny_model),
        tokenizer_path=str(tiny_model),
    )
    family = build_family(config)
    assert family.is_local
    assert _load_states(family)["transformer"].keys() == _load_states(build_family(ModelConfig(path=str(tiny_model))))["transformer"].keys()


def test_only_the_transformer_is_given_and_the_variant_comes_with_weber(singles: Path) -> None:
    family = build_family(ModelConfig(variant="pocket", transformer=str(singles / "flux1-dev.safetensors")))
    assert family.is_local
    assert family.variant == "pocket"


@pytest.mark.parametrize("key", ["path", "transformer"])
def test_a_single_file_without_tokenizers_is_refused_before_anything_is_loaded(key: str, singles: Path) -> None:
    message = _say(ModelConfig(**{key: str(singles / "flux1-dev.safetensors")}))
    assert "cannot be had from black-forest-labs/FLUX.1-dev" in message
    assert "hf download black-forest-labs/FLUX.1-dev --include" in message
    assert '--include "tokenizer/*" --include "tokenizer_2/*"' in message


def test_tokenizers_of_a_second_family_are_missed(tiny_flux2: Path, singles: Path) -> None:
    parts = {part: str(tiny_flux2 / part) for part in ("vae", "text_encoder")}
    message = _say(ModelConfig(path=str(singles / "flux2-klein.safetensors"), **parts))
    assert "The tokenizer of the model is not with what was given" in message
    assert "set model.tokenizer_path to a folder with tokenizer" in message


WRONG = [
    ({"path": "lora"}, "model.path = ", "a LoRA", "no part named transformer"),
    ({"path": "ae"}, "model.path = ", "an autoencoder", "no part named transformer"),
    ({"transformer": "lora"}, "model.transformer = ", "a LoRA", "a FLUX.1 transformer"),
    ({"transformer": "ae"}, "model.transformer = ", "an autoencoder", "a FLUX.1 transformer"),
    ({"transformer": "t5xxl"}, "model.transformer = ", "a T5 text encoder", "a FLUX.1 transformer"),
    ({"transformer": "flux2-klein"}, "model.vae = ", "an autoencoder", "an autoencoder of FLUX.2"),
    ({"vae": "clip_l"}, "model.vae = ", "a CLIP text encoder", "an autoencoder of FLUX.1"),
    ({"vae": "flux1-dev"}, "model.vae = ", "a FLUX.1 transformer", "an autoencoder of FLUX.1"),
    ({"text_encoder": "ae"}, "model.text_encoder = ", "an autoencoder", "a CLIP-L text encoder"),
    ({"text_encoder": "t5xxl"}, "model.text_encoder = ", "a T5 text encoder", "a CLIP-L text encoder"),
    ({"text_encoder_2": "clip_l"}, "model.text_encoder_2 = ", "a CLIP text encoder", "a T5 text encoder"),
    ({"text_encoder": "qwen"}, "model.text_encoder = ", "a language model of the kind of Qwen3", "a CLIP-L text encoder"),
]


@pytest.mark.parametrize(("files", "key", "content", "expected"), WRONG, ids=str)
def test_files_of_another_content_say_what_they_are(
    files: dict[str, str], key: str, content: str, expected: str, tiny_model: Path, singles: Path
) -> None:
    paths = {name: str(singles / f"{file}.safetensors") for name, file in files.items()}
    if "path" not in paths:
        paths |= {"path": str(tiny_model), "vae": paths.get("vae", str(singles / "ae.safetensors"))}
    message = _say(ModelConfig(**paths))
    assert key in message
    assert f"holds {content}" in message or f"with {content}" in message
    assert expected in message


def test_a_folder_given_as_transformer_that_is_none(tiny_model: Path) -> None:
    message = _say(ModelConfig(path=str(tiny_model), transformer=str(tiny_model / "vae")))
    assert "_class_name = 'AutoencoderKL' in the config.json of model.transformer = " in message
    assert "fix: choose another model.transformer" in message


@pytest.mark.parametrize(
    ("key", "place", "said"),
    [
        ("vae", "transformer", "'FluxTransformer2DModel'"),
        ("text_encoder", "text_encoder_2", "'t5'"),
        ("text_encoder_2", "text_encoder", "'clip_text_model'"),
    ],
)
def test_folders_of_another_content(key: str, place: str, said: str, tiny_model: Path) -> None:
    message = _say(ModelConfig(path=str(tiny_model), **{key: str(tiny_model / place)}))
    assert f"The model's part {key} is of another kind." in message
    assert f"whose config.json says {said}" in message
    assert f"fix: set model.{key} to " in message


def test_a_text_encoder_that_the_model_does_not_have(tiny_flux2: Path, singles: Path) -> None:
    message = _say(ModelConfig(path=str(tiny_flux2), text_encoder_2=str(singles / "t5xxl.safetensors")))
    assert "model.text_encoder_2 has no effect" in message


def test_a_path_of_which_nothing_is_left(tiny_model: Path, singles: Path) -> None:
    message = _say(ModelConfig(path=str(singles / "flux1-dev.safetensors"), transformer=str(tiny_model / "transformer")))
    assert "model.path has no effect" in message


def test_rows_of_the_table() -> None:
    names = [name for row in FAMILIES for name in row.variants]
    assert len(names) == len(set(names))
    homes = [home for row in FAMILIES for home, _ in row.variants.values()]
    assert all(home.count("/") == 1 or (Path(home) / "model_index.json").is_file() for home in homes)
    for row in FAMILIES:
        assert {"transformer", "vae", "text_encoder", "tokenizer"} <= set(row.originals)
        assert row.originals["transformer"][0].recognize is row.recognize
        assert "all" in row.targets
