"""Classifier-free guidance: the formula, and that a painting with a negative condition uses it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from weber.progress import ignore_progress
from weber.sampling.euler import Painting
from weber.sampling.guidance import build_guided
from weber.sampling.validate import predict_paintings

SHAPE = (2, 4, 4)


def _predict(noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    return condition["word"].view(-1, 1, 1, 1).expand(noisy.shape)


@pytest.mark.parametrize("scale", [1.0, 3.5, 0.0])
def test_the_answer_moves_away_from_the_negative_one(scale: float) -> None:
    guided = build_guided(_predict, {"word": torch.tensor([2.0])}, scale=scale)
    velocity = guided(torch.zeros(1, *SHAPE), torch.ones(1), {"word": torch.tensor([5.0])})
    assert torch.equal(velocity, torch.full((1, *SHAPE), 2.0 + scale * 3.0))


def test_a_painting_with_a_negative_condition_is_guided() -> None:
    word, away = {"word": torch.tensor([5.0])}, {"word": torch.tensor([2.0])}
    plain, guided = predict_paintings(
        _predict,
        [Painting(SHAPE, 1, word), Painting(SHAPE, 1, word, negative=away, cfg=4.0)],
        sigmas=lambda shape: [1.0, 0.0],
        device=torch.device("cpu"),
        progress=ignore_progress,
    )
    assert torch.allclose(plain - guided, torch.full((1, *SHAPE), 14.0 - 5.0), atol=1e-6)
