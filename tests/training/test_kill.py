"""A run that is killed while it caches, saves and trains ends with the same bytes as one that was left alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_TRIES = 3
"""A busy machine may see a file so late that the process is past what it was to be killed in."""


@pytest.fixture(scope="module")
def kill() -> Iterator[ModuleType]:
    """`benchmarks/kill.py`, which kills at many random moments; here are three chosen ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("kill")


def test_killed_run_resumes_to_the_same_bytes(kill: ModuleType, tmp_path: Path) -> None:
    place = kill.build_place(tmp_path, num_steps=12, paint_every=5)
    kill.watch(place)

    for _ in range(NUM_TRIES):
        kill.clear(place)
        caching = kill.kill_when(place, lambda signs: signs["shards"] == 1)
        if caching is not None and caching.phase == "caching":
            break
    else:
        pytest.fail("no kill came while there was only a part of the cache")

    for _ in range(NUM_TRIES):
        saving = kill.kill_when(place, lambda signs: signs["saving"] > 0)
        if saving is not None and saving.phase == "saving":
            break
    else:
        pytest.fail("no kill has left a checkpoint unfinished")
    assert f".checkpoint-{saving.signs['checkpoint'] + 3:06d}.partial" in saving.unfinished

    training = kill.kill_when(place, lambda signs: signs["steps"] >= saving.signs["checkpoint"] + 5)
    assert training.signs["steps"] < 12
    kill.finish(place)

    assert kill.compare(place) == []
