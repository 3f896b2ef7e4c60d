"""`weber tags`, `weber metadata` and the other commands of `weber data`: what becomes of files, and how it is taken back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageCms

from tests.captioners.models import write_clipseg
from tests.data.dataset_hub import Hub, build_parquet, build_picture
from weber.captioners.subjects import build_see
from weber.config.data import DataConfig
from weber.config.load import load_config
from weber.config.memory import MemoryConfig
from weber.data.images import read_image
from weber.errors import ConfigError
from weber.planning.plan import build_plan

Run = Callable[..., tuple[int, str, str]]


def _write_set(folder: Path, texts: dict[str, str | None]) -> Path:
    for number, (name, text) in enumerate(texts.items()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60 + number, 64), (40 * number % 256, 100, 200)).save(file)
        if text is not None:
            file.with_suffix(".txt").write_bytes(text.encode())
    return folder


def _read_texts(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_bytes().decode() for file in sorted(folder.rglob("*.txt"))}


TEXTS = {
    "a.png": "red hair, zorb, smiling\n",
    "ü/b.jpg": "a dog (big, old), Red Hair\r\nzorb, a cat\r\n",
    "c.png": "no tags here\u2028but one",
    "d.png": None,
}


def test_tags_are_changed_shown_and_taken_back(tmp_path: Path, weber: Run) -> None:
    folder = _write_set(tmp_path / "pictures", TEXTS)
    before = _read_texts(folder)
    code, out, _ = weber("tags", "first", folder, "zorb", "--dry-run")
    assert code == 0 and "3 of 4 caption files would change." in out
    assert "  - red hair, zorb, smiling" in out and "  + zorb, red hair, smiling" in out
    assert _read_texts(folder) == before
    assert weber("tags", "first", folder, "zorb")[0] == 0
    assert _read_texts(folder) == {
        "a.txt": "zorb, red hair, smiling\n",
        "c.txt": "zorb, no tags here\u2028but one",
        "ü/b.txt": "zorb, a dog (big, old), Red Hair\r\nzorb, a cat\r\n",
    }
    assert weber("tags", "replace", folder, "red hair", "orange hair")[0] == 0
    assert weber("tags", "add", folder, "photo", "ZORB", "--create")[0] == 0
    assert weber("tags", "remove", folder, "a *")[0] == 0
    assert _read_texts(folder) == {
        "a.txt": "zorb, orange hair, smiling, photo\n",
        "c.txt": "zorb, no tags here\u2028but one, photo",
        "d.txt": "photo, ZORB",
        "ü/b.txt": "zorb, orange hair, photo\r\nzorb, photo\r\n",
    }
    code, out, _ = weber("tags", "count", folder, "--most", "2")
    assert code == 0 and [line.split() for line in out.splitlines()] == [["5", "photo"], ["4", "zorb"]]
    for number in (4, 3, 2, 1):
        code, out, _ = weber("data", "undo", folder / ".weber" / f"undo-{number:04}.json")
        assert code == 0, out
    assert _read_texts(folder) == before


def test_what_was_changed_since_stays(tmp_path: Path, weber: Run) -> None:
    folder = _write_set(tmp_path / "pictures", TEXTS)
    assert weber("tags", "add", folder, "photo")[0] == 0
    (folder / "a.txt").write_text("mine")
    code, out, _ = weber("data", "undo", folder / ".weber" / "undo-0001.json")
    assert code == 1 and "a.txt: it was changed since" in out and "2 files are as they were." in out
    assert _read_texts(folder)["a.txt"] == "mine" and _read_texts(folder)["c.txt"] == TEXTS["c.png"]


def test_tags_that_cannot_be_changed(tmp_path: Path, weber: Run) -> None:
    folder = _write_set(tmp_path / "pictures", TEXTS)
    (folder / "a.txt").write_bytes(b"\xff\xfe")
    (folder / "c.txt").write_text('{\n "caption": "x"\n}\n')
    code, out, _ = weber("tags", "add", folder, "photo")
    assert code == 0 and "left as it is: a.txt: caption file is not UTF-8 text" in out and "left as it is: c.txt: it is JSON" in out
    for words, said in {
        ("add", folder, "a, b"): "This is no tag.",
        ("add", folder): "This is no tag.",
        ("add", tmp_path / "nowhere", "a"): "There is no such folder.",
        ("add", folder / "a.txt", "a"): "This is a file, not a folder.",
        ("count", folder, "--separator", ""): "Tags are separated by a sign.",
    }.items():
        code, _, err = weber("tags", *words)
        assert code == 2 and said in err, err


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".json"])
def test_a_table_is_built_merged_trained_from_and_split(tmp_path: Path, weber: Run, ending: str) -> None:
    folder = _write_set(tmp_path / "pictures", {"a.png": "zorb, red", "sub/ö.png": "zorb\n", "c.png": "zorb, blue"})
    (folder / "a.caption").write_text("a red zorb\n")
    (folder / "sub" / "ö.caption").write_text("a zorb\nanother line\n", encoding="utf-8")
    Image.new("RGB", (30, 50)).save(folder / "c.png", exif=_build_turned())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    table = tmp_path / f"table{ending}"
    code, out, err = weber("metadata", "build", folder, table)
    assert code == 0 and "3 pictures, 2 with a caption, 3 with tags" in out and "left out: broken.png" in out, err
    assert weber("metadata", "build", folder, folder / f"joined{ending}", "--join")[0] == 0
    (tmp_path / "more.jsonl").write_text('{"image": "c.png", "caption": "a blue zorb", "tags": ["x", "y"], "score": 3}\n')
    merged = tmp_path / "merged.jsonl"
    code, out, err = weber("metadata", "merge", table, tmp_path / "more.jsonl", "--out", merged, "--folder", folder)
    assert code == 0, err
    rows = {row["image"]: row for row in map(json.loads, merged.read_text(encoding="utf-8").splitlines())}
    lines = ["a zorb", "another line"]
    assert rows["c.png"] == {"image": "c.png", "caption": "a blue zorb", "tags": "x, y", "width": 50, "height": 30, "score": 3}
    assert rows["sub/ö.png"]["caption"] == (lines[0] if ending == ".json" else lines)
    joined = folder / f"joined{ending}"
    data = f"[[data]]\npath = '{folder}'\nmetadata = '{joined}'\nminimum_edge = 16\n"
    (tmp_path / "run.toml").write_text(f"[model]\nvariant = 'pocket'\n{data}[output]\ncache = '{tmp_path}/cache'\n")
    plan = build_plan(load_config(tmp_path / "run.toml"))
    texts = {example.path.name: example.captions for example in plan.dataset.examples}
    assert texts["a.png"] == ("a red zorb, zorb, red",) and texts["c.png"] == ("zorb, blue",)
    for file in [*folder.rglob("*.txt"), *folder.rglob("*.caption")]:
        if file.name != "a.caption":
            file.unlink()
    code, out, _ = weber("metadata", "split", merged, folder)
    assert code == 0 and "5 files written" in out
    assert (folder / "c.caption").read_text() == "a blue zorb\n" and (folder / "sub" / "ö.txt").read_text() == "zorb\n"
    (folder / "c.caption").write_text("mine\n")
    code, out, _ = weber("metadata", "split", merged, folder)
    assert "left as it is: c.caption" in out and (folder / "c.caption").read_text() == "mine\n"
    assert weber("metadata", "split", merged, folder, "--overwrite")[0] == 0
    assert (folder / "c.caption").read_text() == "a blue zorb\n"


def _build_turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_tables_of_kohya_are_read_and_written(tmp_path: Path, weber: Run) -> None:
    """Keys without endings, and whole paths, which is what its trainer opens."""
    folder = _write_set(tmp_path / "pictures", {"a.png": "zorb", "b.jpg": "zorb, two"})
    table = tmp_path / "meta_data.json"
    table.write_text(json.dumps({"a": {"caption": "one", "tags": "zorb", "image_size": [60, 64]}, "b": {"tags": "zorb, two"}}))
    assert weber("metadata", "merge", table, "--out", tmp_path / "all.jsonl", "--folder", folder)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["a.png", "b.jpg"] and rows[0]["width"] == 60
    assert weber("metadata", "build", folder, table, "--captions", ".caption", "--tags", ".txt")[0] == 0
    tree = json.loads(table.read_text())
    assert tree[str(folder / "b.jpg")] == {"tags": "zorb, two", "image_size": [61, 64]}
    assert weber("metadata", "build", folder, tmp_path / "x.xlsx")[0] == 2
    assert weber("metadata", "merge", "--out", tmp_path / "x.jsonl")[0] == 2


def test_pictures_are_scaled_turned_and_brought_to_srgb(tmp_path: Path, weber: Run) -> None:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))  # unusable: colors stay
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=_build_turned(), icc_profile=profile.tobytes())
    clear = Image.new("RGBA", (100, 50), (200, 10, 20, 0))
    clear.paste((10, 200, 30, 255), (0, 0, 50, 50))
    clear.save(folder / "sub" / "clear.png")
    Image.new("RGB", (20, 20)).save(folder / "sub" / "small.bmp")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "turned.long.txt").write_text("long")
    (folder / "sub" / "clear.txt").write_text("clear")
    (folder / "notes.txt").write_text("of no picture")
    out = tmp_path / "new"
    code, said, _ = weber("data", "resize", folder, "--out", out, "--edge", "64")
    assert code == 0 and "3 pictures written; 2 files beside them copied" in said and "left out: broken.jpg" in said
    names = {file.relative_to(out).as_posix(): file for file in out.rglob("*") if file.is_file()}
    assert set(names) == {"turned.jpg", "turned.long.txt", "sub/clear.png", "sub/clear.txt", "sub/small.png"}
    with Image.open(names["turned.jpg"]) as image:
        assert image.size == (29, 64) and not image.getexif() and "icc_profile" not in image.info
    with Image.open(names["sub/clear.png"]) as image:
        assert image.mode == "RGBA" and image.size == (64, 32) and image.getpixel((60, 5))[3] == 0
        assert image.getpixel((5, 5)) == (10, 200, 30, 255)
    before = {name: (file.stat().st_mtime_ns, file.stat().st_ino) for name, file in names.items()}
    (folder / "sub" / "small.bmp").touch()
    code, said, _ = weber("data", "resize", folder, "--out", out, "--edge", "64")
    assert "1 pictures written, 2 were there; 0 files" in said
    after = {name: (file.stat().st_mtime_ns, file.stat().st_ino) for name, file in names.items()}
    assert {name for name in before if before[name] != after[name]} == {"sub/small.png"}
    assert weber("data", "convert", folder, "--out", tmp_path / "webp", "--format", "webp", "--quality", "50")[0] == 0
    with Image.open(tmp_path / "webp" / "sub" / "clear.webp") as image:
        assert image.size == (100, 50) and image.mode == "RGBA"
    for words, told in {
        ("--out", folder / "sub" / "x", "--edge", 64): "neither inside of the other",
        ("--out", out): "not said how large",
        ("--out", out, "--edge", 64, "--format", "png", "--quality", 3): "loses nothing",
        ("--out", out, "--edge", 64, "--format", "gif"): "not written in that format",
    }.items():
        code, _, err = weber("data", "resize", folder, *words)
        assert code == 2 and told in err, err


def test_colors_of_a_wide_profile_are_converted(tmp_path: Path, weber: Run) -> None:
    """What is written shows the same colors as what training reads."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    swapped = _build_profile()
    Image.new("RGB", (40, 40), (200, 100, 50)).save(folder / "wide.png", icc_profile=swapped)
    assert weber("data", "convert", folder, "--out", tmp_path / "new")[0] == 0
    wanted = read_image((folder / "wide.png").read_bytes())
    with Image.open(tmp_path / "new" / "wide.png") as image:
        assert image.getpixel((3, 3)) == wanted.getpixel((3, 3)) != (200, 100, 50)


