"""The forms of LyCORIS on a linear layer: which numbers learn, how they start, and what they change, with LyCORIS' own functions.

LyCORIS' modules are not used, only its functions. In 4.1 those modules round the changed weight to the precision of the base, where small
changes are lost; scale twice when LoHa or LoKr are merged; leave DoRA out when they bypass; turn biases too where files turn weights only.

Legend: B... any leading dimensions, I inputs, O outputs, R rank; W (O, I) the weight of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional, init

from weber.config.lycoris import LycorisLayer
from weber.errors import AdapterError

Tensors = Mapping[str, Tensor]
"""The numbers of one layer, by the names of their parameters: those of files without `.weight`."""

LENGTHS = "dora_scale"
WEIGHTS = ("lora_up", "lora_down", "a1", "a2", "b1", "b2")
"""Tensors whose names in files end in `.weight`."""

_EAGER = "torch"
"""LyCORIS' plain functions: its fused kernels are called experimental by their authors."""
_ZEROS = ("lora_up", "hada_w2_a", "lokr_w2", "lokr_w2_b", "diff", "diff_b", "oft_blocks", "a2", "b2")
_NORMAL = {"hada_w1_b": 1.0, "hada_w1_a": 0.1, "hada_w2_b": 1.0}


def list_shapes(settings: LycorisLayer, sizes: tuple[int, int], *, has_bias: bool) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer of (inputs, outputs). Raises AdapterError where these cannot be cut as the form needs it."""
    from lycoris.functional import factorization

    dim, (inputs, outputs) = settings.dim, sizes
    shapes: dict[str, tuple[int, ...]]
    match settings.algo:
        case "lora" | "locon":
            shapes = {"lora_up": (outputs, dim), "lora_down": (dim, inputs)}
        case "loha":
            shapes = {f"hada_w{part}_{side}": size for part in (1, 2) for side, size in (("a", (outputs, dim)), ("b", (dim, inputs)))}
        case "lokr":
            shapes = _list_kronecker(settings, inputs, outputs)
        case "full":
            shapes = {"diff": (outputs, inputs)} | ({"diff_b": (outputs,)} if has_bias else {})
        case "glora":
            shapes = {"a1": (inputs, dim), "a2": (dim, inputs), "b1": (outputs, dim), "b2": (dim, inputs)}
        case "diag-oft":
            size, count = factorization(outputs, dim)
            shapes = {"oft_blocks": (count, size, size)}
        case "boft":
            size, count = _cut_butterfly(outputs, dim)
            shapes = {"oft_blocks": (count.bit_length(), count, size, size)}
    if settings.rescaled:
        shapes["rescale"] = (outputs, 1)
    if settings.weight_decompose:
        shapes[LENGTHS] = (outputs, 1) if settings.wd_on_out else (1, inputs)
    return shapes


def build_start(name: str, shape: tuple[int, ...]) -> Tensor:
    """The start of a tensor, as LyCORIS has it, in fp32 on the current device: such that nothing is changed yet."""
    tensor = torch.zeros(shape)
    if name in _NORMAL:
        return init.normal_(tensor, std=_NORMAL[name])
    if name == "rescale":
        return init.ones_(tensor)
    return tensor if name in _ZEROS else init.kaiming_uniform_(tensor, a=math.sqrt(5))


def build_lengths(weight: Tensor, *, on_out: bool) -> Tensor:
    """The start of DoRA's lengths for W: (O, 1), or (1, I)."""
    return _measure(weight.float(), on_out=on_out)


def find_alpha(settings: LycorisLayer, tensors: Tensors) -> float:
    """What a file says as `alpha`: of turns, their limit."""
    if settings.algo in ("diag-oft", "boft"):
        return settings.constraint
    rank = find_rank(tensors)
    return float(settings.alpha or settings.dim) if rank is not None else float(settings.dim)


def find_rank(tensors: Tensors) -> int | None:
    """The rank that alpha is divided by; None where alpha has no meaning."""
    for name in ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2"):
        if name in tensors:
            return tensors[name].shape[0]
    return None


def find_scale(alpha: float, tensors: Tensors) -> float:
    """What the change is multiplied by."""
    rank = find_rank(tensors)
    return 1.0 if rank is None else alpha / rank


def build_delta(algo: str, tensors: Tensors, *, alpha: float, weight: Tensor | None) -> Tensor:
    """The change of W, in the precision of the tensors. `weight`, W itself, is needed for turns, glora and DoRA."""
    delta = _build_sum(algo, tensors, alpha=alpha, weight=weight)
    if LENGTHS not in tensors:
        return delta
    assert weight is not None
    lengths = tensors[LENGTHS]
    changed = weight.to(lengths.dtype) + delta
    return changed * (lengths / _measure(changed, on_out=lengths.shape[1] == 1)) - weight


