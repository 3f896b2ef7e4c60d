"""Taggers on tiny ONNX files of both layouts: what they see, to the pixel, and which tags pictures get."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from weber.captioners.tag_choice import Choice, append_tags, choose_tags
from weber.captioners.tagger import Label, Likely, average, build_input, open_tagger, read_labels
from weber.errors import ConfigError, ModelError

Run = Callable[..., tuple[int, str, str]]
EDGE = 8
CSV = """tag_id,name,category,count
0,safe,9,1
1,sensitive,9,1
2,1girl,0,9
3,long_hair,0,8
4,^_^,0,7
5,blue_sky,0,6
6,miku_(vocaloid),4,5
"""


def _write_network(file: Path, shape: Sequence[int | str], places: Sequence[int], *, scale: float, shift: float = 0.0) -> None:
    """A network whose outputs are numbers of its flattened input, times a number and plus another: what it sees can be read off it."""
    nodes = [
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("Gather", ["flat", "places"], ["picked"], axis=1),
        helper.make_node("Mul", ["picked", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["found"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, [shape[0], len(places)])],
        [
            numpy_helper.from_array(np.array(places, dtype=np.int64), "places"),
            numpy_helper.from_array(np.array([scale], dtype=np.float32), "scale"),
            numpy_helper.from_array(np.array([shift], dtype=np.float32), "shift"),
        ],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(file))


def write_wd14(folder: Path, places: Sequence[int] = (0, 1, 2, 3, 4, 5, 6), batch: int | str = "N") -> Path:
    """model.onnx beside selected_tags.csv; outputs are probabilities."""
    _write_network(folder / "model.onnx", [batch, EDGE, EDGE, 3], places, scale=1 / 255)
    (folder / "selected_tags.csv").write_text(CSV, encoding="utf-8")
    return folder


def _write_cl(folder: Path, places: Sequence[int], *, is_nested: bool) -> Path:
    """model_optimized.onnx beside tag_mapping.json; a batch of one; outputs are before the sigmoid."""
    _write_network(folder / "model_optimized.onnx", [1, 3, EDGE, EDGE], places, scale=1.0)
    names = [("general", "General"), ("masterpiece", "Quality"), ("safe", "Rating"), ("someone", "Artist"), ("hero", "Character")]
    flat = {str(number): {"tag": tag, "category": category} for number, (tag, category) in enumerate(names)}
    nested = {"idx_to_tag": {number: row["tag"] for number, row in flat.items()}, "tag_to_category": dict(names)}
    (folder / "tag_mapping.json").write_text(json.dumps(nested if is_nested else flat), encoding="utf-8")
    return folder


def _see_plainly(image: Image.Image, edge: int) -> NDArray[np.float64]:
    """The steps of the original, one number at a time: a white square, the mean of what each pixel covers, blue first."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    side = max(pixels.shape[:2])
    top, left = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    square = np.full((side, side, 3), 255.0)
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    seen = np.zeros((edge, edge, 3))
    step = side / edge
    for y in range(edge):
        for x in range(edge):
            total = np.zeros(3)
            for row in range(side):
                high = max(0.0, min(row + 1, (y + 1) * step) - max(row, y * step))
                for column in range(side):
                    wide = max(0.0, min(column + 1, (x + 1) * step) - max(column, x * step))
                    total += high * wide * square[row, column]
            seen[y, x] = total / step**2
    return seen[:, :, ::-1]


@pytest.mark.parametrize("size", [(20, 13), (11, 21), (16, 16)])
def test_what_is_seen_of_larger_pictures(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    seen = build_input(Image.fromarray(pixels), EDGE)
    wanted = _see_plainly(Image.fromarray(pixels), EDGE)
    assert seen.shape == (EDGE, EDGE, 3) and seen.dtype == np.float32
    assert np.abs(seen - wanted).max() <= 0.5 + 1e-6 and np.array_equal(seen, np.rint(seen))


def test_what_is_seen_of_smaller_pictures_and_of_transparent_ones() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    square = np.full((5, 5, 3), 255, dtype=np.uint8)
    square[:, 1:4] = pixels
    wanted = np.asarray(Image.fromarray(square).resize((EDGE, EDGE), Image.Resampling.LANCZOS))
    assert np.array_equal(build_input(Image.fromarray(pixels), EDGE), wanted[:, :, ::-1].astype(np.float32))
    blue = build_input(Image.new("RGB", (EDGE, EDGE), (10, 20, 30)), EDGE)
    assert blue[0, 0].tolist() == [30, 20, 10]


def test_averages_keep_sums() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (37, 3), dtype=np.uint8)
    found = average(pixels, 8, axis=0)
    assert np.allclose(found.mean(axis=0), pixels.mean(axis=0)) and found.shape == (8, 3)
    assert np.array_equal(average(pixels, 37, axis=0), pixels)


