"""What the text parts make of prompts equals `FluxPipeline.encode_prompt`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from weber.families.flux1.components import Flux1

CPU = torch.device("cpu")
PROMPTS = ["red apple, 3d fluent style", "", "a " + 200 * "very big " + "house", "Ünïcode 😀 zebra\ttab"]


def _encode(family: Flux1, prompts: list[str]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for part in family.text_parts:
            tensors |= family.encode_prompts(part, family.load(part, device=CPU, dtype=torch.float32), prompts)
    return tensors


@pytest.mark.parametrize(("model", "num_tokens"), [("tiny_model", 512), ("tiny_schnell", 256)])
def test_equal_to_the_pipeline(model: str, num_tokens: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(model)
    family: Flux1 = request.getfixturevalue("dev" if model == "tiny_model" else "schnell")
    pipeline = FluxPipeline.from_pretrained(folder, transformer=None, vae=None)
    with torch.no_grad():
        text, pooled, _ = pipeline.encode_prompt(PROMPTS, None, max_sequence_length=num_tokens)
    tensors = _encode(family, PROMPTS)
    assert {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()} == {
        name: shape for part in family.text_parts for name, shape in family.text_shapes(part).items()
    }
    assert tensors["text"].shape == (4, num_tokens, 32)
    assert torch.equal(tensors["text"], text)
    assert torch.equal(tensors["pooled"], pooled)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_tokens_are_those_of_the_pipeline(dev: Flux1, tiny_model: Path, prompt: str) -> None:
    pipeline = FluxPipeline.from_pretrained(tiny_model, transformer=None, vae=None)
    fed: dict[str, list[torch.Tensor]] = {"clip": [], "t5": []}
    with torch.no_grad():
        for part, theirs in (("clip", pipeline.text_encoder), ("t5", pipeline.text_encoder_2)):
            ours = dev.load(part, device=CPU, dtype=torch.float32)
            for encoder in (ours.text_model, theirs):
                encoder.register_forward_pre_hook(lambda module, args, into=fed[part]: into.append(args[0]))
            dev.encode_prompts(part, ours, [prompt])
        pipeline.encode_prompt(prompt, max_sequence_length=512)
    assert all(torch.equal(*ids) for ids in fed.values())
    assert [ids[0].shape for ids in fed.values()] == [(1, 77), (1, 512)]


def test_a_mask_says_which_text_is_read(libre: Flux1, schnell: Flux1) -> None:
    masked, plain = _encode(libre, PROMPTS), _encode(schnell, PROMPTS)
    ids = libre.load("t5", device=CPU, dtype=torch.float32).tokenizer(PROMPTS).input_ids
    assert masked["text_mask"].sum(dim=1).tolist() == [min(512, len(one)) for one in ids]
    assert masked["text_mask"].shape == (4, 512)
    assert (masked["text_mask"].diff(dim=1) <= 0).all()  # text first, then padding
    assert masked["text_mask"][1].sum() == 1  # the empty prompt is its end token
    assert "text_mask" not in plain
    assert masked["text"].shape == (4, 512, 32)


def test_prompts_differ_and_do_not_mix(dev: Flux1) -> None:
    together = _encode(dev, PROMPTS)
    alone = _encode(dev, PROMPTS[:1])
    for name in ("text", "pooled"):
        assert torch.allclose(together[name][:1], alone[name], atol=1e-6)
        assert (together[name][0] - together[name][1]).abs().max() > 1e-3


def test_encoders_are_frozen_and_in_eval_mode(dev: Flux1) -> None:
    for part in ("vae", "clip", "t5"):
        module = dev.load(part, device=CPU, dtype=torch.float32)
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_limit_of_each_part(dev: Flux1) -> None:
    for part, most in (("clip", 77), ("t5", 512)):
        limit = dev.text_limits[part]()
        assert limit.most_tokens == most
        encoder = dev.load(part, device=CPU, dtype=torch.float32)
        # a text that just fits is read as a whole: another last word makes a difference; one that is longer is cut
        counts = limit.count(["red apple", "red apple and a house", "x " * 600])
        assert 2 < counts[0] < counts[1] < most < counts[2]
        num = next(number for number in range(1, 600) if limit.count([f"{'a ' * number}cat"])[0] >= most)
        fitting = [f"{'a ' * number}{word}" for number in (num, num + 2) for word in ("cat", "cow")]
        (states,) = dev.encode_prompts(part, encoder, fitting).values()
        assert limit.count(fitting)[0] == most and limit.count(fitting)[2] > most
        assert not torch.equal(states[0], states[1]) and torch.equal(states[2], states[3])
