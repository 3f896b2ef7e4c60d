"""The painter's training: it starts at zero, learns what guidance does, and goes on from a checkpoint as if it had not stopped."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recipes.pocket import painter
from recipes.pocket.captions import CaptionRecipe, Concept, list_words
from recipes.pocket.painter import EncodedArtwork, PainterRecipe, Trainee, build_learning_rate, predict_loss, train_painter

CONCEPTS = [Concept("🍎", "red apple", (), 0.6), Concept("🐸", "frog", (), 5)]
WORDS = list_words(CONCEPTS)
RECIPE = PainterRecipe(learn_steps=3, settle_steps=3, lanes=2, batch=4, warmup_steps=2)


@pytest.fixture(scope="module")
def artwork() -> EncodedArtwork:
    generator = torch.Generator().manual_seed(0)
    latents = {name: torch.randn(4, 16, 4, 4, generator=generator) for name in ("white", "blue")}
    return EncodedArtwork(latents, [CONCEPTS[0], CONCEPTS[0], CONCEPTS[1], CONCEPTS[1]], ["noto", "twemoji"] * 2)


def test_a_new_painter_predicts_zero_and_the_loss_is_that_of_the_target(artwork: EncodedArtwork) -> None:
    trainee = Trainee(WORDS, RECIPE)
    assert 1.5 < predict_loss(trainee, artwork, recipe=RECIPE, step=0).item() < 2.5  # variance of the noise and of the latents
    first, again, other = (predict_loss(trainee, artwork, recipe=RECIPE, step=step).item() for step in (0, 0, 1))
    assert first == again != other


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    learning_rate = build_learning_rate(RECIPE)
    assert [learning_rate(step) / RECIPE.lr for step in range(6)] == pytest.approx([0.5, 1, 1, 1, 2 / 3, 1 / 3])


def test_guidance_moves_the_target_only_while_settling(artwork: EncodedArtwork, monkeypatch: pytest.MonkeyPatch) -> None:
    trainee = Trainee(WORDS, RECIPE)
    losses = []
    for amount in (0.0, 3.0):
        monkeypatch.setattr(painter, "_predict_guidance", lambda trainee, noisy, *rest, amount=amount: torch.full_like(noisy, amount))
        losses.append([predict_loss(trainee, artwork, recipe=RECIPE, step=step).item() for step in (2, 3)])
    (learning, settling), (learning_moved, settling_moved) = losses
    assert learning == learning_moved
    assert settling_moved > settling + 0.5  # a quarter of the batch is asked for 3 more, and the network says 0


def test_guidance_is_the_difference_that_the_caption_makes(artwork: EncodedArtwork) -> None:
    trainee = Trainee(WORDS, RECIPE)
    torch.nn.init.normal_(trainee.working.transformer.proj_out.weight, std=0.1)
    for block in trainee.working.transformer.single_transformer_blocks:
        torch.nn.init.normal_(block.norm.linear.weight, std=0.1)
    noisy, t = torch.randn(3, 16, 4, 4), torch.full((3,), 0.5)
    condition = trainee.painter.encode(["red apple", "red apple", ""], painter.TEXT_TOKENS, spelled=0.0, rng=random.Random(0))
    condition["guidance"] = torch.tensor([1.0, 3.0, 3.0])
    moved = painter._predict_guidance(trainee, noisy, t, condition).abs().amax(dim=(1, 2, 3))
    assert moved[0] == 0 and moved[1] > 1e-3 and moved[2] < 1e-2 * moved[1]


def test_guidance_starts_from_what_the_network_does_without(artwork: EncodedArtwork) -> None:
    trainee = Trainee(WORDS, RECIPE)
    embed = trainee.painter.transformer.time_text_embed
    before = embed.guidance_embedder(embed.time_proj(torch.tensor([1000.0])))
    trainee.start_guidance()
    after = embed.guidance_embedder(embed.time_proj(torch.tensor([1000.0, 2500.0, 4000.0])))
    assert torch.allclose(after, before.expand(3, -1), atol=1e-6)


def test_an_interrupted_training_ends_at_the_same_weights(artwork: EncodedArtwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_painter(artwork, WORDS, folder=tmp_path / "whole", recipe=RECIPE)
    monkeypatch.setattr(painter, "report", lambda *words, **numbers: None)
    taken = []

    class Stop(Exception):
        pass

    def predict(*arguments: Any, step: int, **more: Any) -> Tensor:
        taken.append(step)
        if taken.count(4) == 1 and step == 4:
            raise Stop
        return predict_loss(*arguments, step=step, **more)

    monkeypatch.setattr(painter, "predict_loss", predict)
    monkeypatch.setattr(painter, "SAVE_EVERY", 2)
    with pytest.raises(Stop):
        train_painter(artwork, WORDS, folder=tmp_path / "cut", recipe=RECIPE)
    cut = train_painter(artwork, WORDS, folder=tmp_path / "cut", recipe=RECIPE)
    assert taken == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5]
    for (name, one), other in zip(whole.named_parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_text_encoders_learn_too(artwork: EncodedArtwork) -> None:
    recipe = dataclasses.replace(RECIPE, captions=CaptionRecipe(empty=0.0))
    trainee = Trainee(WORDS, recipe)
    for step in range(2):
        predict_loss(trainee, artwork, recipe=recipe, step=step).backward()
        trainee.update(1e-3, step)
    predict_loss(trainee, artwork, recipe=recipe, step=2).backward()
    for part in (trainee.painter.clip, trainee.painter.t5):
        assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in part.parameters())


def test_a_checkpoint_of_other_settings_is_not_taken_up(artwork: EncodedArtwork, tmp_path: Path) -> None:
    train_painter(artwork, WORDS, folder=tmp_path, recipe=RECIPE)
    train_painter(artwork, WORDS, folder=tmp_path, recipe=dataclasses.replace(RECIPE, settle_steps=4))
    with pytest.raises(AssertionError, match="was made otherwise.*lr"):
        train_painter(artwork, WORDS, folder=tmp_path, recipe=dataclasses.replace(RECIPE, lr=1e-4))
