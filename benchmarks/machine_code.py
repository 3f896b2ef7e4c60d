"""What the GPU kernels become on every architecture: registers, spills and shared memory, from a compiler that needs no GPU.

    python benchmarks/machine_code.py [--archs 80 86 89 90 100 120] [--widths 3072 4096 6144] [--rank 16] [--only ONLY ...] [--threads 1]

The operations of weber/kernels/triton are called on the meta device as a block of that width calls them (4,608 tokens in bf16, heads of
128, an MLP of 4 times the width or for SwiGLU 3 times, adapters on a projection of four layers), and what they launch is compiled to
machine code instead. For each architecture: registers of a thread; shared memory of a program, which has so many warps; and how much of a
multiprocessor's threads the programs are that it can hold at a time of these. `spilled` are bytes of registers that go to memory and back,
the most of all architectures: there are to be none.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import machine
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, type_canonicalisation_dict

from weber.kernels.triton import activate, eight, lowrank, modulate, rotate

TOKENS, HEAD = 4608, 128
ARCHS = {80: "A100", 86: "RTX 3090", 89: "RTX 4090", 90: "H100", 100: "B200", 120: "RTX 5090"}
MAX_WARPS = {80: 64, 86: 48, 89: 48, 90: 64, 100: 64, 120: 48}
SHARED_KIB = {80: 164, 86: 100, 89: 100, 90: 228, 100: 228, 120: 100}
"""Of a multiprocessor, which has 65,536 registers in all of these."""
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Launch:
    """A kernel with what it is compiled for: types, constants, and which arguments 16 divides."""

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: frozenset[int]
    num_warps: int

    @property
    def name(self) -> str:
        return str(self.kernel.__name__).strip("_")


@dataclass(frozen=True)
class Code:
    """What a launch became. `spilled_bytes`: of a thread."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    text: str
    """In the language of NVIDIA's assembler (PTX)."""


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    print(f"\nTriton {triton.__version__}\n")
    print("| kernel | width | warps | spilled |", " | ".join(f"sm_{arch}, {ARCHS[arch]}" for arch in options.archs), "|")
    print("|---|---:|---:|---:|" + "---|" * len(options.archs))
    for width in options.widths:
        for launch in list_launches(width, options.rank):
            if not options.only or launch.name in options.only:
                codes = {arch: build(launch, arch) for arch in options.archs}
                spilled = max(code.spilled_bytes for code in codes.values())
                cells = [launch.name, width, launch.num_warps, spilled, *(describe(code, launch, arch) for arch, code in codes.items())]
                print("|", " | ".join(map(str, cells)), "|", flush=True)


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--archs", type=int, nargs="+", default=list(ARCHS), choices=list(ARCHS))
    parser.add_argument("--widths", type=machine.read_count, nargs="+", default=[3072, 4096, 6144])
    parser.add_argument("--rank", type=machine.read_count, default=16)
    parser.add_argument("--only", nargs="+", help="these kernels alone")
    return parser


def list_launches(width: int, rank: int) -> list[Launch]:
    """All kernels as a block of this width launches them; each once."""
    launches: list[Launch] = []

    def note(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        launches.append(_specialize(kernel, args, named))

    with patch.object(JITFunction, "run", note):
        for call in _list_calls(width, rank):
            call()
    return launches


def _list_calls(width: int, rank: int) -> Iterator[Callable[[], Any]]:
    x, grad, residual = (_new(1, TOKENS, width) for _ in range(3))
    vector = _new(1, 1, 6 * width)
    scale, shift = vector[..., :width], vector[..., width : 2 * width]
    mean, rstd = (_new(1, TOKENS, 1, dtype=torch.float32) for _ in range(2))
    yield lambda: modulate.modulate(x, scale, shift, 1e-6)
    yield lambda: modulate.modulate_backward(grad, x, scale, mean, rstd, residual)

    pair = _new(1, TOKENS, 3 * width).unflatten(-1, (3, -1, HEAD))[:, :, :2]
    weight, angles = _new(2, HEAD), _new(TOKENS, HEAD // 2, dtype=torch.complex64)
    grads = [_new(1, width // HEAD, TOKENS, HEAD).transpose(1, 2) for _ in range(2)]
    yield lambda: rotate.rotate(pair, weight, angles, 1e-6, pair)
    yield lambda: rotate.rotate_backward(*grads, pair, weight, angles, 1e-6, pair)

    wide = _new(1, TOKENS, 9 * width)[..., 3 * width :]
    yield lambda: activate.swiglu(wide)
    yield lambda: activate.swiglu_backward(_new(1, TOKENS, 3 * width), wide)

    widths = [width, width, width, 4 * width]
    ups, biases = [_new(one, rank) for one in widths], [_new(one) for one in widths]
    scales, starts = [1.0] * 4, [number * rank for number in range(4)]
    hidden, out = _new(TOKENS, 4 * rank), _new(TOKENS, sum(widths))
    yield lambda: lowrank.spread(hidden, ups, biases, scales, starts, out)
    yield lambda: lowrank.gather(out.split([3 * width, 4 * width], dim=1), ups, scales, starts)

    codes, row_scale, column_scale = _new(TOKENS, 4 * width, dtype=torch.int32), mean[0], _new(4 * width, dtype=torch.float32)
    yield lambda: eight.round_rows(x[0], None, 127.0, True)
    yield lambda: eight.rescale(codes, row_scale, column_scale, out[:, 3 * width :], True)


def _new(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _specialize(kernel: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Launch:
    """As Triton does when it launches: types of arguments, ones as constants, and what 16 divides."""
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **{name: named[name] for name in named if name in kernel.arg_names}}
    constant_names = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    signature, constants, aligned = {}, {}, set()
    for number, name in enumerate(kernel.arg_names):
        value = given[name]
        if name in constant_names or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = "*" + type_canonicalisation_dict[str(value.dtype).removeprefix("torch.")]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            aligned.add(number)
    return Launch(kernel, signature, constants, frozenset(aligned), named["num_warps"])


def build(launch: Launch, arch: int) -> Code:
    """Compile a kernel to machine code, and read what the code needs."""
    attributes = {(number,): [["tt.divisibility", 16]] for number in launch.aligned}
    source = ASTSource(launch.kernel, dict(launch.signature), dict(launch.constants), attributes)
    with tempfile.TemporaryDirectory() as folder:
        with patch.dict(os.environ, {"TRITON_CACHE_DIR": folder}):
            compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": launch.num_warps})
        path = Path(folder) / "code.cubin"
        path.write_bytes(compiled.asm["cubin"])
        said = subprocess.run([TOOLS / "cuobjdump", "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    assert found is not None, said
    registers, stack, local = map(int, found.groups())
    return Code(registers, stack + local, compiled.metadata.shared, compiled.asm["ptx"])


def describe(code: Code, launch: Launch, arch: int) -> str:
    """Registers, shared memory, and which share of a multiprocessor's threads the programs are that it can hold at a time."""
    registers = -(-code.registers // 8) * 8 * 32 * launch.num_warps
    num = min(65536 // registers, MAX_WARPS[arch] // launch.num_warps)
    if code.shared_bytes:
        num = min(num, SHARED_KIB[arch] * 1024 // (code.shared_bytes + 1024))
    return f"{code.registers}, {code.shared_bytes / 1024:.1f} KiB, {num * launch.num_warps / MAX_WARPS[arch]:.0%}"


if __name__ == "__main__":
    main()
