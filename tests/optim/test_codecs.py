"""Ways to keep moments: what comes back, in how many bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from weber.optim.codecs import BF16, BLOCK, BLOCKS_8BIT, FP32, Codec

SIZE = 20 * BLOCK + 17


def _draw(*, is_signed: bool, decades: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(SIZE, generator=generator) * 10 ** (-decades * torch.rand(SIZE, generator=generator))
    return value if is_signed else value.square()


def _keep(codec: Codec, value: torch.Tensor, *, is_signed: bool) -> torch.Tensor:
    parts = codec.encode(value.clone(), torch.Generator().manual_seed(1), is_signed=is_signed)
    assert [(part.dtype, len(part)) for part in parts] == [(one.dtype, -(-SIZE // one.share)) for one in codec.parts]
    return codec.decode(parts, is_signed=is_signed)


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize(("codec", "largest", "mean"), [(FP32, 0.0, 0.0), (BF16, 2.0**-7, 2.0**-8), (BLOCKS_8BIT, 0.01, 0.005)])
def test_the_error_is_bounded(codec: Codec, largest: float, mean: float, is_signed: bool) -> None:
    """Relative to each number for floating point, to the largest of the block for blocks."""
    value = _draw(is_signed=is_signed)
    kept = _keep(codec, value, is_signed=is_signed)
    error = (kept - value).abs()
    if codec is BLOCKS_8BIT:
        blocks = torch.nn.functional.pad(value.abs(), (0, -SIZE % BLOCK)).view(-1, BLOCK).amax(1).repeat_interleave(BLOCK)[:SIZE]
        error = error / blocks
    else:
        error = error / value.abs()
    assert error.max() <= largest
    assert error.mean() <= mean


def test_small_roots_survive_in_8_bits() -> None:
    """Roots that differ by a factor of 1000 in a block: half of them are right to 5 %, nearly all to a factor of 2."""
    value = _draw(is_signed=False, decades=3)
    ratio = (_keep(BLOCKS_8BIT, value, is_signed=False) / value).sqrt()
    assert (ratio - 1).abs().median() < 0.05
    assert ((ratio > 0.5) & (ratio < 2)).float().mean() > 0.97


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("codec", [FP32, BF16, BLOCKS_8BIT])
def test_zeros_in_all_parts_are_zeros(codec: Codec, is_signed: bool) -> None:
    parts = [torch.zeros(-(-SIZE // part.share), dtype=part.dtype) for part in codec.parts]
    decoded = codec.decode(parts, is_signed=is_signed)
    assert torch.equal(decoded, torch.zeros(SIZE))
    decoded += 1
    assert all(not part.any() for part in parts), "what was kept has changed with what was read"


def test_the_librarys_note_is_not_shown() -> None:
    program = "import torch; from weber.optim.codecs import BLOCKS_8BIT as b; b.encode(torch.ones(300), torch.Generator(), is_signed=True)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout + finished.stderr == ""
