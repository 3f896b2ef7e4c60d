"""Which way to attend: what each can take, and whether its outputs and gradients are right at a run's shapes.

Legend: B batch, H heads, S tokens, d width of a head.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from weber.kernels.attention import BACKENDS, Backend

_ERRORS = {torch.bfloat16: 0.02, torch.float16: 0.005, torch.float32: 1e-3}
"""How far outputs and gradients may be off, relative to their size: several times what rounding makes, far less than a mistake makes."""

_EXACT = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}
"""What the reference computes in: more bits, also where products in fp32 are let have fewer."""

_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, ImportError, OSError, AssertionError)
"""What a backend raises that does not run here: PyTorch's own, and that of packages that were built for something else."""

_HOPPER = (9, 0)
_WIDTH_STEP = 8
_NUM_ROWS = 1024
"""Of queries that the reference sees at once: it has all scores in memory."""

_NAMES = ("outputs", "gradients of queries", "gradients of keys", "gradients of values")


@dataclass(frozen=True)
class Use:
    """What attention is asked for. `capability`: of the GPU; None: it is none, or not here. `learns`: gradients are needed. `is_compiled`:
    it is part of what PyTorch's compiler makes."""

    device: torch.device
    dtype: torch.dtype
    num_heads: int
    num_tokens: int
    width: int
    has_mask: bool = False
    learns: bool = True
    is_compiled: bool = False
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Choice:
    """The backend that is taken, None for what PyTorch takes by itself; and why those before it were not."""

    name: str | None
    refused: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        """In a few words."""
        refused = "; ".join(f"{name} refused: {why}" for name, why in self.refused)
        return (self.name or "PyTorch's own") + (f" ({refused})" if refused else "")


def read_capability(device: torch.device) -> tuple[int, int] | None:
    """Of a GPU that is here."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" and torch.cuda.is_available() else None


def find_obstacle(name: str, use: Use) -> str | None:
    """Why a backend cannot be used so, as the end of a sentence; None where nothing is known against it. Runs nothing."""
    backend = BACKENDS[name]
    if use.learns and backend.backward is None:
        return "it has no backward pass"
    if use.device.type != backend.device:
        what = "GPUs" if backend.device == "cuda" else "processors"
        return f"it runs on {what}, and the model runs on {use.device.type}"
    if use.dtype not in backend.dtypes:
        return "it computes in 16 bits, and the model is in fp32"
    if backend.most_width is not None and (use.width > backend.most_width or use.width % _WIDTH_STEP):
        return f"it takes heads of up to {backend.most_width} numbers, in steps of {_WIDTH_STEP}, and the model has heads of {use.width}"
    if use.is_compiled and backend.package is not None:
        return "PyTorch's compiler does not see into its package"
    if use.has_mask and not backend.takes_mask:
        return "it takes no mask, and the padding behind captions is masked"
    return None if use.capability is None else _find_lack(backend, use.capability)


def _find_lack(backend: Backend, capability: tuple[int, int]) -> str | None:
    """What the GPU or the installation that is here lacks."""
    if backend.needs_nvidia and torch.version.hip is not None:
        return "it runs on GPUs of NVIDIA, and this one is of AMD"
    if capability < backend.capability or (backend.is_only and capability != backend.capability):
        needed = f"{_write(backend.capability)}{'' if backend.is_only else ' or more'}"
        return f"it needs a GPU of compute capability {needed}, and this one has {_write(capability)}"
    if backend.package is not None and find_spec(backend.package) is None:
        return f"the package {backend.package} is not installed"
    return None


def _write(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def list_candidates(use: Use) -> tuple[str, ...]:
    """What may be taken, that which is usually fastest first. None for a GPU that is not here, and for devices that have one way only."""
    if use.device.type == "cpu":
        return ("cpu",)
    if use.device.type != "cuda" or use.capability is None:
        return ()
    first = ("flash3", "cudnn", "flash") if use.capability >= _HOPPER else ("flash", "cudnn")
    return tuple(name for name in (*first, "efficient") if find_obstacle(name, use) is None)


@cache
def choose(use: Use, names: tuple[str, ...]) -> Choice:
    """The first that is right; tried once, and remembered as long as the process lives."""
    return choose_first({name: BACKENDS[name] for name in names}, use)


def choose_first(backends: Mapping[str, Backend], use: Use) -> Choice:
    """The first that is right. Not the fastest as measured: that may be another one each time, and a run has to go on as it began."""
    refused: list[tuple[str, str]] = []
    for name, backend in backends.items():
        fault = find_fault(backend, use)
        if fault is None:
            return Choice(name, tuple(refused))
        refused.append((name, fault))
    return Choice(None, tuple(refused))


def find_fault(backend: Backend, use: Use) -> str | None:
    """What is wrong with outputs or gradients, beside those of plain products in more bits over two heads; None where they are right.

    Tried is every way in which blocks come to it: by name, and through PyTorch's own function, where masks go.
    """
    query, key, value, grad = _draw(use)
    mask = torch.arange(use.num_tokens, device=use.device)[None, None, None] % 4 != 1 if use.has_mask else None
    heads = sorted({0, use.num_heads - 1})
    wide = _EXACT[use.dtype]
    exact = _run_exactly([one[:, heads].to(wide) for one in (query, key, value, grad)], mask, learns=use.learns)
    bound = backend.error or _ERRORS[use.dtype]
    try:
        runs = [] if use.has_mask else [_run_by_name(backend, (query, key, value, grad), learns=use.learns)]
        if backend.sdp is not None:
            runs.append(_run_by_library(backend, (query, key, value, grad), mask=mask, learns=use.learns))
        for found in runs:
            for what, one, right in zip(_NAMES, found, exact, strict=False):
                error = float(torch.linalg.vector_norm(one[:, heads].to(wide) - right) / torch.linalg.vector_norm(right))
                if not error <= bound:
                    return f"its {what} are off by {error:.2g} of their size, where {bound:g} is allowed"
    except _FAULTS as error:
        first = next(iter(str(error).splitlines()), "")
        return f"it failed with {type(error).__name__}" + (f": {first}" if first else "")
    return None


def _draw(use: Use) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output (1, H, S, d), as they lie in blocks: parts of one tensor, tokens first."""
    generator = torch.Generator(use.device).manual_seed(0)
    shape = 1, use.num_tokens, 4, use.num_heads, use.width
    joint = torch.empty(shape, dtype=use.dtype, device=use.device).normal_(generator=generator)
    return [one.transpose(1, 2) for one in joint.unbind(2)]


