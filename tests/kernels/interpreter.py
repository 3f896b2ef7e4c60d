"""Triton's interpreter, in a process of its own: what is imported while it is on cannot be compiled any more in that process.

    python tests/kernels/interpreter.py    # reads calls from standard input and writes what came of them
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Interpreter:
    """Calls functions of weber/kernels/triton there."""

    def __init__(self) -> None:
        settings = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, __file__], env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, file: str, name: str, *args: Any) -> tuple[Any, tuple[Any, ...]]:
        """What the function returned, and its arguments afterwards."""
        there, back = self._process.stdin, self._process.stdout
        assert there is not None and back is not None
        pickle.dump((file, name, args), there)
        there.flush()
        made, given, trouble = pickle.load(back)
        assert trouble is None, trouble
        return made, given

    def stop(self) -> None:
        self._process.communicate()


def _serve() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _teach_rounding()
    while True:
        try:
            file, name, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (getattr(import_module(f"weber.kernels.triton.{file}"), name)(*args), args, None)
        except Exception as error:
            answer = (None, (), f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers)
        answers.flush()


def _teach_rounding() -> None:
    """As a GPU has it, and fp8. The interpreter multiplies the bits of bf16 as if they were integers, cuts off what it should round, and
    loses what rounding fp8 carries over."""
    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle_of = interpreter.InterpreterBuilder, interpreter.TensorHandle
    multiply, cast, convert = builder.create_dot, builder.cast_impl, builder.create_fp_to_fp

    def widen(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return handle_of((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, one: Any, other: Any, *rest: Any) -> Any:
        return multiply(self, widen(one), widen(other), *rest)

    def cast_impl(self: Any, source: Any, wanted: Any) -> Any:
        if (source.dtype.scalar, wanted.scalar) == (tl.bfloat16, tl.float32):
            return widen(source)
        if (source.dtype.scalar, wanted.scalar) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.int16)
            return handle_of(rounded.numpy().view(np.uint16), tl.bfloat16)
        return cast(self, source, wanted)

    def create_fp_to_fp(self: Any, source: Any, wanted: Any, rounding: Any) -> Any:
        if (source.dtype.scalar, wanted.scalar) != (tl.float32, tl.float8e4nv):
            return convert(self, source, wanted, rounding)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.float8_e4m3fn).view(torch.uint8)
        return handle_of(rounded.numpy(), tl.float8e4nv)

    builder.create_dot, builder.cast_impl, builder.create_fp_to_fp = create_dot, cast_impl, create_fp_to_fp


if __name__ == "__main__":
    _serve()
