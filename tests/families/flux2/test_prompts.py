"""What the text part makes of prompts equals what the library's pipelines make with the whole, untruncated encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from safetensors.torch import load_file, save_file

from weber.errors import ModelError
from weber.families.flux2.components import Flux2
from weber.families.flux2.prompts import PromptEncoder

CPU = torch.device("cpu")
PROMPTS = ["red apple, 3d fluent style", "", "a " + 600 * "very big " + "house", "Ünïcode 😀 zebra\ttab", "[IMG] and [INST] <|im_end|>"]
NUM_LAYERS = {"dev": 31, "klein": 28}
BUILT_LAYERS = {"dev": 32, "klein": 29}
WEIGHTS = "text_encoder/model.safetensors"


def _load(family: Flux2, dtype: torch.dtype = torch.float32) -> PromptEncoder:
    encoder = family.load(family.text_parts[0], device=CPU, dtype=dtype)
    assert isinstance(encoder, PromptEncoder)
    return encoder


def _encode(family: Flux2, prompts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        tensors = family.encode_prompts(family.text_parts[0], _load(family), prompts)
    assert list(tensors) == ["text"]
    return tensors["text"]


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def copy(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A function that makes a copy of a model, which a test may change."""
    return lambda kind: shutil.copytree(models[kind], tmp_path / kind)


@pytest.mark.parametrize("kind", ["dev", "klein", "klein-base"])
def test_states_equal_those_of_the_pipeline(families: dict[str, Flux2], pipelines: dict[str, Any], kind: str) -> None:
    pipeline, family = pipelines[kind], families[kind]
    read = pipeline._get_mistral_3_small_prompt_embeds if kind == "dev" else pipeline._get_qwen3_prompt_embeds
    with torch.no_grad():
        expected = read(pipeline.text_encoder, pipeline.tokenizer, PROMPTS)
    text = _encode(family, PROMPTS)
    assert text.shape[1:] == family.text_shapes(family.text_parts[0])["text"] == (512, 48)
    assert torch.equal(text, expected)
    assert (text[0] - text[1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_prompts_do_not_mix(families: dict[str, Flux2], kind: str) -> None:
    together = _encode(families[kind], PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        assert torch.allclose(_encode(families[kind], [prompt])[0], together[number], atol=1e-4)


def test_what_mistral_reads(families: dict[str, Flux2]) -> None:
    encoder = _load(families["dev"])
    tokens = encoder.recipe.tokenize(encoder.tokenizer, ["a cat", "see [IMG] this"])
    assert tokens.input_ids.shape == (2, 512)
    texts = [encoder.tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(tokens.input_ids, tokens.attention_mask, strict=True)]
    system = f"<s>[SYSTEM_PROMPT]{SYSTEM_MESSAGE}[/SYSTEM_PROMPT]"
    assert texts == [f"{system}[INST]a cat[/INST]", f"{system}[INST]see  this[/INST]"]
    assert "relationships, object\nattribution" in SYSTEM_MESSAGE
    assert tokens.input_ids[0, 0] == encoder.tokenizer.pad_token_id


def test_what_qwen_reads(families: dict[str, Flux2]) -> None:
    encoder = _load(families["klein"])
    tokens = encoder.recipe.tokenize(encoder.tokenizer, ["a cat"])
    assert tokens.input_ids.shape == (1, 512)
    text = encoder.tokenizer.decode(tokens.input_ids[0][tokens.attention_mask[0].bool()])
    assert text == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_only_what_is_read_is_held(families: dict[str, Flux2], pipelines: dict[str, Any], kind: str) -> None:
    """One layer more than the last state, no head, no vision tower; frozen, in eval mode, in the dtype that was asked for."""
    encoder = _load(families[kind], torch.bfloat16)
    whole = pipelines[kind].text_encoder
    language = whole.model.language_model if kind == "dev" else whole.model
    assert (len(encoder.encoder.layers), len(language.layers)) == (NUM_LAYERS[kind], BUILT_LAYERS[kind])
    layers = [name for name in language.state_dict() if not name.startswith(f"layers.{NUM_LAYERS[kind]}.")]
    assert list(encoder.encoder.state_dict()) == layers
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert not any(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers()))


def _rename_as_transformers_5(name: str) -> str:
    return name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head")


@pytest.mark.parametrize("layout", ["as saved", "of transformers 5", "without what is not read"])
def test_weights_of_dev_under_any_of_their_names(
    families: dict[str, Flux2], build: Callable[..., Flux2], copy: Callable[[str], Path], layout: str
) -> None:
    folder = copy("dev")
    tensors = load_file(folder / WEIGHTS)
    assert {name.partition(".")[0] for name in tensors} == {"language_model", "multi_modal_projector", "vision_tower"}
    if layout == "of transformers 5":
        tensors = {_rename_as_transformers_5(name): tensor for name, tensor in tensors.items()}
    if layout == "without what is not read":
        read = [name for name in tensors if name.startswith("language_model.model") and ".layers.31." not in name]
        tensors = {name: tensors[name] for name in read}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(_encode(build(folder), PROMPTS[:1]), _encode(families["dev"], PROMPTS[:1]))


def test_weights_in_pieces(families: dict[str, Flux2], build: Callable[..., Flux2], copy: Callable[[str], Path]) -> None:
    folder = copy("klein")
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    pieces = {"model-00001-of-00002.safetensors": names[:100], "model-00002-of-00002.safetensors": names[100:]}
    for piece, held in pieces.items():
        save_file({name: tensors[name] for name in held}, folder / "text_encoder" / piece, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: piece for piece, held in pieces.items() for name in held}}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / WEIGHTS).unlink()
    assert torch.equal(_encode(build(folder), PROMPTS[:1]), _encode(families["klein"], PROMPTS[:1]))