def test_the_layout_with_a_list_in_csv(tmp_path: Path) -> None:
    """Channels last, 0 to 255, probabilities as they are; any number of pictures at once."""
    places = [0, 1, 2, 3 * EDGE * 4, 3 * EDGE * 4 + 1, 3 * (EDGE * 4 + 5) + 2, 3 * EDGE * EDGE - 1]
    tagger = open_tagger(str(write_wd14(tmp_path, places)))
    images = [Image.new("RGB", (30, 12), (200, 100, 50)), Image.new("RGB", (12, 30), (0, 51, 102))]
    found = tagger.look(images)
    for image, row in zip(images, found, strict=True):
        seen = build_input(image, EDGE).reshape(-1)
        assert [one.probability for one in row] == pytest.approx([seen[place] / 255 for place in places], abs=1e-6)
    assert [one.label for one in found[0]][:3] == [Label("safe", "rating"), Label("sensitive", "rating"), Label("1girl", "general")]
    assert found[0][6].label.category == "character"


@pytest.mark.parametrize("is_nested", [False, True])
def test_the_layout_with_a_mapping(tmp_path: Path, is_nested: bool) -> None:
    """Channels first, -1 to 1, sigmoid behind; the file takes one picture at a time."""
    places = [0, EDGE * EDGE, 2 * EDGE * EDGE, EDGE * 4 + 3, 3 * EDGE * EDGE - 1]
    tagger = open_tagger(str(_write_cl(tmp_path, places, is_nested=is_nested)))
    images = [Image.new("RGB", (EDGE, EDGE), (255, 128, 0)), Image.new("RGB", (30, 12), (200, 100, 50))]
    found = tagger.look(images)
    assert [one.label.category for one in found[0]] == ["general", "quality", "rating", "artist", "character"]
    for image, row in zip(images, found, strict=True):
        seen = (build_input(image, EDGE) / 127.5 - 1).transpose(2, 0, 1).reshape(-1)
        assert [one.probability for one in row] == pytest.approx([1 / (1 + np.exp(-seen[place])) for place in places], abs=1e-6)
    assert found[0][0].probability == pytest.approx(1 / (1 + np.exp(1)))  # blue is 0, so -1


FOUND = [
    *(Likely(Label("safe", "rating"), 0.3), Likely(Label("explicit", "rating"), 0.2), Likely(Label("1girl", "general"), 0.5)),
    *(Likely(Label("long_hair", "general"), 0.9), Likely(Label("^_^", "general"), 0.7), Likely(Label("blue_sky", "general"), 0.3)),
    *(Likely(Label("miku_(vocaloid)", "character"), 0.6), Likely(Label("best", "quality"), 0.1)),
]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), "long_hair, ^_^, miku_(vocaloid), 1girl"),
        (Choice(order="list"), "1girl, long_hair, ^_^, miku_(vocaloid)"),
        (Choice(thresholds={"general": 0.6, "character": 0.65}), "long_hair, ^_^"),
        (Choice(threshold=0.2, removes_underscores=True), "long hair, ^_^, miku (vocaloid), 1girl, blue sky"),
        (Choice(removes_underscores=True, expands=True, characters_first=True), "miku, vocaloid, long hair, ^_^, 1girl"),
        (Choice(rating="first", quality="last"), "safe, long_hair, ^_^, miku_(vocaloid), 1girl, best"),
        (Choice(undesired=["*hair", "1GIRL"], rating="last"), "^_^, miku_(vocaloid), safe"),
        (Choice(first=["1girl", "long_hair", "dog"]), "1girl, long_hair, ^_^, miku_(vocaloid)"),
        (Choice(replaced={"1girl": "a woman", "long hair": "hair"}, removes_underscores=True), "hair, ^_^, miku (vocaloid), a woman"),
    ],
)
def test_tags_of_a_picture(choice: Choice, wanted: str) -> None:
    assert ", ".join(choose_tags(FOUND, choice)) == wanted


