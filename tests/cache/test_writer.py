"""Writing: thresholds, kills, full disks, several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from weber.cache import writer
from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.errors import CacheError


def _count_shards(folder: Path) -> int:
    return len(list(folder.glob("*.safetensors")))


def test_what_is_added_is_there_when_its_shard_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Writer(store) as writer:
        writer.add("a", {"x": torch.ones(3)})
        assert "a" not in store
        writer.flush()
        assert "a" in store
        writer.add("b", {"x": torch.ones(3)})
    assert "b" in store
    assert _count_shards(tmp_path) == 2


def test_shards_end_at_a_size(tmp_path: Path) -> None:
    with Writer(Store(tmp_path), max_shard_bytes=4000) as writer:
        for number in range(10):
            writer.add(f"{number}", {"x": torch.zeros(400)})
    assert _count_shards(tmp_path) == 4  # 3 + 3 + 3 + 1 samples of 1600 bytes
    assert len(Store(tmp_path)) == 10


def test_shards_end_at_an_age(tmp_path: Path) -> None:
    with Writer(Store(tmp_path), max_age_seconds=-1) as writer:
        for number in range(3):
            writer.add(f"{number}", {"x": torch.zeros(4)})
            assert _count_shards(tmp_path) == number + 1


def test_a_shard_waits_for_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a kill loses seconds of the first minutes, and no more than a minute later; and a job of an hour has a hundred shards."""
    now, ends = 0.0, [0.0]
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now))
    store = Store(tmp_path)
    monkeypatch.setattr(store, "publish", lambda samples: ends.append(now))
    filled = writer.Writer(store)
    for number in range(3600):
        now = float(number)
        filled.add(f"{number}", {"x": torch.zeros(1)})
    gaps = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    assert ends[1] <= 3 and all(gap <= 4 + end / 10 for gap, end in zip(gaps, ends[1:], strict=True))
    assert max(gaps) <= 62 and len(ends) < 120


def test_a_batch_is_never_cut(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Writer(store, max_shard_bytes=1000) as writer:
        writer.add_batch({f"{number}": {"x": torch.zeros(400)} for number in range(5)})
    assert _count_shards(tmp_path) == 1
    assert len(store) == 5


def test_existing_keys_are_skipped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Writer(store) as writer:
        writer.add("a", {"x": torch.ones(3)})
        writer.add("a", {"x": torch.zeros(3)})
    with Writer(store) as writer:
        writer.add("a", {"x": torch.zeros(3)})
    assert _count_shards(tmp_path) == 1
    assert torch.equal(store.read("a")["x"], torch.ones(3))


def test_any_layout_can_be_added(tmp_path: Path) -> None:
    store = Store(tmp_path)
    batch = torch.arange(24.0, requires_grad=True).view(2, 3, 4).transpose(1, 2)
    with Writer(store) as writer:
        writer.add("a", {"row": batch[1], "column": batch[:, 1], "one": batch[0, 0, 0], "none": batch[:0]})
    got = store.read("a")
    assert torch.equal(got["row"], batch[1])
    assert torch.equal(got["column"], batch[:, 1])
    assert torch.equal(got["one"], batch[0, 0, 0])
    assert torch.equal(got["none"], batch[:0])


def test_work_done_before_an_exception_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), Writer(store) as writer:
        writer.add("a", {"x": torch.ones(3)})
        raise KeyboardInterrupt
    assert "a" in Store(tmp_path)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "cache")
    (tmp_path / "cache").touch()
    with pytest.raises(CacheError, match="cannot be written") as caught:
        Writer(store)
    assert str(tmp_path / "cache") in caught.value.what
    assert "output.cache" in caught.value.fix


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.errors import CacheError
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Writer(store) as writer:
        writer.add("a", {"x": torch.zeros(10_000)})
        writer.flush()
        writer.add("b", {"x": torch.zeros(100_000)})
except CacheError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit on file sizes that stands for a full disk is a POSIX one")
def test_full_disk_is_one_clear_error_and_leaves_no_rubbish(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"The cache {tmp_path} cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert "free space" in done.stdout
    assert done.stderr == ""
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(Store(tmp_path).read("a")["x"], torch.zeros(10_000))


KILLED_WRITER = """
import itertools, os, signal, sys, torch
from pathlib import Path
from weber.cache.store import Store
from weber.cache.writer import Writer
calls, sync = itertools.count(1), os.fsync
def sync_or_die(descriptor):
    sync(descriptor)
    if next(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = sync_or_die
with Writer(Store(Path(sys.argv[1])), max_shard_bytes=1) as writer:
    for number in range(10):
        writer.add(f"{number}", {"x": torch.full((1000,), number)})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL, and two fsyncs per shard: of the file and of the folder")
@pytest.mark.parametrize(("num_calls", "num_whole"), [(5, 2), (6, 3)])
def test_killed_writer_loses_at_most_one_shard(tmp_path: Path, num_calls: int, num_whole: int) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path), str(num_calls)], capture_output=True)
    assert killed.returncode == -9
    store = Store(tmp_path)
    report = store.verify()
    assert (report.num_samples, report.set_aside) == (num_whole, ())
    assert len(report.temporary_files) == num_calls % 2
    with Writer(store) as writer:
        for number in range(10):
            writer.add(f"{number}", {"x": torch.full((1000,), number)})
    for number in range(10):
        assert torch.equal(store.read(f"{number}")["x"], torch.full((1000,), number))


ENDLESS_WRITER = """
import itertools, sys, torch
from pathlib import Path
from weber.cache.store import Store
from weber.cache.writer import Writer
with Writer(Store(Path(sys.argv[1])), max_shard_bytes=2_000_000) as writer:
    for number in itertools.count():
        writer.add(f"{number}", {"x": torch.full((250_000,), number, dtype=torch.int32)})
        print(number, flush=True)
"""


def test_writer_killed_while_it_runs_leaves_whole_samples(tmp_path: Path) -> None:
    num_added = 10
    child = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(num_added):
        child.stdout.readline()
    child.kill()
    child.communicate()
    store = Store(tmp_path)
    assert store.verify().set_aside == ()
    assert len(store) >= num_added // 3 * 3  # a shard ends with its third sample
    for number in range(len(store)):
        assert torch.equal(store.read(f"{number}")["x"], torch.full((250_000,), number, dtype=torch.int32))


ONE_OF_MANY = """
import sys, torch
from pathlib import Path
from weber.cache.store import Store
from weber.cache.writer import Writer
start = int(sys.argv[2])
with Writer(Store(Path(sys.argv[1])), max_shard_bytes=5000) as writer:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(start, start + 20):
        writer.add(f"{number}", {"x": torch.full((1000,), number)})
"""


def test_two_writers_at_once_need_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_OF_MANY, str(tmp_path)]
    children = [subprocess.Popen([*command, start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for start in ("0", "10")]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    store = Store(tmp_path)
    assert len(store) == 30
    assert store.verify().set_aside == ()
    assert _count_shards(tmp_path) == 40
    store.collect({f"{number}" for number in range(30)})
    assert _count_shards(tmp_path) == 30
    for number in range(30):
        assert torch.equal(store.read(f"{number}")["x"], torch.full((1000,), number))
