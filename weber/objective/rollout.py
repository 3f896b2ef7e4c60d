"""Scheduled sampling: the network's own steps as its input, so that it learns to mend its own errors.

Bengio et al. 2015, arXiv:1506.03099; of diffusion models Ning et al. 2023, arXiv:2301.11706.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
