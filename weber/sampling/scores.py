"""What features say of painted pictures: do they fit their prompts, how near are they to pictures that are learned, and is one a copy?

Legend: N painted pictures, M pictures that are learned, D features; rows have length 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch
from torch import Tensor

CLIP, CLIP_LEAST, CLIP_MOST, CLIP_DEVIATION = "clip", "clip/least", "clip/most", "clip/deviation"
"""100 x the cosine of picture and prompt: the mean over the pictures, and how it varies. No other convention is used."""

LEARNED, PAINTED, NEAREST = "likeness/learned", "likeness/painted", "likeness/nearest"
"""Mean cosines: of painted pictures and those that are learned, of painted pictures among each other, and the largest of all with a picture
that is learned."""

_COPY_SHARE = 0.25
"""A painted picture is a copy if it is nearer to one that is learned than this share of the way from that to its own neighbor."""
_FEWEST = 3


@dataclass(frozen=True)
class Nearest:
    """For a painted picture: the place of the nearest one that is learned, their cosine, and whether it is a copy of that."""

    place: int
    cosine: float
    is_copy: bool


def measure_fit(pictures_ND: Tensor, texts_ND: Tensor) -> dict[str, float]:
    """How well each picture fits its prompt (Radford et al., 2021; the cosine, neither clamped nor scaled but by 100)."""
    scores = (100 * (pictures_ND * texts_ND).sum(1)).tolist()
    return {CLIP: fmean(scores), CLIP_LEAST: min(scores), CLIP_MOST: max(scores), CLIP_DEVIATION: pstdev(scores)}


def measure_likeness(painted_ND: Tensor, learned_MD: Tensor) -> dict[str, float]:
    """Likeness to what is learned (DreamBooth's CLIP-I or DINO, by the features), and among the painted."""
    cosines_NM = painted_ND @ learned_MD.T
    numbers = {LEARNED: float(cosines_NM.mean()), NEAREST: float(cosines_NM.max())}
    count = len(painted_ND)
    if count > 1:
        numbers[PAINTED] = float(((painted_ND @ painted_ND.T).sum() - count) / (count * (count - 1)))
    return numbers


def find_nearest(painted_ND: Tensor, learned_MD: Tensor) -> list[Nearest]:
    """For each painted picture. With fewer than three pictures that are learned nothing tells a copy from what is usual."""
    cosines_NM = painted_ND @ learned_MD.T
    found = []
    for cosine, place in zip(*(tensor.tolist() for tensor in cosines_NM.max(1)), strict=True):
        found.append(Nearest(place, cosine, _is_copy(cosine, _find_neighbor(learned_MD, place))))
    return found


def _find_neighbor(learned_MD: Tensor, place: int) -> float | None:
    """The cosine of a picture that is learned with its nearest neighbor among them, equal ones apart."""
    cosines_M = learned_MD @ learned_MD[place]
    others = [cosine for number, cosine in enumerate(cosines_M.tolist()) if number != place and cosine < 1 - 1e-4]
    return max(others) if len(others) >= _FEWEST - 1 else None


def _is_copy(cosine: float, neighbor: float | None) -> bool:
    return neighbor is not None and _measure_way(cosine) < _COPY_SHARE * _measure_way(neighbor)


def _measure_way(cosine: float) -> float:
    """The distance of two rows of length 1."""
    return math.sqrt(max(0.0, 2 - 2 * cosine))


def normalize(rows: Sequence[Tensor] | Tensor) -> Tensor:
    """Rows (N, D) fp32 of length 1."""
    stacked = rows if isinstance(rows, Tensor) else torch.stack(list(rows))
    return torch.nn.functional.normalize(stacked.float(), dim=1)
