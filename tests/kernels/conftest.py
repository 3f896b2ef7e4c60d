"""The kernels without a GPU: under Triton's interpreter; and where there is a GPU, on it too."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

from tests.kernels.compiled import Compiled
from tests.kernels.interpreter import Interpreter

WAYS = [Interpreter, Compiled] if torch.cuda.is_available() else [Interpreter]


@pytest.fixture(scope="session", params=WAYS, ids=lambda way: way.__name__.lower())
def interpret(request: pytest.FixtureRequest) -> Iterator[Interpreter | Compiled]:
    """Calls a function of weber/kernels/triton: file, name, arguments; returns what it returned, and the arguments as they are then."""
    if find_spec("triton") is None:
        pytest.skip("Triton exists for Linux only")
    found = request.param()
    yield found
    found.stop()
