"""Classifier-free guidance: the network is asked twice, and the answer is pushed away from the negative one.

Ho & Salimans 2022, arXiv:2207.12598; as in the library's pipelines (`true_cfg_scale`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from weber.sampling.euler import Predict


def build_guided(predict: Predict, negative: Mapping[str, Tensor], *, scale: float) -> Predict:
    """v = v(negative) + scale (v(condition) - v(negative)), in the network's precision as the library's samplers do."""

    def predict_guided(noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        toward, away = predict(noisy, t, condition), predict(noisy, t, negative)
        return away + scale * (toward - away)

    return predict_guided
