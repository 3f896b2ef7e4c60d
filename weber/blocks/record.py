"""What a computation does, as a list of PyTorch's operations that can be done again into the same memory, without Python between them.

An operation that makes a tensor is done again by its variant that writes into one; views are not done again at all. What depends on
numbers that only a device knows, or on chance, cannot be done again so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from weber.kernels.library import PLAIN

_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_COPIES = ("_to_copy", "clone")
_ATTENTION = "_scaled_dot_product"
"""Of operations that would draw numbers if blocks asked for dropout; none does."""

_SIMPLE = ("mm", "addmm", "bmm", "baddbmm", "mul", "add", "sub", "div", "addcmul", "cat", "stack", "rsqrt", "square", "tanh")
_QUICK: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in _SIMPLE},
    "linalg_vector_norm": torch.linalg.vector_norm,
    "gelu": torch._C._nn.gelu,
    "silu": torch._C._nn.silu,
}
"""Functions that do an operation, with `out`, in half of the time that a call by its name takes."""


class UnrecordableError(Exception):
    """An operation that cannot be done again."""


@dataclass(frozen=True)
class Call:
    """An operation as it was called. `made`: what it made, each a tensor of its own memory or of that of an argument."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """Without its variant."""
        name: str = self.operation._schema.name
        return name.split("::")[1]

    @cached_property
    def is_pure(self) -> bool:
        """Whether it makes new tensors, the same of the same arguments."""
        if self.operation._schema.is_mutable or self.name in _ALLOCATIONS or self.is_random or not self.made:
            return False
        given = {find_memory(one) for one in self.list_given()}
        return not any(find_memory(one) in given for one in self.made)

    @property
    def is_random(self) -> bool:
        """Whether it draws numbers."""
        return torch.Tag.nondeterministic_seeded in self.operation.tags and not self.name.startswith(_ATTENTION)

    def list_given(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [one for one in tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor)]

    def list_written(self) -> list[Tensor]:
        """Those that it writes into."""
        schema = self.operation._schema
        if not schema.is_mutable:
            return []
        names = [one.name for one in schema.arguments if one.alias_info is not None and one.alias_info.is_write]
        given = {one.name: value for one, value in zip(schema.arguments, self.args, strict=False)} | self.kwargs
        return [one for name in names for one in tree_leaves(given.get(name)) if isinstance(one, Tensor)]


class Recorder(TorchDispatchMode):
    """While it is on, what this thread computes is listed in `calls`; operations of `weber/kernels` as what their references do.

    For tensors that were made meanwhile stand others without memory, so that recording needs no more of it than computing. What is made
    of `constants` alone, tensors that never change, and is not large, is a constant too, and is not listed.
    """

    def __init__(self, constants: Iterable[Tensor], *, most_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._constants, self._most_bytes = set(map(find_memory, constants)), most_bytes
        self._outside: list[Tensor] = []
        self._known = set[int]()
        self._made: dict[int, tuple[StorageWeakRef, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        kwargs = kwargs or {}
        if operation in PLAIN:
            with self:
                return PLAIN[operation](*args, **kwargs)
        result = operation(*args, **kwargs)
        made = tuple(one for one in tree_leaves(result) if isinstance(one, Tensor))
        call = Call(operation, args, kwargs, made)
        if not self._constants.isdisjoint(map(find_memory, call.list_written())):
            raise UnrecordableError("a constant that is written")
        given = set(map(find_memory, call.list_given()))
        if call.is_pure and given and given <= self._constants and sum(one.nbytes for one in made) <= self._most_bytes:
            self._constants.update(map(find_memory, made))
            self._outside += made
            self._known.update(map(find_memory, made))
            return result
        own_args, own_kwargs = tree_map_only(Tensor, self.hold, (args, kwargs))
        for one in made:
            memory = one.untyped_storage()
            if memory._cdata not in self._known:
                self._known.add(memory._cdata)
                stand_in = torch.empty(memory.nbytes(), dtype=torch.uint8, device="meta").untyped_storage()
                self._made[memory._cdata] = StorageWeakRef(memory), stand_in  # type: ignore[no-untyped-call]
        self.calls.append(Call(operation, own_args, own_kwargs, tuple(map(self.hold, made))))
        return result

    def take(self) -> list[Call]:
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def hold(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor; itself, if it was there before."""
        memory = find_memory(tensor)
        if memory not in self._made:
            if memory not in self._known:
                self._known.add(memory)
                self._outside.append(tensor)
            return tensor
        stand_in = torch.empty(0, dtype=tensor.dtype, device="meta")
        stand_in.set_(self._made[memory][1], tensor.storage_offset(), tensor.shape, tensor.stride())
        return stand_in.conj() if tensor.is_conj() else stand_in


