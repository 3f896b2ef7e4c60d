"""Copies between host and device for which neither waits: from pinned memory, and in a stream of their own.

Elsewhere than on CUDA there are no streams, and a copy is done when it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, in the order of the current stream; PyTorch keeps the pinned copy until it has been read."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class Fetched:
    """Numbers of a device on their way to the host."""

    def __init__(self, numbers: Tensor) -> None:
        """`numbers` (N,), of any float dtype."""
        self._numbers, self._arrived = numbers, None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            self._arrived = _record(numbers.device)

    def read(self) -> list[float]:
        """The numbers; waits until they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers


class SideStream:
    """Where tensors are made and copied for a device beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside, this thread's work on the device is done in the stream."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """What was made in the stream can be used in the current one from now on."""
        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(current)


def _record(device: torch.device) -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
