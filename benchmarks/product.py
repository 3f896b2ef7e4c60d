"""What blocks compute most of their time, as PyTorch does it on this processor and as weber does: products, attention, GELU.

    python benchmarks/product.py [--rounds 60] [--tokens 64 256 1024] [--width 128] [--threads 1]

Of so many image tokens and 64 of text, in fp32 and, of attention and GELU, in bf16: products of a layer to four times the width and
back, and of the gradient of its weight; attention of heads of 32 and its backward pass; GELU of the wide layer. Both take turns;
medians. On processors where weber leaves all of it to PyTorch (all but those of AMD with AVX-512) both are the same, and the first line
says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import machine
import torch
from torch.nn import functional

from weber.kernels.activate import activate
from weber.kernels.attention import attend, attend_backward
from weber.kernels.product import has_narrow_mkl, multiply, multiply_columns

NUM_WARM_UP = 5
NUM_TEXT_TOKENS = 64
HEAD_WIDTH = 32
_FREED_BYTES = 31 * 2**20
"""Taken and given back first, as whoever loads a model does: glibc then keeps memory of that size, and need not clean it anew."""

PLAIN = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
PLAIN_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Pair = tuple[str, Callable[[], object], Callable[[], object]]


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--rounds", type=machine.read_count, default=60, help="measured times of each")
    parser.add_argument("--tokens", type=machine.read_count, nargs="+", default=[64, 256, 1024], help="image tokens")
    parser.add_argument("--width", type=machine.read_count, default=128, help="numbers in a token, a multiple of 32")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    torch.empty(_FREED_BYTES, dtype=torch.uint8)
    print(f"MKL leaves the widest units of this processor idle: {'yes' if has_narrow_mkl() else 'no, so PyTorch computes all'}\n")
    print("image tokens  what                       PyTorch us   weber us  share")
    for num_tokens in options.tokens:
        for name, plain, own in list_pairs(num_tokens + NUM_TEXT_TOKENS, options.width):
            seconds = measure(plain, own, num_rounds=options.rounds)
            share = seconds[1] / seconds[0]
            print(f"{num_tokens:12}  {name:25} {1e6 * seconds[0]:11.1f} {1e6 * seconds[1]:10.1f} {share:6.2f}", flush=True)


def list_pairs(num_tokens: int, width: int) -> Iterator[Pair]:
    """What is done, by PyTorch and by weber."""
    rows, wide, weight = torch.randn(num_tokens, width), torch.randn(num_tokens, 4 * width), torch.randn(4 * width, width)
    yield "product", lambda: torch.mm(rows, weight.t()), lambda: multiply(rows, weight.t())
    yield "product back", lambda: torch.mm(wide, weight), lambda: multiply(wide, weight)
    yield "gradient of the weight", lambda: torch.mm(wide.t(), rows), lambda: multiply_columns(wide, rows)
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        yield from list_others(num_tokens, width, dtype=dtype, name=name)


def list_others(num_tokens: int, width: int, *, dtype: torch.dtype, name: str) -> Iterator[Pair]:
    heads = [torch.randn(1, width // HEAD_WIDTH, num_tokens, HEAD_WIDTH).to(dtype) for _ in range(4)]
    *inputs, grad = heads
    kept = PLAIN(*inputs, 0.0, False)
    yield f"attention, {name}", lambda: PLAIN(*inputs, 0.0, False), lambda: attend(*inputs)
    yield (
        f"attention back, {name}",
        lambda: PLAIN_BACKWARD(grad, *inputs, *kept, 0.0, False),
        lambda: attend_backward(grad, *inputs, kept),
    )
    wide = torch.randn(num_tokens, 4 * width).to(dtype)
    yield f"GELU, {name}", lambda: functional.gelu(wide, approximate="tanh"), lambda: activate(wide, "gelu")


def measure(plain: Callable[[], object], own: Callable[[], object], *, num_rounds: int) -> tuple[float, float]:
    """Median seconds of each."""
    sides = (plain, own)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(NUM_WARM_UP + num_rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            sides[side]()
            if number >= NUM_WARM_UP:
                seconds[side].append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1])


if __name__ == "__main__":
    main()
