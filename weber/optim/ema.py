"""A running mean of the trained parameters (Polyak & Juditsky 1992): less noisy than the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from weber.errors import CheckpointError
from weber.optim.methods import PIECE


class Ema:
    """mean <- d mean + (1 - d) parameter after each step, in fp32 on `device`, with d = `decay`.

    With `warmup`, d = min(decay, (1 + step) / (10 + step)): the small d of the first steps forgets the start, as in diffusers' `EMAModel`
    and TensorFlow's moving averages.
    """

    def __init__(
        self, parameters: Sequence[tuple[str, nn.Parameter]], *, decay: float, device: torch.device, warmup: bool = True
    ) -> None:
        self.decay, self.device, self.warmup = decay, device, warmup
        self._parameters = dict(parameters)
        self._means = {name: parameter.detach().to(device, torch.float32, copy=True) for name, parameter in parameters}

    @torch.no_grad()
    def update(self, step: int, *, is_finite: Tensor | None = None) -> None:
        """Take in the parameters after `step`, counted from 0; not where the flag `is_finite` (on the device) is false."""
        weight = 1 - (min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay)
        for name, mean in self._means.items():
            values = torch.split(self._parameters[name].detach().view(-1), PIECE)
            for piece, value in zip(torch.split(mean.view(-1), PIECE), values, strict=True):
                value = value.to(self.device).float()
                piece.lerp_(value if is_finite is None else torch.where(is_finite, value, piece), weight)

    def list_tensors(self) -> dict[str, Tensor]:
        """The means by the parameters' names, for a checkpoint."""
        return dict(self._means)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `list_tensors` gave. Raises CheckpointError where the names or shapes are others."""
        expected = {name: tuple(mean.shape) for name, mean in self._means.items()}
        got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if got != expected:
            names = sorted(name for name in expected | got if expected.get(name) != got.get(name))
            raise CheckpointError(
                "The checkpoint's mean weights are those of other parameters.",
                got=f"{len(names)} that differ, such as {names[0]}",
                fix="resume with the settings of the run",
            )
        for name, tensor in tensors.items():
            self._means[name].copy_(tensor)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the means; afterwards the trained values again, bit for bit. These wait on `device`."""
        trained = {name: parameter.detach().to(self.device, copy=True) for name, parameter in self._parameters.items()}
        try:
            self._write(self._means)
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])


def count_mean_bytes(num_parameters: int) -> int:
    """Bytes of the running mean of so many numbers: it is kept in fp32."""
    return 4 * num_parameters
