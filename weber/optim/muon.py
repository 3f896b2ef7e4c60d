"""Muon for matrices and AdamW for everything else, at one learning rate."""

from __future__ import annotations

from typing import Any

import torch

from weber.config.optim import OptimConfig
from weber.optim.libraries import Adopted, Groups, build_adopted, build_arguments

MATCHED = "match_rms_adamw"
"""Updates as large as those of AdamW (Liu et al. 2025, arXiv:2502.16982, equation 4), so that rates and weight decay are those of AdamW."""


def build_muon(made: type[torch.optim.Optimizer], groups: Groups, *, config: OptimConfig, seed: int) -> Adopted:
    """Muon (Jordan et al. 2024) for parameters with two dimensions, both factors of adapters too; `betas` and `eps` are AdamW's."""
    matrices, others = _split(groups)
    inner: list[torch.optim.Optimizer] = []
    if matrices:
        arguments = {"adjust_lr_fn": MATCHED} | build_arguments(made, config, without=["betas"])
        inner += build_adopted(made, matrices, arguments=arguments, seed=seed, name=config.name).inner
    if others:
        arguments = build_arguments(torch.optim.AdamW, config.model_copy(update={"options": {}}))
        inner += build_adopted(torch.optim.AdamW, others, arguments=arguments, seed=seed, name=config.name).inner
    return Adopted(inner, seed=seed)


def _split(groups: Groups) -> tuple[Groups, Groups]:
    parts: tuple[Groups, Groups] = ([], [])
    for group in groups:
        for part, is_matrix in zip(parts, (True, False), strict=True):
            chosen: list[Any] = [parameter for parameter in group["params"] if (parameter.ndim == 2) == is_matrix]
            if chosen:
                part.append(group | {"params": chosen})
    return parts
