"""What a computation holds and does, found by running it on the meta device: tensors have shapes there, but no numbers and no memory.

A `Meter` sees every operation under it, in the backward pass too. Tensors that were there before are not counted.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from weber.blocks.own import OwnForward
from weber.families.family import Predictor
from weber.kernels.lowrank import FLOPS
from weber.memory.lean import Lean
from weber.memory.meta import FlashOnMeta

GRAIN_BYTES = 512
"""What PyTorch's allocators round up to: on GPUs to this, on CPUs to 64."""

ATTENTION = "attention"
_NUM_ALIKE = 4
_COUNTS = hasattr(Tensor, "_use_count")
_WRAPPERS = ("_fn", "inner")  # of torch, around every mode
_STORAGE_USES, _TENSOR_USES = 2, 4  # of a tensor that is seen here and that autograd alone refers to
_OPS = torch.ops.aten
_SUMS = frozenset({_OPS.addmm, _OPS.baddbmm})
"""Products that are added to their first argument."""

_LIKE = {_OPS.addmm_: _OPS.addmm, _OPS.baddbmm_: _OPS.baddbmm, _OPS._int_mm: _OPS.mm}
"""What PyTorch's counter of FLOPs does not know, by what it knows."""

_FILLING = frozenset({_OPS.copy_, _OPS.fill_, _OPS.zero_, _OPS.normal_, _OPS.uniform_, _OPS._foreach_copy_, _OPS._foreach_zero_})
"""Operations that write to their first argument without reading it."""

for _packet, _count in FLOPS.items():
    register_flop_formula(_packet)(_count)

_FACTORIES = frozenset({_OPS.empty, _OPS.empty_like, _OPS.empty_strided, _OPS.new_empty, _OPS.new_empty_strided})


Product = tuple[str, int, int]
"""A matrix product, convolution or attention: its kind (`attention`, else the name of the factors' dtype), FLOPs, and bytes that it reads
and writes."""