def test_tags_are_added_once() -> None:
    assert append_tags("Dog, red", "red, cat, dog", separator=", ") == "Dog, red, cat"
    assert append_tags("", "cat", separator=", ") == "cat"


def test_a_folder_is_tagged_from_the_command_line(tmp_path: Path, weber: Run) -> None:
    """As the seed's document has it: a folder of taggers, thresholds, no underscores."""
    write_wd14(tmp_path / "tag_models" / "SmilingWolf_wd-v1-4-moat-tagger-v2", [0, 1, 2, 0, 1, 2, 1])
    folder = tmp_path / "data path"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (9, 9), (255, 0, 90)).save(folder / "röt.png")  # blue 0.35, green 0, red 1
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(folder / "sub" / "clear.png")  # white
    words = [
        "--with",
        "wd14-moat",
        "--model-dir",
        tmp_path / "tag_models",
        "--remove-underscore",
        "--batch",
        8,
        "--general-threshold",
        "0.35",
    ]
    code, out, err = weber("tag", folder, *words, "--character-threshold", "0.35", "--undesired", "", "--frequency")
    assert code == 0, err
    texts = {path.name: path.read_text(encoding="utf-8").strip().split(", ") for path in folder.rglob("*.txt")}
    assert set(texts["clear.txt"]) == {"1girl", "long hair", "^_^", "blue sky", "miku (vocaloid)"}
    assert texts["röt.txt"] == ["1girl", "blue sky", "long hair"]
    assert "2 texts written" in out and "      2 1girl" in out and "      1 ^_^" in out
    code, out, _ = weber("tag", folder, *words)
    assert code == 0 and "0 texts written; 2 were there" in out
    (folder / "röt.txt").write_text("zorb, 1girl\n", encoding="utf-8")
    assert weber("tag", folder, *words, "--append")[0] == 0
    assert (folder / "röt.txt").read_text(encoding="utf-8") == "zorb, 1girl, blue sky, long hair\n"
    assert weber("tag", folder, *words, "--overwrite", "--ending", ".tags")[0] == 0
    (folder / "sub" / "clear.txt").write_bytes(b"\xff\xfe")
    code, _, err = weber("tag", folder, *words, "--append")
    assert code == 2 and "A text file cannot be added to." in err
    for wrong, said in {
        ("--with", "wd15"): "There is no such tagger.",
        ("--threshold", "2"): "A threshold lies in 0..1.",
        ("--replace", "x"): "old=new",
        ("--with", str(folder), "--overwrite"): "This is no tagger.",
        ("--model-dir", str(folder), "--overwrite"): "The tagger is not in that folder.",
        ("--append", "--overwrite"): "one of both",
    }.items():
        code, _, err = weber("tag", folder, *wrong)
        assert code == 2 and said in err, err


def test_files_that_cannot_be_read_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_wd14(tmp_path / "one")
    (folder / "selected_tags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ModelError, match="list of tags cannot be read"):
        open_tagger(str(folder))
    (folder / "selected_tags.csv").write_text(CSV + "7,more,0,1\n")
    with pytest.raises(ModelError, match="do not belong together"):
        open_tagger(str(folder)).look([Image.new("RGB", (9, 9))])
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="ONNX file cannot be read"):
        open_tagger(str(folder))
    with pytest.raises(ConfigError, match="no such tagger"):
        open_tagger("nobody")
    with pytest.raises(ModelError):
        read_labels(_write_mapping(tmp_path / "tag_mapping.json"))


def _write_mapping(file: Path) -> Path:
    file.write_text('{"0": {"name": "x"}}')
    return file


def test_without_onnxruntime_the_command_is_named(tmp_path: Path) -> None:
    folder = write_wd14(tmp_path / "tagger")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    code = "import sys; sys.modules['onnxruntime'] = None; from weber import cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", code, "tag", tmp_path, "--with", folder], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'weber[onnx]'" in done.stderr
