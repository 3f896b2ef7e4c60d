"""Sets of pairs: references and masks found by their names, cut as the pictures are, and what has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weber.config.data import DataConfig
from weber.data.crops import Crop
from weber.data.dataset import Dataset
from weber.data.examples import Example, Reference
from weber.data.images import encode_content
from weber.data.masks import Mask
from weber.data.sets import PictureLimits
from weber.data.views import View, read_mask, read_pixels
from weber.errors import ConfigError, DataError, WeberError

Read = Callable[..., Dataset]
Write = Callable[..., Path]

TAKES = PictureLimits(max_references=2, reference_size=lambda width, height: (width // 16 * 16, height // 16 * 16))
REPAINTS = PictureLimits(repaints=True)


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, "captions": "none", **keys})


def _reasons(dataset: Dataset) -> dict[str, str]:
    return {item.path.name: item.reason for item in dataset.set_aside}


def _write_gradient(path: Path, width: int, height: int) -> Path:
    """A picture whose colors say where they are: red from left to right, green from top to bottom."""
    red = (np.arange(width) + 0.5) / width * 255
    green = (np.arange(height) + 0.5) / height * 255
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.round(red), np.round(green)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


# --- references


def test_references_are_found_by_name_or_stem(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(["a.png", "deep/a.png", "deep/b.v2.png", "c.jpg", "c.png"]):
        write_picture(tmp_path / "set" / name, seed=number)
        write_picture(tmp_path / "one" / name, seed=10 + number)
        write_picture(tmp_path / "two" / Path(name).with_suffix(".jpg" if name == "deep/a.png" else Path(name).suffix), seed=20 + number)
    dataset = read_sets(_config(tmp_path / "set", conditioning=[tmp_path / "one", tmp_path / "two"]), inputs=TAKES)
    found = {
        example.path.relative_to(tmp_path).as_posix(): [one.path.relative_to(tmp_path).as_posix() for one in example.references]
        for example in dataset.examples
    }
    assert found == {
        "set/a.png": ["one/a.png", "two/a.png"],
        "set/c.jpg": ["one/c.jpg", "two/c.jpg"],
        "set/c.png": ["one/c.png", "two/c.png"],
        "set/deep/a.png": ["one/deep/a.png", "two/deep/a.jpg"],
        "set/deep/b.v2.png": ["one/deep/b.v2.png", "two/deep/b.v2.png"],
    }
    assert not dataset.set_aside
    for example in dataset.examples:
        for one in example.references:
            assert one.content == encode_content(one.path.read_bytes())


def test_a_picture_without_its_reference_is_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for name in ["broken.png", "good.png", "none.png", "several.png", "deep/elsewhere.png"]:
        write_picture(tmp_path / "set" / name)
    for name in ["good.png", "several.jpg", "several.webp", "elsewhere.png", "more.png"]:
        write_picture(tmp_path / "source" / name)
    (tmp_path / "source" / "broken.png").write_bytes(b"")
    for _ in range(2):  # the second knows the reasons from the index
        dataset = read_sets(_config(tmp_path / "set", conditioning=[tmp_path / "source"]), inputs=TAKES)
        assert [example.path.name for example in dataset.examples] == ["good.png"]
        assert _reasons(dataset) == {
            "broken.png": "unusable reference: broken.png: empty file",
            "elsewhere.png": f"no reference: deep/elsewhere in {tmp_path / 'source'}",
            "none.png": f"no reference: none in {tmp_path / 'source'}",
            "several.png": f"several references: several.jpg and several.webp in {tmp_path / 'source'}",
        }
    assert dataset.num_opened == 0


def test_folders_inside_of_the_set_are_none_of_its_pictures(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for name in ["a.png", "b.png", "source/a.png", "source/b.png", "masks/a.png", "masks/b.png"]:
        write_picture(tmp_path / "set" / name)
    both = PictureLimits(max_references=1, repaints=True)
    config = _config(tmp_path / "set", conditioning=[tmp_path / "set" / "source"], masks=tmp_path / "set" / "masks")
    dataset = read_sets(config, inputs=both)
    assert [(example.path.name, len(example.references), len(example.masks)) for example in dataset.examples] == [
        ("a.png", 1, 1),
        ("b.png", 1, 1),
    ]
    assert not dataset.set_aside


@pytest.mark.parametrize("size", [(200, 120), (111, 333), (150, 150)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("style", "aspect"), [("off", "bucket"), ("center", "bucket"), ("random", "square"), ("corner", "square")])
def test_a_strict_reference_shows_what_its_picture_shows(
    tmp_path: Path, read_sets: Read, size: tuple[int, int], scale: float, style: str, aspect: str
) -> None:
    _write_gradient(tmp_path / "set" / "a.png", *size)
    _write_gradient(tmp_path / "source" / "a.png", *(int(side * scale) for side in size))
    config = _config(tmp_path / "set", conditioning=[tmp_path / "source"], crop=style, aspect=aspect)
    (example,) = read_sets(config, inputs=TAKES).examples
    assert len(example.crops) == (4 if style == "random" and size != (150, 150) else 1)
    for number, crop in enumerate(example.crops):
        (view,) = example.list_references(number)
        assert view.crop == crop
        picture, reference = read_pixels(example.target(number)).astype(int), read_pixels(view).astype(int)
        assert picture.shape == reference.shape
        # a step of one pixel changes the color by 255 / side, and the two were resized from different resolutions
        assert abs(picture - reference).max() <= 255 / (min(size) * scale) + 3


def test_a_loose_reference_keeps_its_own_shape(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", 200, 100)
    path = write_picture(tmp_path / "source" / "a.png", 110, 170, seed=1)
    config = _config(
        tmp_path / "set", conditioning=[tmp_path / "source"], conditioning_type="reference_loose", crop="random", aspect="square"
    )
    (example,) = read_sets(config, inputs=TAKES).examples
    assert len(example.crops) == 4
    own = Crop(104, 160, 4, 0, 96, 160)
    assert example.references == (Reference(path, encode_content(path.read_bytes()), (own,) * 4),)
    assert example.list_references(3) == (View(path, example.references[0].content, own),)
    assert len(list(example.list_views())) == 8 and len(set(example.list_views())) == 5


# --- masks


def test_masks_from_a_folder(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    path = write_picture(tmp_path / "set" / "a.png", 128, 64)
    mask = Image.new("L", (64, 32))
    mask.paste(200, (32, 0, 64, 32))
    mask.save(tmp_path / "a.webp", lossless=True)
    (tmp_path / "masks").mkdir()
    mask_path = (tmp_path / "a.webp").rename(tmp_path / "masks" / "a.webp")
    (example,) = read_sets(_config(path.parent, masks=tmp_path / "masks"), inputs=REPAINTS).examples
    assert example.masks == (Mask(mask_path, encode_content(mask_path.read_bytes())),)
    view = example.masked(0, 0)
    assert view == View(path, example.content, example.crops[0], example.masks[0])
    white = read_mask(view)
    assert white.shape == read_pixels(view).shape[:2]
    assert (white == np.where(np.arange(white.shape[1]) < white.shape[1] // 2, 0, 255)).all()


def test_drawn_masks_depend_on_content_and_seed_alone(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    path = write_picture(tmp_path / "set" / "a.png", 128, 128)
    (before,) = read_sets(_config(tmp_path / "set"), inputs=REPAINTS).examples
    assert len(before.masks) == 4 and len({mask.content for mask in before.masks}) == 4
    path.rename(path.with_name("b.png"))
    (after,) = read_sets(_config(tmp_path / "set"), inputs=REPAINTS).examples
    assert after.masks == before.masks
    assert not set(before.masks) & set(read_sets(_config(tmp_path / "set"), inputs=REPAINTS, seed=2).examples[0].masks)
    (more,) = read_sets(_config(tmp_path / "set", num_masks=6), inputs=REPAINTS).examples
    assert more.masks[:4] == before.masks and len(more.masks) == 6
    write_picture(tmp_path / "set" / "b.png", 128, 128, seed=3)
    assert not set(before.masks) & set(read_sets(_config(tmp_path / "set"), inputs=REPAINTS).examples[0].masks)


def test_without_masks_and_references_there_are_none(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "a.png")
    (example,) = read_sets(_config(tmp_path), inputs=TAKES).examples
    assert (example.references, example.masks, example.masked(0, 0), example.list_references(0)) == ((), (), None, ())
    assert list(example.list_views()) == [example.target(0)]


def test_masks_that_cannot_be_used(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    def paste(name: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
        write_picture(tmp_path / "set" / name, 256, 64, seed=len(name))
        mask = Image.new("L", size)
        mask.paste(255, box)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / name)

    paste("black.png", (256, 64), (0, 0, 0, 0))
    paste("good.png", (256, 64), (100, 10, 120, 20))
    paste("outside.png", (128, 32), (0, 0, 20, 32))
    paste("shape.png", (64, 64), (0, 0, 64, 64))
    write_picture(tmp_path / "set" / "none.png", 256, 64, seed=99)
    (tmp_path / "set" / "broken.png").write_bytes((tmp_path / "set" / "good.png").read_bytes())
    (tmp_path / "masks" / "broken.png").write_text("no mask", encoding="utf-8")
    for _ in range(2):
        dataset = read_sets(_config(tmp_path / "set", masks=tmp_path / "masks", aspect="square"), inputs=REPAINTS)
        assert [example.path.name for example in dataset.examples] == ["good.png"]
        assert _reasons(dataset) == {
            "black.png": "unusable mask: black.png: mask has nothing white: its brightest pixel is 0 of 255",
            "broken.png": "unusable mask: broken.png: not a picture: no known picture format",
            "none.png": f"no mask: none in {tmp_path / 'masks'}",
            "outside.png": "unusable mask: outside.png: nothing white is inside of the crop",
            "shape.png": "unusable mask: shape.png: another shape: 64 x 64 pixels, its picture 256 x 64",
        }
    assert dataset.num_opened == 0


def test_random_windows_without_their_mask_are_left_out(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", 512, 64)
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (512, 64))
    mask.paste(255, (0, 0, 40, 64))
    mask.save(tmp_path / "masks" / "a.png")
    config = _config(tmp_path / "set", masks=tmp_path / "masks", aspect="square", crop="random", num_crops=40)
    (example,) = read_sets(config, inputs=REPAINTS).examples
    assert 1 <= len(example.crops) < 20
    assert all(crop.left < 40 for crop in example.crops)
    for number in range(len(example.crops)):
        view = example.masked(number, 0)
        assert view is not None and read_mask(view).any()


# --- only what changed is opened


def test_the_next_start_opens_only_changed_references_and_masks(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    both = PictureLimits(max_references=1, repaints=True)
    for n in range(5):
        write_picture(tmp_path / "set" / f"{n}.png", seed=n, caption=None)
        write_picture(tmp_path / "source" / f"{n}.png", seed=10 + n, caption=None)
        write_picture(tmp_path / "masks" / f"{n}.png", seed=20 + n, caption=None)
    config = _config(tmp_path / "set", conditioning=[tmp_path / "source"], masks=tmp_path / "masks")
    first = read_sets(config, inputs=both)
    assert first.num_opened == 15
    again = read_sets(config, inputs=both)
    assert (again.examples, again.num_opened) == (first.examples, 0)
    write_picture(tmp_path / "source" / "2.png", 80, 80, seed=99, caption=None)
    write_picture(tmp_path / "masks" / "3.png", 70, 70, seed=98, caption=None)
    changed = read_sets(config, inputs=both)
    assert changed.num_opened == 2
    assert [one == other for one, other in zip(changed.examples, first.examples, strict=True)] == [True, True, False, False, True]


def test_a_file_is_remembered_as_picture_and_as_mask(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", seed=1, caption=None)
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "black.png").rename(tmp_path / "masks" / "a.png")
    assert read_sets(_config(tmp_path / "masks")).num_opened == 1
    with pytest.raises(DataError, match="nothing white"):
        read_sets(_config(tmp_path / "set", masks=tmp_path / "masks"), inputs=REPAINTS)


def test_progress_names_references_and_masks(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for folder in ["cats", "source", "masks"]:
        write_picture(tmp_path / folder / "a.png")
    config = _config(tmp_path / "cats", captions="textfile", conditioning=[tmp_path / "source"], masks=tmp_path / "masks")
    said: list[str] = []
    read_sets(config, inputs=PictureLimits(max_references=1, repaints=True), progress=lambda what, done, total: said.append(what))
    assert said == [
        f"{what} of cats"
        for what in ("reading the captions", "looking at the pictures", "looking at the references", "looking at the masks")
    ]


# --- errors


@pytest.mark.parametrize(
    ("keys", "inputs", "kind", "words"),
    [
        ({"conditioning": ["good"]}, PictureLimits(), ConfigError, ["takes no reference", "data.0.conditioning with 1", "remove"]),
        ({"conditioning": ["good", "deep", "more"]}, TAKES, ConfigError, ["at most 2", "data.0.conditioning with 3", "shorten"]),
        ({"conditioning": ["missing"]}, TAKES, DataError, ["data.0.conditioning", "is not a folder", "No such file"]),
        ({"conditioning": ["good", "file.png"]}, TAKES, DataError, ["data.0.conditioning", "file.png", "got: a file"]),
        ({"conditioning": ["good/../set"]}, TAKES, DataError, ["data.0.conditioning", "the pictures themselves"]),
        ({"conditioning": ["deep"]}, TAKES, DataError, ["no picture of the set", "1 x no reference"]),
        ({"masks": "good"}, TAKES, ConfigError, ["does not repaint", "data.0.masks", "remove data.0.masks"]),
        ({"num_masks": 2}, TAKES, ConfigError, ["does not repaint", "data.0.num_masks"]),
        ({"masks": "missing"}, REPAINTS, DataError, ["data.0.masks", "is not a folder"]),
        ({"masks": "good/../set"}, REPAINTS, DataError, ["data.0.masks", "the pictures themselves", "their masks"]),
        ({"aspect": "listed", "resolution": None}, TAKES, ConfigError, ["data.0.aspect", "list of sizes", '"bucket"']),
        ({"buckets": [[64, 64], [44, 90]], "resolution": None}, TAKES, ConfigError, ["data.0.buckets", "[44, 90]", "[48, 96]"]),
        ({"buckets": [[64, 6400000]], "resolution": None}, TAKES, ConfigError, ["data.0.buckets", "[64, 6400000]", "more pixels than any"]),
    ],
)
def test_errors_name_the_key_and_the_fix(
    tmp_path: Path,
    write_picture: Write,
    read_sets: Read,
    keys: dict[str, Any],
    inputs: PictureLimits,
    kind: type[WeberError],
    words: list[str],
) -> None:
    write_picture(tmp_path / "set" / "a.png")
    for name in ["good", "more"]:
        write_picture(tmp_path / name / "a.png")
    write_picture(tmp_path / "deep" / "inside" / "a.png")
    (tmp_path / "file.png").touch()

    def place(value: Any) -> Any:
        return [tmp_path / one for one in value] if isinstance(value, list) else tmp_path / value if isinstance(value, str) else value

    placed = {key: value if key in ("aspect", "buckets") else place(value) for key, value in keys.items()}
    with pytest.raises(kind) as error:
        read_sets(_config(tmp_path / "set", **placed), inputs=inputs)
    assert [word for word in words if word not in str(error.value)] == []
    assert error.value.fix


def test_an_example_counts_its_references(tmp_path: Path) -> None:
    crop = Crop(64, 64, 0, 0, 64, 64)
    one = Reference(tmp_path / "b.png", "b", (crop,))
    example = Example("set", tmp_path / "a.png", "a", 64, 64, None, (crop,), ("",), 1, references=(one, one))  # type: ignore[arg-type]
    assert len(example.list_references(0)) == 2
