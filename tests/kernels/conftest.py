"""The kernels without a GPU: under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.kernels.interpreter import Interpreter


@pytest.fixture(scope="session")
def interpret() -> Iterator[Interpreter]:
    """Calls a function of weber/kernels/triton: file, name, arguments; returns what it returned, and the arguments as they are then."""
    if find_spec("triton") is None:
        pytest.skip("Triton exists for Linux only")
    found = Interpreter()
    yield found
    found.stop()
