"""Blocks of small networks on CPUs: forward and backward pass as two lists of PyTorch's operations over memory that stays where it is.

Where an operation takes a few microseconds, finding out which one is next, with which views of which tensors, takes as long. So what a
block does is recorded once for each layout of its inputs and then done again, as a CUDA graph is: every bit is as it was (tests/blocks/
test_replay.py). It is for plain steps alone: where something else is to see what is computed or kept (checkpointing, offloading, counters)
and where tensors are so large that it saves nothing, blocks run as they are written.

What the backward pass reads lies in memory of the block's own until the next step, everything else where all blocks have it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.blocks.layout import Layout
from weber.blocks.record import Recorder, UnrecordableError, find_memory

Compute = Callable[..., Any]

_MOST_BYTES = 2**20
"""Of all inputs of a block. Larger ones are not worth it: there products and attention are nearly all of the time."""

_RECORDED_TIMES = 33
"""So many times its inputs is what it takes to record a block and run it again, beside what running it takes."""

_MOST_TIMES = 8
"""So many times its largest input is what a block may keep of one operation rather than do it again."""

_NUM_LAYOUTS = 4  # for which a block keeps what it recorded
_NUM_MOVES = 2  # of a block's weights, after which it is not recorded again


def count_recorded_bytes(input_bytes: int) -> int:
    """What recording takes in a step whose blocks are given so much at most."""
    return _RECORDED_TIMES * input_bytes if input_bytes <= _MOST_BYTES else 0


class Replays:
    """What was recorded of a block. `tensors`: all that it may read beside its inputs, and what of it learns."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._graphs: dict[object, _Graph | None] = {}
        self._places: list[tuple[int, int]] = []
        self._moves = 0

    def run(self, compute: Compute, inputs: Sequence[Tensor]) -> Any:
        """What `compute` makes of the inputs."""
        graph = self._find(compute, inputs) if is_replayable(inputs) else None
        if graph is None or graph.is_partial or graph.is_busy():
            return compute(*inputs)
        outputs: tuple[Tensor, ...] = _Replayed.apply(graph, compute, *inputs, *graph.learning)  # type: ignore[no-untyped-call]
        return outputs if graph.is_tuple else outputs[0]

    def _find(self, compute: Compute, inputs: Sequence[Tensor]) -> _Graph | None:
        """None where a layout is new: it may never be seen again."""
        places = [(one.data_ptr(), 0 if one.requires_grad else one._version) for one in self._tensors]
        if places != self._places:
            self._graphs.clear()
            self._moves += bool(self._places)
            self._places = places
        if self._moves > _NUM_MOVES:
            return None
        key = tuple((one.shape, one.stride(), one.dtype, one.requires_grad) for one in inputs), tuple(
            one.requires_grad for one in self._tensors
        )
        if key not in self._graphs:
            if len(self._graphs) == _NUM_LAYOUTS:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = None
            return None
        graph = self._graphs[key]
        if graph is None:
            try:
                learning = [one for one in self._tensors if one.requires_grad]
                constants = [one for one in self._tensors if not one.requires_grad]
                graph = self._graphs[key] = _Graph(compute, inputs, learning=learning, constants=constants)
            except UnrecordableError:
                self._moves = _NUM_MOVES + 1
        return graph


def is_replayable(inputs: Sequence[Tensor]) -> bool:
    """Whether nobody else has to see what is computed from these inputs, and what is kept."""
    if not torch.is_grad_enabled() or any(type(one) is not Tensor or one.device.type != "cpu" for one in inputs):
        return False
    is_watched = (
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        or torch.is_anomaly_enabled()
        or torch.is_autocast_enabled("cpu")
    )
    return not is_watched and sum(one.nbytes for one in inputs) <= _MOST_BYTES


class _Token:
    """Stands for a forward pass whose backward pass is to come."""


