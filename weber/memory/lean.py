"""Lean checkpointing: of a block is kept what is costly to compute, and the rest is computed again in the backward pass.

Costly are linear layers and attention. While a block runs, their outputs go on a tape; every tensor that autograd would save is dropped
and leaves a numbered entry. When the backward pass reads the first entry, the block is run again with the tape standing in for the costly
calls, and every tensor that autograd would save fills the entry of its number. The gradients are computed by the first run's graph, so
they are the same bit for bit. Of adapters this keeps nothing, of packed layers no more than autograd does, of attention its output and one
number per query.

Some outputs are not worth their place on the tape: those that are cheap enough to be computed again ("recompute"), and those that nothing
in the block's backward pass reads ("skip"), as of the last layer of a feed-forward that only goes into a sum. Whether something does read
them is watched when a block first runs, and then they are kept after all; when it runs again NaN stands for the others.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from weber.blocks.attended import Attended
from weber.blocks.own import OwnForward
from weber.families.pattern import is_named

Roles = dict[nn.Module, str]
"""The linear layers of a block, with whatever adapters are on them, and what becomes of their outputs: keep, recompute or skip."""


class Lean:
    """A `Run` of blocks without dropout. `layers`: patterns of names, as `Family.lean_layers`.

    Without gradients blocks run plainly. Blocks with a forward of their own are lean by themselves, if they are told.

    What a block keeps is settled when it first runs with gradients, for inputs that want or do not want gradients as they then do:
    adapters have to be there by then.
    """

    def __init__(self, layers: Mapping[str, str]) -> None:
        self._patterns = layers
        self._roles: dict[object, Roles] = {}
        self._own = weakref.WeakKeyDictionary[OwnForward, OwnForward]()

    def __call__(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        """See `Run`."""
        if isinstance(call, OwnForward):
            if call not in self._own:
                self._own[call] = call.build_lean()
            return self._own[call](*inputs)
        if not torch.is_grad_enabled():
            return call(*inputs)
        kept = tree_map_only(Tensor, _detach, inputs)
        inner = call.call if isinstance(call, Attended) else call
        key = (block, type(inner), *(one.requires_grad for one in tree_leaves(inputs) if isinstance(one, Tensor)))
        if key in self._roles:
            return _run(_Recording(_Frame(call, kept, self._roles[key])), inputs)
        assert not any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules()), "dropout would be drawn anew"
        roles = {layer: self._find_role(name) for name, layer in _list_linears(block)}
        with _Watch(roles) as watch:
            output = _run(_Recording(_Frame(call, kept, roles), watch), inputs)
        watch.forget()
        self._roles[key] = roles
        return output

    def _find_role(self, name: str) -> str:
        roles = [role for pattern, role in self._patterns.items() if is_named(name, pattern)]
        return roles[0] if roles else "keep"


def _list_linears(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | BaseTunerLayer):
            yield prefix + name, child
        else:
            yield from _list_linears(child, f"{prefix}{name}.")


def _detach(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


@dataclass(frozen=True, slots=True)
class _Place:
    """A saved tensor that lies in the storage of a call's input: which input, and if it is another view of the storage, which."""

    number: int
    view: tuple[Sequence[int], Sequence[int], int] | None


@dataclass(slots=True)
class _Call:
    """A costly call. `output` is None if it is computed again; `places`: what of its inputs autograd saves, in order."""

    output: Tensor | None
    requires_grad: bool
    places: list[_Place]


@dataclass
class _Frame:
    """A run of a block, with what is needed to run it again. Its entries keep it alive; after the second run it is empty."""

    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    roles: Roles
    entries: list[weakref.ref[_Entry]] = field(default_factory=list)
    tape: list[_Call] = field(default_factory=list)


class _Entry:
    """Stands in the graph for a tensor that was dropped."""

    __slots__ = ("__weakref__", "dtype", "frame", "shape", "value")

    def __init__(self, frame: _Frame, tensor: Tensor) -> None:
        self.frame, self.shape, self.dtype = frame, tensor.shape, tensor.dtype
        self.value: Tensor | None = None


