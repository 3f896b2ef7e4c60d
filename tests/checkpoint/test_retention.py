"""Only the newest checkpoints are kept, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from weber.checkpoint.resume import check_checkpoint, load_latest
from weber.checkpoint.retention import RUINED, list_aside, put_aside, save_space
from weber.checkpoint.save import list_checkpoints

Save = Callable[[int], Path]


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [200]), (2, [30, 200]), (4, [3, 9, 30, 200]), (9, [3, 9, 30, 200])])
def test_the_newest_are_kept(save: Save, tmp_path: Path, keep_last: int, kept: list[int]) -> None:
    folders = {step: save(step) for step in (3, 9, 30, 200)}
    deleted = save_space(tmp_path, keep_last=keep_last)
    assert deleted == [folder for step, folder in folders.items() if step not in kept]
    assert [step for step, _ in list_checkpoints(tmp_path)] == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step:06d}" for step in kept]
    assert load_latest(tmp_path).step == 200


def test_all_may_be_kept_and_some_for_good(save: Save, tmp_path: Path) -> None:
    for step in (10, 15, 20, 25, 30):
        save(step)
    assert save_space(tmp_path, keep_last=None) == []
    save_space(tmp_path, keep_last=1, keep_every=10)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10, 20, 30]


def test_what_is_put_aside_is_no_longer_gone_on_from(save: Save, tmp_path: Path) -> None:
    save(3)
    for _ in range(2):
        aside = put_aside(save(6), RUINED)
    assert check_checkpoint(aside) is None
    assert load_latest(tmp_path).step == 3
    assert list_aside(tmp_path, RUINED) == [aside]
    save_space(tmp_path, keep_last=1)
    assert aside.is_dir()


def test_other_files_stay(save: Save, tmp_path: Path) -> None:
    save(1)
    save(2)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    save_space(tmp_path, keep_last=1)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-000002", "checkpoint-best", "metrics.jsonl"}


def test_what_a_killed_deletion_left_is_removed(save: Save, tmp_path: Path) -> None:
    save(1)
    save(2)
    for step in (1, 8):
        (tmp_path / f".checkpoint-{step:06d}.deleted").mkdir()
        (tmp_path / f".checkpoint-{step:06d}.deleted" / "state.json").write_bytes(b"half")
    save_space(tmp_path, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002"]


def test_a_damaged_later_checkpoint_does_not_displace_the_one_just_written(save: Save, tmp_path: Path) -> None:
    """Resumed at 3 because 9 is damaged, saved at 6: with one to keep, it must be 6."""
    save(3)
    (save(9) / "state.json").unlink()
    assert load_latest(tmp_path).step == 3
    save(6)
    save_space(tmp_path, keep_last=1)
    assert load_latest(tmp_path).step == 6


def test_an_empty_run_folder(tmp_path: Path) -> None:
    assert save_space(tmp_path, keep_last=1) == []
