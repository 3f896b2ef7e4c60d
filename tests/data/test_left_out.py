"""A run does not train on what runs have painted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.build import build_dataset
from weber.data.dataset import Dataset
from weber.data.left_out import SAMPLES_FILE
from weber.data.sets import PictureLimits
from weber.errors import DataError
from weber.progress import ignore_progress

Write = Callable[..., Path]


def _read(folder: Path, cache: Path, own: tuple[Path, ...] = (), **keys: Any) -> Dataset:
    return build_dataset(
        [DataConfig(path=folder, captions="none", **{"resolution": 64, "bucket_step": 16, **keys})],
        alignment_pixels=16,
        inputs=PictureLimits(),
        index_path=cache / "index.sqlite",
        hub_folder=cache / "hub",
        seed=1,
        progress=ignore_progress,
        own=own,
    )


def _write_run(folder: Path, write: Write, *, seed: int) -> Path:
    """What a run leaves behind."""
    write(folder / "pictures" / "step-000001.png", seed=seed, caption=None)
    write(folder / "samples" / "00-a-cat.png", seed=seed + 1, caption=None)
    write(folder / "checkpoint-000001" / "samples" / "00.png", seed=seed + 2, caption=None)
    (folder / "config.toml").touch()
    (folder / "metrics.jsonl").touch()
    return folder


def test_runs_caches_and_what_systems_keep_are_left_out(tmp_path: Path, write_picture: Write) -> None:
    folder = tmp_path / "set"
    for number, name in enumerate(("a.png", "deep/b.png", "pictures/c.png", "config/d.png")):
        write_picture(folder / name, seed=number, caption=None)
    _write_run(folder / "deep" / "old run", write_picture, seed=10)
    killed = _write_run(folder / "killed", write_picture, seed=20)
    (killed / "metrics.jsonl").unlink()  # its checkpoints say the same
    write_picture(folder / "killed early" / "pictures" / "step-000000.png", seed=29, caption=None)
    (folder / "killed early" / "run.lock").touch()
    write_picture(folder / "cache" / "hub" / "x.png", seed=30, caption=None)
    write_picture(folder / "new" / "pictures" / "x.png", seed=31, caption=None)  # the run itself, before it has files of its own
    for number, name in enumerate(("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/b.png")):
        write_picture(folder / name, seed=40 + number, caption=None)
    dataset = _read(folder, folder / "cache", own=(folder / "new", folder / "cache"))
    dataset = _read(folder, folder / "cache", own=(folder / "new", folder / "cache"))  # now the cache has its index
    assert [example.path.relative_to(folder).as_posix() for example in dataset.examples] == [
        "a.png",
        "config/d.png",
        "deep/b.png",
        "pictures/c.png",
    ]
    assert dataset.notes == ("set: runs, caches and pictures of weber below it are left out: cache, deep/old run, killed, ...",)


def test_a_set_that_is_a_run_itself(tmp_path: Path, write_picture: Write) -> None:
    run = _write_run(tmp_path / "run", write_picture, seed=1)
    write_picture(run / "mine.png", caption=None)
    assert [example.path.name for example in _read(run, tmp_path / "cache").examples] == ["mine.png"]
    assert len(_read(run / "pictures", tmp_path / "cache", own=(run,)).examples) == 1  # on purpose


def test_nothing_but_runs(tmp_path: Path, write_picture: Write) -> None:
    _write_run(tmp_path / "set" / "run", write_picture, seed=1)
    with pytest.raises(DataError) as error:
        _read(tmp_path / "set", tmp_path / "cache")
    assert "has no pictures" in error.value.what and "runs, caches and pictures of weber (run)" in error.value.got


def test_masks_have_runs_below_them_too(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "set" / "pictures" / "step-000001.png", caption=None)
    _write_run(tmp_path / "masks", write_picture, seed=1)
    with pytest.raises(DataError, match="has no mask for any picture of the set"):
        _read(tmp_path / "set", tmp_path / "cache", loss_masks=tmp_path / "masks")


def test_what_was_painted_beside_an_adapter_is_left_out(tmp_path: Path, write_picture: Write) -> None:
    folder = tmp_path / "set"
    write_picture(folder / "a.png", seed=1, caption=None)
    write_picture(folder / "adapters" / "samples" / "00-a-cat.png", seed=2, caption=None)
    (folder / "adapters" / "samples" / SAMPLES_FILE).touch()
    dataset = _read(folder, tmp_path / "cache")
    assert [example.path.name for example in dataset.examples] == ["a.png"]
    assert dataset.notes == ("set: runs, caches and pictures of weber below it are left out: adapters/samples",)
    named = _read(folder / "adapters" / "samples", tmp_path / "other")  # as pictures of a class
    assert [example.path.name for example in named.examples] == ["00-a-cat.png"]
    assert named.notes == ()
