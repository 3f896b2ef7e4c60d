"""Sets of pictures: what fits the model is filled in, and every combination that cannot act is refused with a sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.config.load import build_config
from weber.config.toml import write_toml
from weber.errors import ConfigError

PATH, HUB, TABLE = {"path": "a"}, {"hub": "owner/name"}, {"path": "a", "metadata": "a.jsonl"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "the set has no pictures"),
    ({"repeats": 2}, 'write path = "folder/of/pictures" or hub = "owner/name"'),
    ({**PATH, **HUB}, "path and hub are two places for the same pictures"),
    ({**PATH, "hub_revision": "v1"}, "hub_revision has no effect without hub"),
    ({**PATH, "hub_split": "test"}, "hub_split has no effect without hub"),
    ({"hub": "a/b/c"}, 'hub = "a/b/c" is not the name of a dataset'),
    ({"hub": "../name"}, 'hub = "../name" is not the name of a dataset'),
    ({"hub": "https://huggingface.co/datasets/a/b"}, "is not the name of a dataset"),
    ({**HUB, "hub_revision": "../x"}, 'hub_revision = "../x" is no branch, tag or commit'),
    ({**HUB, "hub_split": "../x"}, 'hub_split = "../x" is not the name of a split'),
    ({**HUB, "hub_split": "train[:10]"}, 'hub_split = "train[:10]" is not the name of a split'),
    ({**HUB, "metadata": "a.jsonl"}, "metadata has no effect with hub"),
    ({**HUB, "recursive": False}, "recursive has no effect with hub"),
    ({**HUB, "conditioning": ["b"]}, "use conditioning_columns"),
    ({**HUB, "masks": "b"}, "masks names files by those of path"),
    ({**HUB, "captions": "textfile"}, 'captions = "textfile" needs files of your own'),
    ({**HUB, "captions": "filename"}, 'captions = "filename" needs files of your own'),
    ({**PATH, "metadata": "a.xlsx"}, "of no known kind; write JSON Lines or CSV, as .jsonl, .csv, .json, .parquet"),
    ({**PATH, "image_column": "x"}, "image_column has no effect without metadata or hub"),
    ({**PATH, "caption_column": "x"}, "caption_column has no effect without metadata or hub"),
    ({**PATH, "conditioning_columns": ["x"]}, "conditioning_columns has no effect without metadata or hub"),
    ({**PATH, "captions": "metadata"}, 'captions = "metadata" needs metadata or hub'),
    ({**TABLE, "captions": "textfile", "caption_column": "x"}, 'caption_column has no effect with captions = "textfile"'),
    ({**TABLE, "image_column": "x", "caption_column": "x"}, 'image_column and caption_column name the column "x" twice'),
    ({**TABLE, "conditioning_columns": ["x", "x"]}, 'conditioning_columns name the column "x" twice'),
    ({**TABLE, "conditioning_columns": ["x", ""]}, "an empty text in a list"),
    ({**PATH, "conditioning": [" "]}, "an empty text in a list"),
    ({**TABLE, "conditioning_columns": ["x"], "conditioning": ["b"]}, "conditioning and conditioning_columns both name references"),
    ({**PATH, "conditioning": ["b", "b"]}, 'conditioning names "b" twice'),
    ({**PATH, "conditioning": ["a"]}, "the folder of the pictures themselves"),
    ({**PATH, "masks": "a"}, "the folder of the pictures themselves"),
    ({**PATH, "conditioning_type": "reference_loose"}, "conditioning_type has no effect without references"),
    ({**PATH, "masks": "b", "num_masks": 2}, "num_masks has no effect with masks"),
    ({**TABLE, "instance_prompt": "x"}, 'instance_prompt has no effect with any other captions than "instance"'),
    ({**PATH, "captions": "none", "instance_prompt": "x"}, 'instance_prompt has no effect with captions = "none"'),
    ({**PATH, "aspect": "listed", "resolution": 512}, 'resolution has no effect with aspect = "listed"'),
    ({**PATH, "aspect": "listed", "resolution_type": "shorter_edge"}, 'resolution_type has no effect with aspect = "listed"'),
    ({**PATH, "aspect": "listed", "bucket_step": 32, "upscale": True}, "bucket_step has no effect"),
    ({**PATH, "buckets": [[64, 64]], "aspect": "square"}, 'buckets has no effect with aspect = "square"'),
    ({**PATH, "buckets": [[64, 64]], "resolution": 64}, "resolution has no effect with buckets"),
    ({**PATH, "resolution": [512, 512]}, "resolution has 512.0 twice"),
    ({**PATH, "resolution": "832x1216", "resolution_type": "shorter_edge"}, 'so resolution_type = "shorter_edge" has no effect'),
    ({**PATH, "resolution": "832x1216", "aspect": "square"}, "write buckets = [[832, 1216]] instead"),
    ({**PATH, "aspect": "closest"}, 'aspect = "closest" needs aspects'),
    ({**PATH, "aspects": [1.0]}, 'aspects has no effect without aspect = "closest" or "random"'),
    ({**PATH, "aspect": "random", "aspects": [1.0, 99.0]}, "longer than 16 to 1"),
    ({**PATH, "aspect": "closest", "aspects": [1.0, 1.0]}, "aspects has 1 twice"),
    ({**PATH, "aspect": "closest", "aspects": [1.0], "aspect_weights": [1.0]}, 'aspect_weights has no effect without aspect = "random"'),
    ({**PATH, "aspect": "random", "aspects": [1.0], "aspect_weights": [1.0, 2.0]}, "aspect_weights has 2 numbers for 1 aspects"),
    ({**PATH, "aspect": "random", "aspects": [1.0], "crop": "off"}, "would distort the pictures to other shapes"),
    ({**PATH, "downsample_above": 2000}, "downsample_above has no effect without downsample_to"),
    ({**PATH, "downsample_to": 512, "resolution": 512}, "downsample_to = 512 has no effect"),
    ({**PATH, "downsample_to": 1280, "downsample_above": 1000}, "downsample_above = 1000 is below downsample_to = 1280"),
    ({**PATH, "downsample_to": 1280, "crop": "off"}, 'downsample_to has no effect with crop = "off"'),
    ({**PATH, "shortest_side": 512, "longest_side": 256}, "shortest_side = 512 is above longest_side = 256"),
    ({**PATH, "shortest_side": 512, "aspect": "square"}, 'shortest_side has no effect with aspect = "square"'),
    ({**PATH, "longest_side": 2048, "geometry": "kohya"}, 'longest_side has no effect with geometry = "kohya" and upscale = false'),
    ({**PATH, "longest_side": 2048, "geometry": "simpletuner"}, "knows no such limit"),
    ({**PATH, "geometry": "kohya", "buckets": [[64, 64]]}, 'geometry = "kohya" has no effect with buckets'),
    ({**PATH, "minimum_megapixels": 2.0, "maximum_megapixels": 1.0}, "minimum_megapixels = 2 is above maximum_megapixels = 1"),
    ({**PATH, "mirror_sides": "keep"}, 'mirror_sides = "keep" has no effect without mirror = true'),
    ({**PATH, "num_colors": 2}, "num_colors has no effect without color_jitter"),
    ({**PATH, "reference_optional": True}, "reference_optional has no effect without references"),
    ({**PATH, "reference_dropout": 0.1}, "reference_dropout has no effect without references"),
    ({**PATH, "conditioning": ["b"], "reference_sizes": [512]}, 'unless conditioning_type = "reference_loose"'),
    (
        {**PATH, "conditioning": ["b"], "conditioning_type": "reference_loose", "reference_sizes": [512, 256]},
        "reference_sizes has 2 numbers for 1 folders",
    ),
    ({**PATH, "conditioning": ["b"], "reference_order": "shuffled"}, 'reference_order = "shuffled" has no effect with one reference'),
    ({**PATH, "conditioning": ["b"], "reference_dropout": 0.1, "regularization": True}, "reference_dropout cannot act with regularization"),
    ({**PATH, "reference_own": "crop", "crop": "off"}, 'reference_own = "crop" has no effect with crop = "off"'),
    ({**PATH, "aspect_range": [2.0, 1.0]}, "aspect_range = [2, 1] ends below its start"),
    ({**PATH, "buckets": [[64, 64]], "resolution_type": "shorter_edge"}, "resolution_type has no effect with buckets"),
    ({**PATH, "buckets": [[64, 64]], "bucket_step": 16, "upscale": True}, "bucket_step has no effect with buckets"),
    ({**PATH, "buckets": [[64, 64], [32, 64], [64, 64]]}, "buckets has [64, 64] twice"),
    ({**PATH, "buckets": [[64]]}, "buckets"),
    ({**PATH, "buckets": [64, 64]}, "buckets"),
    ({**PATH, "buckets": [[64, 0]]}, "buckets"),
    ({**PATH, "buckets": "64x64"}, "buckets"),
]

ALLOWED: list[dict[str, Any]] = [
    HUB,
    {"hub": "name", "hub_revision": "refs/pr/1", "hub_split": "configuration/train_sft"},
    {**HUB, "hub_revision": "v1.0", "image_column": "out", "caption_column": "text", "conditioning_columns": ["a", "b"]},
    {**HUB, "captions": "instance", "instance_prompt": "x"},
    {**HUB, "captions": "none", "num_masks": 2},
    {**TABLE, "captions": "textfile", "conditioning_columns": ["x"], "conditioning_type": "reference_strict"},
    {**TABLE, "metadata": "a.CSV", "conditioning": ["b", "c"], "masks": "d", "recursive": False},
    {**PATH, "aspect": "listed", "max_aspect": 2.0, "crop": "off", "bucket_step": 32},
    {**PATH, "buckets": [[64, 96], [96, 64]], "aspect": "listed", "crop": "off", "bucket_step": 32},
    {**PATH, "hub_split": "train", "conditioning": [], "conditioning_columns": []},
]


def _build(keys: dict[str, Any]) -> DataConfig:
    return build_config({"data": [keys]}).data[0]


@pytest.mark.parametrize(("keys", "words"), REFUSED)
def test_what_cannot_act_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        _build(keys)
    assert error.value.what.startswith("data.0")
    assert words in f"{error.value.what}; {error.value.fix}"
    assert error.value.fix


@pytest.mark.parametrize("keys", ALLOWED)
def test_what_acts_is_allowed(keys: dict[str, Any]) -> None:
    assert _build(keys)


@pytest.mark.parametrize(
    ("keys", "sizes", "filled"),
    [
        ({}, [], {"aspect": "bucket", "captions": "textfile", "resolution": 1024, "bucket_step": 64}),
        ({}, [(672, 1568)], {"aspect": "listed", "captions": "textfile", "resolution": None, "bucket_step": 64}),
        ({"upscale": True}, [(672, 1568)], {"aspect": "listed", "resolution": None, "bucket_step": None}),
        ({"buckets": [[512, 256]]}, [], {"aspect": "listed", "resolution": None, "bucket_step": 64}),
        ({"buckets": [[512, 256]], "bucket_step": 16}, [(672, 1568)], {"aspect": "listed", "resolution": None, "bucket_step": 16}),
        ({"resolution": 512}, [(672, 1568)], {"aspect": "bucket", "resolution": 512}),
        ({"bucket_step": 32}, [(672, 1568)], {"aspect": "bucket", "resolution": 1024, "bucket_step": 32}),
        ({"resolution_type": "shorter_edge"}, [(672, 1568)], {"aspect": "bucket", "resolution": 1024}),
        ({"aspect": "square"}, [(672, 1568)], {"aspect": "square", "resolution": 1024}),
        ({"metadata": "a.csv"}, [], {"captions": "metadata"}),
        ({"metadata": "a.csv", "captions": "none"}, [], {"captions": "none"}),
        ({"path": None, "hub": "owner/name"}, [], {"captions": "metadata"}),
    ],
)
def test_what_is_left_out_is_filled_in_to_fit_the_model(keys: dict[str, Any], sizes: list[tuple[int, int]], filled: dict[str, Any]) -> None:
    given = {key: value for key, value in {**PATH, **keys}.items() if value is not None}
    config = _build(given)
    fitting = config.build_fitting(native_pixels=1024, alignment_pixels=16, sizes=sizes)
    assert {key: fitting.model_dump()[key] for key in filled} == filled
    # what was filled in is what a person could have written, and fits again
    again = _build(_load(fitting))
    assert again == fitting == again.build_fitting(native_pixels=1024, alignment_pixels=16, sizes=sizes)


def _load(config: DataConfig) -> dict[str, Any]:
    """The set as it stands in the resolved settings of a run."""
    return dict(tomllib.loads(write_toml({"data": [config.model_dump()]}))["data"][0])


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"path": "deep/cats"}, "cats"),
        ({"path": "."}, Path.cwd().name),
        ({"hub": "owner/cats"}, "cats"),
        ({"hub": "cats"}, "cats"),
        ({"hub": "owner/cats", "name": "dogs"}, "dogs"),
    ],
)
def test_a_set_has_a_name(keys: dict[str, Any], name: str) -> None:
    assert _build(keys).set_name == name


def test_references_are_counted() -> None:
    sets = [{}, {"conditioning": ["x", "y"]}, {"conditioning_columns": ["x"]}]
    assert [_build({**TABLE, **keys}).num_references for keys in sets] == [0, 2, 1]
