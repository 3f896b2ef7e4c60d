"""What moves the bytes of blocks: they arrive as they were, files go, errors are told; and on a GPU nothing races.

There is no GPU here, so streams and events are stood in for: each operation knows which others are certain to be before it, and two that
touch the same memory, one of them writing, must be ordered. A copy that forgets to wait for one event fails here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weber.errors import CacheError, TrainingError
from weber.memory import movers
from weber.memory.movers import CudaMover, DiskMover, HostMover, Mover, build_mover
from weber.memory.swap import BlockSwap

if sys.platform != "win32":
    import resource

CPU = torch.device("cpu")
SIZES = (700, 256, 5000)


def draw_blocks() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (size,), dtype=torch.uint8, generator=draw) for size in SIZES]


def fill(mover: Mover, blocks: list[Tensor]) -> list[Tensor | None]:
    """Each in two pieces, the second one first."""
    return [mover.keep(number, [(100, block[100:]), (0, block[:100])], num_bytes=len(block)) for number, block in enumerate(blocks)]


def check_arrivals(mover: Mover, slots: list[Tensor], blocks: list[Tensor]) -> None:
    for block, slot in ((0, 0), (2, 1), (1, 0), (0, 1), (2, 0), (2, 1)):
        mover.start(block, slot)
        mover.wait(slot)
        assert torch.equal(slots[slot][: SIZES[block]], blocks[block])
        mover.free(slot)


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_bytes_arrive(is_on_disk: bool, tmp_path: Path) -> None:
    mover, blocks = build_mover(CPU, folder=tmp_path if is_on_disk else None), draw_blocks()
    kept = fill(mover, blocks)
    slots = mover.allocate(2, max(SIZES))
    assert [slot.shape for slot in slots] == 2 * [(max(SIZES),)]
    check_arrivals(mover, slots, blocks)
    if is_on_disk:
        assert kept == [None, None, None]
    else:
        assert all(one is not None and torch.equal(one, block) for one, block in zip(kept, blocks, strict=True))
    mover.close()


def test_what_comes_back_is_what_was_trained() -> None:
    mover, blocks = HostMover(CPU), draw_blocks()
    kept = fill(mover, blocks)
    slots = mover.allocate(1, max(SIZES))
    mover.start(0, 0)
    slots[0] += 1
    mover.bring_back(0, 0, num_bytes=300)
    assert kept[0] is not None
    assert torch.equal(kept[0][:300], blocks[0][:300] + 1) and torch.equal(kept[0][300:], blocks[0][300:])


def test_blocks_are_read_ahead(tmp_path: Path) -> None:
    """Two that were asked for before either is needed, and one that is replaced before it was used."""
    mover, blocks = build_mover(CPU, folder=tmp_path), draw_blocks()
    fill(mover, blocks)
    slots = mover.allocate(2, max(SIZES))
    mover.start(0, 0)
    mover.start(1, 1)
    mover.start(2, 0)
    mover.settle()
    assert torch.equal(slots[0], blocks[2]) and torch.equal(slots[1][: SIZES[1]], blocks[1])
    mover.close()


def test_files_go(tmp_path: Path) -> None:
    """On POSIX systems they have no name from the start; elsewhere they go when they are closed."""
    folder = tmp_path / "new" / "folder"
    mover = build_mover(CPU, folder=folder)
    fill(mover, draw_blocks())
    assert os.name != "posix" or not list(folder.iterdir())
    mover.close()
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be written") as error:
        build_mover(CPU, folder=tmp_path / "file")
    assert "output.cache" in error.value.fix


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on the size of files")
def test_a_full_disk(tmp_path: Path) -> None:
    mover = build_mover(CPU, folder=tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CacheError, match="cannot be written") as error:
            fill(mover, draw_blocks())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in error.value.got
    mover.close()


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    mover = DiskMover(tmp_path, HostMover(CPU))
    fill(mover, draw_blocks())
    mover.allocate(1, max(SIZES))
    mover._file.truncate(100)
    mover.start(2, 0)
    with pytest.raises(CacheError, match="cannot be read"):
        mover.wait(0)
    mover.close()


class Order:
    """Which operations are certain to be before which, as sets of bits; and what each one touches."""

    def __init__(self) -> None:
        self.touched: dict[int, list[tuple[int, bool]]] = {}
        self.alive: list[Tensor] = []  # memory that was freed and given again would be another's history
        self.threads: dict[int, int] = {}
        self.kinds: list[str] = []
        self.lock = threading.Lock()

    def run(self, kind: str, stream: Stream | None, *, reads: tuple[Tensor, ...] = (), writes: tuple[Tensor, ...] = ()) -> None:
        """An operation on a stream, or on the host. Fails where it could meet another one at the same memory."""
        with self.lock:
            thread = threading.get_ident()
            before = self.threads.get(thread, 0) | (0 if stream is None else stream.before)
            number = len(self.kinds)
            for tensor, is_write in [*((one, False) for one in reads), *((one, True) for one in writes)]:
                seen = self.touched.setdefault(tensor.untyped_storage().data_ptr(), [])
                races = [self.kinds[other] for other, was_write in seen if (is_write or was_write) and not before >> other & 1]
                assert not races, f"{kind} may run at the same time as {races[0]}"
                seen.append((number, is_write))
                self.alive.append(tensor)
            self.kinds.append(kind)
            if stream is None:
                self.threads[thread] = before | 1 << number
            else:
                stream.before = before | 1 << number


class Stream:
    """In the place of a CUDA stream."""

    def __init__(self, order: Order) -> None:
        self.order, self.before = order, 0

    def wait_event(self, event: Event) -> None:
        self.before |= event.before

    def synchronize(self) -> None:
        self.order.threads[threading.get_ident()] = self.order.threads.get(threading.get_ident(), 0) | self.before


class Event(Stream):
    """In the place of a CUDA event."""

    def record(self, stream: Stream) -> None:
        self.before = stream.before


class WatchedMover(CudaMover):
    """Says what computes in the slots: from `wait` to `free`."""

    order: Order
    computing: Stream

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        super().wait(slot, is_written=is_written)
        touched = {"writes" if is_written else "reads": (self._slots[slot],)}
        self.order.run("computing", self.computing, **touched)

    def free(self, slot: int) -> None:
        if self.computing.before:  # not when the slots are made
            self.order.run("computing", self.computing, reads=(self._slots[slot],))
        super().free(slot)


class Runtime:
    """In the place of the CUDA runtime: what is pinned."""

    def __init__(self) -> None:
        self.pinned: dict[int, int] = {}
        self.error = 0

    def cudaHostRegister(self, pointer: int, size: int, flags: int) -> int:
        assert pointer % 4096 == 0 and size % 4096 == 0 and flags == 1
        self.pinned[pointer] = size
        return self.error

    def cudaHostUnregister(self, pointer: int) -> int:
        del self.pinned[pointer]
        return 0


@pytest.fixture
def order() -> Order:
    return Order()


@pytest.fixture
def runtime(order: Order, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A GPU that computes on the CPU, in the order in which it is asked to, and notes in which it might have."""
    runtime, computing = Runtime(), Stream(order)
    active = threading.local()

    @contextmanager
    def stream(one: Stream) -> Iterator[None]:
        active.stream = one
        yield
        active.stream = None

    copy_plainly: Callable[..., Tensor] = Tensor.copy_

    def copy_(target: Tensor, source: Tensor, **settings: Any) -> Tensor:
        one = getattr(active, "stream", None)
        if one is not None or threading.current_thread() is threading.main_thread():
            assert one is None or settings == {"non_blocking": True}
            order.run("a copy", one, reads=(source,), writes=(target,))
        return copy_plainly(target, source, **settings)

    monkeypatch.setattr(movers, "_build_stream", lambda device: Stream(order))
    monkeypatch.setattr(movers, "_build_event", lambda: Event(order))
    monkeypatch.setattr(movers, "_load_runtime", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(Tensor, "copy_", copy_)
    monkeypatch.setattr(WatchedMover, "order", order, raising=False)
    monkeypatch.setattr(WatchedMover, "computing", computing, raising=False)
    return runtime


def learn(mover: Mover, *, is_trained: bool, num_slots: int = 2) -> tuple[list[Tensor], BlockSwap]:
    """Some steps of six layers, of which five are swapped, with passes without gradients between."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(8, 8) for _ in range(6)]
    if not is_trained:
        for layer in layers:
            layer.weight.requires_grad_(False)

    def step_it(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.data.sub_(0.1 * parameter.grad)
        parameter.grad = None

    for layer in layers:
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(step_it)
    swap = BlockSwap(layers, [0, 1, 2, 4, 5], device=CPU, mover=mover, num_slots=num_slots, is_trained=is_trained)
    seen = []
    for step in range(4):
        x = torch.full((3, 8), 0.1 * step)
        with torch.set_grad_enabled(step != 2):
            for layer in layers:
                (x,) = swap.mark(layer, (x,))
                call = partial(swap.call, layer, layer)
                x = checkpoint(call, x, use_reentrant=False) if step != 2 else call(x)
        if step != 2:
            x.square().sum().backward()
        seen.append(x.detach())
    swap.settle()
    return seen + [one.detach().clone() for layer in layers for one in layer.parameters() if one.requires_grad], swap


@pytest.mark.parametrize("num_slots", [1, 2, 3])
@pytest.mark.parametrize("kind", ["lora", "full", "disk"])
def test_nothing_races_on_a_gpu(kind: str, num_slots: int, runtime: Runtime, order: Order, tmp_path: Path, monkeypatch: Any) -> None:
    theirs, _ = learn(HostMover(CPU), is_trained=kind == "full", num_slots=num_slots)
    inner = WatchedMover(CPU)
    mover: Mover = inner
    if kind == "disk":
        mover = DiskMover(tmp_path, inner)
        read = DiskMover._read

        def read_and_note(one: DiskMover, begin: int, target: Tensor) -> None:
            order.run("reading", None, writes=(target,))
            read(one, begin, target)

        monkeypatch.setattr(DiskMover, "_read", read_and_note)
    ours, swap = learn(mover, is_trained=kind == "full", num_slots=num_slots)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    num_backward = 5 if kind == "full" else 4  # the first layer's bias needs nothing to be computed again
    assert order.kinds.count("computing") == 2 * (4 * 5 + 3 * num_backward)
    assert sum(runtime.pinned.values()) == 4096 * (5 if kind != "disk" else 2)
    swap.close()
    assert not runtime.pinned


@pytest.mark.parametrize("forgotten", ["_ready", "_freed", "_returned"])
def test_the_races_would_be_seen(forgotten: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails where one kind of event is not waited for."""
    mover = WatchedMover(CPU)
    wait = Stream.wait_event
    monkeypatch.setattr(Stream, "wait_event", lambda stream, event: None if event in getattr(mover, forgotten) else wait(stream, event))
    with pytest.raises(AssertionError, match="at the same time"):
        learn(mover, is_trained=True)


def test_memory_that_cannot_be_pinned(runtime: Runtime) -> None:
    runtime.error = 2
    with pytest.raises(TrainingError, match="directly") as error:
        fill(CudaMover(CPU), draw_blocks())
    assert "CUDA error 2" in error.value.got
    assert "swap_to" in error.value.fix
