"""Nested values as named tensors and back: numbers, texts, lists and tensors made of tensors keep their kind in their name.

`step:int` is a whole number, `basis:list/0` the first item of a list, `exp_avg:OptimState8bit/codes` a part of a tensor of torchao,
`step:host` a tensor that stays in the memory of the host, `basis:columns` a matrix that lies in memory column by column, since products
of such ones differ in their last bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from weber.imports import load_module

_CONTEXT, _HOST = "context", "host"
_WRAPPED = {
    "OptimState4bit": "torchao.optim.subclass_4bit",
    "OptimState8bit": "torchao.optim.subclass_8bit",
    "OptimStateFp8": "torchao.optim.subclass_fp8",
}
"""Tensors that are made of tensors, and where their classes are."""

_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "size": torch.Size, "deque": deque}


def encode_tree(name: str, value: object, *, device: torch.device | None = None) -> dict[str, Tensor]:
    """A value as tensors whose names begin with `name`. Raises TypeError for what cannot be kept without a pickle.

    `device`: tensors that are on the host while this is another device say so.
    """
    kind = type(value).__name__
    if kind in _WRAPPED:
        names, context = value.__tensor_flatten__()  # type: ignore[attr-defined]
        parts = {inner: getattr(value, inner) for inner in names}
        return _join(f"{name}:{kind}", {**parts, _CONTEXT: list(context)}.items(), device)
    if isinstance(value, Tensor):
        end = f":{_HOST}" if device is not None and value.device.type == "cpu" != device.type else ""
        if value.ndim == 2 and not value.is_contiguous() and value.T.is_contiguous():
            return {f"{name}:columns/rows{end}": value.detach().T}
        return {f"{name}{end}": value.detach().contiguous()}
    if isinstance(value, deque) and value.maxlen is not None:
        raise TypeError(f"a deque of at most {value.maxlen}")
    sequence = next((word for word, made in _SEQUENCES.items() if type(value) is made), None)
    if sequence is not None:
        items: list[object] = list(value)  # type: ignore[call-overload]
        return _join(f"{name}:{sequence}", ((str(number), item) for number, item in enumerate(items)), device)
    if isinstance(value, dict):
        return _join(f"{name}:dict", value.items(), device)
    return _encode_leaf(name, value)


def decode_tree(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `encode_tree` made, by names; tensors are those that are given. Raises ValueError for names that it has not made."""
    branches: dict[str, dict[str, Tensor]] = {}
    values: dict[str, Any] = {}
    for key, tensor in tensors.items():
        head, slash, rest = key.partition("/")
        if slash:
            branches.setdefault(head, {})[rest] = tensor
        else:
            name, _, kind = head.partition(":")
            values[name] = _decode_leaf(kind, tensor)
    for head, inner in branches.items():
        name, _, kind = head.partition(":")
        values[name] = _decode_branch(kind, decode_tree(inner))
    return values


def is_tensor(name: str) -> bool:
    """Whether a name that `encode_tree` gave is that of a tensor of the value's own device, not of a number or text."""
    return ":" not in name.rpartition("/")[2]


def _join(name: str, items: Iterable[tuple[Any, object]], device: torch.device | None) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for key, item in items:
        if not isinstance(key, str) or set(key) & set("/:"):
            raise TypeError(f"the key {key!r}")
        joined |= encode_tree(f"{name}/{key}", item, device=device)
    return joined or {name: torch.empty(0, dtype=torch.uint8)}


def _encode_leaf(name: str, value: object) -> dict[str, Tensor]:
    if value is None:
        return {f"{name}:none": torch.empty(0, dtype=torch.uint8)}
    if isinstance(value, bool):
        return {f"{name}:bool": torch.tensor(value)}
    if isinstance(value, int):
        return {f"{name}:int": torch.tensor(value, dtype=torch.int64)}
    if isinstance(value, float):
        return {f"{name}:float": torch.tensor(value, dtype=torch.float64)}
    if isinstance(value, torch.dtype):
        return {f"{name}:dtype": _encode_text(str(value).removeprefix("torch."))}
    if isinstance(value, str):
        return {f"{name}:text": _encode_text(value)}
    raise TypeError(f"a {type(value).__name__}")


def _encode_text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _decode_leaf(kind: str, tensor: Tensor) -> Any:
    if kind in ("", _HOST):
        return tensor
    if kind in ("bool", "int", "float"):
        return tensor.item()
    if kind in ("text", "dtype"):
        text = bytes(tensor.tolist()).decode()
        return text if kind == "text" else getattr(torch, text)
    return None if kind == "none" else _decode_branch(kind, {})


def _decode_branch(kind: str, items: dict[str, Any]) -> Any:
    if kind == "dict":
        return items
    if kind == "columns":
        return next(iter(items.values())).T
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([items[str(number)] for number in range(len(items))])
    if kind not in _WRAPPED:
        raise ValueError(f"a state of the kind {kind!r}")
    made = getattr(load_module(_WRAPPED[kind]), kind)
    return made.__tensor_unflatten__(items, items.pop(_CONTEXT))
