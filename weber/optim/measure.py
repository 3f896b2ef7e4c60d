"""What optimizers of libraries hold, measured on small parameters and carried over to large ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil, prod

import numpy as np
import torch
from torch import nn

from weber.optim.libraries import build_adopted, load_class
from weber.optim.trees import encode_tree

_SHAPES = tuple((rows, columns) for rows in (12, 24, 36) for columns in (40, 60, 80))
_LENGTHS = (24, 48, 72)


Options = tuple[tuple[str, object], ...]


def measure_state_bytes(source: str, name: str, *, shape: Sequence[int], options: Mapping[str, object]) -> int:
    """Bytes of the state of an fp32 parameter: a sum of shares of its numbers, rows and columns, and of their squares."""
    given = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items())
    measured: list[tuple[int, ...]] = [(length,) for length in _LENGTHS]
    if len(shape) == 2:  # some keep one thing for wide matrices and another for tall ones
        measured = [one if shape[1] >= shape[0] else one[::-1] for one in _SHAPES]
    else:
        shape = (prod(shape),)
    return ceil(max(0.0, float(np.dot(_fit(source, name, given, tuple(measured)), _list_features(shape)))))


def _list_features(shape: Sequence[int]) -> list[int]:
    if len(shape) == 1:
        return [shape[0], shape[0] ** 2, 1]
    rows, columns = shape
    return [rows * columns, rows, columns, rows**2, columns**2, 1]


@cache
def _fit(source: str, name: str, options: Options, shapes: tuple[tuple[int, ...], ...]) -> list[float]:
    """Shares in steps of an eighth: whole tensors are bytes per number, and some optimizers keep a part of them."""
    features = np.array([_list_features(shape) for shape in shapes], dtype=np.float64)
    held = np.array([_measure(source, name, options, shape) for shape in shapes], dtype=np.float64)
    shares, *_ = np.linalg.lstsq(features, held, rcond=None)
    return [round(8 * float(share)) / 8 for share in shares]


def _measure(source: str, name: str, options: Options, shape: tuple[int, ...]) -> int:
    """Bytes after two steps."""
    parameter = nn.Parameter(torch.linspace(-1, 1, prod(shape)).view(shape))
    groups, arguments = [{"params": [parameter], "lr": 1e-3}], {"lr": 1e-3, **dict(options)}
    optimizer = build_adopted(load_class(source, name), groups, arguments=arguments, seed=0, name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(2):
            parameter.grad = torch.linspace(1, step, prod(shape)).view(shape)
            optimizer.step()
    state = optimizer.state[parameter]
    return sum(tensor.nbytes for key, value in state.items() for tensor in encode_tree(key, value).values())
