"""The whole recipe of the pocket model in a few steps, on three drawings in place of two thousand: from packages to folder and judge."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from recipes.pocket import judge, painter, sheet, vae
from recipes.pocket.painter import PainterRecipe
from recipes.pocket.vae import VaeRecipe
from weber.families.flux1.variants import POCKET
from weber.pocket.networks import TINY

# Letters in place of emoji: every font has them. Of the last one there is no drawing in one of the styles.
SYMBOLS = {"A": "red apple", "B": "“Blue” Ball", "C": "clock face", "D": "dim dot", "\u0378": "unpainted thing"}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`recipes.pocket`'s command in a few small steps, with a stand-in for the library that renders SVG files."""
    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=_render))
    for name in ("recipes.pocket.artwork", "recipes.pocket.assemble", "recipes.pocket.__main__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    artwork, command = (importlib.import_module(f"recipes.pocket.{name}") for name in ("artwork", "__main__"))
    monkeypatch.setattr(artwork, "load_noto_font", lambda packages: ImageFont.load_default(109))
    monkeypatch.setattr(command, "VaeRecipe", lambda: VaeRecipe(steps=2, batch=2))
    monkeypatch.setattr(command, "PainterRecipe", lambda: PainterRecipe(learn_steps=1, settle_steps=1, lanes=1, batch=2, warmup_steps=1))
    for module in (vae, painter):
        monkeypatch.setattr(module, "TRAINED", TINY)
    monkeypatch.setattr(judge, "_STEPS", 1)
    monkeypatch.setattr(sheet, "list_prompts", lambda: ["red apple, noto style", "blue ball, twemoji style, on a green background"])
    return command


def _render(*, svg_path: str, width: int, height: int) -> bytes:
    picture, file = Image.new("RGBA", (width, height)), io.BytesIO()
    ImageDraw.Draw(picture).ellipse((30, 20, 90, 100), fill=Path(svg_path).read_text())
    picture.save(file, "PNG")
    return file.getvalue()


def _write_packages(folder: Path, artwork: Any) -> None:
    """What npm would have fetched."""
    names, twemoji, fluent = (
        folder / name.replace("/", "_").replace("@", "_") for name in (artwork.NAMES, artwork.TWEMOJI, artwork.FLUENT)
    )
    for made in (names / "en", names / "meta", twemoji, fluent / "assets"):
        made.mkdir(parents=True)
    meta = {"groups": {"0": "objects", "1": "flags"}, "subgroups": {"0": "other", "1": "time"}}
    (names / "meta" / "groups.json").write_text(json.dumps(meta))
    entries = [
        {"emoji": emoji, "label": label, "group": 0, "subgroup": int("clock" in label), "order": -order, "version": 0.6, "tags": ["thing"]}
        for order, (emoji, label) in enumerate(SYMBOLS.items())
    ]
    flag = {**entries[0], "emoji": "E", "label": "flag", "group": 1}
    (names / "en" / "data.json").write_text(json.dumps([{"label": "no group"}, flag, *entries]))
    for emoji, color in zip("ABC", ("red", "blue", "green"), strict=True):
        (twemoji / f"{ord(emoji):x}.svg").write_text(color)
        Image.open(io.BytesIO(_render(svg_path=str(twemoji / f"{ord(emoji):x}.svg"), width=128, height=128))).save(
            fluent / "assets" / f"{ord(emoji):x}.webp", lossless=True
        )


def _run(recipe: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    places = [f"--{name}={folder / place}" for name, place in {"out": "model", "sheet": "sheet.png", "judge": "judge.safetensors"}.items()]
    monkeypatch.setattr(sys, "argv", ["recipes.pocket", f"--work={folder / 'work'}", *places, *options])
    recipe.main()


def test_the_recipe_makes_a_model_and_a_judge(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_packages(tmp_path / "work" / "packages", sys.modules["recipes.pocket.artwork"])
    _run(recipe, tmp_path, monkeypatch, "--stop", "vae")
    assert "artwork  5/5  concepts 3" in capsys.readouterr().out, "A and B in two styles, D in one; no clocks, no flags"
    assert not (tmp_path / "model").exists() and (tmp_path / "work" / "vae.pt").is_file()

    monkeypatch.setattr(vae, "predict_loss", None)  # it is finished, and not trained again
    _run(recipe, tmp_path, monkeypatch)
    shipped = {path.relative_to(POCKET) for path in POCKET.rglob("*") if path.suffix in (".json", ".safetensors")}
    made = {path.relative_to(tmp_path / "model") for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert made == shipped
    facts = json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert {name: facts[name]["steps"] for name in facts} == {"vae": 2, "painter": 2}
    assert all(0 < facts[name][value] < 10 for name, value in (("vae", "error"), ("painter", "loss")))
    with Image.open(tmp_path / "sheet.png") as painted:
        assert painted.width == sheet.COLUMNS * (sheet.CELL + sheet.GAP) + sheet.GAP
        assert painted.crop((sheet.GAP, sheet.GAP, sheet.GAP + sheet.CELL, sheet.GAP + sheet.CELL)).getextrema() != ((255, 255),) * 3
    assert dict(judge.load_judge(tmp_path / "judge.safetensors").named_parameters()).keys() == dict(judge.Judge().named_parameters()).keys()


def test_a_package_is_fetched_once_and_whole(recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artwork, commands = sys.modules["recipes.pocket.artwork"], []

    def run(program: str, *arguments: str, folder: Path) -> None:
        commands.append((program, *arguments))
        with tarfile.open(folder / "some.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/en/data.json")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"[]"))

    monkeypatch.setattr(artwork, "_run", run)
    for _ in range(2):
        assert (artwork.load_package("@some/names@1.0", tmp_path) / "en" / "data.json").read_text() == "[]"
    assert commands == [("npm", "pack", "--silent", "@some/names@1.0")]
    assert [path.name for path in tmp_path.iterdir()] == ["_some_names_1.0"]


def test_the_recipe_that_ships_is_the_one_in_the_code() -> None:
    facts = json.loads((POCKET / "recipe.json").read_text(encoding="utf-8"))
    for name, settings in (("vae", VaeRecipe()), ("painter", PainterRecipe())):
        numbers = json.loads(json.dumps(dataclasses.asdict(settings)))
        assert facts[name] | numbers == facts[name]
