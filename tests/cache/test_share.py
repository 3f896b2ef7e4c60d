"""Several processes fill one cache: each sample is in one part, and nothing is encoded twice."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs import BuildRun
from weber.cache.share import WHOLE, Share, read_share
from weber.cache.store import Store
from weber.config.load import save_config
from weber.errors import ConfigError
from weber.planning.plan import build_plan


@given(st.integers(1, 9), st.binary(min_size=16, max_size=16))
def test_a_sample_is_in_one_part(num_parts: int, key: bytes) -> None:
    assert [Share(number, num_parts).has(key.hex()) for number in range(num_parts)].count(True) == 1
    assert WHOLE.has(key.hex())


def test_parts_are_about_as_large() -> None:
    counts = Counter(number for _ in range(4000) for number in range(4) if Share(number, 4).has(secrets.token_hex(16)))
    assert all(800 < count < 1200 for count in counts.values())


def test_how_a_part_is_spelled() -> None:
    assert read_share("1/1") == WHOLE and read_share("2/4") == Share(1, 4)
    for text in ("0/4", "5/4", "2", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(ConfigError) as error:
            read_share(text)
        assert error.value.got == f"--part {text}"


def test_two_processes_at_once_encode_everything_once(build_run: BuildRun) -> None:
    config = build_run(output={"cache": str(build_run("x").output.folder.parent / "own cache")})
    file = config.output.folder.parent / "run.toml"
    save_config(config, file)
    command = [sys.executable, "-c", "from weber.cli import main; main()", "cache", str(file), "--part"]
    processes = [subprocess.Popen([*command, f"{number}/2"], stdout=subprocess.PIPE, text=True) for number in (1, 2)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert all(f"has part {number}/2 of what this run needs" in " ".join(text.split()) for number, text in enumerate(said, 1))
    store, needs = Store(config.output.cache), build_plan(config).needs
    missing = needs.count_missing(store)
    assert (missing.latents, missing.texts) == (0, 0)
    written = Counter(key for shard in store.catalog.list_shards() for key in shard.samples)
    assert set(written.values()) == {1} and len(store.catalog.list_shards()) >= 4  # pictures and texts of two processes
    assert len(written) == needs.num_latents + 2 * len(needs.texts)
