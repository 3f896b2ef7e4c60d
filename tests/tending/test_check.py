"""`weber data check` on folders with planted faults, on the example sets, and on the sets of a run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from tests.shared import EXAMPLES
from weber.config.data import DataConfig
from weber.config.expand import expand_set
from weber.data.sets import PictureLimits
from weber.progress import ignore_progress
from weber.tending.check import Checked, check_pictures
from weber.tending.findings import KINDS, Limits
from weber.tending.likeness import find_alike, group_pairs, measure_difference
from weber.tending.looking import Look, look_at
from weber.tending.measures import measure_picture

Run = Callable[..., tuple[int, str, str]]
Change = Callable[[Image.Image], Image.Image]


def _open_examples() -> dict[str, Image.Image]:
    files = [*sorted((EXAMPLES / "fluent").glob("*.png")), *sorted((EXAMPLES / "zorb").glob("*.png"))]
    return {file.stem: Image.open(file).convert("RGB") for file in files[::2]}


def _check(folder: Path, tmp_path: Path, *, skip: Sequence[str] = (), **keys: object) -> Checked:
    config = DataConfig(path=folder, **keys).build_fitting(native_pixels=256, alignment_pixels=16)  # type: ignore[arg-type]
    seen = look_at([config], Look(16, PictureLimits(), tmp_path / "cache"), progress=ignore_progress)
    return check_pictures(seen, Limits(), triggers={}, skip=skip)


def _name_found(checked: Checked, kind: str) -> set[str]:
    return {Path(checked.seen[item.place].name).stem for one in checked.found.findings if one.kind == kind for item in one.items}


@pytest.mark.parametrize("name", ["fluent", "zorb"])
def test_no_false_alarm_on_the_example_sets(name: str, tmp_path: Path) -> None:
    checked = _check(EXAMPLES / name, tmp_path)
    assert checked.found.num_problems == 0, [(one.kind, len(one.items)) for one in checked.found.findings]
    assert len(checked.seen) == len(list((EXAMPLES / name).glob("*.png")))


def _crop(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * share), round(height * share), round(width * (1 - share)), round(height * (1 - share))))


def _save_as_jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


COPIES: dict[str, Change] = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "saved": lambda image: Image.open(io.BytesIO(_save_as_jpeg(image, 30))),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "pale": lambda image: ImageEnhance.Color(image).enhance(0.5),
    "cut": lambda image: _crop(image, 0.03),
    "mirrored": ImageOps.mirror,
}


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    """At least 95 % of all, 100 % of those that are not cut; no two different pictures."""
    folder, planted = tmp_path / "pictures", dict[str, str]()
    folder.mkdir()
    for number, (name, image) in enumerate(_open_examples().items()):
        image.save(folder / f"{name}.png")
        for kind in list(COPIES)[number % 2 :: 2]:
            COPIES[kind](image).save(folder / f"{name}-{kind}.png")
            planted[f"{name}-{kind}"] = name
    checked = _check(folder, tmp_path, skip=["blurred", "artifacts", "silent", "marked", "refused"])
    pairs = [{Path(checked.seen[place].name).stem for place in (pair.first, pair.second)} for pair in checked.found.pairs]
    origins = [{planted.get(name, name) for name in pair} for pair in pairs]
    assert all(len(names) == 1 for names in origins), [pair for pair, names in zip(pairs, origins, strict=True) if len(names) > 1]
    found = {name for pair in pairs for name in pair if name in planted}
    missed = planted.keys() - found
    assert all(name.endswith("-cut") for name in missed), missed
    assert len(found) >= 0.95 * len(planted)
    assert {len(pair) for pair in pairs} == {2}
    assert _name_found(checked, "alike") >= {name for name in planted if name.endswith("-half")}  # of a pair the smaller one may go


def test_planted_blur_and_artifacts_are_found(tmp_path: Path) -> None:
    """All that are blurred by 2 pixels, all JPEG files of low quality, and three of four that were such before they became PNG."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    examples = _open_examples()
    for name, image in examples.items():
        image.save(folder / f"{name}.png")
        image.filter(ImageFilter.GaussianBlur(2)).save(folder / f"{name}-blurred.png")
        (folder / f"{name}-jpeg.jpg").write_bytes(_save_as_jpeg(image, 25))
        (folder / f"{name}-good.jpg").write_bytes(_save_as_jpeg(image, 90))
        Image.open(io.BytesIO(_save_as_jpeg(image, 15))).save(folder / f"{name}-resaved.png")
    checked = _check(folder, tmp_path, skip=["alike", "copies", "leaked", "silent"])
    blurred, artifacts = _name_found(checked, "blurred"), _name_found(checked, "artifacts")
    assert blurred == {f"{name}-blurred" for name in examples}
    assert {f"{name}-jpeg" for name in examples} <= artifacts
    resaved = {name for name in artifacts if name.endswith("-resaved")}
    photos = {f"{name}-resaved" for name in examples if not name.startswith("zorb")}
    assert len(resaved & photos) >= 0.75 * len(photos)
    assert all(name.endswith(("-jpeg", "-resaved")) for name in artifacts)


