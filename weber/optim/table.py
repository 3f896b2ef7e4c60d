"""The optimizers as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from weber.config.optim import OptimConfig
from weber.errors import ConfigError
from weber.optim.codecs import BF16, BLOCKS_8BIT, FP32
from weber.optim.methods import Elementwise, Factored, Method
from weber.optim.rules import write_adamw, write_lion
from weber.optim.stepper import Stepper

Parameters = Sequence[torch.nn.Parameter]

_ADAMW = {"exp_avg": True, "exp_avg_sq": False}
_LION = {"exp_avg": True}
_FP32_ONLY = (torch.float32,)
_FP32_AND_BF16 = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class OptimizerRow:
    """An optimizer: what it is, how it updates one parameter, and in which dtypes parameters may be.

    `build_whole`: the library's own, which is faster, for parameters that move together and whose state is beside them.
    """

    summary: str
    method: Method
    dtypes: tuple[torch.dtype, ...] = _FP32_AND_BF16
    build_whole: Callable[[Parameters, OptimConfig], torch.optim.Optimizer] | None = None

    @property
    def precision(self) -> str:
        """Of the state."""
        return self.method.precision

    def state_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of the state of a parameter, the number of its step included."""
        return 4 + sum(prod(size) * dtype.itemsize for size, dtype in self.method.list_state(shape).values())


def _build_adamw(parameters: Parameters, config: OptimConfig) -> torch.optim.Optimizer:
    assert config.lr is not None, "the resolved config has a learning rate"
    fused = all(parameter.device.type in ("cuda", "cpu", "mps") for parameter in parameters)
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.decays, eps=config.eps, weight_decay=config.weight_decay, fused=fused
    )


OPTIMIZERS = {
    "adamw": OptimizerRow(
        "AdamW, fp32 state, fused kernel where the device has one", Elementwise(write_adamw, _ADAMW, FP32), _FP32_ONLY, _build_adamw
    ),
    "adamw_bf16": OptimizerRow("AdamW, bf16 state with stochastic rounding", Elementwise(write_adamw, _ADAMW, BF16)),
    "adamw_8bit": OptimizerRow("AdamW, state in 8 bits", Elementwise(write_adamw, _ADAMW, BLOCKS_8BIT)),
    "adafactor": OptimizerRow("Adafactor, a row and a column of the second moment", Factored()),
    "lion": OptimizerRow("Lion, one fp32 moment", Elementwise(write_lion, _LION, FP32)),
    "lion_8bit": OptimizerRow("Lion, one moment in 8 bits", Elementwise(write_lion, _LION, BLOCKS_8BIT)),
}


def check_optimizer(config: OptimConfig, dtypes: Iterable[torch.dtype]) -> None:
    """Raise ConfigError where the optimizer that `optim.name` names cannot train parameters of these dtypes."""
    row = OPTIMIZERS[config.name]
    refused = [_name_dtype(dtype) for dtype in dtypes if dtype not in row.dtypes]
    if refused:
        raise ConfigError(
            f'optim.name = "{config.name}" cannot train weights in {refused[0]}: its updates are smaller than half the distance between'
            " two such numbers, and rounding to the nearest would lose them.",
            got=f"weights in {refused[0]}",
            expected=f"weights in {' or '.join(map(_name_dtype, row.dtypes))}",
            fix='set optim.name = "adamw_bf16" or "adamw_8bit", which round stochastically, or adapter.precision = "fp32"',
        )


def build_optimizer(parameters: Parameters, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
    """The optimizer that `optim.name` names: a `Stepper`, or the library's own. Raises ConfigError for dtypes that it cannot train."""
    check_optimizer(config, {parameter.dtype for parameter in parameters})
    row = OPTIMIZERS[config.name]
    if row.build_whole is not None and not config.fused_backward and config.state_on == "device":
        return row.build_whole(parameters, config)
    return Stepper(parameters, row.method, config=config, seed=seed)


def _name_dtype(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype).removeprefix("torch."))