@dataclass(frozen=True)
class Step:
    """A call to be made again. `copies` take what it makes, where it does not write into what it is given."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    copies: tuple[Tensor, ...] = ()

    def list_tensors(self) -> Iterator[Tensor]:
        """All that it reads and writes."""
        yield from (one for one in tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor))
        yield from self.copies


def find_memory(tensor: Tensor) -> int:
    """The same number for tensors of the same memory."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def find_made(calls: Sequence[Call]) -> set[int]:
    """The memory that was not there before."""
    seen, made = set[int](), set[int]()
    for call in calls:
        seen.update(map(find_memory, call.list_given()))
        made.update(memory for memory in map(find_memory, call.made) if memory not in seen)
        seen.update(map(find_memory, call.made))
    return made


def build_steps(calls: Sequence[Call]) -> list[Step]:
    """Raises UnrecordableError."""
    return [step for step in map(_build_step, calls) if step is not None]


def _build_step(call: Call) -> Step | None:
    operation, name = call.operation, call.name
    is_unseen = not call.made and bool(call.list_given()) and not operation._schema.is_mutable
    if call.is_random or is_unseen or torch.Tag.inplace_view in operation.tags:
        raise UnrecordableError(name)
    if operation._schema.is_mutable:
        return Step(_find_quick(operation, name), _wrap_numbers(call), call.kwargs)
    if not call.is_pure:
        return None
    if name in _COPIES:
        return Step(Tensor.copy_, (call.made[0], call.args[0]), {})
    variant, outs = _find_variant(operation)
    if variant is None or len(outs) != len(call.made):
        return Step(operation, call.args, call.kwargs, call.made)
    kwargs = call.kwargs | dict(zip(outs, call.made, strict=True))
    return Step(_find_quick(variant, name), _wrap_numbers(call), kwargs)


def _find_quick(operation: Any, name: str) -> Callable[..., Any]:
    """What calls an operation that writes into its arguments."""
    if any(one.name == "out" for one in operation._schema.arguments):
        return _QUICK.get(name, operation)  # type: ignore[no-any-return]
    return getattr(Tensor, name, operation) if name.endswith("_") else operation  # type: ignore[no-any-return]


def _wrap_numbers(call: Call) -> tuple[Any, ...]:
    """The arguments, with tensors for numbers that stand in the place of tensors: PyTorch would wrap them whenever it is called."""
    first = call.args[0] if call.args else None
    if not isinstance(first, Tensor) or first.ndim == 0 or not (first.is_floating_point() or first.is_complex()):
        return call.args
    is_tensor = [str(one.type) == "Tensor" for one in call.operation._schema.arguments]
    return tuple(
        torch.tensor(one, dtype=torch.float64) if takes and isinstance(one, int | float) else one
        for one, takes in zip(call.args, is_tensor, strict=False)
    )


@cache
def _find_variant(operation: Any) -> tuple[Any, tuple[str, ...]]:
    """The variant of an operation that writes into tensors which it is given, and their names; None where there is none.

    Those that were made of the others by a program make a tensor and copy it.
    """
    wanted = [(one.name, str(one.type)) for one in operation._schema.arguments]
    for name in operation.overloadpacket.overloads():
        variant = getattr(operation.overloadpacket, name)
        arguments = variant._schema.arguments
        outs = tuple(one.name for one in arguments if one.is_out)
        is_real = torch.Tag.generated not in variant.tags
        if is_real and outs and [(one.name, str(one.type)) for one in arguments if not one.is_out] == wanted:
            return variant, outs
    return None, ()
