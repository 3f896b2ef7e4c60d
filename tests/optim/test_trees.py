"""Values as named tensors and back, through a file."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weber.optim.trees import decode_tree, encode_tree, is_tensor

VALUES: dict[str, object] = {
    "whole": 3,
    "number": 0.1,
    "infinite": float("inf"),
    "flag": True,
    "text": "größe",
    "nothing": None,
    "precision": torch.bfloat16,
    "numbers": [1, 2.5, None, [True, "a"]],
    "pair": (1, "b"),
    "shape": torch.Size([2, 3]),
    "queue": deque([1, 2]),
    "table": {"one": 1, "two": {"three": [3]}},
    "empty": [],
    "nowhere": {},
}


@pytest.mark.parametrize("name", VALUES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    value = VALUES[name]
    tensors = encode_tree(name, value)
    save_file(tensors, tmp_path / "tree.safetensors")
    back = decode_tree(load_file(tmp_path / "tree.safetensors"))
    assert back == {name: value}
    assert type(back[name]) is type(value)
    assert not any(is_tensor(key) for key in tensors)


def test_tensors_stay_tensors() -> None:
    step, basis = torch.tensor(3.0), [torch.ones(2, 2), None]
    tensors = encode_tree("a/step", step) | encode_tree("a/basis", basis)
    assert list(tensors) == ["a/step", "a/basis:list/0", "a/basis:list/1:none"]
    assert [key for key in tensors if is_tensor(key)] == ["a/step", "a/basis:list/0"]
    back = decode_tree({key.removeprefix("a/"): tensor for key, tensor in tensors.items()})
    assert torch.equal(back["step"], step)
    assert torch.equal(back["basis"][0], torch.ones(2, 2)) and back["basis"][1] is None


def test_the_order_in_memory_is_kept() -> None:
    matrix = torch.arange(6.0).view(2, 3).T
    tensors = encode_tree("basis", [matrix])
    assert list(tensors) == ["basis:list/0:columns/rows"] and all(tensor.is_contiguous() for tensor in tensors.values())
    assert all(map(is_tensor, tensors))
    (back,) = decode_tree(tensors)["basis"]
    assert torch.equal(back, matrix) and back.stride() == matrix.stride()


def test_what_stays_on_the_host_says_so() -> None:
    (name,) = encode_tree("step", torch.tensor(3.0), device=torch.device("meta"))
    assert name == "step:host"
    assert decode_tree({name: torch.tensor(3.0)})["step"].item() == 3
    assert not is_tensor(name)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a/b": 1}, deque([1], maxlen=3), {1, 2}])
def test_what_needs_a_pickle_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode_tree("value", value)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="stranger"):
        decode_tree({"value:stranger": torch.ones(1)})
