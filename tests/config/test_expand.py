"""Several resolutions in one line are several sets, and messages still name the line."""

from __future__ import annotations

from pathlib import Path

from weber.config.data import DataConfig
from weber.config.expand import expand_set, list_keys
from weber.config.resolutions import count_pixels, read_rectangle


def test_a_set_for_each_resolution() -> None:
    several = DataConfig(path=Path("p/cats"), resolution=[512, "832x1216", 1024], repeats=2)
    sets = expand_set(several)
    assert [one.set_name for one in sets] == ["cats@512", "cats@832x1216", "cats@1024"]
    assert [one.resolution for one in sets] == [512.0, "832x1216", 1024.0]
    assert all(one.path == several.path and one.repeats == 2 for one in sets)
    alone = DataConfig(path=Path("p/cats"), resolution=512)
    assert expand_set(alone) == [alone] and expand_set(DataConfig(path=Path("p/cats"), resolution=[512])) == [alone]


def test_keys_are_those_of_the_file() -> None:
    first = DataConfig(path=Path("a"), resolution=[512, 768])
    second = DataConfig(path=Path("b"))
    third = DataConfig(path=Path("c"), resolution=[512, 768, 1024], name="x@512")
    sets = [*expand_set(first), *expand_set(second), *expand_set(third)]
    assert list_keys(sets) == ["data.0", "data.0", "data.1", "data.2", "data.2", "data.2"]
    assert list_keys([second, second]) == ["data.0", "data.1"]


def test_rectangles() -> None:
    assert read_rectangle("832x1216") == read_rectangle("832 x 1216") == (832, 1216) and read_rectangle(832.0) is None
    assert count_pixels("832x1216", in_megapixels=False) == 832 * 1216
    assert count_pixels(1.5, in_megapixels=True) == 1572864 and count_pixels(512, in_megapixels=False) == 262144
