"""How the bytes of swapped blocks get into the slots on the device, and back.

Blocks and slots are numbers here, and a block is one run of bytes. What is asked for is in order: `start` before `wait`, `wait` before any
work with the slot, `free` after it; no call but `settle` and `close` makes the host wait for the device.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from weber.errors import CacheError, TrainingError

Pieces = Iterable[tuple[int, Tensor]]
"""Places in the bytes of a block, and the bytes (uint8) that belong there, on any device."""

_PORTABLE = 1
_NUM_STAGED = 2


class Mover(Protocol):
    """Keeps the bytes of blocks and copies them into slots."""

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> Tensor | None:
        """Take over the bytes of a block; returns them where they are kept in host memory. Raises WeberError where there is no room."""
        ...

    def list_own(self, block: int) -> dict[int, Tensor]:
        """The bytes of a block that are here although it is kept elsewhere, by their places in it: what this process moves."""
        ...

    def allocate(self, num_slots: int, num_bytes: int) -> list[Tensor]:
        """The slots, on the device; called once, when all blocks are kept."""
        ...

    def start(self, block: int, slot: int) -> None:
        """Begin to copy a block into a slot, after the work that `free` knows of and after what was started before."""
        ...

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        """Let the work that follows wait for the slot's bytes; `is_written`: it changes them, so that they must have been brought back."""
        ...

    def free(self, slot: int) -> None:
        """The work so far is the last that needs the slot."""
        ...

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        """Like `free`, and copy the first bytes of the slot into the host's of the block before anything else comes into it."""
        ...

    def settle(self) -> None:
        """Wait for all copies."""
        ...

    def close(self) -> None:
        """Wait for all copies and let go of what was taken from the system. No copies after this."""
        ...


class HostMover:
    """Plain copies from host memory: for devices whose memory is the host's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slots: list[Tensor] = []
        self._kept: dict[int, Tensor] = {}

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> Tensor:
        """See `Mover.keep`."""
        kept = self._build_host_bytes(num_bytes)
        for offset, data in pieces:
            kept[offset : offset + len(data)].copy_(data)
        self._kept[block] = kept
        return kept

    def list_own(self, block: int) -> dict[int, Tensor]:
        """See `Mover.list_own`."""
        return {}

    def allocate(self, num_slots: int, num_bytes: int) -> list[Tensor]:
        """See `Mover.allocate`."""
        self._slots = [torch.empty(num_bytes, dtype=torch.uint8, device=self.device) for _ in range(num_slots)]
        return self._slots

    def start(self, block: int, slot: int) -> None:
        """See `Mover.start`."""
        self._copy(self._kept[block], slot)

    def fill(self, slot: int, read: Callable[[Tensor], None], *, num_bytes: int) -> None:
        """As `start` does, with what `read` writes into the bytes on the host that it is given. Meant for one thread of its own."""
        if self.device.type == "cpu":
            read(self._slots[slot][:num_bytes])
        else:
            staged = torch.empty(num_bytes, dtype=torch.uint8)
            read(staged)
            self._copy(staged, slot)

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        """See `Mover.wait`."""

    def free(self, slot: int) -> None:
        """See `Mover.free`."""

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        """See `Mover.bring_back`."""
        self._kept[block][:num_bytes].copy_(self._slots[slot][:num_bytes])

    def settle(self) -> None:
        """See `Mover.settle`."""

    def close(self) -> None:
        """See `Mover.close`."""

    def _build_host_bytes(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def _copy(self, source: Tensor, slot: int) -> None:
        self._slots[slot][: len(source)].copy_(source)


class CudaMover(HostMover):
    """Copies from pinned host memory beside the computing, on one stream for each direction; events say what waits for what."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._inward, self._outward = _build_stream(device), _build_stream(device)
        self._freed: list[torch.cuda.Event] = []
        self._ready: list[torch.cuda.Event] = []
        self._returned: list[torch.cuda.Event] = []
        self._pinned: list[Tensor] = []
        self._staged: list[tuple[Tensor, torch.cuda.Event]] = []

    def allocate(self, num_slots: int, num_bytes: int) -> list[Tensor]:
        """See `Mover.allocate`."""
        slots = super().allocate(num_slots, num_bytes)
        self._freed, self._ready, self._returned = ([_build_event() for _ in slots] for _ in range(3))
        for slot in range(num_slots):
            self.free(slot)  # the allocator may give memory that work in the queue still reads
        return slots

    def fill(self, slot: int, read: Callable[[Tensor], None], *, num_bytes: int) -> None:
        """See `HostMover.fill`: through pinned buffers that take turns."""
        if not self._staged:
            self._staged = [(self._build_host_bytes(len(self._slots[0])), _build_event()) for _ in range(_NUM_STAGED)]
        buffer, is_sent = self._staged.pop(0)
        is_sent.synchronize()
        read(buffer[:num_bytes])
        self._copy(buffer[:num_bytes], slot)
        is_sent.record(self._inward)
        self._staged.append((buffer, is_sent))

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        """See `Mover.wait`."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self._ready[slot])
        if is_written:
            stream.wait_event(self._returned[slot])

    def free(self, slot: int) -> None:
        """See `Mover.free`."""
        self._freed[slot].record(torch.cuda.current_stream(self.device))

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        """See `Mover.bring_back`."""
        self.free(slot)
        with torch.cuda.stream(self._outward):
            self._outward.wait_event(self._freed[slot])
            self._kept[block][:num_bytes].copy_(self._slots[slot][:num_bytes], non_blocking=True)
            self._returned[slot].record(self._outward)

    def settle(self) -> None:
        """See `Mover.settle`."""
        self._inward.synchronize()
        self._outward.synchronize()

    def close(self) -> None:
        """See `Mover.close`."""
        self.settle()
        while self._pinned:
            _load_runtime().cudaHostUnregister(self._pinned.pop().data_ptr())

    def _build_host_bytes(self, num_bytes: int) -> Tensor:
        """Pinned pages of just this size: PyTorch's own pinned memory comes in powers of two, up to twice as much."""
        size = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = torch.empty(size + mmap.PAGESIZE, dtype=torch.uint8)
        start = -memory.data_ptr() % mmap.PAGESIZE
        pages = memory[start : start + size]
        error = int(_load_runtime().cudaHostRegister(pages.data_ptr(), size, _PORTABLE))
        if error != 0:
            raise TrainingError(
                "The system does not let the GPU read the host's memory directly, as swapped blocks need it.",
                got=f"CUDA error {error} while pinning {size} bytes, after {sum(map(len, self._pinned))}",
                fix='lower memory.swap_blocks, or set memory.swap_to = "disk"; with parallel.offload remove it',
            )
        self._pinned.append(pages)
        return pages[:num_bytes]

    def _copy(self, source: Tensor, slot: int) -> None:
        with torch.cuda.stream(self._inward):
            self._inward.wait_event(self._freed[slot])
            self._inward.wait_event(self._returned[slot])
            self._slots[slot][: len(source)].copy_(source, non_blocking=True)
            self._ready[slot].record(self._inward)


