from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from weber.kernels.rotate import rotate
from weber.memory.simulate import ATTENTION, Meter, Product, Work, cut_blocks, simulate_call

KIB = 1024


def _build(*shape: int, device: str = "meta", requires_grad: bool = False) -> Tensor:
    return torch.ones(shape, device=device, requires_grad=requires_grad)


def _meter(run: Callable[[], object]) -> tuple[int, int, Work]:
    """Bytes left, peak, and work."""
    meter = Meter(grain_bytes=1)
    with meter:
        run()
    stretch = meter.read_stretch()
    return stretch.left_bytes, stretch.peak_bytes, stretch.work


def test_bytes_are_counted_from_birth_to_death() -> None:
    x = _build(256)  # 1 KiB, from before
    kept: list[Tensor] = []

    def run() -> None:
        y = x * 2
        z = y * 3
        del y
        kept.append(z + 1)

    assert _meter(run)[:2] == (1 * KIB, 2 * KIB)
    kept.clear()


def test_views_and_changes_in_place_take_nothing() -> None:
    x = _build(16, 16)

    def run() -> None:
        x.t().reshape(4, 64).add_(1).mul_(2)  # the reshape of a transposed tensor is a copy
        x.view(256)[:10].zero_()
        x.detach().expand(3, 16, 16)

    assert _meter(run)[:2] == (0, 1 * KIB)


def test_a_second_run_is_counted_as_the_first() -> None:
    weights = _build(32, 64, requires_grad=True)

    def run() -> None:
        x = functional.gelu(_build(8, 64) @ weights.t(), approximate="tanh")
        torch.autograd.backward(torch.cat([x, x * 2]).softmax(-1).sum())
        weights.grad = None

    first, second = _meter(run), _meter(run)
    assert first == second and first[0] == 0


def test_allocators_round_up() -> None:
    meter = Meter(grain_bytes=512)
    with meter:
        kept = torch.empty(3, device="meta")
    assert meter.read_stretch().left_bytes == 512
    del kept
    assert meter.read_stretch().left_bytes == -512


def test_work_is_flops_by_kind_and_bytes_of_all_else() -> None:
    left, right = _build(8, 16), torch.ones(16, 4, device="meta")
    work = _meter(lambda: (left @ right).bfloat16() @ torch.ones(4, 2, device="meta", dtype=torch.bfloat16))[2]
    assert work.flops == {"float32": 2 * 8 * 16 * 4, "bfloat16": 2 * 8 * 4 * 2}
    assert sorted(num_bytes for _, _, num_bytes in work.products) == [2 * (8 * 4 + 4 * 2 + 8 * 2), 4 * (8 * 16 + 16 * 4 + 8 * 4)]
    assert work.moved_bytes == (8 * 4) * (4 + 2) + 4 * 2 * 2, "the cast, and the ones"
    assert work.num_kernels == 4
    assert 2 * work - work == work and work.num_flops == sum(work.flops.values())


def _count(run: Callable[[], object]) -> tuple[int, int, int, list[Product]]:
    """Bytes that are left; of what is not a product the bytes moved; kernels; products. The same whether it is seen first or again."""
    found = []
    for _ in range(2):
        left, _, work = _meter(run)
        found.append((left, work.moved_bytes, work.num_kernels, sorted(work.products.elements())))
    assert found[0] == found[1]
    return found[0]


