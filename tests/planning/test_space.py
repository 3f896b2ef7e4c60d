"""What a run will write is compared with what is free, for each file system, before it starts."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from stat import S_ISREG

import pytest

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.errors import ConfigError
from weber.families.tensors import open_weights
from weber.planning import space
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.planning.sizes import describe_size
from weber.planning.space import check_space, list_disks
from weber.training.assemble import encode_cache, train

Usage = namedtuple("Usage", "total used free")


def _count_bytes(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for path in folder.glob(pattern) for file in [path, *path.rglob("*")] if file.is_file())


def test_what_is_told_is_what_is_written(build_run: BuildRun, tmp_path: Path) -> None:
    """Headers are the rest."""
    config = build_run(
        adapter={"rank": 64},
        train={"steps": 7, "batch_size": 1},
        optim={"ema_decay": 0.9},
        sampling={"prompts": ["a dog"], "steps": 1, "every": 5},
        output={"cache": str(tmp_path / "own"), "formats": ["kohya"], "precision": "fp16", "save_every": 2, "keep_last": "all"},
    )
    plan = build_plan(config)
    [disk] = list_disks(plan)
    told = {need.what: need.num_bytes for need in disk.needs}
    train(config, resume=False, watcher=build_watcher()[0])
    folder, cache = config.output.folder, config.output.cache
    files = {
        "cache": _count_bytes(cache, "*.safetensors"),
        "checkpoints": _count_bytes(folder, "checkpoint-*"),
        "results": _count_bytes(folder, "*.safetensors"),
    }
    for what, num_bytes in files.items():
        assert 0.95 * num_bytes < told[what] < 1.2 * num_bytes, what
    assert told["pictures"] > _count_bytes(folder, "pictures/step-*/*.png") / 2
    after = {need.what: need.num_bytes for need in list_disks(build_plan(config))[0].needs}
    assert after["checkpoints"] == 0  # all are there


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Empty: nothing has been encoded yet."""
    return tmp_path / "cache"


def test_a_disk_that_would_be_full_is_said_before_anything_is_written(
    build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_run()
    plan = build_plan(config)
    [disk] = list_disks(plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, disk.needed_bytes))
    check_space(plan)
    assert f"{describe_size(disk.needed_bytes)} to be written to the file system of" in build_report(plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, disk.needed_bytes - 1))
    for refused in (lambda: check_space(plan), lambda: train(config, resume=False, watcher=build_watcher()[0])):
        with pytest.raises(ConfigError, match=r"(?s)would fill the disk.*checkpoints.*lower output\.keep_last") as caught:
            refused()
    assert str(disk.place) in caught.value.got
    assert not config.output.folder.exists()


def test_what_is_cached_already_needs_no_room(build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_run(output={"cache": str(tmp_path / "own")})
    plan = build_plan(config)
    encode_cache(plan, Store(config.output.cache), watcher=build_watcher()[0])
    [disk] = list_disks(plan)
    cached = next(need.num_bytes for need in disk.needs if need.what == "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, disk.needed_bytes - cached))
    check_space(plan)


def test_each_file_system_has_its_own_room(build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "other" / "cache"
    cache.mkdir(parents=True)
    plan, stat = build_plan(build_run(output={"cache": str(cache)})), Path.stat

    def stat_two(path: Path, **settings: bool) -> os.stat_result:
        found = stat(path, **settings)
        if S_ISREG(found.st_mode):  # a copy would lack the nanoseconds of its dates
            return found
        return os.stat_result((*found[:2], 7 if path == cache else 8, *found[3:]))

    monkeypatch.setattr(Path, "stat", stat_two)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: Usage(0, 0, 10 if place == cache else 2**40))
    disks = {disk.place: disk.free_bytes for disk in list_disks(plan)}
    assert disks == {cache: 10, tmp_path: 2**40}
    with pytest.raises(ConfigError) as caught:
        check_space(plan)
    assert str(cache) in caught.value.got and "checkpoints" not in caught.value.got


def test_checkpoints_that_are_there_and_will_go_need_no_room(build_small: BuildRun) -> None:
    config = build_small("gone-on", train={"steps": 3, "batch_size": 1})
    config = config.model_copy(update={"output": config.output.model_copy(update={"save_every": 1, "keep_last": 2})})

    def count(num_steps: int) -> float:
        longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": num_steps})})
        plan = build_plan(longer)
        return next(need.num_bytes for need in list_disks(plan)[0].needs if need.what == "checkpoints") / space.count_checkpoint_bytes(plan)

    assert count(3) == 3  # the two that are kept, and the next one
    train(config, resume=False, watcher=build_watcher()[0])
    assert (count(3), count(9)) == (0, 1)


def test_the_numbers_that_an_adapter_file_rounds_are_counted(build_run: BuildRun) -> None:
    """A scale that is no power of two is in the file's numbers, so a checkpoint keeps them exactly beside it."""
    config = build_run(adapter={"rank": 4, "alpha": 6.0}, train={"steps": 1})
    plan, even = build_plan(config), build_plan(build_run("even", adapter={"rank": 4, "alpha": 8.0}))
    counted = space.count_checkpoint_bytes(plan) - space.count_checkpoint_bytes(even)
    train(config, resume=False, watcher=build_watcher()[0])
    [file] = config.output.folder.glob("checkpoint-*/exact.safetensors")
    assert counted == sum(entry.num_bytes for entry in open_weights([file]).values()) > 0