class DiskMover:
    """Blocks in one file, which a thread reads ahead into the slots of `inner`; nothing of them stays in host memory.

    The file is made anew at every start and goes with the process, however that ends. Weights that are trained cannot be kept so.
    """

    def __init__(self, folder: Path, inner: HostMover) -> None:
        """Raises CacheError where `folder` cannot be written to."""
        self._folder, self._inner = folder, inner
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, prefix="swap-")  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise self._explain_unwritten(error) from error
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weber-swap")
        self._reading: dict[int, Future[None]] = {}

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> None:
        """See `Mover.keep`."""
        try:
            for offset, data in pieces:
                self._file.seek(self._end + offset)
                self._file.write(data.cpu().numpy().data)
            self._file.truncate(self._end + num_bytes)
        except OSError as error:
            raise self._explain_unwritten(error) from error
        self._places[block] = self._end, num_bytes
        self._end += -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE

    def list_own(self, block: int) -> dict[int, Tensor]:
        """See `Mover.list_own`."""
        return {}

    def allocate(self, num_slots: int, num_bytes: int) -> list[Tensor]:
        """See `Mover.allocate`."""
        return self._inner.allocate(num_slots, num_bytes)

    def start(self, block: int, slot: int) -> None:
        """See `Mover.start`."""
        begin, num_bytes = self._places[block]
        self._reading[slot] = self._reader.submit(self._inner.fill, slot, partial(self._read, begin), num_bytes=num_bytes)

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        """See `Mover.wait`. Raises CacheError where the disk failed."""
        if slot in self._reading:
            self._reading.pop(slot).result()
        self._inner.wait(slot)

    def free(self, slot: int) -> None:
        """See `Mover.free`."""
        self._inner.free(slot)

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        """Never called: there is nothing on the host to be changed."""
        raise AssertionError("trained blocks are not kept on the disk")

    def settle(self) -> None:
        """See `Mover.settle`."""
        for reading in self._reading.values():
            reading.result()
        self._inner.settle()

    def close(self) -> None:
        """See `Mover.close`."""
        self._reader.shutdown()
        self._inner.close()
        self._file.close()

    def _read(self, begin: int, target: Tensor) -> None:
        try:
            self._file.seek(begin)
            num_read = self._file.readinto(target.numpy().data)
        except OSError as error:
            raise self._explain_unread(str(error)) from error
        if num_read != len(target):
            raise self._explain_unread("its end is missing")

    def _explain_unwritten(self, error: OSError) -> CacheError:
        return CacheError(
            "Swapped blocks cannot be written to the disk.",
            got=f"{error.strerror or error} in {self._folder}",
            fix='make room there, choose another output.cache, or set memory.swap_to = "host"',
        )

    def _explain_unread(self, problem: str) -> CacheError:
        return CacheError(
            "Swapped blocks cannot be read from the disk.",
            got=f"{problem}, in the file that this run wrote to {self._folder}",
            fix='choose another output.cache, or set memory.swap_to = "host"',
        )


def build_host(device: torch.device) -> HostMover:
    """What keeps bytes in host memory for that device."""
    return CudaMover(device) if device.type == "cuda" else HostMover(device)


def build_mover(device: torch.device, *, folder: Path | None = None) -> Mover:
    """What moves blocks to that device from host memory, or from a file in `folder`."""
    inner = build_host(device)
    return inner if folder is None else DiskMover(folder, inner)


def _build_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _build_event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def _load_runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