def _build_photo(number: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Soft colors, shapes and grain, unlike every other number's."""
    random = np.random.default_rng(number)
    image = Image.fromarray(random.integers(60, 226, (4, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        left, top = random.integers(0, size[0]), random.integers(0, size[1])
        draw.ellipse((left, top, left + 50, top + 40), fill=tuple(random.integers(40, 256, 3).tolist()))
    grain = random.integers(-6, 7, (size[1], size[0], 1), dtype=np.int16)
    return Image.fromarray((np.asarray(image, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8))


def _stamp(image: Image.Image, opacity: int) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    font = ImageFont.load_default(16)
    ImageDraw.Draw(layer).text(
        (140, 154), "stock photo", fill=(255, 255, 255, opacity), font=font, stroke_width=1, stroke_fill=(0, 0, 0, opacity)
    )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def test_a_watermark_is_found_by_repetition(tmp_path: Path) -> None:
    folder, plain = tmp_path / "marked", tmp_path / "plain"
    for place in (folder, plain):
        place.mkdir()
    for number in range(20):
        _build_photo(number).save(plain / f"{number:02}.png")
        (_stamp(_build_photo(number), 180) if number < 14 else _build_photo(number)).save(folder / f"{number:02}.png")
    assert not _name_found(_check(plain, tmp_path), "marked")
    checked = _check(folder, tmp_path)
    found = _name_found(checked, "marked")
    stamped = {f"{number:02}" for number in range(14)}
    assert len(found & stamped) >= 13 and len(found - stamped) <= 1
    [mark] = checked.found.marks.values()
    left, top, right, bottom = mark.box
    assert 0.55 < left < 0.7 and 0.82 < top < 0.92 and 0.85 < right <= 1 and bottom <= 1


def test_borders_sizes_captions_and_damage(tmp_path: Path, weber: Run) -> None:
    folder = tmp_path / "ünïcode pictures"
    folder.mkdir()
    for number in range(4):
        _build_photo(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a zorb, number {number}", encoding="utf-8")
    framed = Image.new("RGB", (240, 240))
    framed.paste(_build_photo(7), (0, 30))
    framed.save(folder / "létterbox.png")
    (folder / "létterbox.caption").write_text("word " * 600, encoding="utf-8")
    _build_photo(8, (60, 40)).save(folder / "tiny.png")
    (folder / "tiny.txt").write_text("  \n")
    shutil.copyfile(folder / "1.png", folder / "copy.png")
    (folder / "copy.txt").write_text("tree", encoding="utf-8")
    (folder / "cut.jpg").write_bytes(_save_as_jpeg(_build_photo(9), 90)[:2000])
    panorama = folder / "wide.png"
    _build_photo(10, (400, 150)).save(panorama)
    (folder / "wide.txt").write_bytes(b"\xff\xfe\xff")
    report, page = tmp_path / "check.json", tmp_path / "check.html"
    words = ["data.0.resolution=240", "data.0.aspect=square", "--trigger", "zorb", "--json", report, "--html", page]
    code, out, _ = weber("data", "check", folder, *words)
    assert code == 1, out
    record = json.loads(report.read_text(encoding="utf-8"))
    names = [Path(one["path"]).name for one in record["pictures"]]
    found = {one["kind"]: {names[item["picture"]]: item["detail"] for item in one["pictures"]} for one in record["findings"]}
    assert {"cut.jpg"} == found["broken"].keys() and "damaged" in found["broken"]["cut.jpg"]
    assert found["borders"] == {"létterbox.png": "12% top, 12% bottom"}
    assert found["copies"] == {"copy.png": "as 1.png"}
    assert found["silent"].keys() == {"tiny.png", "wide.png"} and "UTF-8" in found["silent"]["wide.png"]
    assert found["long"] == {"létterbox.png": "at least 602 tokens, CLIP reads 77; at least 601 tokens, T5 reads 512"}
    assert "too small" in found["refused"]["tiny.png"]
    assert found["cut"]["wide.png"] == "62% of it"
    assert '"zorb" is in 4 of 6 captions (67%)' in out and "létterbox.png: 12% top, 12% bottom" in out
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") > 10 and "http" not in text and "létterbox.png" in text
    assert set(re.findall(r'<h2 id="([\w-]+)"', text)) == found.keys()
    assert weber("data", "check", folder, "--skip", "zork")[0] == 2


def test_what_is_held_out_is_compared_with_what_is_learned(tmp_path: Path, weber: Run) -> None:
    learned, held = tmp_path / "learned", tmp_path / "held"
    for place in (learned, held):
        place.mkdir()
    for number in range(4):
        _build_photo(number).save(learned / f"{number}.png")
    ImageOps.mirror(_build_photo(2)).resize((200, 150)).save(held / "other.png")
    _build_photo(11).save(held / "own.png")
    (tmp_path / "run.toml").write_text(
        f"""
[model]
variant = "pocket"
[[data]]
path = '{learned}'
captions = "instance"
instance_prompt = "a zorb"
[[data]]
path = '{held}'
evaluation = 1
captions = "instance"
instance_prompt = "a zorb"
[output]
cache = '{tmp_path / "cache"}'
"""
    )
    report = tmp_path / "found.json"
    code, out, _ = weber("data", "check", tmp_path / "run.toml", "--json", report)
    record = json.loads(report.read_text())
    [leaked] = [one for one in record["findings"] if one["kind"] == "leaked"]
    assert code == 1 and [record["pictures"][item["picture"]]["path"] for item in leaked["pictures"]] == [str(learned / "2.png")]
    assert "2.png: as other.png of held, which is held out" in out
    assert "learned: 4 pictures" in out and "held: 2 pictures, 2 of them held out" in out


def test_sets_of_several_resolutions_are_one_folder(tmp_path: Path) -> None:
    """Nothing is a copy of itself, and nothing is said twice."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        _build_photo(number).save(folder / f"{number}.png")
    _build_photo(1).filter(ImageFilter.GaussianBlur(4)).save(folder / "soft.png")
    config = DataConfig(path=folder, resolution=[128, 176], captions="filename")
    sets = [one.build_fitting(native_pixels=256, alignment_pixels=16) for one in expand_set(config)]
    seen = look_at(sets, Look(16, PictureLimits(), tmp_path / "cache"), progress=ignore_progress)
    assert len(seen) == 8 and {one.bucket for one in seen if one.name == "0.png"} == {(144, 112), (208, 144)}
    found = check_pictures(seen, Limits(), triggers={}).found
    assert [(one.kind, [seen[item.place].name for item in one.items]) for one in found.findings] == [
        ("alike", ["soft.png"]),
        ("blurred", ["soft.png"]),
    ]


def test_set_aside_is_proposed_done_and_undone(tmp_path: Path, weber: Run) -> None:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(3):
        _build_photo(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"number {number}")
    _build_photo(1).save(folder / "sub" / "again.bmp")
    (folder / "sub" / "again.txt").write_text("again")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    aside = folder / "set-aside"
    code, out, _ = weber("data", "check", folder, "data.0.resolution=180", "--fix")
    assert code == 1 and "Would move" in out and "again.bmp -> " in out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    code, out, _ = weber("data", "check", folder, "data.0.resolution=180", "--apply")
    assert {path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file()} == {
        "broken/broken.png",
        "alike/sub/again.bmp",
        "alike/sub/again.txt",
        "undo-0001.json",
    }
    assert weber("data", "check", folder, "data.0.resolution=180")[0] == 0
    code, out, _ = weber("data", "undo", aside / "undo-0001.json")
    assert code == 0 and "3 files are as they were" in out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent != aside} == before
    assert weber("data", "check", folder, "data.0.resolution=180", "--apply", "--set-aside", tmp_path / "elsewhere")[0] == 1
    assert (tmp_path / "elsewhere" / "pictures" / "broken" / "broken.png").is_file()
    code, _, err = weber("data", "undo", aside / "undo-0001.json")
    assert code == 2 and "There is no such file" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for the superuser")
def test_unreadable_files_are_findings(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        _build_photo(number).save(folder / f"{number}.png")
    (folder / "1.png").chmod(0)
    assert _name_found(_check(folder, tmp_path), "broken") == {"1"}


def test_many_that_are_alike_are_joined_without_comparing_all() -> None:
    """As a video's pictures are: each pair joins another one to the rest."""
    image = _build_photo(1)
    one = measure_picture(image, b"", has_frame=False, has_thumb=False)
    pairs = find_alike([one] * 300)
    assert len(pairs) == 299 and group_pairs(pairs) == [list(range(300))]
    assert find_alike([one]) == find_alike([]) == []
    assert measure_difference(one.look, one.look) == 0


def test_every_kind_has_words() -> None:
    assert all(row.title and row.advice for row in KINDS.values())
