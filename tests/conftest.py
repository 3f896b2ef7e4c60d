"""Which parts of the suite are read: none of torch and weber by the process that only hands out the tests (`-n 2`)."""

from __future__ import annotations

import gc
import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it: nothing in the suite touches the network
os.environ["WANDB_MODE"] = "offline"


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all tests are read: what they are made of stays to the end
    if not config.getoption("numprocesses"):
        for name in ("tests.shared", "tests.runs"):
            config.pluginmanager.import_plugin(name)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
