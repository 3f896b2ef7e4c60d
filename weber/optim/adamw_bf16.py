"""AdamW whose moments are bf16 and rounded stochastically, so that small changes are kept on average.

Loshchilov & Hutter 2019, arXiv:1711.05101; stochastic rounding as in Zamirai et al. 2020, arXiv:2010.06192.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from weber.data.seeds import build_seed

_LOW_BITS = 1 << 16


class AdamWBf16(torch.optim.Optimizer):
    """AdamW with bf16 moments; fp32 parameters are updated in fp32, bf16 ones with stochastic rounding.

    The random bits of step n derive from (seed, n) alone, so that a resumed run continues bit for bit.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, seed: int
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "weber computes the loss before the step"
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                    state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
                state["step"] += 1
                device = parameter.device
                if device not in generators:
                    generators[device] = torch.Generator(device).manual_seed(build_seed(self.seed, int(state["step"]), "rounding"))
                _update(parameter, state, group, generators[device])


def _update(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], generator: torch.Generator) -> None:
    assert parameter.grad is not None
    beta1, beta2 = group["betas"]
    step = int(state["step"])
    gradient = parameter.grad.float()
    mean = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
    square = state["exp_avg_sq"].float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    write_rounded(state["exp_avg"], mean, generator)
    write_rounded(state["exp_avg_sq"], square, generator)
    denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
    value = parameter.float() * (1 - group["lr"] * group["weight_decay"])
    value.addcdiv_(mean, denominator, value=-group["lr"] / (1 - beta1**step))
    if parameter.dtype == torch.bfloat16:
        write_rounded(parameter, value, generator)
    else:
        parameter.copy_(value)


def write_rounded(target: Tensor, value: Tensor, generator: torch.Generator) -> None:
    """Copy fp32 `value` into bf16 `target`, up or down with the probability that makes it right on average."""
    noise = torch.randint(_LOW_BITS, value.shape, dtype=torch.int32, device=value.device, generator=generator)
    bits = value.contiguous().view(torch.int32) + noise
    target.copy_((bits & -_LOW_BITS).view(torch.float32))
