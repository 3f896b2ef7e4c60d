"""Rows about buckets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.dataset import Dataset
from weber.data.report import CUTS, SCALES, BucketCount, count_changes, list_bucket_counts


def test_rows(tmp_path: Path, write_picture: Callable[..., Path], read_sets: Callable[..., Dataset]) -> None:
    write_picture(tmp_path / "z" / "wide.png", 128, 64, seed=1)
    write_picture(tmp_path / "z" / "square.png", 128, 128, seed=2)
    write_picture(tmp_path / "z" / "small.png", 32, 32, seed=3)
    write_picture(tmp_path / "a" / "own.png", 60, 50, seed=4)
    square = DataConfig(path=tmp_path / "z", resolution=64, bucket_step=16, aspect="square", upscale=True, repeats=2)
    bucketed = DataConfig(path=tmp_path / "a", resolution=64, bucket_step=16)
    rows = list_bucket_counts(read_sets(square, bucketed))
    assert [replace(row, mean_cut_fraction=0) for row in rows] == [
        BucketCount("z", Bucket(64, 64), 3, 6, 1, 0),
        BucketCount("a", Bucket(48, 48), 1, 1, 0, 0),
    ]
    assert [row.mean_cut_fraction for row in rows] == pytest.approx([0.5 / 3, 1 - 48 * 48 / (58 * 48)])


def test_what_is_cut_and_scaled(tmp_path: Path, write_picture: Callable[..., Path], read_sets: Callable[..., Dataset]) -> None:
    for number, (width, height) in enumerate([(64, 64), (128, 128), (96, 64), (192, 64), (32, 32)]):
        write_picture(tmp_path / "a" / f"{number}.png", width, height, seed=number)
    config = DataConfig(path=tmp_path / "a", resolution=64.0, bucket_step=16, aspect="square", upscale=True, mirror=True)
    changes = count_changes(read_sets(config).examples.parts[0], most=2)
    assert changes.cuts == [3, 0, 0, 0, 0, 0, 2] and len(changes.cuts) == len(CUTS) + 1
    assert changes.scales == [0, 1, 0, 0, 3, 0, 0, 1] and len(changes.scales) == len(SCALES) + 1
    assert [(one.name, round(one.cut, 3), one.scale) for one in changes.most_cut] == [("3.png", 0.667, 1), ("2.png", 0.333, 1)]
    assert [(one.name, one.cut, one.scale) for one in changes.most_enlarged] == [("4.png", 0, 2)]
