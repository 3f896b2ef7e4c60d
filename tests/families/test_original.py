"""Single files of the makers and of ComfyUI: written from the library's models, told apart by shapes, read back equal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from weber.errors import ModelError
from weber.families.flux1 import original as flux1
from weber.families.flux1.keys import PAIRINGS as FLUX1
from weber.families.flux2 import original as flux2
from weber.families.flux2.keys import PAIRINGS as FLUX2
from weber.families.pairing import build_original_weights
from weber.families.places import Place
from weber.families.singles import build_stripped, describe_content, list_parts, list_pieces
from weber.families.tensors import Entry, build_entry, save_weights
from weber.families.weights import Original, load_part, open_original, open_part

Write = Callable[..., Path]
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.")
ALL = (flux1.TRANSFORMER, flux2.TRANSFORMER, flux1.VAE, flux2.VAE, flux1.CLIP, flux1.T5, flux2.MISTRAL, flux2.QWEN)
FLUX1_SIZE = {
    "num_layers": 2,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 20,
    "axes_dims_rope": (4, 6, 6),
}
FLUX2_SIZE = {
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 4, 4, 4),
}
TRANSFORMERS: dict[str, tuple[type[Any], dict[str, Any], Original, Any]] = {
    "flux1-dev": (FluxTransformer2DModel, {"in_channels": 64, "guidance_embeds": True, **FLUX1_SIZE}, flux1.TRANSFORMER, FLUX1),
    "flux1-schnell": (FluxTransformer2DModel, {"in_channels": 64, "guidance_embeds": False, **FLUX1_SIZE}, flux1.TRANSFORMER, FLUX1),
    "flux1-fill": (
        FluxTransformer2DModel,
        {"in_channels": 384, "out_channels": 64, "guidance_embeds": True, **FLUX1_SIZE},
        flux1.TRANSFORMER,
        FLUX1,
    ),
    "flux2-dev": (Flux2Transformer2DModel, {"guidance_embeds": True, **FLUX2_SIZE}, flux2.TRANSFORMER, FLUX2),
    "flux2-klein": (Flux2Transformer2DModel, {"guidance_embeds": False, **FLUX2_SIZE}, flux2.TRANSFORMER, FLUX2),
}


def _place(path: Path) -> Place:
    files = list_pieces(path)
    return Place(files[0], files, True)


def _load(kind: Any, path: Path, original: Original, **changes: object) -> nn.Module:
    return load_part(kind, _place(path), original=original, dtype=torch.float32, changes=changes)


def _assert_equal(loaded: nn.Module, model: nn.Module) -> None:
    mine, theirs = loaded.state_dict(), model.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    for (name, buffer), (_, other) in zip(loaded.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_is_read_back_equal(name: str, prefix: str, tmp_path: Path, write_single: Write) -> None:
    kind, config, original, pairings = TRANSFORMERS[name]
    model = kind(**config)
    path = write_single(tmp_path / "model.safetensors", model, pairings=pairings, prefix=prefix)
    loaded = _load(kind, path, original)
    _assert_equal(loaded, model)
    told = original.build_config(open_original(_place(path), [original]))
    differing = {key for key in told if _listed(loaded.config[key]) != _listed(model.config[key])}
    assert differing <= {"out_channels"}
    assert set(FLUX1_SIZE if pairings is FLUX1 else FLUX2_SIZE) <= set(told)
    assert loaded.config["out_channels"] == loaded.proj_out.out_features


@pytest.mark.parametrize("name", ["flux1-dev", "flux2-klein"])
def test_a_transformer_under_the_librarys_names(name: str, tmp_path: Path, write_single: Write) -> None:
    kind, config, original, _ = TRANSFORMERS[name]
    model = kind(**config)
    _assert_equal(_load(kind, write_single(tmp_path / "model.safetensors", model, prefix="model."), original), model)


@pytest.mark.parametrize("first", ["model-00001-of-00003.safetensors", "model.safetensors.index.json"])
def test_pieces(first: str, tmp_path: Path) -> None:
    kind, config, original, pairings = TRANSFORMERS["flux2-dev"]
    model = kind(**config)
    weights = build_original_weights({name: build_entry(tensor) for name, tensor in model.state_dict().items()}, pairings)
    index: dict[str, str] = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: entry for place, (name, entry) in enumerate(weights.items()) if place % 3 == number}
        save_weights(tmp_path / file, part, metadata={})
        index |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    _assert_equal(_load(kind, tmp_path / first, original), model)


def test_a_config_in_the_header_wins(tmp_path: Path, write_single: Write) -> None:
    config = FLUX1_SIZE | {"attention_head_dim": 32, "axes_dims_rope": (8, 12, 12), "guidance_embeds": True}
    model = FluxTransformer2DModel(**config)
    plain = write_single(tmp_path / "plain.safetensors", model, pairings=FLUX1)
    assert tuple(_load(FluxTransformer2DModel, plain, flux1.TRANSFORMER).config["axes_dims_rope"]) == (4, 14, 14)
    metadata = {"weber_config": json.dumps(dict(model.config))}
    own = write_single(tmp_path / "own.safetensors", model, pairings=FLUX1, metadata=metadata)
    assert tuple(_load(FluxTransformer2DModel, own, flux1.TRANSFORMER).config["axes_dims_rope"]) == (8, 12, 12)
    metadata = {"weber_config": json.dumps({**model.config, "_class_name": "AutoencoderKL"})}
    other = write_single(tmp_path / "other.safetensors", model, pairings=FLUX1, metadata=metadata)
    assert tuple(_load(FluxTransformer2DModel, other, flux1.TRANSFORMER).config["axes_dims_rope"]) == (4, 14, 14)


PUBLISHED: dict[str, tuple[type[Any], dict[str, Any], int]] = {
    "flux1-dev": (FluxTransformer2DModel, {"guidance_embeds": True}, 11_901_408_320),
    "flux1-schnell": (FluxTransformer2DModel, {}, 11_891_178_560),
    "flux1-fill": (FluxTransformer2DModel, {"guidance_embeds": True, "in_channels": 384, "out_channels": 64}, 11_902_391_360),
    "flux2-dev": (Flux2Transformer2DModel, {}, 32_223_281_152),
    "flux2-klein-4b": (
        Flux2Transformer2DModel,
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False},
        3_875_544_576,
    ),
    "flux2-klein-9b": (
        Flux2Transformer2DModel,
        {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288, "guidance_embeds": False},
        9_078_581_248,
    ),
}


def _unreadable() -> Tensor:
    raise AssertionError("weights were read")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_transformers_are_told_apart_by_shapes(name: str) -> None:
    kind, config, num_parameters = PUBLISHED[name]
    with torch.device("meta"):
        model = kind(**config)
    library = {key: Entry(tuple(tensor.shape), torch.bfloat16, _unreadable) for key, tensor in model.state_dict().items()}
    weights = build_original_weights(library, FLUX1 if kind is FluxTransformer2DModel else FLUX2)
    weights = {f"model.diffusion_model.{key}": entry for key, entry in weights.items()}
    found = [original for original in ALL if original.recognize(build_stripped(weights, original.markers))]
    assert [original.name for original in found] == ["a FLUX.1 transformer" if kind is FluxTransformer2DModel else "a FLUX.2 transformer"]
    assert describe_content(weights) == found[0].name
    stripped = build_stripped(weights, found[0].markers)
    built = found[0].build_config(stripped)
    with torch.device("meta"):
        again = kind.from_config(built)
    assert sum(parameter.numel() for parameter in again.parameters()) == num_parameters
    assert {key: tuple(again.config[key]) if key == "axes_dims_rope" else again.config[key] for key in built} == {
        key: again.config[key] if key == "out_channels" else model.config[key] for key in built
    }
    converted, unknown = found[0].convert(stripped)
    assert {key: entry.shape for key, entry in converted.items()} == {key: entry.shape for key, entry in library.items()}
    assert not unknown


def _rename_to_ldm(name: str) -> str:
    rules = (
        (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{3 - int(found[1])}.block.{found[2]}"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_(\w)", r"mid.attn_1.\1"),
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("^quant_conv", "encoder.quant_conv"),
        ("^post_quant_conv", "decoder.post_quant_conv"),
    )
    for old, new in rules:
        name = re.sub(old, new, name)  # type: ignore[arg-type]
    return name


def _write_ldm(path: Path, model: nn.Module, *, prefix: str = "", metadata: dict[str, str] | None = None) -> Path:
    entries = {}
    for name, tensor in model.state_dict().items():
        renamed = _rename_to_ldm(name)
        is_projection = "attn_1" in renamed and tensor.ndim == 2
        entries[prefix + renamed] = build_entry(tensor[:, :, None, None] if is_projection else tensor)
    save_weights(path, entries, metadata=metadata or {})
    return path


VAE_SIZE: dict[str, Any] = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}


def _build_vae(**changes: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **(VAE_SIZE | changes),
    )


def _build_vae2(**changes: Any) -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(**(VAE_SIZE | changes))
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    return vae


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
def test_an_autoencoder_in_the_makers_layout(prefix: str, tmp_path: Path) -> None:
    model = _build_vae()
    loaded = _load(AutoencoderKL, _write_ldm(tmp_path / "ae.safetensors", model, prefix=prefix), flux1.VAE)
    _assert_equal(loaded, model)
    assert {key: loaded.config[key] for key in ("scaling_factor", "shift_factor")} == {"scaling_factor": 0.3611, "shift_factor": 0.1159}
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    assert torch.equal(loaded.encode(pixels).latent_dist.mode(), model.eval().encode(pixels).latent_dist.mode())


@pytest.mark.parametrize("decoder", [None, (32, 32, 32, 64)])
def test_the_autoencoder_of_the_second_family(decoder: tuple[int, ...] | None, tmp_path: Path) -> None:
    model = _build_vae2(decoder_block_out_channels=decoder)
    loaded = _load(AutoencoderKLFlux2, _write_ldm(tmp_path / "ae.safetensors", model), flux2.VAE)
    _assert_equal(loaded, model)


@pytest.mark.parametrize("build", [_build_vae, _build_vae2])
def test_an_autoencoder_under_the_librarys_names(build: Any, tmp_path: Path, write_single: Write) -> None:
    model = build()
    original = flux1.VAE if build is _build_vae else flux2.VAE
    _assert_equal(_load(type(model), write_single(tmp_path / "vae.safetensors", model), original), model)


def test_an_autoencoder_whose_projections_are_convolutions(tmp_path: Path) -> None:
    model = _build_vae2()
    entries = {}
    for name, tensor in model.state_dict().items():
        is_projection = ".attentions." in name and tensor.ndim == 2
        entries[name] = build_entry(tensor[:, :, None, None] if is_projection else tensor)
    save_weights(tmp_path / "vae.safetensors", entries, metadata={})
    _assert_equal(_load(AutoencoderKLFlux2, tmp_path / "vae.safetensors", flux2.VAE), model)


def test_the_published_autoencoders() -> None:
    for kind, config, original in (
        (AutoencoderKL, dict(_build_vae().config) | {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}, flux1.VAE),
        (AutoencoderKLFlux2, {}, flux2.VAE),
    ):
        with torch.device("meta"):
            model = kind(**{key: value for key, value in config.items() if not key.startswith("_")})
        weights = {_rename_to_ldm(name): Entry(tuple(value.shape), value.dtype, _unreadable) for name, value in model.state_dict().items()}
        assert [other.name for other in ALL if other.recognize(build_stripped(weights, other.markers))] == [original.name]
        built = original.build_config(weights)
        assert {key: list(model.config[key]) if isinstance(built[key], list) else model.config[key] for key in built} == built


def _build_clip() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=256,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=2,
        bos_token_id=0,
    )
    return CLIPTextModel(config).eval()


def _build_t5(**changes: Any) -> T5EncoderModel:
    sizes = {"vocab_size": 40, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 3, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    return T5EncoderModel(T5Config(**(sizes | changes))).eval()


@pytest.mark.parametrize("prefix", ["text_model.", "text_encoders.clip_l.transformer.text_model.", ""])
def test_clip(prefix: str, tmp_path: Path, write_single: Write) -> None:
    model = _build_clip()
    path = write_single(tmp_path / "clip_l.safetensors", model, prefix=prefix)
    loaded = _load(CLIPTextModel, path, flux1.CLIP)
    _assert_equal(loaded, model)
    ids = torch.tensor([[0, 5, 7, 49, 49]])
    assert torch.equal(loaded(ids).pooler_output, model(ids).pooler_output)


def test_clip_with_names_that_are_not_read(tmp_path: Path) -> None:
    model = _build_clip()
    entries = {f"text_model.{name}": build_entry(tensor) for name, tensor in model.state_dict().items()}
    entries["text_model.embeddings.position_ids"] = build_entry(torch.arange(77)[None])
    entries["text_projection.weight"] = build_entry(torch.zeros(128, 128))
    entries["logit_scale"] = build_entry(torch.zeros(()))
    save_weights(tmp_path / "clip_l.safetensors", entries, metadata={})
    _assert_equal(_load(CLIPTextModel, tmp_path / "clip_l.safetensors", flux1.CLIP), model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dropped", ["encoder.embed_tokens.weight", "shared.weight", None])
def test_t5(dropped: str | None, dtype: torch.dtype, tmp_path: Path) -> None:
    model = _build_t5()
    entries = {name: build_entry(tensor) for name, tensor in model.state_dict().items() if name != dropped}
    entries["spiece_model"] = build_entry(torch.zeros(9, dtype=torch.uint8))
    save_weights(tmp_path / "t5xxl.safetensors", entries, metadata={})
    loaded = load_part(T5EncoderModel, _place(tmp_path / "t5xxl.safetensors"), original=flux1.T5, dtype=dtype)
    model.save_pretrained(tmp_path / "folder")
    folder = load_part(T5EncoderModel, Place(tmp_path / "folder", (), False), original=flux1.T5, dtype=dtype)
    mine, theirs = loaded.state_dict(), folder.state_dict()
    assert {name: tensor.dtype for name, tensor in mine.items()} == {name: tensor.dtype for name, tensor in theirs.items()}
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    ids = torch.tensor([[3, 1, 0, 0]])
    assert torch.equal(loaded(ids).last_hidden_state, folder(ids).last_hidden_state)
    assert loaded.shared.weight is loaded.encoder.embed_tokens.weight


def test_t5_without_gates(tmp_path: Path, write_single: Write) -> None:
    model = _build_t5(feed_forward_proj="relu")
    loaded = _load(T5EncoderModel, write_single(tmp_path / "t5.safetensors", model), flux1.T5)
    assert torch.equal(loaded(torch.tensor([[3, 1]])).last_hidden_state, model(torch.tensor([[3, 1]])).last_hidden_state)


LANGUAGE_SIZE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.3,
}


def _build_mistral(num_layers: int) -> MistralModel:
    rope = {"rope_theta": 1e9, "rope_type": "default"}
    config = MistralConfig(
        **LANGUAGE_SIZE, num_hidden_layers=num_layers, rms_norm_eps=1e-5, sliding_window=None, rope_parameters=rope
    )
    return MistralModel(config).eval()


def _build_qwen(num_layers: int) -> Qwen3Model:
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    return Qwen3Model(Qwen3Config(**LANGUAGE_SIZE, num_hidden_layers=num_layers, rope_parameters=rope)).eval()


def _read_states(model: nn.Module, *numbers: int) -> list[Tensor]:
    ids = torch.tensor([[0, 0, 5, 7, 11]])
    output = model(ids, attention_mask=torch.tensor([[0, 0, 1, 1, 1]]), output_hidden_states=True, use_cache=False)
    return [output.hidden_states[number] for number in numbers]


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "model.language_model.", "text_encoders.x.transformer.model."])
@pytest.mark.parametrize("name", ["mistral", "qwen"])
def test_language_models(name: str, prefix: str, tmp_path: Path) -> None:
    model = _build_mistral(3) if name == "mistral" else _build_qwen(3)
    original = flux2.MISTRAL if name == "mistral" else flux2.QWEN
    entries = {prefix + key: build_entry(tensor) for key, tensor in model.state_dict().items()}
    entries |= {"lm_head.weight": build_entry(torch.zeros(40, 16)), "tekken_model": build_entry(torch.zeros(5, dtype=torch.uint8))}
    entries |= {"model.vision_tower.patch_conv.weight": build_entry(torch.zeros(2, 2))}
    save_weights(tmp_path / "text.safetensors", entries, metadata={})
    loaded = _load(type(model), tmp_path / "text.safetensors", original)
    _assert_equal(loaded, model)
    for mine, theirs in zip(_read_states(loaded, 0, 1, 2, 3), _read_states(model, 0, 1, 2, 3), strict=True):
        assert torch.equal(mine, theirs)


def test_fewer_layers_than_the_file_has(tmp_path: Path, write_single: Write) -> None:
    model = _build_qwen(5)
    path = write_single(tmp_path / "qwen.safetensors", model, prefix="model.")
    loaded = _load(Qwen3Model, path, flux2.QWEN, num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert not any("layers.3" in name for name, _ in loaded.named_parameters())
    for mine, theirs in zip(_read_states(loaded, 1, 2), _read_states(model, 1, 2), strict=True):
        assert torch.equal(mine, theirs)


def test_mistral_cut_after_the_last_state_that_is_read(tmp_path: Path) -> None:
    model = _build_mistral(32)
    names = [name for name in model.state_dict() if not name.startswith(("layers.30.", "layers.31."))]
    entries = {f"model.{name}": build_entry(model.state_dict()[name]) for name in names}
    save_weights(tmp_path / "cut.safetensors", entries, metadata={})
    loaded = _load(MistralModel, tmp_path / "cut.safetensors", flux2.MISTRAL, num_hidden_layers=31)
    for mine, theirs in zip(_read_states(loaded, 10, 20, 30), _read_states(model, 10, 20, 30), strict=True):
        assert torch.equal(mine, theirs)


def test_the_published_language_models() -> None:
    sizes = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    mistral = {"vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40}
    qwen = {"vocab_size": 151936, "num_hidden_layers": 36}
    for kind, config, original in (
        (MistralModel, MistralConfig(**mistral, **sizes), flux2.MISTRAL),
        (Qwen3Model, Qwen3Config(**qwen, hidden_size=2560, intermediate_size=9728, **sizes), flux2.QWEN),
        (Qwen3Model, Qwen3Config(**qwen, hidden_size=4096, intermediate_size=12288, **sizes), flux2.QWEN),
    ):
        with torch.device("meta"):
            model = kind(config)
        weights = {f"model.{name}": Entry(tuple(value.shape), value.dtype, _unreadable) for name, value in model.state_dict().items()}
        assert [other.name for other in ALL if other.recognize(build_stripped(weights, other.markers))] == [original.name]
        assert describe_content(weights).startswith("a language model of the kind of")
        built = original.build_config(build_stripped(weights, original.markers))
        told = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", *sizes}
        assert {key: built[key] for key in told} == {key: config.to_dict()[key] for key in told}


def test_the_published_text_encoders() -> None:
    clip = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    t5 = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    for kind, config, original, prefix in ((CLIPTextModel, clip, flux1.CLIP, "text_model."), (T5EncoderModel, t5, flux1.T5, "")):
        with torch.device("meta"):
            model = kind(config)
        weights = {prefix + name: Entry(tuple(value.shape), value.dtype, _unreadable) for name, value in model.state_dict().items()}
        assert [other.name for other in ALL if other.recognize(build_stripped(weights, other.markers))] == [original.name]
        built = original.build_config(build_stripped(weights, original.markers))
        told = [key for key in built if "token_id" not in key and key not in ("model_type", "tie_word_embeddings", "projection_dim")]
        assert {key: built[key] for key in told} == {key: config.to_dict()[key] for key in told}


def test_a_checkpoint_that_holds_everything(tmp_path: Path) -> None:
    transformer, vae, clip, t5 = FluxTransformer2DModel(**FLUX1_SIZE, guidance_embeds=True), _build_vae(), _build_clip(), _build_t5()
    parts: list[tuple[str, nn.Module, Original, type[Any]]] = [
        ("model.diffusion_model.", transformer, flux1.TRANSFORMER, FluxTransformer2DModel),
        ("vae.", vae, flux1.VAE, AutoencoderKL),
        ("text_encoders.clip_l.transformer.text_model.", clip, flux1.CLIP, CLIPTextModel),
        ("text_encoders.t5xxl.transformer.", t5, flux1.T5, T5EncoderModel),
    ]
    entries: dict[str, Entry] = {"text_encoders.clip_l.logit_scale": build_entry(torch.ones(()))}
    for prefix, model, _, _ in parts:
        weights = {name: build_entry(tensor) for name, tensor in model.state_dict().items()}
        if model is transformer:
            weights = build_original_weights(weights, FLUX1)
        if model is vae:
            _write_ldm(tmp_path / "ae.safetensors", vae)
            weights = dict(open_original(_place(tmp_path / "ae.safetensors"), [flux1.VAE]))
        entries |= {prefix + name: entry for name, entry in weights.items()}
    path = tmp_path / "everything.safetensors"
    save_weights(path, entries, metadata={})
    assert list_parts(entries) == ("transformer", "vae", "text_encoder", "text_encoder_2")
    for _, model, original, kind in parts:
        _assert_equal(_load(kind, path, original), model)


def test_an_unknown_tensor_is_named(tmp_path: Path, write_single: Write) -> None:
    model = FluxTransformer2DModel(**FLUX1_SIZE)
    model.register_buffer("strange", torch.zeros(3))
    entries = build_original_weights({n: build_entry(t) for n, t in model.state_dict().items() if n != "strange"}, FLUX1)
    save_weights(tmp_path / "model.safetensors", {**entries, "final_layer.strange.weight": build_entry(torch.zeros(3))}, metadata={})
    with pytest.raises(ModelError) as caught:
        open_part(_place(tmp_path / "model.safetensors"), flux1.TRANSFORMER)
    assert "holds tensors that are not of a FLUX.1 transformer" in str(caught.value)
    assert "got: final_layer.strange.weight" in str(caught.value)
