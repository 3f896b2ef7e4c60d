"""What features say of pictures: plain geometry, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from weber.sampling.scores import (
    CLIP,
    CLIP_DEVIATION,
    CLIP_LEAST,
    CLIP_MOST,
    LEARNED,
    NEAREST,
    PAINTED,
    find_nearest,
    measure_fit,
    measure_likeness,
    normalize,
)


def _at(*degrees: float) -> torch.Tensor:
    """Rows of length 1 in a plane, by their angles."""
    return torch.tensor([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees])


def test_the_fit_is_a_hundred_cosines() -> None:
    numbers = measure_fit(_at(0, 0, 0), _at(60, 90, 120))
    assert numbers[CLIP] == pytest.approx(0, abs=1e-4)
    assert (numbers[CLIP_LEAST], numbers[CLIP_MOST]) == (pytest.approx(-50, abs=1e-4), pytest.approx(50, abs=1e-4))
    assert numbers[CLIP_DEVIATION] == pytest.approx(50 * math.sqrt(2 / 3), abs=1e-4)


def test_likeness_to_what_is_learned_and_to_each_other() -> None:
    numbers = measure_likeness(_at(0, 60), _at(0, 90))
    learned = [1, 0, 0.5, math.cos(math.radians(30))]
    assert numbers[LEARNED] == pytest.approx(sum(learned) / 4, abs=1e-6)
    assert numbers[NEAREST] == pytest.approx(1, abs=1e-6) and numbers[PAINTED] == pytest.approx(0.5, abs=1e-6)
    assert PAINTED not in measure_likeness(_at(0), _at(0, 90))


@pytest.mark.parametrize(
    ("angle", "is_copy"),
    [(0, True), (4, True), (6, False), (45, False)],  # neighbors are 20 degrees apart, and a quarter of that is 5
)
def test_a_copy_is_far_nearer_than_neighbors_are(angle: float, is_copy: bool) -> None:
    learned = _at(0, 20, 40, 180)
    (found,) = find_nearest(_at(-angle), learned)
    assert found.place == 0 and found.is_copy == is_copy


def test_pictures_that_are_there_twice_are_no_neighbors() -> None:
    (found,) = find_nearest(_at(15), _at(0, 0, 40, 80))
    assert not found.is_copy
    (found,) = find_nearest(_at(1), _at(0, 0, 40, 80))
    assert found.is_copy


def test_two_pictures_tell_nothing() -> None:
    assert not any(one.is_copy for one in find_nearest(_at(0, 90), _at(0, 90)))


def test_rows_have_length_one() -> None:
    rows = normalize([torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])])
    assert torch.equal(rows, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
