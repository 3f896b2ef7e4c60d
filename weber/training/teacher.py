"""Regularization: the model without what is trained is the teacher, and its answers are what the trained one is asked for.

Fresh noise needs a pass of the teacher at each use; with fixed pairs (`planning/lessons.py`) the answers are in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weber.families.family import Predictor
from weber.kinds.kind import Kind


class Teacher:
    """The network as it is without what is trained. All else that takes part in training takes part here too."""

    def __init__(self, predictor: Predictor, kind: Kind) -> None:
        self._predictor, self._kind = predictor, kind

    @torch.no_grad()
    def ask(self, noisy_BCHW: Tensor, t_B: Tensor, *, condition: Mapping[str, Tensor]) -> Tensor:
        """The velocity (B, C, H, W) fp32. Draws nothing: dropout is off. The network is left as it was found."""
        transformer = self._predictor.transformer
        was_training = transformer.training
        transformer.eval()
        self._kind.write_strength(transformer, 0.0)
        try:
            return self._predictor(noisy_BCHW, t_B, condition).float()
        finally:
            self._kind.write_strength(transformer, 1.0)
            transformer.train(was_training)