def _run_by_name(backend: Backend, tensors: tuple[Tensor, ...], *, learns: bool) -> list[Tensor]:
    """As blocks of our own run it."""
    query, key, value, grad = tensors
    with torch.no_grad():
        kept = backend.forward(query, key, value)
        if not learns or backend.backward is None:
            return [kept[0]]
        return [kept[0], *backend.backward(grad, query, key, value, kept)]


def _run_by_library(backend: Backend, tensors: tuple[Tensor, ...], *, mask: Tensor | None, learns: bool) -> list[Tensor]:
    """As blocks of the library run it."""
    query, key, value = inputs = [one.detach().requires_grad_(learns) for one in tensors[:3]]
    assert backend.sdp is not None
    with sdpa_kernel([backend.sdp]), torch.set_grad_enabled(learns), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of each reason not to run a kernel, and then raises
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return [output.detach(), *(torch.autograd.grad(output, inputs, tensors[3]) if learns else ())]


def _run_exactly(tensors: list[Tensor], mask: Tensor | None, *, learns: bool) -> list[Tensor]:
    """Outputs and gradients (1, h, S, d) by plain products, some queries at a time."""
    query, key, value, grad = tensors
    key, value = key.detach().requires_grad_(learns), value.detach().requires_grad_(learns)
    parts: list[list[Tensor]] = []
    with torch.set_grad_enabled(learns):
        for first in range(0, query.shape[2], _NUM_ROWS):
            rows = slice(first, first + _NUM_ROWS)
            part = query[:, :, rows].detach().requires_grad_(learns)
            scores = part @ key.transpose(2, 3) * query.shape[-1] ** -0.5
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            output = scores.softmax(-1) @ value
            grads = torch.autograd.grad(output, (part, key, value), grad[:, :, rows]) if learns else ()
            parts.append([output.detach(), *grads])
    outputs, *rest = zip(*parts, strict=True)
    joined = [torch.cat(list(outputs), dim=2)]
    return [*joined, torch.cat(list(rest[0]), dim=2), *(sum(one[1:], one[0]) for one in rest[1:])] if learns else joined