def _build_profile() -> bytes:
    """sRGB with its red and blue primaries exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.find(b"rXYZ"), data.find(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_masks_from_alpha_and_from_what_stands_out(tmp_path: Path, weber: Run) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "masks"
    folder.mkdir()
    cut = Image.new("RGBA", (40, 30), (200, 10, 20, 0))
    cut.paste((200, 10, 20, 255), (10, 10, 20, 20))
    cut.save(folder / "cut.png")
    bright = Image.new("RGB", (32, 32))
    bright.paste((255, 255, 255), (0, 0, 16, 32))
    bright.save(folder / "bright.jpg", quality=95)
    code, said, _ = weber("data", "masks", folder, "--out", out, "--grow", "2", "--background", "0.2")
    assert code == 0 and "1 masks written" in said and "left out: bright.jpg: no alpha channel" in said
    with Image.open(out / "cut.png") as mask:
        assert mask.mode == "L" and mask.size == (40, 30)
        assert [mask.getpixel(place) for place in ((15, 15), (8, 8), (6, 15))] == [255, 255, 51]
    model = _write_salient(tmp_path / "u2net.onnx")
    code, said, err = weber("data", "masks", folder, "--out", out, "--with", "u2net", "--model", model, "--threshold", "0.5")
    assert code == 0 and "1 masks written; 1 were there" in said, err
    with Image.open(out / "bright.png") as mask:
        assert [mask.getpixel(place) for place in ((4, 15), (28, 15))] == [255, 0]
    config = DataConfig(path=folder, loss_masks=out, captions="none")
    assert config.loss_masks == out
    for words, told in {
        ("--with", "rembg"): "no such model for masks",
        ("--with", "clipseg"): "needs words",
        ("--with", "isnet"): "needs its ONNX file",
        ("--with", "u2net", "--model", str(model), "--prompt", "x"): "takes no words",
        ("--prompt", "x"): "needs no model",
        ("--grow", "-1"): "0 to 200 pixels",
        ("--threshold", "0"): "above 0",
    }.items():
        code, _, err = weber("data", "masks", folder, "--out", out, *words)
        assert code == 2 and told in err, err
    assert weber("data", "masks", folder, "--out", folder)[0] == 2


def _write_salient(file: Path) -> Path:
    """A network whose mask is the red channel as it sees it."""
    nodes = [helper.make_node("Slice", ["seen", "start", "end", "axis"], ["mask"])]
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("start", 0), ("end", 1), ("axis", 1))]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("seen", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 16, 16])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(file))
    return file


def test_what_stands_out_is_stretched_to_all_levels(tmp_path: Path) -> None:
    see = build_see("birefnet", model=str(_write_salient(tmp_path / "x.onnx")), prompt=None, memory=MemoryConfig(device="cpu"))
    ramp = Image.linear_gradient("L").convert("RGB")
    levels = np.asarray(see(ramp)).astype(int)
    assert levels.shape == (16, 16) and levels.min() == 0 and levels.max() == 255 and (np.diff(levels[:, 0]) > 0).all()
    with pytest.raises(ConfigError):
        build_see("nobody", model=None, prompt=None, memory=MemoryConfig())


def test_masks_of_what_words_say(tmp_path: Path, weber: Run) -> None:
    model, folder = write_clipseg(tmp_path / "clipseg"), _write_set(tmp_path / "pictures", {"a.png": None, "b.jpg": None})
    words = ["--with", "clipseg", "--model", model, "memory.device=cpu"]
    for prompt in ("a dog", "cat"):
        code, out, err = weber("data", "masks", folder, "--out", tmp_path / prompt, "--prompt", prompt, *words)
        assert code == 0 and "2 masks written" in out, err
    with Image.open(tmp_path / "a dog" / "b.png") as mask, Image.open(tmp_path / "cat" / "b.png") as other:
        assert mask.size == (61, 64) and mask.mode == "L"
        assert mask.tobytes() != other.tobytes()


def test_class_images_are_painted_once(tmp_path: Path, weber: Run) -> None:
    """Those that are there count; a kill loses no more than a few, and all are the same afterwards."""
    words = ["--prompt", "a red apple", "--steps", "2", "memory.device=cpu"]
    whole, folder = tmp_path / "whole", tmp_path / "in parts"
    assert weber("data", "class-images", "pocket", whole, "--num", "6", *words)[0] == 0
    assert weber("data", "class-images", "pocket", folder, "--num", "2", *words)[0] == 0
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    (folder / "class-000001.txt").unlink()
    code, out, err = weber("data", "class-images", "pocket", folder, "--num", "6", *words)
    assert code == 0 and "4 pictures painted" in out and err.count("Painting with pocket.") == 1
    assert all(file.stat().st_mtime_ns == time for file, time in times.items() if file.name != "class-000001.txt")
    for file in sorted(whole.iterdir()):
        if file.suffix == ".png":
            assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(folder / file.name))), file.name
        else:
            assert (folder / file.name).read_text() == "a red apple\n"
    code, out, _ = weber("data", "class-images", "pocket", folder, "--num", "5", *words)
    assert code == 0 and "none is painted" in out
    assert weber("data", "class-images", "pocket", folder, "--num", "0", *words)[0] == 2
    assert weber("data", "class-images", "pocket", folder / "class-000000.png", "--num", "3", *words)[0] == 2


def test_a_dataset_of_the_hub_becomes_a_folder(tmp_path: Path, served: Hub, weber: Run) -> None:
    pictures = [build_picture(number) for number in range(3)]
    columns = {
        "image": [{"bytes": data, "path": None} for data in pictures],
        "text": ["a cat", ["one", "two  words"][0], ""],
        "score": ["high", "low", "none"],
    }
    served.files["owner/cats"] = {"data/train-00000-of-00001.parquet": build_parquet(columns)}
    folder = tmp_path / "cats"
    code, out, err = weber("data", "download", "owner/cats", folder)
    assert code == 0 and "3 pictures, 2 with a caption" in out, err
    files = sorted(folder.rglob("*.png"))
    assert [file.read_bytes() for file in files] == pictures
    assert [file.with_suffix(".txt").read_text() for file in files[:2]] == ["a cat\n", "one\n"] and not files[2].with_suffix(
        ".txt"
    ).exists()
    assert [json.loads(line)["score"] for line in (folder / "metadata.jsonl").read_text().splitlines()] == ["high", "low", "none"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats", "hf"]
    code, _, err = weber("data", "download", "owner/cats", folder)
    assert code == 2 and "There is something already." in err
    code, _, err = weber("data", "download", "owner/dogs", tmp_path / "dogs")
    assert code == 2 and "no such dataset" in err and not (tmp_path / "dogs").exists()


def test_what_cannot_be_written_is_one_error(tmp_path: Path, weber: Run) -> None:
    """Nothing is changed where there is no place for what undoes it."""
    folder = _write_set(tmp_path / "pictures", TEXTS)
    (folder / ".weber").write_text("in the way")
    before = _read_texts(folder)
    code, _, err = weber("tags", "add", folder, "photo")
    assert code == 2 and "A file cannot be written." in err and "undo-0001.json" in err
    assert _read_texts(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_folder_that_is_read_only_is_one_error(tmp_path: Path, weber: Run) -> None:
    folder = _write_set(tmp_path / "pictures", TEXTS)
    folder.chmod(0o555)
    try:
        code, _, err = weber("tags", "add", folder, "photo")
        assert code == 2 and "cannot be written" in err
    finally:
        folder.chmod(0o755)
