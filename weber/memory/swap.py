"""Block swap: some of a network's blocks lie outside of the device, and are copied into one of a few slots before they are needed.

Frozen weights never go back (performance.md 2, "Block swap vs PCIe"). A block computes with its bytes in a slot: in the forward pass and
when it is computed again in the backward pass, from there on until its gradients are done. With every block checkpointed nothing else
ever holds on to a slot. While a block runs, those that are needed next are on their way into the other slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weber.memory.movers import Mover

NUM_SLOTS = 2
ALIGNMENT_BYTES = 256
"""Of every tensor in a slot: what GPUs read fastest, and what kernels may rely on."""


@dataclass(frozen=True)
class Layout:
    """Where the tensors of a block lie in its run of bytes, of which the first `num_trained_bytes` are trained."""

    tensors: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    num_bytes: int
    num_trained_bytes: int


def choose_swapped(num_blocks: int, swap: int | Literal["all"]) -> list[int]:
    """Which blocks are swapped: spread evenly, so that copies have the time in which the others compute."""
    count = num_blocks if swap == "all" else swap
    assert 0 <= count <= num_blocks
    return [(2 * number + 1) * num_blocks // (2 * count) for number in range(count)]


def build_layout(block: nn.Module, *, is_trained: bool = False) -> Layout:
    """The buffers and frozen parameters of a block, and with `is_trained` those that are not frozen; on the meta device too."""
    trained = [parameter for parameter in block.parameters() if parameter.requires_grad and is_trained]
    rest = [*(parameter for parameter in block.parameters() if not parameter.requires_grad), *block.buffers()]
    tensors, offsets, end, trained_end = list[Tensor](), list[int](), 0, 0
    for kind in (trained, rest):
        for run in _list_runs(kind):
            tensors += run
            offsets += accumulate((tensor.nbytes for tensor in run[:-1]), initial=end)
            # At least a byte apart from the next: what is no neighbour is not to become one.
            end = ((offsets[-1] + run[-1].nbytes) // ALIGNMENT_BYTES + 1) * ALIGNMENT_BYTES
        trained_end = end if kind is trained else trained_end
    return Layout(tuple(tensors), tuple(offsets), end, trained_end)


def _list_runs(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors that lie behind each other in memory together, as the weights of joined layers do (`joined.py`): they stay one product."""
    starts = {(tensor.untyped_storage()._cdata, tensor.storage_offset() * tensor.itemsize): tensor for tensor in tensors}
    runs: dict[int, list[Tensor]] = {}
    following = set[int]()
    for (storage, start), tensor in starts.items():
        run, end = [tensor], start + tensor.nbytes
        while (storage, end) in starts and tensor.nbytes:
            run.append(starts[storage, end])
            following.add(id(run[-1]))
            end += run[-1].nbytes
        runs[id(tensor)] = run
    return [run for head, run in runs.items() if head not in following]


def bytes_per_step(sizes: Sequence[int], *, num_slots: int = NUM_SLOTS, trained_sizes: Sequence[int] = ()) -> tuple[int, int]:
    """Bytes copied to the device and back in a training step, from the second one on, where every swapped block learns.

    `sizes` and `trained_sizes` are of the swapped blocks, in order. The forward pass finds the first blocks in the slots, where the
    backward pass or the last picture left them, and the backward pass finds the last ones.
    """
    inward = sum(sizes[num_slots:]) + sum(sizes[:-num_slots])
    return inward, sum(trained_sizes)


