"""Encoders in fewer bits and in tiles: what they make is theirs alone, and nothing that another made is read in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from weber.cache.encode import Encoders
from weber.cache.store import Store
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import CacheError, ConfigError
from weber.families.family import Family
from weber.families.table import build_family
from weber.memory.formats import FORMATS
from weber.memory.packed import PackedLinear
from weber.planning.encoders import build_encoders, check_encoders
from weber.planning.plan import build_plan, list_keys, list_views
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2
from weber.training.assemble import Encoded, encode_cache
from weber.training.batch import Reader

CPU = torch.device("cpu")
NUM_PICTURES = 12


@pytest.fixture(scope="module")
def families(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    """A tiny model with two text encoders, and one with a language model."""
    folder = tmp_path_factory.mktemp("families")
    paths = {"two": tiny_model, "one": build_random_flux2(folder / "model", "klein-base")}
    return {name: build_family(ModelConfig(path=str(path))) for name, path in paths.items()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Nothing is encoded before a test here."""
    return tmp_path / "cache"


def _build(family: Family, **settings: object) -> Encoders:
    return build_encoders(family, MemoryConfig.model_validate(settings), device=CPU, dtype=torch.float32)


def _encode(config: RunConfig) -> Encoded:
    return encode_cache(build_plan(config), Store(config.output.cache), watcher=build_watcher()[0])


def test_plain_encoders_keep_their_identities(families: dict[str, Family]) -> None:
    for family in families.values():
        encoders = _build(family, quantize="nf4")
        for part in (family.image_part, *family.text_parts):
            assert encoders.identify(part) == family.identify(part)


def test_other_encoders_have_identities_of_their_own(families: dict[str, Family]) -> None:
    family = families["two"]
    encoders = _build(family, quantize_text_encoder="int8", quantize_text_encoder_2="nf4", vae_tiling=True)
    said = {part: encoders.identify(part).removeprefix(family.identify(part)) for part in ("clip", "t5", "vae")}
    assert said == {"clip": "+int8", "t5": "+nf4", "vae": "+tiled512"}


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize(("name", "part", "key"), [
    ("two", "clip", "quantize_text_encoder"),
    ("two", "t5", "quantize_text_encoder_2"),
    ("one", "qwen", "quantize_text_encoder"),
])  # fmt: skip
def test_quantized_text_encoders_are_the_plain_ones_packed(
    name: str, part: str, key: str, precision: str, families: dict[str, Family]
) -> None:
    family = families[name]
    plain, quantized = _build(family).load(part), _build(family, **{key: precision}).load(part)
    packed = {path: one for path, one in quantized.named_modules() if isinstance(one, PackedLinear)}
    layers = {path for path, one in plain.named_modules() if isinstance(one, torch.nn.Linear)}
    assert packed.keys() == layers
    for path, layer in packed.items():
        for leaf, tensor in FORMATS[precision].pack(plain.get_parameter(f"{path}.weight")).items():
            assert torch.equal(layer.get_buffer(leaf), tensor)
    ours, theirs = quantized.state_dict(), plain.state_dict()
    rest = [entry for entry in theirs if entry.removesuffix(".weight") not in layers]
    assert rest and all(torch.equal(ours[entry], theirs[entry]) for entry in rest)
    assert not quantized.training and not any(parameter.requires_grad for parameter in quantized.parameters())
    with torch.no_grad():
        encoded, expected = (family.encode_prompts(part, encoder, ["a red fox"]) for encoder in (quantized, plain))
    if precision == "int8":
        assert all((encoded[one] - expected[one]).norm() < 0.1 * expected[one].norm() for one in expected)
    assert not all(torch.equal(encoded[one], expected[one]) for one in expected)


def test_embeddings_that_layers_share_are_still_shared(families: dict[str, Family]) -> None:
    encoder: Any = _build(families["two"], quantize_text_encoder_2="int8").load("t5")
    assert encoder.text_model.shared.weight is encoder.text_model.encoder.embed_tokens.weight


def test_only_the_part_that_changed_is_encoded_again(build_run: BuildRun) -> None:
    plain, quantized = build_run(), build_run(memory={"quantize_text_encoder_2": "nf4"})
    num_texts = len(build_plan(plain).needs.texts)
    assert _encode(plain) == Encoded(NUM_PICTURES, 2 * num_texts)
    assert _encode(quantized) == Encoded(0, num_texts)
    assert _encode(plain) == _encode(quantized) == Encoded(0, 0)
    assert _encode(build_run(memory={"quantize_text_encoder_2": "int8"})) == Encoded(0, num_texts)
    assert _encode(build_run(memory={"vae_tiling": True})) == Encoded(NUM_PICTURES, 0)
    assert _encode(build_run(memory={"quantize": "nf4", "modulation": "int8"})) == Encoded(0, 0)


def test_what_is_read_is_what_this_encoder_made(build_run: BuildRun) -> None:
    plain, quantized = (build_plan(build_run(memory=memory)) for memory in ({}, {"quantize_text_encoder_2": "int2", "vae_tiling": True}))
    store = Store(plain.config.output.cache)
    encode_cache(plain, store, watcher=build_watcher()[0])
    caption, view = plain.needs.texts[0], list_views(plain)[0]
    with pytest.raises(CacheError):
        Reader(store, quantized.encoders).read_text(caption)
    with pytest.raises(CacheError):
        Reader(store, quantized.encoders).read_latents(view)
    encode_cache(quantized, store, watcher=build_watcher()[0])
    one, other = (Reader(store, plan.encoders).read_text(caption) for plan in (plain, quantized))
    assert torch.equal(one["pooled"], other["pooled"])
    assert not torch.allclose(one["text"], other["text"], atol=0.01)
    shared = list_keys(plain) & list_keys(quantized)
    assert len(shared) == 2 * len(plain.needs.texts)  # of the first text encoder, in two precisions
    assert "to be encoded now: 0 latents and 0 texts" in build_report(quantized)
    third = build_plan(build_run(memory={"quantize_text_encoder": "int8"}))
    assert f"to be encoded now: 0 latents and {len(third.needs.texts)} texts" in build_report(third)


@pytest.mark.parametrize("name", ["one", "two"])
def test_large_pictures_are_encoded_and_decoded_in_tiles(name: str, families: dict[str, Family]) -> None:
    family = families[name]
    plain, tiled = _build(family).load("vae"), _build(family, vae_tiling=True).load("vae")
    small, large = (torch.randn(1, 3, 32, edge, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) for edge in (512, 592))
    with torch.no_grad():
        for pixels, is_same in ((small, True), (large, False)):
            latents = family.encode_images(plain, pixels)["latents"]
            assert latents.shape == family.encode_images(tiled, pixels)["latents"].shape
            assert torch.equal(latents, family.encode_images(tiled, pixels)["latents"]) is is_same
            decoded = family.decode_latents(plain, latents)
            assert decoded.shape == family.decode_latents(tiled, latents).shape == pixels.shape
            assert torch.equal(decoded, family.decode_latents(tiled, latents)) is is_same


def test_a_second_text_encoder_that_is_not_there_is_refused(build_run: BuildRun, families: dict[str, Family]) -> None:
    config = build_run(memory={"quantize_text_encoder_2": "nf4"})
    check_encoders(config, families["two"])
    check_encoders(build_run(memory={"quantize_text_encoder": "nf4"}), families["one"])
    with pytest.raises(ConfigError, match="has one text encoder") as caught:
        check_encoders(config, families["one"])
    assert 'memory.quantize_text_encoder_2 = "nf4"' in str(caught.value)
