"""Positions of the tokens of FLUX.2. Legend: T text tokens, N image tokens of all pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_REFERENCE_TIME = 10  # ids of the first reference; each further one is as far from the one before


def build_ids(num_text_tokens: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Positions (T + N, 4) of text tokens (0, 0, 0, place) and of the tokens (time, row, column, 0) of pictures of those latent sizes.

    The first picture is the one that is painted, at time 0; references follow at 10, 20, ...
    """
    zero = torch.zeros(1)
    ids = [torch.cartesian_prod(zero, zero, zero, torch.arange(float(num_text_tokens)))]
    for number, (height, width) in enumerate(sizes):
        time = zero + _REFERENCE_TIME * number
        ids.append(torch.cartesian_prod(time, torch.arange(float(height)), torch.arange(float(width)), zero))
    return torch.cat(ids).to(device)