def _read(packed: Tensor | _Entry) -> Tensor:
    """The saved tensor that autograd asks for."""
    if isinstance(packed, Tensor):
        return packed
    if packed.value is None:
        _replay(packed.frame)
    assert packed.value is not None
    return packed.value


class _Pass(Protocol):
    """What happens while a block runs, the first time or again."""

    frame: _Frame

    def hold(self, tensor: Tensor) -> object:
        """What is saved in the place of a tensor that autograd saves."""
        ...

    def compute(self, function: Callable[..., Tensor], layer: nn.Module | None, *args: Any, **kwargs: Any) -> Tensor:
        """The output of a costly call, of a layer or of attention."""
        ...


def _run(run: _Pass, inputs: tuple[Any, ...]) -> Any:
    with _intercepted(run.frame.roles, run.compute), saved_tensors_hooks(run.hold, _read):
        return run.frame.call(*inputs)


@contextmanager
def _intercepted(layers: Roles, compute: Callable[..., Tensor]) -> Iterator[None]:
    """While this is open, this thread calls layers and attention through `compute(function, layer, ...)`.

    A `TorchFunctionMode` would see attention too, but it is asked about everything else, which costs a third of a block's time.
    """
    attend, thread = functional.scaled_dot_product_attention, threading.get_ident()
    own = {layer: vars(layer).get("forward") for layer in layers}

    def attend_here(*args: Any, **kwargs: Any) -> Tensor:
        return compute(attend, None, *args, **kwargs) if threading.get_ident() == thread else attend(*args, **kwargs)

    try:
        for layer in layers:
            vars(layer)["forward"] = partial(compute, layer.forward, layer)
        functional.scaled_dot_product_attention = attend_here
        yield
    finally:
        functional.scaled_dot_product_attention = attend
        for layer, forward in own.items():
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward


class _Recording:
    """The first run."""

    def __init__(self, frame: _Frame, watch: _Watch | None = None) -> None:
        self.frame, self._watch = frame, watch
        self._inputs: list[Tensor] | None = None  # of the costly call that is running
        self._places: list[_Place] = []

    def hold(self, tensor: Tensor) -> object:
        """An entry; inside a costly call, the tensor itself unless it lies in an input."""
        if self._inputs is not None:
            place = _find_place(tensor, self._inputs)
            if place is None:
                return tensor.detach()
            self._places.append(place)
        elif self._watch is not None:
            self._watch.see_saved(tensor)
        entry = _Entry(self.frame, tensor)
        self.frame.entries.append(weakref.ref(entry))
        return entry

    def compute(self, function: Callable[..., Tensor], layer: nn.Module | None, *args: Any, **kwargs: Any) -> Tensor:
        """Compute, and put the output on the tape or not, as its role says."""
        inputs = _list_tensors(args, kwargs)
        if self._watch is not None:
            self._watch.see_inputs(inputs)
        self._inputs, self._places = inputs, []
        try:
            output = function(*args, **kwargs)
        finally:
            self._inputs = None
        call = _Call(None, output.requires_grad, self._places)
        role = "keep" if layer is None else self.frame.roles[layer]
        if role == "keep":
            call.output = output.detach()
        elif role == "skip":
            call.output = output.new_full((), math.nan).expand(output.shape)
            if self._watch is not None:
                self._watch.see_skipped(output, layer=layer, call=call)
        self.frame.tape.append(call)
        return output