def test_a_product_is_known_by_its_flops_and_its_bytes() -> None:
    rows, down = _build(64, 32), _build(4, 32)
    left, moved, kernels, products = _count(lambda: [rows @ down.t() for _ in range(3)])
    assert (moved, kernels) == (0, 3) and products == 3 * [("float32", 2 * 64 * 32 * 4, 4 * (64 * 32 + 4 * 32 + 64 * 4))]
    work = _meter(lambda: rows @ down.t())[2]
    assert (6 * work).divide(3).products == Counter({("float32", 2 * 64 * 32 * 4 // 3, products[0][2] // 3): 6})
    assert work + work == 2 * work != work and (work + work).num_flops == 2 * work.num_flops


def test_what_is_repeated_is_read_once() -> None:
    row, rows = _build(1, 32), _build(64, 32)
    assert _count(lambda: rows + row.expand(64, 32))[1] == 4 * (64 * 32 + 32 + 64 * 32)


def _write(out: Tensor, one: Tensor, other: Tensor, bias: Tensor) -> dict[str, Callable[[], object]]:
    """Products that are written into a tensor, by what is read beside their factors."""
    return {
        "mm.out": lambda: torch.mm(one, other, out=out),
        "addmm.out": lambda: torch.addmm(out, one, other, out=out),
        "addmm_": lambda: out.addmm_(one, other),
        "another": lambda: torch.addmm(bias, one, other, out=out),
        "nothing of it": lambda: torch.addmm(out, one, other, beta=0, out=out),
    }


@pytest.mark.parametrize(("way", "read"), [("mm.out", 0), ("addmm.out", 32), ("addmm_", 32), ("another", 4), ("nothing of it", 0)])
def test_a_product_that_is_written_into_a_tensor_is_counted_once_and_takes_no_memory(way: str, read: int) -> None:
    out, factors = _build(8, 4), 8 * 16 + 16 * 4
    left, moved, kernels, products = _count(_write(out, _build(8, 16), _build(16, 4), _build(4))[way])
    assert (left, moved, kernels) == (0, 0, 1)
    assert products == [("float32", 2 * 8 * 16 * 4, 4 * (factors + 8 * 4 + read))]


def test_a_product_is_of_the_kind_of_its_factors() -> None:
    one, other = (torch.empty(32, 32, dtype=torch.bfloat16, device="meta") for _ in range(2))
    assert _count(lambda: torch.addmm(_build(32, 32).bfloat16(), one, other))[3][0][:2] == ("bfloat16", 2 * 32**3)
    assert _count(lambda: torch.mm(one, other, out_dtype=torch.float32))[3][0] == ("bfloat16", 2 * 32**3, 2 * 2 * 32**2 + 4 * 32**2)
    assert _count(lambda: torch._int_mm(one.to(torch.int8), other.to(torch.int8)))[3][0][:2] == ("int8", 2 * 32**3)


def test_operations_that_return_nothing_are_counted() -> None:
    """Of our own: `out` is written, all else is read. Of PyTorch's: lists are changed in place."""
    pair, out, weight = _build(1, 6, 2, 3, 8), _build(1, 6, 2, 3, 8), _build(2, 8)
    angles = torch.empty(6, 4, dtype=torch.complex64, device="meta")
    size = 4 * 6 * 2 * 3 * 8
    assert _count(lambda: rotate(pair, weight, angles, 1e-6, out)) == (0, 2 * size + 4 * 16 + 8 * 24, 1, [])
    few = [_build(5), _build(7)]
    assert _count(lambda: torch._foreach_mul_(few, 2.0)) == (0, 2 * 4 * 12, 1, [])
    source = [_build(5), _build(7)]
    assert _count(lambda: torch._foreach_copy_(few, source)) == (0, 2 * 4 * 12, 1, [])
    assert _count(lambda: torch._foreach_lerp_(few, few, 0.5)) == (0, 3 * 4 * 12, 1, [])


def test_operations_on_lists_are_counted_with_all_in_them() -> None:
    few = [_build(5), _build(7)]
    kept: list[Tensor] = []
    assert _count(lambda: torch.cat(few)) == (0, 2 * 4 * 12, 1, [])
    assert _count(lambda: kept.extend(torch._foreach_mul(few, 2.0))) == (2 * 24, 2 * 4 * 12, 1, [])
    assert [one.shape for one in kept] == 2 * [(5,), (7,)]
    assert len({one.untyped_storage()._cdata for one in kept}) == 4, "each time they are new"


def test_what_only_fills_does_not_read() -> None:
    out, x = _build(64), _build(64)
    assert [_count(run)[1] for run in (lambda: out.copy_(x), out.zero_, lambda: out.add_(x))] == [2 * 256, 256, 3 * 256]


def test_an_operation_that_changes_a_shape_is_done_each_time() -> None:
    for _ in range(2):
        out = torch.empty(4, device="meta")
        with Meter():
            out.resize_(9)
        assert out.shape == (9,)


def test_attention_is_one_operation() -> None:
    heads = torch.ones(1, 2, 64, 8, device="meta")
    stretch = simulate_call(lambda: functional.scaled_dot_product_attention(heads, heads, heads))
    assert stretch.work.flops == {ATTENTION: 4 * 2 * 64 * 64 * 8}
    assert stretch.peak_bytes < 64 * 64 * 4, "no scores are kept"


class _Residual(nn.Module):
    """A block that adds to its input twice, as those of transformers do: its gradients are accumulated by autograd."""

    def __init__(self, width: int, device: str) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 4 * width, device=device), nn.Linear(4 * width, width, device=device)
        self.norm = nn.LayerNorm(width, device=device)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.second(functional.gelu(self.first(self.norm(x))))
        left, right = x.chunk(2, dim=-1)
        return x + torch.cat([left * right, right], dim=-1)


def _measure(run: Callable[[], object]) -> int:
    """The most that PyTorch's CPU allocator holds beside what was there."""
    run()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = alive = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_training_step_takes_what_the_allocator_reports(is_checkpointed: bool) -> None:
    peaks = []
    for device in ("meta", "cpu"):
        blocks = [_Residual(64, device) for _ in range(4)]
        parameters = [parameter for block in blocks for parameter in block.parameters()]
        inputs = _build(1, 512, 64, device=device)

        def run(
            blocks: list[_Residual] = blocks, parameters: list[nn.Parameter] = parameters, inputs: Tensor = inputs
        ) -> None:
            x = inputs
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False) if is_checkpointed else block(x)
            torch.autograd.backward(x.square().mean())
            for parameter in parameters:
                parameter.grad = None

        peaks.append(_meter(run)[1] if device == "meta" else _measure(run))
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01) and peaks[0] > 512 * 64 * 4 * 8


class _Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.ModuleList(nn.Linear(2, 2) for _ in range(9))
        self.late = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


def test_of_like_blocks_in_a_row_the_ends_and_one_between_stay() -> None:
    tower = _Tower()
    wanted = [tower.early[number] for number in (0, 1, 2, 3, 4, 5, 8)]
    names = [f"early.{number}" for number in range(9)] + [f"late.{number}" for number in range(3)]
    cut = cut_blocks(tower, names, sort=lambda name: name == "early.2")
    # early: 0 1 | 2 | 3 4 5 6 7 8, of which 6 and 7 are like 5.
    assert list(tower.early) == wanted and len(tower.late) == 3
    assert cut.places == (0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9)
    assert cut.rename("early.8.weight") == "early.6.weight" and cut.rename("late.1.bias") == "late.1.bias"
    assert cut.rename("early.6.weight") is None and cut.rename("head.weight") == "head.weight"
    assert all(later >= earlier for earlier, later in pairwise(cut.places))
