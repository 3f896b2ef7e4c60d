"""What was answered is in the file, which is a run that can be planned."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from PIL import Image

from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.errors import DataError
from weber.questions.answers import Answers, Model, count_steps, write_run
from weber.questions.folder import read_folder

POCKET, LARGE = Model("pocket", "a small one", "/weights", is_small=True), Model("large", "one from the hub", "owner/name")


def make(folder: Path, **captions: str | None) -> Path:
    """A folder of pictures with these captions; None: without one."""
    folder.mkdir(parents=True)
    for name, text in captions.items():
        Image.new("RGB", (32, 32)).save(folder / f"{name}.png")
        if text is not None:
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def build(answers: Answers) -> RunConfig:
    return build_config(tomllib.loads(write_run(answers)))


def test_pictures_with_captions_keep_them_and_a_word_is_put_into_those_that_lack_it(tmp_path: Path) -> None:
    folder = read_folder(make(tmp_path / "10_my pet", a="a dog", b="a zorb"))
    assert folder.describe() == "2 pictures, each with a caption beside it" and folder.word == "my pet"
    plain = build(Answers(folder, model=POCKET))
    assert plain.data[0].caption_sources == ("textfile",) and not plain.data[0].caption_steps and plain.train.steps == 300
    assert plain.sampling.prompts[0] in ("a dog", "a zorb") and plain.memory.fit is None
    named = build(Answers(folder, word="zorb", model=LARGE, has_gpu=True, steps=70, prompts=("x",), name="n"))
    assert named.data[0].caption_steps[0].text == "zorb" and named.memory.fit == "auto" and named.sampling.prompts == ["x"]
    assert (named.train.steps, named.output.folder, named.model.variant) == (70, Path("runs/n"), "large")


def test_pictures_without_captions_are_called_by_the_word_or_by_their_folder(tmp_path: Path) -> None:
    bare = read_folder(make(tmp_path / "Blue_Cup", a=None, b=None))
    unknown = build(Answers(bare, model=LARGE, card="RTX 4090"))
    assert (unknown.data[0].captions, unknown.data[0].instance_prompt, unknown.memory.fit) == ("instance", "blue cup", "RTX 4090")
    some = read_folder(make(tmp_path / "some", a="a cup", b=None))
    assert build(Answers(some, word="cup")).data[0].caption_fallback == "cup" and "1 with a caption beside it" in some.describe()


def test_every_line_says_why_it_is_there(tmp_path: Path) -> None:
    text = write_run(Answers(read_folder(make(tmp_path / 'odd "name" \\', a=None)), word='a "word"', model=POCKET))
    build_config(tomllib.loads(text))
    lines = text.splitlines()
    settings = [(above, line) for above, line in zip(["", *lines], lines, strict=False) if " = " in line and line[0] != "#"]
    assert len(settings) >= 8 and all("  # " in line or above.startswith("# ") for above, line in settings)
    assert all(len(line) <= 140 for line in text.splitlines() if not line.startswith("path"))


def test_steps_grow_with_the_pictures_within_bounds() -> None:
    assert [count_steps(number) for number in (1, 12, 400)] == [500, 1200, 3000]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, word in (("empty", "no picture"), ("absent", "is no folder")):
        with pytest.raises(DataError, match=word):
            read_folder(tmp_path / name)
