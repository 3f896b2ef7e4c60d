"""What the text part makes of prompts equals the library's text encoder step: tokens, template, window and layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux3ModularPipeline
from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.flux3 import prompts
from weber.families.flux3.components import Flux3, build_flux3
from weber.families.source import Source

CPU = torch.device("cpu")
PROMPTS = ["red apple, 3d style", "", "Ünïcode 😀 zebra\ttab\n\nnew <|im_end|> line", "a" + 80 * " very big" + " house"]


def _encode(family: Flux3, encoder: nn.Module, prompt: str) -> Tensor:
    with torch.no_grad():
        tensors = family.encode_prompts("qwen", encoder, [prompt])
    assert list(tensors) == ["text"]
    return tensors["text"]


def _encode_by_library(pipeline: Flux3ModularPipeline, prompt: str, *, most: int = 8192) -> Tensor:
    with torch.no_grad():
        encode = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds
        return encode(pipeline.text_encoder, pipeline.tokenizer, prompt, max_sequence_length=most)


@pytest.fixture
def copy(flux3_folder: Path, tmp_path: Path) -> Path:
    """A model that a test may change."""
    return shutil.copytree(flux3_folder, tmp_path / "model")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_equal_to_the_pipeline(family: Flux3, encoder: nn.Module, pipeline: Flux3ModularPipeline, prompt: str) -> None:
    ours = _encode(family, encoder, prompt)
    assert torch.equal(ours, _encode_by_library(pipeline, prompt))
    assert ours.std() > 1


def test_the_window_grows_by_80_tokens(family: Flux3, encoder: nn.Module) -> None:
    tokenizer: Any = encoder.tokenizer
    text = tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True)
    num_others = len(tokenizer(text).input_ids) + 1
    lengths = {number: _encode(family, encoder, "big" + (number - num_others) * " big").shape[1] for number in (79, 80, 81, 160, 161)}
    assert lengths == {79: 80, 80: 80, 81: 160, 160: 160, 161: 240}
    assert family.text_shapes("qwen") == {"text": (80, 128)}


def test_the_longest_window_cuts_the_prompt(
    family: Flux3, encoder: nn.Module, pipeline: Flux3ModularPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prompts.MOST_TOKENS == 8192
    monkeypatch.setattr(prompts, "MOST_TOKENS", 100)  # of 8192 tokens, attention alone would take minutes here
    prompt = "a" + 200 * " big" + " house"
    ours = _encode(family, encoder, prompt)
    assert ours.shape == (1, 100, 128)
    assert torch.equal(ours, _encode_by_library(pipeline, prompt, most=100))


def test_padding_is_told_position_1(family: Flux3, encoder: Any) -> None:
    seen: dict[str, Tensor] = {}
    hook = encoder.encoder.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    _encode(family, encoder, "red apple")
    hook.remove()
    num_tokens = int(seen["attention_mask"].sum())
    assert seen["position_ids"].tolist() == [[*range(num_tokens), *[1] * (80 - num_tokens)]]


def test_only_what_is_read_is_loaded(family: Flux3, encoder: Any, copy: Path) -> None:
    weights = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    unread = {name for name in tensors if "visual" in name or any(f"layers.{number}." in name for number in (33, 34, 35))}
    assert len(unread) > 30
    save_file({name: tensor for name, tensor in tensors.items() if name not in unread}, weights, metadata={"format": "pt"})
    assert len(encoder.encoder.layers) == 33
    assert set(dict(encoder.encoder.named_children())) == {"embed_tokens", "layers", "norm", "rotary_emb"}
    smaller = build_flux3(Source(str(copy)), None).load("qwen", device=CPU, dtype=torch.float32)
    assert torch.equal(_encode(family, smaller, "red apple"), _encode(family, encoder, "red apple"))


def test_a_missing_tensor_is_refused(copy: Path) -> None:
    weights = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.language_model.layers.32.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="are not complete"):
        build_flux3(Source(str(copy)), None).load("qwen", device=CPU, dtype=torch.float32)


def test_the_encoder_is_frozen_and_read_as_asked(family: Flux3) -> None:
    encoder = family.load("qwen", device=CPU, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_several_prompts_at_once_are_not_taken(family: Flux3, encoder: nn.Module) -> None:
    assert family.prompts_per_batch == 1
    with pytest.raises(AssertionError):
        family.encode_prompts("qwen", encoder, PROMPTS[:2])


def test_a_tokenizer_without_its_template_is_refused(copy: Path) -> None:
    (copy / "tokenizer" / "chat_template.jinja").unlink()
    family = build_flux3(Source(str(copy)), None)
    with pytest.raises(ModelError, match="got: no chat template"):
        family.load("qwen", device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"model_type": "qwen3"}, "model_type = 'qwen3'"),
        ({"num_hidden_layers": 31}, "num_hidden_layers = 31"),
        ({"hidden_size": 24}, "hidden_size = 24"),
    ],
)
def test_another_text_encoder_is_refused_before_anything_is_loaded(copy: Path, changes: dict[str, object], got: str) -> None:
    file = copy / "text_encoder" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"text_config": config["text_config"] | changes}), encoding="utf-8")
    with pytest.raises(ModelError, match="fix: use the text encoder that was published with the model") as caught:
        build_flux3(Source(str(copy)), None)
    assert got in str(caught.value)


def test_the_limit_is_that_of_the_longest_window(family: Flux3) -> None:
    limit = family.text_limits["qwen"]()
    assert limit.most_tokens == prompts.MOST_TOKENS
    short, longer = limit.count(["red apple", "red apple " * 100])
    assert 0 < short <= prompts.WINDOW_TOKENS < longer
