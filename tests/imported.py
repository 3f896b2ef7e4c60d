"""What a process of `tests.processes` begins with."""

import gc

import tests.runs  # noqa: F401

gc.freeze()
