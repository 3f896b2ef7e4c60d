from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from weber.memory.simulate import ATTENTION, Meter, Work, cut_blocks, simulate_call

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
    assert work.moved_bytes == (8 * 4) * (4 + 2) + 4 * 2 * 2, "the cast, and the ones"
    assert work.num_kernels == 4
    assert 2 * work - work == work and work.num_flops == sum(work.flops.values())


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
