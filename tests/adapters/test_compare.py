"""Two adapters side by side, with numbers that are checked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.adapters.test_lycoris import FORMS, put, shake
from weber.adapters.compare import compare, list_changes, list_model_changes, measure
from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile
from weber.adapters.lycoris_files import load_lycoris, save_lycoris
from weber.adapters.lycoris_merge import build_changed_weights
from weber.errors import AdapterError
from weber.families.flux1.keys import PAIRINGS
from weber.families.tensors import build_entry


def build_diagonal(*values: float, alpha: float | None = None, shape: tuple[int, int] = (8, 6)) -> Factors:
    """A change with these numbers on its diagonal, whatever its alpha."""
    rank = len(values)
    scale = 1.0 if alpha is None else rank / alpha
    up, down = torch.zeros(shape[0], rank), torch.zeros(rank, shape[1])
    for number, value in enumerate(values):
        up[number, number], down[number, number] = value * scale, 1.0
    return Factors(down, up, float(rank if alpha is None else alpha))


def _open(**modules: Factors) -> AdapterFile:
    return AdapterFile("diffusers", {name.replace("_", "."): one for name, one in modules.items()}, {}, {})


@pytest.mark.parametrize(
    ("first", "second", "lengths", "distance", "cosine", "share"),
    [
        ((3,), (3, 4), (3, 5), 4, 0.6, 0.8),
        ((3, 4), (3, 4), (5, 5), 0, 1, 0),
        ((3, 4), (-3, -4), (5, 5), 10, -1, 2),
        ((1, 0), (0, 2), (1, 2), math.sqrt(5), 0, math.sqrt(5) / 2),
        ((0,), (0, 2), (0, 2), 2, 0, 1),
        ((0,), (0,), (0, 0), 0, 0, 0),
    ],
)
def test_two_changes(
    first: tuple[float, ...], second: tuple[float, ...], lengths: tuple[float, float], distance: float, cosine: float, share: float
) -> None:
    """Lengths 3 and 5 with 9 in common are 4 apart; an alpha of its own changes nothing, nor that a change is given whole."""
    for one in (build_diagonal(*second), build_diagonal(*second, alpha=8.0), build_diagonal(*second).build_delta()):
        found = measure(build_diagonal(*first), one)
        assert (found.first, found.second) == pytest.approx(lengths)
        assert (found.distance, found.cosine, found.share) == pytest.approx((distance, cosine, share), abs=1e-7)
        assert (found.distance == 0) == (distance == 0)


def test_small_matrices_have_the_lengths_of_large_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        Factors(torch.randn(rank, 50, generator=generator), torch.randn(40, rank, generator=generator), 3.0) for rank in (5, 60)
    )
    found, one, other = measure(first, second), first.build_delta().double(), second.build_delta().double()
    assert found.distance == pytest.approx(float((one - other).norm()), rel=1e-5)
    assert found.cosine == pytest.approx(float((one * other).sum() / one.norm() / other.norm()), abs=1e-6)


def test_layers_of_both_and_of_one() -> None:
    first = _open(a=build_diagonal(3), b=build_diagonal(1, 2), d=build_diagonal(6))
    second = _open(a=build_diagonal(3, 4), b=build_diagonal(1, 2), c=build_diagonal(2, 2, 1))
    found = compare(list_changes(first), list_changes(second))
    assert [one.name for one in found.layers[:2]] == ["d", "c"] and found.layers[2].name == "a" and found.layers[3].distance == 0
    assert (found.only_first, found.only_second) == (("d",), ("c",))
    assert [one.name for one in found.different] == ["d", "c", "a"]
    assert found.total.first == pytest.approx(math.sqrt(9 + 5 + 36)) and found.total.second == pytest.approx(math.sqrt(25 + 5 + 9))
    assert found.total.distance == pytest.approx(math.sqrt(16 + 9 + 36))
    assert found.total.cosine == pytest.approx((9 + 5) / math.sqrt(50 * 39))
    told = str(found)
    assert "2 layers in both, of which 1 differ" in told and "1 in the first only: d" in told and "80.00%  cosine  0.6000  a" in told
    assert "... and 2 more" in found.describe(1)


def test_layers_of_two_sizes_are_of_different_models() -> None:
    with pytest.raises(AdapterError, match="for different models") as caught:
        compare(list_changes(_open(a=build_diagonal(1))), list_changes(_open(a=build_diagonal(1, shape=(8, 7)))))
    assert caught.value.got == "a of 8x6 and 8x7"


def test_a_dora_is_compared_in_its_model() -> None:
    weight = torch.diag(torch.tensor([3.0, 4.0]))
    dora = Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0], [0.0]]), 1.0, torch.tensor([10.0, 4.0]))
    adapter = _open(a=dora)
    with pytest.raises(AdapterError, match="depends on the weights of its model") as caught:
        list_changes(adapter)
    assert "--base" in caught.value.fix
    [change] = [read() for read in list_model_changes(adapter, {"a.weight": build_entry(weight)}).values()]
    assert isinstance(change, torch.Tensor)
    assert torch.allclose(change, torch.tensor([[3.0, 8.0], [0.0, 0.0]]))  # (3, 4), 5 long, is made 10 long


@pytest.mark.parametrize("form", ["loha", "lokr", "lokr, both whole", "full", "boft", "glora", "dora of lokr"])
def test_forms_of_lycoris(form: str, load_network: Callable[[], nn.Module], tmp_path: Path) -> None:
    """As they are in their model; those that do not depend on it without one."""
    network, path = load_network(), tmp_path / "a.safetensors"
    base = {name: build_entry(tensor.clone()) for name, tensor in network.state_dict().items()}
    shake(put(network, FORMS[form]))
    save_lycoris(path, network, architecture="", title="", facts={}, pairings=PAIRINGS)
    adapter = load_lycoris(path)
    merged = build_changed_weights(base, adapter.changes)
    reads = list_model_changes(adapter, base)
    assert {name.removesuffix(".bias") for name in reads} == set(adapter.changes)
    for name, read in reads.items():
        full = name if name.endswith(".bias") else f"{name}.weight"
        assert torch.allclose(read(), merged[full].read() - base[full].read(), atol=1e-7)  # type: ignore[arg-type]
    if form in ("boft", "glora", "dora of lokr"):
        with pytest.raises(AdapterError, match="depends on the weights"):
            list_changes(adapter)
        return
    found = compare(reads, list_changes(adapter))
    assert not found.only_first and not found.only_second and found.total.share < 1e-4 and found.total.first > 0.1
