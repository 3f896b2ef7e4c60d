"""Windows that are mirrored or get other colors: what is cached, what goes with it, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weber.config.data import DataConfig
from weber.data import faces
from weber.data.changes import draw_tint, names_a_side
from weber.data.dataset import Dataset
from weber.data.index import FileFacts
from weber.data.pictures import pack_pictures
from weber.data.sets import PictureLimits
from weber.data.views import read_loss_mask, read_pixels
from weber.data.walk import walk_prepared
from weber.errors import MissingExtraError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64.0, "bucket_step": 16, "upscale": True, **keys})


def test_every_window_is_there_mirrored_and_in_other_colors(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", 96, 64)
    plain = read_sets(_config(tmp_path / "set", crop="random", num_crops=2, aspect="square")).examples[0]
    varied = read_sets(
        _config(tmp_path / "set", crop="random", num_crops=2, aspect="square", mirror=True, color_jitter=0.2, num_colors=2)
    ).examples[0]
    assert len(plain.crops) == 2 and len(varied.crops) == len(set(varied.crops)) == 2 * 3 * 2
    assert [varied.crops[0], varied.crops[6]] == list(plain.crops)
    assert varied.target(0).describe() == plain.target(0).describe()  # nothing that was cached is encoded anew
    first, mirrored = read_pixels(varied.target(0)), read_pixels(varied.target(1))
    assert (first[:, ::-1] == mirrored).all() and not (first == mirrored).all()
    tinted = [read_pixels(varied.target(number)).astype(int) for number in (2, 4)]
    assert all(0.5 < abs(one - first).mean() < 40 for one in tinted) and (tinted[0] != tinted[1]).any()
    assert (read_pixels(varied.target(3)) == tinted[0][:, ::-1]).all()


def test_columns_keep_the_changes_and_walk_as_the_views_are(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number in range(3):
        write_picture(tmp_path / "set" / f"{number}.png", seed=number)
    for keys in ({"mirror": True}, {"color_jitter": 0.1}, {"mirror": True, "color_jitter": 0.1}, {}):
        pictures = read_sets(_config(tmp_path / "set", **keys)).examples
        [part] = pictures.parts
        views = [view.describe() for example in pictures for view in example.list_views()]
        assert [one.preparation for one in walk_prepared(part)] == views
        assert pack_pictures(list(pictures)) == pictures
        assert ("crop.mirrored" in part.columns) == ("mirror" in keys) and ("crop.tint" in part.columns) == ("color_jitter" in keys)


def test_references_and_masks_are_changed_with_their_picture(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png")
    write_picture(tmp_path / "before" / "a.png", 80, 64, seed=1)
    (tmp_path / "masks").mkdir()
    half = np.zeros((64, 64), np.uint8)
    half[:, :16] = 255
    Image.fromarray(half).save(tmp_path / "masks" / "a.png")
    takes = PictureLimits(max_references=1)
    for kind in ("reference_strict", "reference_loose"):
        config = _config(
            tmp_path / "set",
            mirror=True,
            color_jitter=0.1,
            num_colors=1,
            conditioning=[tmp_path / "before"],
            conditioning_type=kind,
            loss_masks=tmp_path / "masks",
        )
        example = read_sets(config, inputs=takes).examples[0]
        for crop, target in enumerate(example.crops):
            [reference] = example.list_references(crop)
            assert (reference.crop.is_mirrored, reference.crop.tint) == (target.is_mirrored, target.tint)
        windows = [example.learned(crop) for crop in range(4)]
        masks = [read_loss_mask(window, shape=(4, 4)) for window in windows if window is not None]
        assert masks[0][0].tolist() == [1, 0, 0, 0] and masks[1][0].tolist() == [0, 0, 0, 1]
        assert len({window.describe() for window in windows if window is not None}) == 2  # colors change no mask


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a cat on the left", True),
        ("the rightmost tree", True),
        ("a left-handed man", True),
        ("Right of the house", True),
        ("all right, a cat", False),
        ("right now", False),
        ("bright leftovers", False),
        ("the copyright sign", False),
    ],
)
def test_captions_that_mention_a_side(caption: str, found: bool) -> None:
    assert names_a_side(caption) == found


def test_what_becomes_of_them(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption="a cat")
    write_picture(tmp_path / "set" / "b.png", seed=1, caption="a cat on the left")
    plain = read_sets(_config(tmp_path / "set", mirror=True))
    assert [len(one.crops) for one in plain.examples] == [2, 2]
    assert plain.notes == (
        "set: 1 picture (b.png) with captions that mention left or right, mirrored all the same;"
        ' mirror_sides = "keep" leaves them as they are',
    )
    kept = read_sets(_config(tmp_path / "set", mirror=True, mirror_sides="keep"))
    assert [len(one.crops) for one in kept.examples] == [2, 1] and "not mirrored" in kept.notes[0]
    refused = read_sets(_config(tmp_path / "set", mirror=True, mirror_sides="refuse"))
    assert [item.reason for item in refused.set_aside] == ["caption mentions left or right: a cat on the left"]


def test_colors_come_from_their_seeds_and_stay_near() -> None:
    words = draw_tint(0.1, seed_parts=(1, "content", 0))
    assert words == draw_tint(0.1, seed_parts=(1, "content", 0)) != draw_tint(0.1, seed_parts=(1, "content", 1))
    for number in range(200):
        factors = [float(one) for one in draw_tint(0.1, seed_parts=(number,)).split()[2:]]
        assert all(abs(factor - 1) <= 0.1005 for factor in factors[:3]) and abs(factors[3]) <= 0.0205


def test_a_face_is_kept_in_the_window(
    tmp_path: Path, write_picture: Write, read_sets: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("left", "none", "right")):
        write_picture(tmp_path / "set" / f"{name}.png", 320, 64, seed=number)
    centers = iter(["0.1 0.5", "", "0.9 0.5"])
    monkeypatch.setattr("weber.data.inspect.inspect_face", lambda data: FileFacts("0" * 32, 320, 64, text=next(centers)))
    monkeypatch.setattr("weber.data.build.check_faces", lambda: None)
    monkeypatch.setattr("weber.data.index.ThreadPoolExecutor", _InOrder)
    config = _config(tmp_path / "set", aspect="square", crop="face")
    dataset = read_sets(config)
    assert [one.crops[0].left for one in dataset.examples] == [0, 128, 256]
    assert dataset.notes == ("set: a face was found in 2 pictures of 3; of the others the middle is kept: none.png",)
    assert [one.crops[0].left for one in read_sets(config).examples] == [0, 128, 256]  # remembered


class _InOrder:
    """Threads that are none."""

    def __enter__(self) -> _InOrder:
        return self

    def __exit__(self, *error: object) -> None: ...

    def map(self, work: Callable[..., object], *items: Any) -> list[object]:
        return [work(*one) for one in zip(*items, strict=True)]


def test_without_opencv_one_error_says_what_to_install(
    tmp_path: Path, write_picture: Write, read_sets: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> object:
        raise ModuleNotFoundError(name=name)

    faces._load_detector.cache_clear()
    monkeypatch.setattr(faces, "load_module", refuse)
    write_picture(tmp_path / "set" / "a.png")
    with pytest.raises(MissingExtraError) as caught:
        read_sets(_config(tmp_path / "set", crop="face"))
    assert "pip install 'weber[face]'" in (caught.value.fix or "")


def test_the_real_detector_finds_no_face_in_noise(tmp_path: Path, write_picture: Write) -> None:
    pytest.importorskip("cv2")
    faces._load_detector.cache_clear()
    path = write_picture(tmp_path / "a.png", 200, 300)
    facts = faces.inspect_face(path.read_bytes())
    assert (facts.width, facts.height, facts.text) == (200, 300, "") and faces.read_center(facts) is None
