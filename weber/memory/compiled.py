"""Blocks compiled by PyTorch, each kind of block once: what computes a block, and what it keeps for the backward pass.

What is compiled is the library's forward of a block: the compiler makes few passes over memory of it by itself. Checkpointing is inside,
so that nothing is computed again that the backward pass does not read. Where a block is kept, PyTorch chooses what of it takes the fewest
bytes and needs no product a second time; left to its rules of thumb, it would keep packed weights unpacked. Attention on a CPU, and
cuDNN's, it does not know as costly, and computes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from weber.blocks.attended import Attended, attending
from weber.errors import TrainingError

NUM_CODES = 64
"""The most that is compiled: kinds of blocks, times those that want gradients of their inputs or do not, times sizes where not dynamic."""


class CompiledBlocks:
    """A `Run` that compiles blocks where gradients are wanted; without, they run as they are.

    `mode`: "none", "all", or n for every n-th of `blocks`, as in `build_checkpointing`. `is_dynamic`: inputs will have
    several sizes, and one code is to do for all. Raises TrainingError where a block cannot be compiled.
    """

    def __init__(
        self, mode: str | int, *, blocks: Sequence[nn.Module], is_dynamic: bool, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        every = 1 if mode == "all" else mode
        again = blocks[every - 1 :: every] if isinstance(every, int) else ()
        build = partial(torch.compile, fullgraph=True, dynamic=True if is_dynamic else None, backend=backend)
        self._codes = {**dict.fromkeys(blocks, build(_run)), **dict.fromkeys(again, build(_run_again))}
        self._start = _read_seconds()
        self._kept: dict[nn.Module, int] = {}
        self._seen: set[int] = set()

    @property
    def seconds(self) -> float:
        """What compiling has taken until now."""
        return _read_seconds() - self._start

    @property
    def kept_bytes(self) -> int | None:
        """What the first pass through all blocks has kept for its backward pass, beside weights; None before there was one."""
        return sum(self._kept.values()) if len(self._kept) == len(self._codes) else None

    def __call__(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        """See `Run`. The choice of attention is made around what is compiled, which is then the same for all blocks of a kind."""
        if not torch.is_grad_enabled():
            return call(*inputs)
        if isinstance(call, Attended):
            with attending(call.backend):
                return self(block, call.call, *inputs)
        from torch._dynamo import config as tracing
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
        from torch._functorch import config as keeping

        try:
            with tracing.patch(recompile_limit=NUM_CODES), keeping.patch(aggressive_recomputation=True):
                return self._count(block, call, inputs) if block not in self._kept else self._codes[block](call, *inputs)
        except FailOnRecompileLimitHit as error:
            raise TrainingError(
                f"The blocks of the model have been compiled {NUM_CODES} times, each time for something else.",
                got="memory.compile = true",
                fix="remove memory.compile",
            ) from error
        except TorchDynamoException as error:
            raise TrainingError(
                "PyTorch cannot compile a block of the model.",
                got=f"memory.compile = true: {_find_reason(error)}",
                fix="remove memory.compile",
            ) from error

    def _count(self, block: nn.Module, call: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        """Run it, and note what it keeps that is neither a weight nor kept by a block before it."""
        weights = {_find_place(one) for one in (*block.parameters(), *block.buffers())}
        self._kept[block] = 0

        def see(tensor: Tensor) -> Tensor:
            place = _find_place(tensor)
            if place not in weights and place not in self._seen:
                self._seen.add(place)
                self._kept[block] += tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(see, lambda tensor: tensor):
            outputs = self._codes[block](call, *inputs)
        if self.kept_bytes is not None:
            self._seen.clear()
        return outputs


def _run_again(call: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(call, *inputs, use_reentrant=False, preserve_rng_state=False)


def _run(call: Callable[..., Any], *inputs: Any) -> Any:
    return call(*inputs)


def _find_place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _find_reason(error: Exception) -> str:
    """Its first line."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_seconds() -> float:
    """What compiling has taken in this process."""
    from torch._dynamo.utils import calculate_time_spent

    return calculate_time_spent()["total_wall_time"]