@dataclass(frozen=True)
class Work:
    """What is computed: products and attention, so many of each size; bytes that all other operations read and write; and the number of
    operations that start a kernel."""

    products: Counter[Product] = field(default_factory=Counter)
    moved_bytes: int = 0
    num_kernels: int = 0

    @property
    def flops(self) -> Counter[str]:
        """By kind."""
        found: Counter[str] = Counter()
        for (kind, flops, _), count in self.products.items():
            found[kind] += count * flops
        return found

    @property
    def num_flops(self) -> int:
        """FLOPs of all kinds."""
        return sum(self.flops.values())

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products, self.moved_bytes + other.moved_bytes, self.num_kernels + other.num_kernels)

    def __rmul__(self, times: int) -> Work:
        products = Counter({product: times * count for product, count in self.products.items()})
        return Work(products, times * self.moved_bytes, times * self.num_kernels)

    def divide(self, number: int) -> Work:
        """The share of one of so many that are computed together."""
        products: Counter[Product] = Counter()
        for (kind, flops, num_bytes), count in self.products.items():
            products[kind, flops // number, num_bytes // number] += count
        return Work(products, self.moved_bytes // number, self.num_kernels // number)

    def __sub__(self, other: Work) -> Work:
        products = Counter(self.products)
        products.subtract(other.products)
        left = Counter({product: count for product, count in products.items() if count})
        return Work(left, self.moved_bytes - other.moved_bytes, self.num_kernels - other.num_kernels)


@dataclass(frozen=True)
class Stretch:
    """A piece of a computation: bytes alive at its end less those at its start, the most alive in it above its start, and its work.

    `gradient_bytes` are those of `left_bytes` that are gradients of parameters.
    """

    left_bytes: int = 0
    peak_bytes: int = 0
    work: Work = field(default_factory=Work)
    gradient_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """What an operation does with inputs of some shapes: what it returns, which of the tensors in it are new, and its work."""

    result: Any
    is_new: tuple[bool, ...]
    product: Product | None
    moved_bytes: int

    def build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same of other inputs."""
        result = self.result
        if isinstance(result, _Spec):
            return torch.empty_strided(*result[:2], dtype=result[2], device="meta")
        return _rebuild(result, [] if all(self.is_new) else list(_list_tensors((*args, *kwargs.values()))))


class _Spec(tuple[Any, ...]):
    """Shape, strides and dtype of a new tensor."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One of the input's tensors, by its number."""

    number: int


def _rebuild(result: Any, inputs: Sequence[Tensor]) -> Any:
    if isinstance(result, _Spec):
        return torch.empty_strided(*result[:2], dtype=result[2], device="meta")
    if isinstance(result, _Given):
        return inputs[result.number]
    if not isinstance(result, tuple | list):
        return result
    return (list if isinstance(result, list) else tuple)(_rebuild(one, inputs) for one in result)


def _abstract(result: Any, inputs: Sequence[Tensor]) -> Any:
    """What `_rebuild` makes again."""
    if isinstance(result, Tensor):
        given = next((number for number, one in enumerate(inputs) if one is result), None)
        return _Spec((result.shape, result.stride(), result.dtype)) if given is None else _Given(given)
    if not isinstance(result, tuple | list):
        return result
    return (list if isinstance(result, list) else tuple)(_abstract(one, inputs) for one in result)


_KNOWN: dict[Any, _Known] = {}
"""Operations on the meta device are written in Python: remembered they are ten times as fast."""


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes on the meta device that are born while it is on and not dead yet, and work.

    `read_stretch` ends a stretch and begins the next. With `gradients`, it also sums up what they say is there of gradients.
    """

    def __init__(self, *, grain_bytes: int = GRAIN_BYTES, gradients: Callable[[], int] = lambda: 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive_bytes, self.peak_bytes = 0, 0
        self._grain_bytes, self._gradients = grain_bytes, gradients
        self._products: Counter[Product] = Counter()
        self._moved_bytes, self._num_kernels = 0, 0
        self._start = (0, 0, Work())
        self._held: dict[int, list[int]] = {}

    def read_stretch(self) -> Stretch:
        """All since the last call."""
        alive, gradients, work = self._start
        now = (self.alive_bytes, self._gradients(), Work(Counter(self._products), self._moved_bytes, self._num_kernels))
        stretch = Stretch(now[0] - alive, self.peak_bytes - alive, now[2] - work, now[1] - gradients)
        self._start, self.peak_bytes = now, self.alive_bytes
        return stretch

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _OPS._local_scalar_dense.default and args[0].is_meta:
            return 1  # asked of masks: whether all of it is true
        if any(returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns):
            return func(*args, **kwargs)  # a view
        key = (func, *_describe(args), *_describe(kwargs.items()))
        known = _KNOWN.get(key)
        if known is not None:
            made = known.build(args, kwargs)
        else:
            made = func(*args, **kwargs)
            known = _learn(func, args, kwargs, made)
            if known is None:
                return made
            if key == (func, *_describe(args), *_describe(kwargs.items())):  # not where it has changed the shape of an input
                _KNOWN[key] = known
        if func is _OPS.add.Tensor and _is_accumulated(args[0]):
            self._move(args[0], made)
        else:
            for tensor, is_new in zip(_list_tensors([made]), known.is_new, strict=True):
                if is_new:
                    self._add(tensor)
        if func._overloadpacket not in _FACTORIES:
            self._num_kernels += 1
            if known.product is not None:
                self._products[known.product] += 1
            self._moved_bytes += known.moved_bytes
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        num_bytes = -(-storage.nbytes() // self._grain_bytes) * self._grain_bytes
        self.alive_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        self._watch(storage, num_bytes)

    def _move(self, old: Tensor, new: Tensor) -> None:
        """The one takes the memory of the other, which dies at once."""
        held = self._held.pop(old.untyped_storage()._cdata, None)
        if held is None:
            self._add(new)
        else:
            self._watch(new.untyped_storage(), held[0])
            held[0] = 0

    def _watch(self, storage: torch.UntypedStorage, num_bytes: int) -> None:
        held = self._held[storage._cdata] = [num_bytes]
        weakref.finalize(storage, self._free, storage._cdata, held).atexit = False

    def _free(self, place: int, held: list[int]) -> None:
        self.alive_bytes -= held[0]
        if self._held.get(place) is held:
            del self._held[place]


def _is_accumulated(total: Tensor) -> bool:
    """Whether autograd is adding a gradient to others that nothing else refers to: it does so in place, but where a mode is on."""
    if not _COUNTS:
        return False
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name in _WRAPPERS:
        frame = frame.f_back
    if frame.f_code.co_name != "_engine_run_backward":
        return False
    return torch._C._storage_Use_Count(total.untyped_storage()._cdata) == _STORAGE_USES and total._use_count() == _TENSOR_USES  # type: ignore[attr-defined]


def _describe(values: Iterable[Any]) -> Iterator[Any]:
    """What decides the shapes of an operation's outputs."""
    for value in values:
        if isinstance(value, Tensor):
            yield value.shape, value.stride(), value.dtype, value.is_meta
        elif isinstance(value, tuple | list):
            yield tuple(_describe(value))
        else:
            yield type(value), value


def _learn(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> _Known | None:
    """From its first run; None for what is not on the meta device, what gives no tensor and changes none, and views that are not
    declared as such."""
    inputs, outputs = list(_list_tensors((*args, *kwargs.values()))), list(_list_tensors([made]))
    is_new = tuple(all(one is not other for other in inputs) for one in outputs)
    changed = {argument.name for argument in func._schema.arguments if argument.alias_info is not None and argument.alias_info.is_write}
    if not (outputs or changed) or not all(tensor.is_meta for tensor in (*outputs, *inputs)):
        return None
    places = {tensor.untyped_storage()._cdata for tensor in inputs}
    if any(new and tensor.untyped_storage()._cdata in places for new, tensor in zip(is_new, outputs, strict=True)):
        return None
    moved_bytes = _count_bytes(func, args, kwargs) + sum(_count_distinct(one) for one, new in zip(outputs, is_new, strict=True) if new)
    found = _count_flops(func, args, kwargs, made)
    product = None if found is None else (*found, moved_bytes)
    return _Known(_abstract(made, inputs), is_new, product, 0 if product is not None else moved_bytes)


def _count_flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> tuple[str, int] | None:
    """The kind of a product, and its FLOPs; None for all else."""
    packet = _LIKE.get(func._overloadpacket, func._overloadpacket)
    if packet not in flop_registry:
        return None
    has_sum = packet in _SUMS
    # Of a product that is added to something the dtype of the result may come between its factors and the rest.
    flops = flop_registry[packet](*args[:3], out_val=made) if has_sum else flop_registry[packet](*args, **kwargs, out_val=made)
    factor = next(_list_tensors(args[1:] if has_sum else args))
    return ATTENTION if ATTENTION in packet.__name__ else str(factor.dtype).removeprefix("torch."), flops


def _count_bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """What it reads, and what it writes into its inputs."""
    num_bytes = 0
    for number, argument in enumerate(func._schema.arguments):
        value = args[number] if number < len(args) else kwargs.get(argument.name)
        own_bytes = sum(map(_count_distinct, _list_tensors([value])))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        num_bytes += (_is_read(func, argument, kwargs) + is_written) * own_bytes
    return num_bytes


def _is_read(func: Any, argument: Any, kwargs: dict[str, Any]) -> bool:
    """Whether an argument's numbers are of any use: not those of one that is written to and is for that alone."""
    if argument.name == "self" and func._overloadpacket in (*_SUMS, *_LIKE) and kwargs.get("beta", 1) == 0:
        return False
    if argument.alias_info is None or not argument.alias_info.is_write:
        return True
    is_filled = func._overloadpacket in _FILLING and argument.name == "self"
    return not (argument.is_out or argument.name.startswith("out") or is_filled)


def _count_distinct(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers, each once: those that are only repeated (`expand`) are read from the same place."""
    return tensor.itemsize * prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)


class GpuOnMeta(TorchFunctionMode):
    """While it is on, RMS norms over meta tensors are one operation, as on CUDA; elsewhere they are several, and keep more."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.rms_norm and isinstance(args[0], Tensor) and args[0].is_meta:
            return _build_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _NormOnMeta(torch.autograd.Function):
    """Of torch's `_fused_rms_norm`: what it allocates, and what it saves."""

    @staticmethod
    def forward(context: Any, input: Tensor, weight: Tensor) -> Tensor:
        deviation = torch.zeros((*input.shape[:-1], 1), dtype=torch.float32, device=input.device)
        context.save_for_backward(input, weight, deviation)
        return input.mul(weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        input, weight, _ = context.saved_tensors
        needs_input, needs_weight = context.needs_input_grad
        return gradient.mul(input) if needs_input else None, torch.zeros_like(weight) if needs_weight else None


def _build_norm(input: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    if weight is None or weight.dtype != input.dtype:
        return functional.rms_norm(input, list(shape), weight, eps)
    return _NormOnMeta.apply(input, weight)  # type: ignore[no-untyped-call, no-any-return]


def _wrap(call: Callable[..., Any], modes: Sequence[type[TorchFunctionMode]]) -> Callable[..., Any]:
    """`call` under these modes, also where the backward pass runs it again: there it is outside of all modes."""

    def run(*inputs: Any) -> Any:
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode())
            return call(*inputs)

    return run


def _list_tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _list_tensors(value)


@dataclass(frozen=True)
class Trace:
    """A forward and a backward pass, cut where blocks begin and end; each block that ran has a number.

    `forward` has a stretch per block, in the order in which they ran: what comes before the first is in the first. `turn` is what comes
    between the last block and its backward pass. `backward` has those blocks that a gradient came back to; what comes after the last is
    in the last. `left_bytes` stay behind, for the next pass. `input_bytes`: the most that a block with a forward of its own was given.
    """

    forward: dict[int, Stretch]
    turn: Stretch
    backward: dict[int, Stretch]
    left_bytes: int
    input_bytes: int = 0


def simulate_pass(
    predictor: Predictor,
    blocks: Sequence[nn.Module],
    *,
    forward: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter] = (),
    is_gpu: bool = False,
) -> Trace:
    """Run a predictor on the meta device, as its `run` runs it: `forward()`, and where `parameters` learn, the backward pass.

    Norms are those of a GPU, or not; attention is as all devices compute it. The predictor is left with another `run`: it is of no more
    use.
    """
    if predictor.is_fused:
        for block in blocks:
            predictor.own_blocks.find(block, predictor.attention)  # what is built once is no part of a step
    norms = [GpuOnMeta] if is_gpu else []
    # Lean checkpointing has to see attention itself, and never runs it again.
    again = norms if isinstance(predictor.run, Lean) else [FlashOnMeta, *norms]
    meter = Meter(gradients=lambda: sum(one.grad.nbytes for one in parameters if one.grad is not None))
    numbers = {block: number for number, block in enumerate(blocks)}
    ahead: dict[int, Stretch] = {}
    back: list[tuple[int | None, Stretch]] = []
    running: list[int | None] = [None]
    plain, sizes = predictor.run, [0]

    def begin(number: int, gradient: Tensor) -> None:
        if running[-1] != number:
            back.append((running[-1], meter.read_stretch()))
            running.append(number)

    def run(block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        inner = call if isinstance(call, OwnForward) else _wrap(call, again)
        if isinstance(call, OwnForward):
            sizes.append(sum(tensor.nbytes for tensor in _list_tensors(inputs)))
        outputs = _wrap(plain, [FlashOnMeta])(block, inner, *inputs)
        ahead[numbers[block]] = meter.read_stretch()
        for tensor in _list_tensors([outputs]):
            if tensor.requires_grad:
                tensor.register_hook(partial(begin, numbers[block]))  # type: ignore[no-untyped-call]
        return outputs

    predictor.run = run
    with meter:
        result = forward()
        if parameters:
            # Not result.backward(): that is done outside of function modes.
            torch.autograd.backward(result)
        del result
        back.append((running[-1], meter.read_stretch()))
    (_, turn), *rest = back
    gradient_bytes = sum(stretch.gradient_bytes for _, stretch in back)
    behind = {number: stretch for number, stretch in rest if number is not None}
    return Trace(ahead, turn, behind, meter.alive_bytes - gradient_bytes, max(sizes))


def simulate_call(call: Callable[[], object], *, is_gpu: bool = False) -> Stretch:
    """A computation on the meta device from its start to its end, without gradients; its result is not counted as left."""
    modes = [FlashOnMeta, *([GpuOnMeta] if is_gpu else [])]
    meter = Meter()
    with meter, torch.no_grad():
        _wrap(call, modes)()
    return meter.read_stretch()


@dataclass(frozen=True)
class Cut:
    """A model of which only unlike blocks are left.

    `renamed`: their names in the whole model, and now. `places`: for each block of the whole model the number of the one that stands for
    it now.
    """

    renamed: dict[str, str]
    places: tuple[int, ...]

    def rename(self, name: str) -> str | None:
        """The name now of something in the whole model; None where it is in a block that was cut."""
        for old, new in self.renamed.items():
            if name.startswith(f"{old}."):
                return new + name.removeprefix(old)
        parents = {old.rpartition(".")[0] for old in self.renamed}
        return None if any(name.startswith(f"{parent}.") for parent in parents) else name


def cut_blocks(model: nn.Module, names: Sequence[str], *, sort: Callable[[str], Hashable]) -> Cut:
    """Take blocks out of a model, in place: of those of the same `sort` in a row, only the first three and the last stay.

    The third stands for all between, because the second frees what the first one left. `names` are the blocks of lists of modules, in
    the order in which they run.
    """
    places: list[int] = []
    kept: list[str] = []
    for _, group in groupby(names, key=lambda name: (name.rpartition(".")[0], sort(name))):
        alike = list(group)
        few = alike if len(alike) <= _NUM_ALIKE else [*alike[: _NUM_ALIKE - 1], alike[-1]]
        first = len(kept)
        places += [first + min(number, len(few) - 1 if number == len(alike) - 1 else len(few) - 2) for number in range(len(alike))]
        kept += few
    renamed: dict[str, str] = {}
    for name in names:
        parent, _, number = name.rpartition(".")
        if name in kept:
            renamed[name] = f"{parent}.{sum(other.rpartition('.')[0] == parent for other in renamed)}"
    for name in reversed(names):
        if name not in kept:
            parent, _, number = name.rpartition(".")
            blocks = model.get_submodule(parent)
            assert isinstance(blocks, nn.ModuleList)
            del blocks[int(number)]
    return Cut(renamed, tuple(places))