class _Watch(TorchFunctionMode):
    """Follows what comes of skipped outputs. If anything of it is saved, or goes into a costly call, they are kept, from then on."""

    def __init__(self, roles: Roles) -> None:
        super().__init__()
        self._roles = roles
        self._skipped: list[tuple[nn.Module, _Call, Tensor]] = []
        self._tainted: set[StorageWeakRef] = set()
        self._clean: set[StorageWeakRef] | None = None  # the other inputs of a function that is running on tainted ones

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        places = _list_storages((args, kwargs)) if self._tainted else set()
        if self._tainted.isdisjoint(places):
            return func(*args, **kwargs)
        self._clean = places - self._tainted
        try:
            output = func(*args, **kwargs)
        finally:
            self._clean = None
        if self._tainted:
            self._tainted |= _list_storages(output)
        return output

    def see_skipped(self, output: Tensor, *, layer: nn.Module | None, call: _Call) -> None:
        """To be followed from here."""
        assert layer is not None
        self._skipped.append((layer, call, output))
        self._tainted |= _list_storages(output)

    def see_inputs(self, inputs: Sequence[Tensor]) -> None:
        """Of a costly call."""
        if self._tainted and not self._tainted.isdisjoint(_list_storages(inputs)):
            self._keep()

    def see_saved(self, tensor: Tensor) -> None:
        """Outside of costly calls. A function saves its inputs, or something that it has made of them."""
        if self._clean is not None and self._clean.isdisjoint(_list_storages(tensor)):
            self._keep()

    def _keep(self) -> None:
        for layer, call, output in self._skipped:
            call.output = output.detach()
            self._roles[layer] = "keep"
        self.forget()

    def forget(self) -> None:
        """Let go of what was skipped; autograd keeps the hooks of a run, and so this object."""
        self._skipped.clear()
        self._tainted.clear()


def _replay(frame: _Frame) -> None:
    """The second run: fill the entries that are still wanted, and empty the frame."""
    try:
        with torch.enable_grad():
            _run(_Replay(frame), frame.inputs)
    except _Filled:
        frame.inputs, frame.entries, frame.tape = (), [], []
    else:
        raise AssertionError("the second run of a block saved less than the first")


class _Filled(Exception):
    """The last entry that is wanted has been filled."""


class _Replay:
    """The second run. Its own graph keeps nothing."""

    def __init__(self, frame: _Frame) -> None:
        self.frame, self._tape = frame, iter(frame.tape)
        self._number = 0
        self._end = 1 + max(number for number, entry in enumerate(frame.entries) if entry() is not None)

    def hold(self, tensor: Tensor) -> object:
        """Nothing."""
        self._fill(tensor.detach())
        return None

    def compute(self, function: Callable[..., Tensor], layer: nn.Module | None, *args: Any, **kwargs: Any) -> Tensor:
        """What is on the tape, if it is."""
        call = next(self._tape)
        inputs = _list_tensors(args, kwargs)
        for place in call.places:
            self._fill(_read_place(place, inputs))
        output = call.output
        if output is None:
            with torch.no_grad():
                output = function(*args, **kwargs)
        return output.detach().requires_grad_(call.requires_grad)

    def _fill(self, tensor: Tensor) -> None:
        entry = self.frame.entries[self._number]()
        if entry is not None:
            assert (tensor.shape, tensor.dtype) == (entry.shape, entry.dtype), "the second run of a block saved something else"
            entry.value = tensor
        self._number += 1
        if self._number == self._end:
            raise _Filled


def _list_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    return [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]


def _list_storages(value: Any) -> set[StorageWeakRef]:
    """Whose memory this is. As long as it is referred to, no other memory is mistaken for it."""
    return {
        StorageWeakRef(one.untyped_storage())  # type: ignore[no-untyped-call]
        for one in tree_leaves(value)
        if isinstance(one, Tensor)
    }


def _find_place(tensor: Tensor, inputs: Sequence[Tensor]) -> _Place | None:
    """Where in the inputs of a call a saved tensor lies."""
    storage = tensor.untyped_storage()._cdata
    found = None
    for number, one in enumerate(inputs):
        if one.untyped_storage()._cdata != storage:
            continue
        offset = int(tensor.storage_offset() - one.storage_offset())
        if offset == 0 and tensor.shape == one.shape and tensor.stride() == one.stride():
            return _Place(number, None)
        found = _Place(number, (tensor.shape, tensor.stride(), offset))
    return found


def _read_place(place: _Place, inputs: Sequence[Tensor]) -> Tensor:
    source = inputs[place.number].detach()
    if place.view is None:
        return source
    size, stride, offset = place.view
    return source.as_strided(size, stride, source.storage_offset() + offset)
