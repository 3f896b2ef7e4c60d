"""What adapters add: the reference against autograd, the kernel against the reference, and the work that is counted."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.kernels.interpreter import Interpreter
from tests.kernels.near import check_near, deepen, draw
from weber.kernels.lowrank import FLOPS, gather, join_ups, spread


@dataclass(frozen=True)
class Case:
    """Rows, outputs and ranks of layers, which of them have a bias, and how the gradient is cut."""

    num_rows: int
    outputs: tuple[int, ...]
    ranks: tuple[int, ...]
    with_bias: tuple[bool, ...]
    widths: tuple[int, ...]


CASES = {
    "one row": Case(1, (48,), (4,), (True,), (48,)),
    "q, k, v and MLP": Case(130, (96, 96, 96, 272), (16, 16, 16, 16), (True,) * 4, (288, 272)),
    "cut within layers": Case(70, (40, 130, 24), (8, 3, 5), (False, True, False), (50, 10, 2, 100, 7, 25)),
    "a layer without adapters": Case(33, (40, 200, 24), (5, 0, 70), (True, True, False), (140, 124)),
    "no adapters": Case(9, (40, 24), (0, 0), (True, False), (64,)),
    "rank 256": Case(20, (64, 32), (256, 1), (False, False), (96,)),
    "4,608 rows": Case(4608, (40,), (4,), (True,), (40,)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SCALES = (0.5, 2.0, 1.0, 0.25)


def _build(case: Case, dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[int], list[Tensor]]:
    """Hidden, B's, biases, starts and pieces of the gradient. The last layer is first in the hidden tensor."""
    total = sum(case.ranks)
    hidden = draw(case.num_rows, total + 3, seed=1, dtype=dtype)[:, 3:]
    ups = [draw(*shape, seed=2 + number, dtype=dtype) for number, shape in enumerate(zip(case.outputs, case.ranks, strict=True))]
    biases = [draw(num, seed=9, dtype=dtype) if has else None for num, has in zip(case.outputs, case.with_bias, strict=True)]
    starts = [(sum(case.ranks[:number]) + case.ranks[-1]) % total if total else 0 for number in range(len(ups))]
    grads = [draw(case.num_rows, num + 8, seed=20 + number, dtype=dtype)[:, 8:] for number, num in enumerate(case.widths)]
    return hidden, ups, biases, starts, grads


def _make_room(case: Case, dtype: torch.dtype) -> Tensor:
    return torch.full((case.num_rows, sum(case.outputs) + 16), torch.nan, dtype=dtype)[:, 8:-8]


def _deepen(tensors: list[Tensor]) -> list[Tensor]:
    return [deepen(one) for one in tensors]


@every_case
def test_the_reference_is_the_formula(case: Case) -> None:
    hidden, ups, biases, starts, grads = _build(case, torch.float64)
    hidden.requires_grad_()
    parts = []
    for up, bias, scale, start in zip(ups, biases, SCALES, starts, strict=False):
        part = scale * hidden[:, start : start + up.shape[1]] @ up.t()
        parts.append(part if bias is None else part + bias)
    wanted, out = torch.cat(parts, dim=1), _make_room(case, torch.float64)
    scales = SCALES[: len(ups)]
    spread(hidden.detach(), ups, biases, scales, starts, out)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-9, atol=1e-9)
    (hidden_grad,) = torch.autograd.grad(wanted, hidden, torch.cat(grads, dim=1))
    torch.testing.assert_close(gather(grads, ups, scales, starts), hidden_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@every_case
def test_the_kernel_is_the_reference(interpret: Interpreter, case: Case, dtype: torch.dtype) -> None:
    hidden, ups, biases, starts, grads = _build(case, dtype)
    scales, exact = SCALES[: len(ups)], _make_room(case, torch.float64)
    spread(deepen(hidden), _deepen(ups), [None if one is None else deepen(one) for one in biases], scales, starts, exact)
    _, (*_, out) = interpret("lowrank", "spread", hidden, ups, biases, scales, starts, _make_room(case, dtype))
    check_near(out, exact)
    got, _ = interpret("lowrank", "gather", grads, ups, scales, starts)
    assert got.dtype == dtype and got.shape == (case.num_rows, sum(case.ranks))
    if sum(case.ranks):
        check_near(got, gather(_deepen(grads), _deepen(ups), scales, starts))


def test_master_weights_are_cast_within(interpret: Interpreter) -> None:
    """B's in fp32 beside bf16 rows, of which two lie behind each other in memory."""
    both = draw(96, 16, seed=1) * 1.001
    hidden, ups = draw(40, 32, seed=2, dtype=torch.bfloat16), [both[:64], both[64:]]
    exact, out = torch.empty(40, 96, dtype=torch.float64), torch.empty(40, 96, dtype=torch.bfloat16)
    spread(deepen(hidden), [deepen(up.bfloat16()) for up in ups], [None, None], [1.0, 0.5], [0, 16], exact)
    _, (*_, out) = interpret("lowrank", "spread", hidden, ups, [None, None], [1.0, 0.5], [0, 16], out)
    check_near(out, exact)
    got, _ = interpret("lowrank", "gather", [out], ups, [1.0, 0.5], [0, 16])
    check_near(got, gather([deepen(out)], [deepen(up.bfloat16()) for up in ups], [1.0, 0.5], [0, 16]))


def test_several_adapters_of_a_layer_are_one() -> None:
    hidden, ups = draw(5, 7), [draw(9, 4, seed=1), draw(9, 3, seed=2)]
    joined, scale = join_ups(ups, [0.5, 3.0])
    out = torch.empty(5, 9)
    spread(hidden, [joined], [None], [scale], [0], out)
    torch.testing.assert_close(out, 0.5 * hidden[:, :4] @ ups[0].t() + 3 * hidden[:, 4:] @ ups[1].t())
    assert join_ups(ups[:1], [0.5]) == (ups[0], 0.5)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_work_is_counted(device: str) -> None:
    hidden, out = torch.empty(10, 7, device=device), torch.empty(10, 30, device=device)
    ups = [torch.empty(20, 4, device=device), torch.empty(10, 3, device=device)]
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        spread(hidden, ups, [None, None], [1.0, 1.0], [0, 4], out)
    assert counter.get_total_flops() == 2 * 10 * (20 * 4 + 10 * 3)
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        gather([out], ups, [1.0, 1.0], [0, 4])
    assert counter.get_total_flops() == 2 * 10 * (20 * 4 + 10 * 3)