class _Graph:
    """A block's forward and backward pass for inputs of one layout. `learning`: what gets gradients beside the inputs; `constants`: what
    does not change.

    `is_partial`: not everything that comes out of the block is used, so that not all gradients are there.
    """

    def __init__(self, compute: Compute, inputs: Sequence[Tensor], *, learning: Sequence[Tensor], constants: Sequence[Tensor]) -> None:
        """Raises UnrecordableError."""
        self.learning, self.is_partial = list(learning), False
        most_bytes = _MOST_TIMES * max(one.nbytes for one in inputs)
        own = [_build_same(one).requires_grad_(one.requires_grad) for one in inputs]
        recorder = Recorder(constants, most_bytes=most_bytes)
        with recorder:
            made = compute(*own)
        ahead, self.is_tuple = recorder.take(), isinstance(made, tuple)
        made = made if self.is_tuple else (made,)
        if not all(one.requires_grad for one in made):
            raise UnrecordableError("an output without gradient")
        outputs, self._grads = [recorder.hold(one) for one in made], [torch.zeros_like(one.detach()) for one in made]
        leaves = [one for one in own if one.requires_grad] + self.learning
        with recorder:
            found = torch.autograd.grad(made, leaves, self._grads, allow_unused=True)
        grads = [None if one is None else recorder.hold(one) for one in found]
        del made, found
        of_inputs, of_own = [grads.pop(0) if one.requires_grad else None for one in own], grads
        layout = Layout(
            ahead,
            recorder.take(),
            outputs=outputs,
            input_grads=[one for one in of_inputs if one is not None],
            own_grads=[one for one in of_own if one is not None],
            most_bytes=most_bytes,
        )
        self._ahead, self._back, self._memory, self._scratch = layout.ahead, layout.back, layout.grads, layout.scratch
        self._inputs, self._outputs = [one.detach() for one in own], [layout.move(one) for one in outputs]
        self._input_grads = [None if one is None else layout.move(one) for one in of_inputs]
        self._own_grads = [None if one is None else layout.move(one) for one in of_own]
        self._num_uses: int | None = None
        self._token: weakref.ref[_Token] | None = None

    def is_busy(self) -> bool:
        """Whether a backward pass is still to come."""
        return self._token is not None and self._token() is not None

    def run(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], _Token]:
        """What the block makes of the inputs, and what is to be kept until the backward pass."""
        for own, one in zip(self._inputs, inputs, strict=False):
            own.copy_(one)
        for call in self._ahead:
            call()
        token = _Token()
        self._token = weakref.ref(token)
        return [one.clone() for one in self._outputs], token

    def run_back(self, grads: Sequence[Tensor | None], token: _Token, *, compute: Compute) -> list[Tensor | None]:
        """The gradients of inputs and of what learns. `compute`: what was recorded; the graph does not keep it, as it may be kept by that.

        Those of what learns are where they were in the last step, unless somebody still has these.
        """
        assert self._token is not None and self._token() is token, "the backward pass of a block runs once"
        self._token = None
        if any(grad is None for grad in grads):
            return self._run_part(grads, compute)
        with torch._C._AutoDispatchBelowAutograd():
            return self._run_all([grad for grad in grads if grad is not None])

    def _run_part(self, grads: Sequence[Tensor | None], compute: Compute) -> list[Tensor | None]:
        """Of the outputs that were used: the block is run once more as it is written, and from now on always is."""
        self.is_partial = True
        inputs = [own.clone().requires_grad_(grad is not None) for own, grad in zip(self._inputs, self._input_grads, strict=True)]
        with torch.enable_grad():
            outputs = compute(*inputs)
        pairs = [(one, grad) for one, grad in zip(outputs if self.is_tuple else [outputs], grads, strict=True) if grad is not None]
        leaves = [one for one in inputs if one.requires_grad] + self.learning
        found = list(torch.autograd.grad([one for one, _ in pairs], leaves, [grad for _, grad in pairs], allow_unused=True))
        return [found.pop(0) if one.requires_grad else None for one in inputs] + found

    def _run_all(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        num_uses = torch._C._storage_Use_Count(find_memory(self._memory))
        if self._num_uses is None:
            self._num_uses = num_uses
        held = self._memory.clone() if num_uses > self._num_uses else None
        for own, grad in zip(self._grads, grads, strict=True):
            own.copy_(grad)
        for call in self._back:
            call()
        found = [None if one is None else one.clone() for one in self._input_grads]
        if held is None:
            return [*found, *(None if one is None else one.detach() for one in self._own_grads)]
        found += [None if one is None else one.clone() for one in self._own_grads]
        self._memory.copy_(held)
        return found


def _build_same(tensor: Tensor) -> Tensor:
    """What is in a tensor, in memory of its own."""
    if any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        raise UnrecordableError("an input that is expanded")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor.detach())


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: _Graph, compute: Compute, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            outputs, ctx.token = graph.run(tensors)
        ctx.graph, ctx.compute = graph, compute
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.graph.run_back(grads, ctx.token, compute=ctx.compute)