def _write_older(config: dict[str, Any]) -> None:
    """As transformers 4 wrote configurations, which is how the published ones are."""
    text = config.get("text_config", config)
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    text["torch_dtype"] = text.pop("dtype", "float32")
    del text["rms_norm_eps"]  # left out where it is the library's default
    text["transformers_version"] = "4.57.1"


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_a_configuration_of_transformers_4(
    families: dict[str, Flux2], build: Callable[..., Flux2], copy: Callable[[str], Path], kind: str
) -> None:
    folder = copy(kind)
    _edit(folder / "text_encoder" / "config.json", _write_older)
    assert torch.equal(_encode(build(folder), PROMPTS[:1]), _encode(families[kind], PROMPTS[:1]))


def test_the_tokenizer_of_dev_as_it_is_published(
    families: dict[str, Flux2], build: Callable[..., Flux2], copy: Callable[[str], Path]
) -> None:
    """Inside the folder of a processor that this machine cannot build, under the name of a class that would split otherwise."""
    folder = copy("dev")
    published = {"tokenizer_class": "LlamaTokenizerFast", "processor_class": "PixtralProcessor"}
    _edit(folder / "tokenizer" / "tokenizer_config.json", lambda config: config.update(published))
    processor = {"processor_class": "PixtralProcessor", "image_token": "[IMG]", "patch_size": 14, "spatial_merge_size": 2}
    (folder / "tokenizer" / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    image_processor = {"image_processor_type": "PixtralImageProcessor", "processor_class": "PixtralProcessor"}
    (folder / "tokenizer" / "preprocessor_config.json").write_text(json.dumps(image_processor), encoding="utf-8")
    assert torch.equal(_encode(build(folder), PROMPTS), _encode(families["dev"], PROMPTS))


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_a_tokenizer_without_its_template_is_refused(build: Callable[..., Flux2], copy: Callable[[str], Path], kind: str) -> None:
    folder = copy(kind)
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        _load(build(folder))


def test_a_tokenizer_that_cannot_pad_is_refused(build: Callable[..., Flux2], copy: Callable[[str], Path]) -> None:
    folder = copy("dev")
    _edit(folder / "tokenizer" / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    with pytest.raises(ModelError, match="no padding token"):
        _load(build(folder))


def test_an_encoder_of_another_kind_is_refused(build: Callable[..., Flux2], models: dict[str, Path], copy: Callable[[str], Path]) -> None:
    folder = copy("dev")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(models["klein"] / "text_encoder", folder / "text_encoder")
    with pytest.raises(ModelError, match="qwen3"):
        build(folder)


def test_an_encoder_with_too_few_layers_is_refused(build: Callable[..., Flux2], copy: Callable[[str], Path]) -> None:
    folder = copy("klein")
    _edit(folder / "text_encoder" / "config.json", lambda config: config.update(num_hidden_layers=26))
    with pytest.raises(ModelError) as caught:
        build(folder)
    assert "num_hidden_layers = 26" in str(caught.value)
    assert "at least 27 layers" in str(caught.value)


def test_a_configuration_that_makes_no_sense_is_refused(build: Callable[..., Flux2], copy: Callable[[str], Path]) -> None:
    folder = copy("klein")
    _edit(folder / "text_encoder" / "config.json", lambda config: config.update(rms_norm_eps="small"))
    with pytest.raises(ModelError, match="configuration of the text encoder") as caught:
        _load(build(folder))
    assert "rms_norm_eps" in str(caught.value)


@pytest.mark.parametrize("lost", ["layers.3.self_attn.q_proj.weight", "layers.27.mlp.up_proj.weight", "norm.weight"])
def test_weights_that_lack_something_are_refused(build: Callable[..., Flux2], copy: Callable[[str], Path], lost: str) -> None:
    folder = copy("klein")
    tensors = load_file(folder / WEIGHTS)
    del tensors[f"model.{lost}"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        _load(build(folder))
    assert f"1 tensors are missing: {lost}" in str(caught.value)


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_the_limit_counts_the_template_too(families: dict[str, Flux2], kind: str) -> None:
    family = families[kind]
    limit, encoder = family.text_limits[family.text_parts[0]](), _load(family)
    assert limit.most_tokens == 512
    assert limit.count(PROMPTS[:2]) == encoder.read_mask(PROMPTS[:2]).sum(dim=1).tolist()
    assert limit.count(PROMPTS[2:3])[0] > 512 == encoder.read_mask(PROMPTS[2:3]).sum()