class BlockSwap:
    """Runs blocks of which some are swapped; their other parameters, those of adapters, stay on the device.

    What comes next is foreseen from the last pass. Where that is wrong it costs time and nothing else. `bytes_in` and `bytes_back` count
    what was moved. With `is_trained`, parameters that are not frozen are the block's own and move with it: an optimizer has to step each
    as soon as its gradient is there, and whoever else reads or writes them calls `settle` before.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        swapped: Sequence[int],
        *,
        device: torch.device,
        mover: Mover,
        num_slots: int = NUM_SLOTS,
        is_trained: bool = False,
    ) -> None:
        """Takes over the weights of the swapped blocks, wherever they are; those on the meta device later, by `take`."""
        self.is_trained, self.bytes_in, self.bytes_back = is_trained, 0, 0
        self._device, self._mover, self._num_slots = device, mover, min(num_slots, len(swapped))
        self._places = {blocks[number]: place for place, number in enumerate(swapped)}
        self.layouts: dict[int, Layout] = {}
        """Of the swapped blocks, by their order."""
        self._away: dict[int, list[Tensor]] = {}
        self._slots: list[Tensor] = []
        self._views: dict[tuple[int, int], list[Tensor]] = {}
        self._slot_of: dict[int, int] = {}
        self._resident: set[int] = set()
        self._running: int | None = None
        self._is_backward = False
        self._announced: int | None = None
        self._learns = False
        self._route: list[int] = list(self._places.values())
        self._pass: list[int] = []
        self._due: list[int] = []
        for block in self._places:
            if not any(tensor.is_meta for tensor in chain(block.parameters(), block.buffers())):
                self.take(block)

    @property
    def sizes(self) -> list[int]:
        """Bytes of the swapped blocks, in order."""
        return [self.layouts[place].num_bytes for place in self._places.values()]

    def take(self, block: nn.Module) -> None:
        """Take over the weights of a swapped block that was on the meta device. Raises WeberError where there is no room for them.

        What learns in it is known by now: parameters that are added later belong on the device, and none changes between frozen and not.
        """
        place = self._places[block]
        assert place not in self.layouts
        layout = build_layout(block, is_trained=self.is_trained)
        pieces = ((offset, _view_bytes(tensor)) for tensor, offset in zip(layout.tensors, layout.offsets, strict=True))
        kept = self._mover.keep(place, pieces, num_bytes=layout.num_bytes)
        self.layouts[place] = layout
        self._away[place] = self._build_away(layout, self._mover.list_own(place)) if kept is None else _build_views(kept, layout)
        _point(layout, self._away[place])
        for parameter in block.parameters():
            if parameter.requires_grad and not self.is_trained:
                parameter.data = parameter.data.to(self._device)
        if len(self.layouts) == len(self._places):
            self._slots = self._mover.allocate(self._num_slots, max(self.sizes))

    def mark(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Announce a forward pass of a block; to be called outside of its checkpoint, which gets what is returned.

        The inputs are the same, but in the backward pass they tell when the block is done: as soon as their gradients are there.
        """
        place = self._places.get(block)
        if place is None or not torch.is_grad_enabled():
            return inputs
        self._announced = place
        learning = [number for number, one in enumerate(inputs) if isinstance(one, Tensor) and one.requires_grad]
        marked = list(inputs)
        if learning:
            done = _Mark.apply(partial(self._finish_backward, place), *(inputs[number] for number in learning))  # type: ignore[no-untyped-call]
            for number, one in zip(learning, done, strict=True):
                marked[number] = one
        return tuple(marked)

    def call(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        """`call(*inputs)` with the block's weights on the device; to be called inside of its checkpoint, which may call it again."""
        place = self._places.get(block)
        if place is None:
            return call(*inputs)
        is_forward = self._announced == place or not torch.is_grad_enabled()
        self._announced = None
        self.finish()
        self._begin(place, is_forward=is_forward)
        outputs = call(*inputs)
        if is_forward:
            if any(tensor.requires_grad for tensor in _list_tensors(outputs)):
                self._due.append(place)
            self.finish()
        return outputs

    def settle(self, *, forgets: bool = False) -> None:
        """Between steps: bring back all that has changed, and wait for it. Swapped blocks that are trained are all on the host then, where
        they can be read and written until the next pass. With `forgets` all is as before the first one."""
        self.finish()
        self._mover.settle()
        if self.is_trained or forgets:
            for place in list(self._slot_of):
                self._evict(place)
        if forgets:
            self._route, self._pass, self._due = list(self._places.values()), [], []
            self._announced, self._is_backward, self._learns = None, False, False

    def close(self) -> None:
        """Let go of files, threads and pinned memory; no block runs after this."""
        self.settle()
        self._mover.close()

    def _begin(self, place: int, *, is_forward: bool) -> None:
        """Note where in the order of things this is, and have the block in its slot."""
        if self._pass and (not is_forward or place <= self._pass[-1]):
            self._route, self._pass = self._pass, []
        if is_forward:
            self._due = self._due if self._pass else []
            self._pass.append(place)
            self._learns = torch.is_grad_enabled()
        elif place in self._due:
            del self._due[self._due.index(place) :]
        self._running, self._is_backward = place, not is_forward
        self._prefetch()
        slot = self._slot_of[place]
        self._mover.wait(slot, is_written=self._brings_back(place))
        if place not in self._resident:
            if (place, slot) not in self._views:
                _check_frozen(self.layouts[place])
                self._views[place, slot] = _build_views(self._slots[slot], self.layouts[place])
            _point(self.layouts[place], self._views[place, slot])
            self._resident.add(place)

    def finish(self) -> None:
        """The running block is done, if there is one. One that runs in the backward pass is done for certain when another one begins, or
        when the pass has ended."""
        if self._running is None:
            return
        place, slot = self._running, self._slot_of[self._running]
        self._running = None
        if self._brings_back(place):
            num_bytes = self.layouts[place].num_trained_bytes
            self._mover.bring_back(place, slot, num_bytes=num_bytes)
            self.bytes_back += num_bytes
        else:
            self._mover.free(slot)
        self._prefetch()

    def _brings_back(self, place: int) -> bool:
        return self._is_backward and self.layouts[place].num_trained_bytes > 0

    def _finish_backward(self, place: int) -> None:
        if self._running == place and self._is_backward:
            self.finish()

    def _prefetch(self) -> None:
        """Start to copy what is needed next into slots that hold something else."""
        wanted = self._list_next()[: self._num_slots]
        for place in wanted:
            if place not in self._slot_of:
                held = {slot: one for one, slot in self._slot_of.items()}
                slot = next(slot for slot in range(self._num_slots) if held.get(slot) not in wanted)
                slot = place if self._num_slots == len(self._places) else slot
                if slot in held:
                    self._evict(held[slot])
                self._slot_of[place] = slot
                self._mover.start(place, slot)
                self.bytes_in += self.layouts[place].num_bytes

    def _list_next(self) -> list[int]:
        """The blocks in the order in which they are probably needed, each once: the running one, the rest of the pass, and what follows.

        After a forward pass that learns come its blocks in reverse, after everything else the next forward pass.
        """
        running = [] if self._running is None else [self._running]
        rest = [] if self._is_backward else [place for place in self._route if place > self._pass[-1]]
        due = self._due[::-1] if self._is_backward or self._learns else []
        return list(dict.fromkeys([*running, *rest, *due, *self._route]))

    def _build_away(self, layout: Layout, own: Mapping[int, Tensor]) -> list[Tensor]:
        """What of a block is there by itself, and stand-ins for the rest."""
        return [
            own[offset].view(tensor.dtype).view(tensor.shape) if offset in own else _build_stand_in(tensor, self._device)
            for tensor, offset in zip(layout.tensors, layout.offsets, strict=True)
        ]

    def _evict(self, place: int) -> None:
        del self._slot_of[place]
        if place in self._resident:
            self._resident.remove(place)
            _point(self.layouts[place], self._away[place])


class _Mark(torch.autograd.Function):
    """Its inputs as they are; calls `done` when their gradients are complete.

    The gradients of a block's weights are complete by then: of what it may run, autograd runs first what the forward pass made last.
    """

    @staticmethod
    def forward(ctx: Any, done: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.done = done
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.done()
        return None, *gradients


def _check_frozen(layout: Layout) -> None:
    """What would be trained and never brought back."""
    rest = (tensor for tensor, offset in zip(layout.tensors, layout.offsets, strict=True) if offset >= layout.num_trained_bytes)
    assert not any(tensor.requires_grad for tensor in rest), "weights of a swapped block learn that were frozen when it was taken over"


def _view_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _build_views(memory: Tensor, layout: Layout) -> list[Tensor]:
    return [
        memory[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, offset in zip(layout.tensors, layout.offsets, strict=True)
    ]


def _build_stand_in(tensor: Tensor, device: torch.device) -> Tensor:
    """Shape and dtype without memory, where there are no bytes: every number is NaN, or all bits are set."""
    return torch.full((tensor.itemsize,), 255, dtype=torch.uint8, device=device).view(tensor.dtype)[0].expand(tensor.shape)


def _point(layout: Layout, views: Iterable[Tensor]) -> None:
    for tensor, view in zip(layout.tensors, views, strict=True):
        tensor.data = view


def _list_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for one in value for tensor in _list_tensors(one)] if isinstance(value, tuple | list) else []