def build_added(algo: str, x: Tensor, *, tensors: Tensors, scale: float) -> Tensor:
    """What a LoRA or a LoKr adds for inputs x (B..., I), in the precision of x; the change itself is never built."""
    from lycoris.functional import locon, lokr

    cast = {name: tensor.to(x.dtype) for name, tensor in tensors.items()}
    if algo == "lokr":
        added: Tensor = lokr.kron_bypass(x, *_list_kronecker_tensors(cast), scale=scale, backend=_EAGER)
    else:
        added = locon.bypass_forward_diff(x, None, cast["lora_down"], cast["lora_up"], None, gamma=scale, backend=_EAGER)
    return added


def build_turned(outputs: Tensor, tensors: Tensors, *, limit: float) -> Tensor:
    """What turns add to outputs (B..., O) without their bias, computed in the precision of the tensors."""
    from lycoris.functional import boft, diag_oft

    blocks, rescale = tensors["oft_blocks"], tensors.get("rescale")
    bound = limit * outputs.shape[-1]
    if blocks.dim() == 3:
        added = diag_oft.bypass_forward_diff(None, outputs, blocks, rescale, constraint=bound, backend=_EAGER)
    else:
        added = boft.bypass_forward_diff(outputs, blocks, rescale, constraint=bound, backend=_EAGER)
    result: Tensor = added.to(outputs.dtype)
    return result


def build_product(x: Tensor, *, down: Tensor, up: Tensor) -> Tensor:
    """x (B..., I) by factors (R, I) and (O, R), in the precision of x."""
    return functional.linear(functional.linear(x, down.to(x.dtype)), up.to(x.dtype))


def _build_sum(algo: str, tensors: Tensors, *, alpha: float, weight: Tensor | None) -> Tensor:
    from lycoris.functional import boft, diag_oft, loha, lokr

    scale = find_scale(alpha, tensors)
    delta: Tensor
    match algo:
        case "lora" | "locon":
            delta = tensors["lora_up"] @ tensors["lora_down"] * scale
        case "loha":
            pairs = [tensors[f"hada_w{part}_{side}"] for part in (1, 2) for side in ("b", "a")]
            gamma = torch.full((), scale, dtype=pairs[0].dtype, device=pairs[0].device)
            delta = loha.diff_weight(*pairs, None, None, gamma=gamma, backend=_EAGER)
        case "lokr":
            delta = lokr.kron_weight(*_list_kronecker_tensors(tensors), scale=scale, backend=_EAGER)
        case "full":
            delta = tensors["diff"]
        case "glora":
            assert weight is not None
            delta = (weight.to(tensors["a1"].dtype) @ tensors["a1"] @ tensors["a2"] + tensors["b1"] @ tensors["b2"]) * scale
        case _:
            assert weight is not None
            function = diag_oft.diff_weight if tensors["oft_blocks"].dim() == 3 else boft.diff_weight
            bound = alpha * weight.shape[0]
            delta = function(weight, tensors["oft_blocks"], tensors.get("rescale"), constraint=bound, backend=_EAGER)
    return delta


def _list_kronecker_tensors(tensors: Tensors) -> list[Tensor | None]:
    return [tensors.get(f"lokr_{name}") for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]


def _list_kronecker(settings: LycorisLayer, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """As LyCORIS' module cuts a layer: the first factor (o1, i1), the second (o2, i2), of low rank where that is smaller."""
    from lycoris.functional import factorization

    (i1, i2), (o1, o2) = factorization(inputs, settings.factor), factorization(outputs, settings.factor)
    if settings.unbalanced_factorization:
        o1, o2 = o2, o1
    dim = settings.dim
    is_cut1 = settings.decompose_both and dim < max(o1, i1) / 2
    is_cut2 = dim < max(o2, i2) / 2 and not settings.full_matrix
    first = {"lokr_w1_a": (o1, dim), "lokr_w1_b": (dim, i1)} if is_cut1 else {"lokr_w1": (o1, i1)}
    second = {"lokr_w2_a": (o2, dim), "lokr_w2_b": (dim, i2)} if is_cut2 else {"lokr_w2": (o2, i2)}
    return {**first, **second}


def _cut_butterfly(outputs: int, dim: int) -> tuple[int, int]:
    from lycoris.functional import power2factorization

    size, count = power2factorization(outputs, dim)
    if count == 0:
        possible = [2 * part for part in range(1, outputs // 2 + 1) if _is_power(outputs, 2 * part)]
        raise AdapterError(
            "A layer cannot be cut into blocks of an even size whose number is a power of two, as BOFT needs it.",
            got=f"{outputs} outputs, linear_dim = {dim}",
            expected=f"linear_dim of {possible[0]} or more" if possible else "an even number of outputs",
            fix="set it, or use algo = \"diag-oft\"" if possible else "use algo = \"diag-oft\"",
        )
    return size, count


def _is_power(outputs: int, size: int) -> bool:
    count, rest = divmod(outputs, size)
    return rest == 0 and count.bit_count() == 1


def _measure(weight: Tensor, *, on_out: bool) -> Tensor:
    """Lengths of rows (O, 1) or columns (1, I), never 0."""
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=1 if on_out else 0, keepdim=True)
    return lengths + torch.finfo(weight.dtype).eps
