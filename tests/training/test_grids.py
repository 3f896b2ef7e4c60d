"""Sheets of checkpoints, seeds and strengths: each cell is the picture that `weber sample` paints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import weber
from tests.runs import BuildRun, build_watcher, write_pocket_lora
from weber.commands.verbs import call
from weber.errors import CheckpointError, ConfigError
from weber.sampling.grid import MARGIN_PIXELS, SMALLEST_CELL_PIXELS, build_sheet
from weber.sampling.lettering import LINE_PIXELS
from weber.training.assemble import train

QUIET: dict[str, Any] = {"progress": lambda *_: None}
SHORT: dict[str, Any] = {"steps": 1, "size": (64, 64)}


@pytest.fixture
def folder(build_small: BuildRun) -> Path:
    """A run with checkpoints of steps 2 and 4."""
    return train(build_small("run", optim={"lr": 1e-2}), resume=False, watcher=build_watcher()[0]).parent


def cut(sheet: Image.Image, column: int, row: int) -> np.ndarray[Any, Any]:
    """A picture of the sheet, where every row has one line of text."""
    height = SMALLEST_CELL_PIXELS + LINE_PIXELS + 2 * MARGIN_PIXELS
    left, top = MARGIN_PIXELS + column * (SMALLEST_CELL_PIXELS + MARGIN_PIXELS), MARGIN_PIXELS + LINE_PIXELS + row * height
    return np.asarray(sheet.crop((left, top, left + SMALLEST_CELL_PIXELS, top + SMALLEST_CELL_PIXELS)))


def enlarge(picture: Image.Image) -> np.ndarray[Any, Any]:
    """As it is on a sheet."""
    return np.asarray(picture.resize((SMALLEST_CELL_PIXELS, SMALLEST_CELL_PIXELS), Image.Resampling.LANCZOS))


def test_each_cell_is_the_picture_of_its_checkpoint_seed_and_strength(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = weber.grid(folder, ["a dog", "a cat"], checkpoints="all", strengths=[0.0, 2.0], seeds=[3, 4], **SHORT, **QUIET)
    assert sheet.size == (MARGIN_PIXELS + 2 * (192 + MARGIN_PIXELS), MARGIN_PIXELS + LINE_PIXELS + 8 * (192 + LINE_PIXELS + 24))
    for place, (name, seed, step) in enumerate((name, seed, step) for name in ("a dog", "a cat") for seed in (3, 4) for step in (2, 4)):
        if place not in (1, 6):
            continue
        checkpoint = folder / f"checkpoint-{step:06d}"
        for column, strength in enumerate((0.0, 2.0)):
            [alone] = weber.sample(checkpoint, name, seed=seed, strength=strength, **SHORT, **QUIET)
            assert np.array_equal(cut(sheet, column, place), enlarge(alone)), (name, seed, step, strength)
    assert not np.array_equal(cut(sheet, 1, 0), cut(sheet, 1, 1)) and np.array_equal(cut(sheet, 0, 0), cut(sheet, 0, 1))
    file = tmp_path / "prompts.txt"
    file.write_text("a dog\n\n  a cat\n", encoding="utf-8")
    words = ["--prompts", str(file), "--checkpoints", "all", "--strengths", "0,2", "--seeds", "3,4", "--steps", "1", "--size", "64x64"]
    call(["grid", str(folder), *words])
    written = folder / "samples" / "grid.png"
    assert capsys.readouterr().out.splitlines() == [str(written)]
    with Image.open(written) as again:
        assert np.array_equal(np.asarray(again), np.asarray(sheet))


def test_columns_are_what_there_are_several_of(tmp_path: Path) -> None:
    """Of a file, and with a library, whose own seeds and strengths do not count here."""
    lora = write_pocket_lora(tmp_path / "style.safetensors")
    library = tmp_path / "prompts.toml"
    library.write_text('cat = {prompt = "a cat", seed = 9, strength = 3.0}\n')
    sheet = weber.grid(lora, [], base="pocket", library=library, seeds=[1, 2, 3], **SHORT, **QUIET)
    pictures = [weber.sample(lora, "a cat", base="pocket", seed=seed, **SHORT, **QUIET)[0] for seed in (1, 2, 3)]
    expected = build_sheet(["seed 1", "seed 2", "seed 3"], [("cat: a cat", pictures)])
    assert np.array_equal(np.asarray(sheet), np.asarray(expected))


def test_what_cannot_be_compared(folder: Path) -> None:
    cases: list[tuple[Any, list[str]]] = [
        ({"checkpoints": "3"}, ["no such checkpoint", "checkpoints 3", "steps of 2, 4"]),
        ({"checkpoints": [2, 5]}, ["checkpoints 5"]),
        ({"strengths": [float("nan")]}, ["not a number", "strengths nan"]),
        ({"seeds": [-1]}, ["no such seed", "seeds -1"]),
    ]
    for asked, words in cases:
        with pytest.raises((CheckpointError, ConfigError)) as error:
            weber.grid(folder, "a dog", **asked, **QUIET)
        for word in words:
            assert word in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pocket", "--checkpoints", "all"], "There are no checkpoints"),
        (["pocket", "--strengths", "0,x"], "--strengths 0,x"),
        (["pocket", "--seeds", "1.5"], "--seeds 1.5"),
        (["pocket", "--strengths", "0.5"], "no adapter with a strength"),
        (["pocket", "--out", "sheet.jpg"], "one PNG file"),
    ],
)
def test_what_the_command_line_cannot_ask(words: list[str], expected: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=expected):
        call(["grid", *words, "--prompt", "a dog"])


@pytest.mark.parametrize(
    ("name", "text", "words"), [("a.txt", "\n \n", "empty"), ("a.toml", 'a = "b"', "a library"), ("b.txt", None, "read")]
)
def test_files_of_prompts(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        call(["sample", "pocket", "--prompts", str(tmp_path / name)])
