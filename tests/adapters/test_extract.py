"""A LoRA out of a fine-tune: what was merged comes out again, and what is lost is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from weber.adapters.extract import build_extraction
from weber.adapters.factors import Factors
from weber.adapters.merge import build_merged_weights
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.tensors import Entry, build_entry

Draw = Callable[..., dict[str, Factors]]


def _open(network: nn.Module) -> dict[str, Entry]:
    return {name: build_entry(tensor.detach()) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("rank", "energy"), [(3, None), (None, 0.999999), (8, 0.999999), (3, 1.0)])
def test_what_was_merged_comes_out(
    rank: int | None, energy: float | None, load_network: Callable[[], nn.Module], draw_factors: Draw
) -> None:
    network = load_network()
    names = list_targets(network, ["attn.*", "ff.net.2"], sets={})
    modules = draw_factors(network, names[::2], ranks=(3, 1, 2), alphas=(2.0,))
    base = _open(network)
    tuned = build_merged_weights(base, [(modules, 1.0)])
    steps = []
    found = build_extraction(
        base, tuned, modules=names, rank=rank, energy=energy, progress=lambda what, done, total: steps.append((done, total))
    )
    assert set(found.modules) == set(modules), "layers without a change are left out"
    assert found.left_out == ()
    assert steps[-1] == (len(base), len(base))
    for name, factors in found.modules.items():
        assert torch.allclose(factors.build_delta(), modules[name].build_delta(), atol=1e-5)
        assert found.kept[name] == pytest.approx(1.0, abs=1e-5)
        assert factors.rank <= 3
        assert energy is None or energy == 1.0 or factors.rank <= modules[name].rank
        assert torch.isfinite(factors.down).all() and torch.isfinite(factors.up).all()


@pytest.mark.parametrize("shape", [(1100, 1300), (1300, 1100), (40, 2000)])
@pytest.mark.parametrize("energy", [None, 0.9999])
def test_layers_of_real_size(shape: tuple[int, int], energy: float | None) -> None:
    """Large matrices are not decomposed as a whole; what is found is as good, and the same each time."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(shape[0], 6, generator=generator) @ torch.randn(6, shape[1], generator=generator) / 30
    noise = 1e-4 * torch.randn(*shape, generator=generator)
    base = {"m.weight": build_entry(torch.randn(*shape, generator=generator))}
    tuned = {"m.weight": build_entry(base["m.weight"].read() + delta + noise)}
    torch.manual_seed(1)
    first = build_extraction(base, tuned, modules=["m"], rank=6 if energy is None else None, energy=energy)
    torch.manual_seed(2)
    second = build_extraction(base, tuned, modules=["m"], rank=6 if energy is None else None, energy=energy)
    assert first.modules["m"].rank == 6
    assert torch.allclose(first.modules["m"].build_delta(), delta, atol=1e-3)
    assert torch.equal(first.modules["m"].up, second.modules["m"].up)


def test_two_matrices_are_in_memory_at_a_time(tmp_path: Path) -> None:
    """By the profiler's count of what is allocated; a third in passing, while half precision is added to fp32."""
    shape = (1500, 1600)
    before = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    base = {f"{name}.weight": Entry(shape, before.dtype, before.clone) for name in "ab"}
    tuned = {name: Entry(shape, before.dtype, lambda: before * 2) for name in base}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        build_extraction(base, tuned, modules=["a", "b"], rank=2)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    totals = [event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"]
    assert 2 < (max(totals) - min(totals)) / (4 * math.prod(shape)) < 3


def test_how_much_is_kept_is_said(load_network: Callable[[], nn.Module]) -> None:
    """A change of known singular values: 4, 3, 2, 1."""
    base = {"m.weight": build_entry(torch.zeros(5, 4)), "m.bias": build_entry(torch.zeros(5)), "n.weight": build_entry(torch.ones(2, 2))}
    change = torch.zeros(5, 4)
    change[:4] = torch.diag(torch.tensor([3.0, 4.0, 1.0, 2.0]))
    tuned = base | {"m.weight": build_entry(change), "m.bias": build_entry(torch.ones(5))}
    for rank, kept in ((1, 16 / 30), (2, 25 / 30), (3, 29 / 30), (9, 1.0)):
        found = build_extraction(base, tuned, modules=["m", "n"], rank=rank)
        assert found.kept == {"m": pytest.approx(kept)}
        assert found.modules["m"].rank == min(rank, 4)
        assert found.left_out == ("m.bias",)
    for energy, rank in ((0.5, 1), (0.6, 2), (0.84, 3), (0.99, 4)):
        assert build_extraction(base, tuned, modules=["m"], energy=energy).modules["m"].rank == rank
    assert build_extraction(base, tuned, modules=["m"], rank=2, energy=0.99).modules["m"].rank == 2


def test_what_cannot_be_extracted(load_network: Callable[[], nn.Module]) -> None:
    base = _open(load_network())
    other = {name: entry for name, entry in base.items() if name != "x_embedder.weight"}
    wide = base | {"x_embedder.weight": build_entry(torch.ones(32, 384))}
    packed = base | {"x_embedder.weight": build_entry(base["x_embedder.weight"].read().to(torch.float8_e4m3fn))}
    scaled = base | {"x_embedder.weight": replace(base["x_embedder.weight"], is_quantized=True)}
    for message, model, options in (
        ("There is nothing to extract", base, {"rank": 2}),
        ("two models are not of one shape", other, {"rank": 2}),
        ("two models are not of one shape", wide, {"rank": 2}),
        ("A model is quantized", packed, {"rank": 2}),
        ("A model is quantized", scaled, {"rank": 2}),
    ):
        with pytest.raises(AdapterError) as caught:
            build_extraction(base, model, modules=["x_embedder"], **options)
        assert message in str(caught.value)
        assert "fix: " in str(caught.value)
