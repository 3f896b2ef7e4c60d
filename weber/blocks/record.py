"""What a computation does, as a list of PyTorch's operations that can be done again into the same memory, without Python between them.

An operation that makes a tensor is done again by its variant that writes into one; views are not done again at all. What depends on
numbers that only a device knows, or on chance, cannot be done again so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

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
class Traits:
    """What an operation's schema says. `written`: the arguments that it writes into. `takes`: for each argument, whether it is a tensor."""

    name: str
    written: tuple[str, ...]
    names: tuple[str, ...]
    takes: tuple[bool, ...]
    is_mutable: bool
    is_random: bool


@cache
def read_traits(operation: Any) -> Traits:
    """Asked of PyTorch once for each operation: its schemas are slow to read."""
    schema, arguments = operation._schema, operation._schema.arguments
    name: str = schema.name.split("::")[1]
    return Traits(
        name=name,
        written=tuple(one.name for one in arguments if one.alias_info is not None and one.alias_info.is_write),
        names=tuple(one.name for one in arguments),
        takes=tuple(str(one.type) == "Tensor" for one in arguments),
        is_mutable=schema.is_mutable,
        is_random=torch.Tag.nondeterministic_seeded in operation.tags and not name.startswith(_ATTENTION),
    )


@dataclass(frozen=True)
class Call:
    """An operation as it was called. `made`: what it made, each a tensor of its own memory or of that of an argument; `given` and
    `written`: all tensors among the arguments, and those that it writes into. `is_pure`: it makes new tensors, the same of the same
    arguments."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[Tensor, ...]
    given: tuple[Tensor, ...]
    written: tuple[Tensor, ...]
    is_pure: bool

    @property
    def name(self) -> str:
        """Of the operation, without its variant."""
        return read_traits(self.operation).name


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
        self._held = dict[tuple[Any, ...], Tensor]()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        kwargs = kwargs or {}
        if operation in PLAIN:
            with self:
                return PLAIN[operation](*args, **kwargs)
        result, traits = operation(*args, **kwargs), read_traits(operation)
        given, made = _list_tensors((args, kwargs)), _list_tensors(result)
        written = _list_written(traits, args, kwargs) if traits.is_mutable else []
        if not self._constants.isdisjoint(map(find_memory, written)):
            raise UnrecordableError("a constant that is written")
        from_where, to_where = set(map(find_memory, given)), list(map(find_memory, made))
        is_pure = bool(made) and not (traits.is_mutable or traits.is_random or traits.name in _ALLOCATIONS)
        is_pure = is_pure and from_where.isdisjoint(to_where)
        if is_pure and given and from_where <= self._constants and sum(one.nbytes for one in made) <= self._most_bytes:
            self._constants.update(to_where)
            self._outside += made
            self._known.update(to_where)
            return result
        own_args, own_kwargs = swap_tensors((args, kwargs), self.hold)
        for one, where in zip(made, to_where, strict=True):
            if where not in self._known:
                self._known.add(where)
                memory = one.untyped_storage()
                stand_in = torch.empty(memory.nbytes(), dtype=torch.uint8, device="meta").untyped_storage()
                self._made[where] = StorageWeakRef(memory), stand_in  # type: ignore[no-untyped-call]
        held = [tuple(map(self.hold, tensors)) for tensors in (made, given, written)]
        self.calls.append(Call(operation, own_args, own_kwargs, held[0], held[1], held[2], is_pure))
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
        key = memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj()
        if key not in self._held:
            stand_in = torch.empty(0, dtype=tensor.dtype, device="meta")
            stand_in.set_(self._made[memory][1], *key[1:4])
            self._held[key] = stand_in.conj() if tensor.is_conj() else stand_in
        return self._held[key]


@dataclass(frozen=True)
class Step:
    """A call to be made again. `copies` take what it makes, where it does not write into what it is given."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    copies: tuple[Tensor, ...] = ()

    def list_tensors(self) -> list[Tensor]:
        """All that it reads and writes."""
        return [*_list_tensors((self.args, self.kwargs)), *self.copies]


def find_memory(tensor: Tensor) -> int:
    """The same number for tensors of the same memory."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def swap_tensors(value: Any, swap: Callable[[Tensor], Tensor]) -> Any:
    """Arguments with other tensors in the place of theirs. What PyTorch nests are tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return swap(value)
    if isinstance(value, tuple | list):
        return type(value)([swap_tensors(one, swap) for one in value])
    return {name: swap_tensors(one, swap) for name, one in value.items()} if isinstance(value, dict) else value


def _list_tensors(value: Any) -> list[Tensor]:
    """All tensors among arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for one in value for tensor in _list_tensors(one)]


def _list_written(traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    given = dict(zip(traits.names, args, strict=False)) | kwargs
    return _list_tensors([given.get(name) for name in traits.written])


def find_made(calls: Sequence[Call]) -> set[int]:
    """The memory that was not there before."""
    seen, made = set[int](), set[int]()
    for call in calls:
        seen.update(map(find_memory, call.given))
        new = list(map(find_memory, call.made))
        made.update(memory for memory in new if memory not in seen)
        seen.update(new)
    return made


def build_steps(calls: Sequence[Call]) -> list[Step]:
    """Raises UnrecordableError."""
    return [step for step in map(_build_step, calls) if step is not None]


def _build_step(call: Call) -> Step | None:
    operation, traits = call.operation, read_traits(call.operation)
    is_unseen = not call.made and bool(call.given) and not traits.is_mutable
    if traits.is_random or is_unseen or torch.Tag.inplace_view in operation.tags:
        raise UnrecordableError(traits.name)
    if traits.is_mutable:
        return Step(_find_quick(operation, traits.name), _wrap_numbers(call), call.kwargs)
    if not call.is_pure:
        return None
    if traits.name in _COPIES:
        return Step(Tensor.copy_, (call.made[0], call.args[0]), {})
    variant, outs = _find_variant(operation)
    if variant is None or len(outs) != len(call.made):
        return Step(operation, call.args, call.kwargs, call.made)
    kwargs = call.kwargs | dict(zip(outs, call.made, strict=True))
    return Step(_find_quick(variant, traits.name), _wrap_numbers(call), kwargs)


@cache
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
    return tuple(
        torch.tensor(one, dtype=torch.float64) if takes and isinstance(one, int | float) else one
        for one, takes in zip(call.args, read_traits(call.operation).takes, strict=False)
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
