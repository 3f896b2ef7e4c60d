"""A run writes into folders of its own: what is something else's is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import BuildRun
from weber.checkpoint.save import save_checkpoint
from weber.commands.plan import plan as plan_command
from weber.config.load import save_config
from weber.errors import ConfigError
from weber.planning.places import check_places, is_run


def make_run(folder: Path, build_run: BuildRun) -> Path:
    """A run folder with a checkpoint, as far as its names tell."""
    save_checkpoint(folder, 40, files={"adapter.safetensors": lambda path: path.write_bytes(b"numbers")})
    save_config(build_run(output={"folder": str(folder)}), folder / "config.toml")
    (folder / "metrics.jsonl").write_text('{"step": 40}\n')
    (folder / "run.lock").touch()
    return folder


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


REFUSED: dict[str, tuple[Callable[[Path, BuildRun], dict[str, str]], list[str]]] = {
    "a checkpoint": (
        lambda place, build: {"folder": f"{make_run(place / 'a', build)}/checkpoint-000040"},
        ["a/checkpoint-000040", "--resume"],
    ),
    "inside a checkpoint": (lambda place, build: {"folder": f"{make_run(place / 'a', build)}/checkpoint-000040/new"}, ["deleted when"]),
    "a cache in a checkpoint": (
        lambda place, build: {"cache": f"{make_run(place / 'a', build)}/checkpoint-000040/cache"},
        ["output.cache"],
    ),
    "a folder of other files": (
        lambda place, build: {"folder": str(make(place / "home", "letter.odt", "song.ogg", "x", "y"))},
        ["letter.odt, song.ogg, x and 1 more", "new or an empty folder"],
    ),
    "settings that somebody wrote": (lambda place, build: {"folder": str(make(place / "home", "config.toml"))}, ["config.toml"]),
    "a run of another program": (
        lambda place, build: {"folder": str(make(place / "theirs", "metrics.jsonl", "checkpoint-100000"))},
        ["theirs", "no run"],
    ),
    "a file": (lambda place, build: {"folder": str(make(place, "file") / "file")}, ["is a file"]),
    "below a file": (lambda place, build: {"folder": str(make(place, "file") / "file" / "run")}, ["file is a file"]),
    "a cache of other files": (lambda place, build: {"cache": str(make(place / "home", "letter.odt"))}, ["letter.odt", "output.cache"]),
    "a file as cache": (lambda place, build: {"cache": str(make(place, "file") / "file")}, ["output.cache", "is a file"]),
    "one folder for both": (lambda place, build: {"folder": f"{place}/both", "cache": f"{place}/both"}, ["one folder", "output.cache"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_of_something_else_is_refused(build_run: BuildRun, tmp_path: Path, case: str) -> None:
    make_output, words = REFUSED[case]
    config = build_run(output=make_output(tmp_path, build_run))
    with pytest.raises(ConfigError) as caught:
        check_places(config)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("key", ["folder", "cache"])
def test_a_folder_of_pictures_is_refused(build_run: BuildRun, pictures: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)one of pictures.*output\.{key} = .*data\.0\.path"):
        check_places(build_run(output={key: str(pictures)}))


def test_new_empty_and_own_folders_are_taken(build_run: BuildRun, tmp_path: Path) -> None:
    check_places(build_run())
    check_places(build_run(output={"folder": str(make(tmp_path / "empty", ".DS_Store", "Thumbs.db"))}))
    check_places(build_run(output={"folder": str(make_run(tmp_path / "whole", build_run))}))
    check_places(build_run(output={"folder": str(make(tmp_path / "begun", "run.lock", "config.toml"))}))  # stopped while encoding
    inside = make(tmp_path / "demo" / "cache", "index.sqlite")
    check_places(build_run(output={"folder": str(inside.parent), "cache": str(inside)}))
    (tmp_path / "demo" / "letter.odt").touch()
    with pytest.raises(ConfigError, match=r"letter\.odt"):
        check_places(build_run(output={"folder": str(inside.parent), "cache": str(inside)}))


def test_a_cache_that_a_killed_start_has_left_is_taken(build_run: BuildRun, tmp_path: Path) -> None:
    check_places(build_run(output={"cache": str(make(tmp_path / "cache", "downloads", "archives"))}))
    with pytest.raises(ConfigError, match="nothing of a cache"):
        check_places(build_run(output={"cache": str(make(tmp_path / "other", "captions", "pictures"))}))


def test_what_is_a_run(build_run: BuildRun, tmp_path: Path) -> None:
    assert not is_run(tmp_path / "nothing") and not is_run(make(tmp_path / "empty"))
    assert not is_run(make(tmp_path / "begun", "run.lock", "config.toml"))
    assert not is_run(make(tmp_path / "theirs", "metrics.jsonl"))
    assert is_run(make(tmp_path / "fresh", "config.toml", "metrics.jsonl"))
    (make_run(tmp_path / "bare", build_run) / "config.toml").unlink()
    assert is_run(tmp_path / "bare")


def test_plan_refuses_what_train_would(build_run: BuildRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_config(build_run(output={"folder": str(make(tmp_path / "home", "letter.odt"))}), tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="holds other files"):
        plan_command(tmp_path / "run.toml")
    save_config(build_run(output={"folder": str(make_run(tmp_path / "a", build_run))}), tmp_path / "run.toml")
    plan_command(tmp_path / "run.toml")
    assert "holds a run: `weber train` goes on with it with --resume, and not without" in capsys.readouterr().out
