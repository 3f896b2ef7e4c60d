"""The pictures and run files that ship in `examples/`."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
import unicodedata
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from examples import build_fluent, build_zorb
from weber.config.run import RunConfig
from weber.families.table import FAMILIES
from weber.training.demo import SUBJECTS

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURES = sorted((EXAMPLES / "fluent").glob("*.png"))


def test_there_are_32_pictures_and_their_license() -> None:
    assert len(PICTURES) == 32
    assert sum(file.stat().st_size for file in (EXAMPLES / "fluent").iterdir()) < 3_000_000
    assert "Copyright (c) Microsoft Corporation." in (EXAMPLES / "fluent" / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_has_its_size_and_captions(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert (picture.size, picture.mode) == ((256, 256), "RGB")
        assert picture.getextrema() != ((255, 255),) * 3
    captions = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert captions[0] == f"{path.stem.replace('_', ' ')}, 3d fluent style"
    assert all(caption.endswith(", 3d fluent style") for caption in captions)


def test_the_demo_paints_nothing_that_it_was_shown() -> None:
    shown = " ".join(file.read_text(encoding="utf-8") for file in (EXAMPLES / "fluent").glob("*.txt"))
    assert not [subject for subject in SUBJECTS if subject in shown]


def test_the_script_draws_the_12_zorbs_and_writes_their_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_zorb, "FOLDER", tmp_path / "zorb")
    build_zorb.main()
    shipped = {path.name: path for path in (EXAMPLES / "zorb").iterdir() if path.name != "README.md"}
    drawn = {path.name: path for path in (tmp_path / "zorb").iterdir()}
    assert shipped.keys() == drawn.keys() and len(drawn) == 24
    for number, pose in enumerate(build_zorb.POSES, start=1):
        stem = f"zorb-{number:02d}"
        with Image.open(shipped[f"{stem}.png"]) as picture, Image.open(drawn[f"{stem}.png"]) as again:
            assert ImageChops.difference(picture, again).getextrema() == ((0, 0),) * 3
        caption = shipped[f"{stem}.txt"].read_text(encoding="utf-8")
        assert caption == drawn[f"{stem}.txt"].read_text(encoding="utf-8")
        assert caption.startswith("a photo of zorb") and (pose.background in caption or pose.background == "white")


def test_the_script_writes_the_32_pictures_and_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for npm, which needs the network."""
    picture, file = Image.new("RGBA", (256, 256)), io.BytesIO()
    picture.paste((10, 20, 200, 255), (64, 64, 192, 192))
    picture.save(file, "WEBP", lossless=True)
    emoji = " ".join(build_fluent.EMOJI.values()).split()
    codes = ["-".join(f"{ord(character):04x}" for character in one) for one in emoji]
    names = [{"hexcode": code.upper(), "label": unicodedata.name(one[0])} for code, one in zip(codes, emoji, strict=True)]
    files = {
        build_fluent.ARTWORK: {f"assets/{code}.webp": file.getvalue() for code in codes},
        build_fluent.NAMES: {"en/data.json": json.dumps(names).encode()},
    }
    packed = []

    def pack(command: list[str], *, cwd: Path, check: bool, stdout: int) -> None:
        packed.append(command[-1])
        with tarfile.open(cwd / "package.tgz", "w:gz") as archive:
            for name, data in files[command[-1]].items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    monkeypatch.setattr(build_fluent.shutil, "which", lambda name: name)
    monkeypatch.setattr(build_fluent.subprocess, "run", pack)
    monkeypatch.setattr(build_fluent, "FOLDER", tmp_path)
    build_fluent.main()
    assert sorted(packed) == sorted(files), "each package is fetched once"
    written = sorted(tmp_path.glob("*.png"))
    assert len(written) == 32
    for path in written:
        with Image.open(path) as made:
            assert (made.size, made.mode) == ((256, 256), "RGB")
            assert made.getpixel((0, 0)) == (255, 255, 255) and made.getpixel((128, 128)) == (10, 20, 200)
        first, *more = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert first == f"{path.stem.replace('_', ' ')}, 3d fluent style"
        assert bool(more) == (path.stem in ("red_apple", "fox_face", "rocket", "umbrella"))


@pytest.mark.parametrize("name", ["fluent.toml", "quickstart.toml", "zorb.toml"])
def test_a_run_file_is_a_valid_config(name: str) -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / name).read_text(encoding="utf-8")))
    assert len(config.data) == 1


def test_the_run_over_the_examples_points_at_them() -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / "fluent.toml").read_text(encoding="utf-8")))
    assert (EXAMPLES.parent / config.data[0].path).samefile(EXAMPLES / "fluent")


def test_the_quickstart_says_which_model_it_trains() -> None:
    text = (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")
    config = RunConfig.model_validate(tomllib.loads(text))
    assert config.model.variant is None and config.model.path is None
    _, summary = next(iter(FAMILIES[0].variants.values()))
    assert f"a LoRA for {summary.partition(',')[0]} at 1024 px" in text
