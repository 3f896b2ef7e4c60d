"""What checkpointed blocks keep for the backward pass, their inputs, in the memory of the host.

Each goes there while the next block computes, and comes back while the block after it goes through its backward pass.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

MIN_BYTES = 2**20
"""Smaller tensors stay: moving them would cost more time than it frees memory."""

Log = list[tuple[str, int]]
"""What was moved, "out" or "in", and how many bytes."""


def build_offload(device: torch.device, *, min_bytes: int = MIN_BYTES, log: Log | None = None) -> AbstractContextManager[object]:
    """A context to be entered around every run of a block by torch's `checkpoint` (not the reentrant one), again and again.

    Tensors that want a gradient are moved: they are the block's own. Those that do not are shared by many blocks, or are the first one's
    inputs. On a CPU they are copied all the same, which is of use to tests only.
    """
    return _Offload(_Host(device, log), min_bytes)


class _Host:
    """Buffers in the memory of the host, used again and again, and the copies to and from them.

    One stream makes all copies, in order. So a buffer is free as soon as the copy out of it has been asked for.
    """

    def __init__(self, device: torch.device, log: Log | None) -> None:
        self._device, self._log = device, log
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._free: dict[int, list[Tensor]] = {}

    def write(self, tensor: Tensor) -> Tensor:
        """A buffer that holds the tensor, from some time on."""
        buffers = self._free.setdefault(tensor.nbytes, [])
        buffer = buffers.pop() if buffers else torch.empty(tensor.nbytes, dtype=torch.uint8, pin_memory=self._stream is not None)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            tensor.record_stream(self._stream)  # it may be freed at once; its memory is not used again before the copy is made
        with self._open_stream():
            buffer.view(tensor.dtype).view(tensor.shape).copy_(tensor, non_blocking=True)
        self._write_down("out", buffer)
        return buffer

    def read(self, buffer: Tensor, *, shape: torch.Size, dtype: torch.dtype) -> tuple[Tensor, torch.cuda.Event | None]:
        """The tensor on the device, and the event after which it is there. The buffer is free."""
        with self._open_stream():
            tensor = torch.empty(shape, dtype=dtype, device=self._device)
            tensor.copy_(buffer.view(dtype).view(shape), non_blocking=True)
        self._free[buffer.nbytes].append(buffer)
        self._write_down("in", buffer)
        return tensor, None if self._stream is None else self._stream.record_event()

    def _open_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _write_down(self, what: str, buffer: Tensor) -> None:
        if self._log is not None:
            self._log.append((what, buffer.nbytes))


class _Moved:
    """A tensor that is on the host, or on its way back, or back."""

    def __init__(self, host: _Host, tensor: Tensor, *, block: _Block) -> None:
        self.block = block
        self._host, self._buffer = host, host.write(tensor)
        self._shape, self._dtype = tensor.shape, tensor.dtype
        self._back: tuple[Tensor, torch.cuda.Event | None] | None = None
        block.moved.append(weakref.ref(self))

    def fetch(self) -> None:
        """Start its way back."""
        if self._back is None:
            self._back = self._host.read(self._buffer, shape=self._shape, dtype=self._dtype)
            del self._buffer

    def read(self) -> Tensor:
        """The tensor, for the current stream."""
        self.fetch()
        assert self._back is not None
        tensor, event = self._back
        if event is not None:
            stream = torch.cuda.current_stream(tensor.device)
            stream.wait_event(event)
            tensor.record_stream(stream)
        return tensor


class _Block:
    """What was moved of one run of a block, and the run before it. Both live as long as the graph holds what was moved."""

    def __init__(self, before: weakref.ref[_Block] | None) -> None:
        self.moved: list[weakref.ref[_Moved]] = []
        self.before = before

    def fetch(self) -> None:
        """Start the way back of all that is still wanted."""
        for reference in self.moved:
            moved = reference()
            if moved is not None:
                moved.fetch()


class _Offload:
    """Hooks for the tensors that autograd saves, as a context that can be entered again and again."""

    def __init__(self, host: _Host, min_bytes: int) -> None:
        self._host, self._min_bytes = host, min_bytes
        self._hooks = saved_tensors_hooks(self._pack, self._unpack)
        self._last: weakref.ref[_Block] | None = None
        self._block: _Block | None = None

    def __enter__(self) -> None:
        self._block = _Block(self._last)
        self._last = weakref.ref(self._block)
        self._hooks.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__(*exception)
        self._block = None

    def _pack(self, tensor: Tensor) -> Tensor | _Moved:
        assert self._block is not None
        if not tensor.requires_grad or tensor.nbytes < self._min_bytes:
            return tensor.detach()
        return _Moved(self._host, tensor.detach(), block=self._block)

    def _unpack(self, packed: Tensor | _Moved) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        packed.block.fetch()
        before = packed.block.before and packed.block.before()
        tensor = packed.read()
        if before:
            before.fetch()
        return tensor
