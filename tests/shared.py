"""What every room's tests share: tiny models and real pictures, made once per session and never changed."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from PIL import Image

from weber import cli
from weber.pocket.random import build_random_model

EXAMPLES = Path(__file__).parents[1] / "examples"
NUM_PICTURES = 12
EDGE_PIXELS = 96

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it in what runs in the background, and then in its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

FIRST = ("training", "serve", "remote", "kinds", "parallel", "planning", "benchmarks", "memory", "tests", "optim", "recipes", "cache")
"""Folders whose files take long, in the order in which they are handed out: short ones at the end keep both workers busy until then."""

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _spare_disk() -> Iterator[None]:
    """Nobody waits for the disk: a test sees what is written without it. Processes that tests start wait for it as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: bool(os.fstat(descriptor)) and None)  # a descriptor that is none is an error still
        yield


@pytest.fixture(scope="module", autouse=True)
def _freeze_libraries() -> None:
    """What libraries are made of stays to the end: collecting garbage, which weber does after each encoder, need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first (with `--no-loadscope-reorder`; xdist itself has those of many tests first, which are not the same)."""
    ranks = {folder: rank for rank, folder in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(FIRST)))


def _list_files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def _lend(folder: Path) -> Iterator[Path]:
    """Hand out a folder for the session; fail at its end if a test has changed it."""
    before = _list_files(folder)
    yield folder
    assert _list_files(folder) == before, f"a test has changed the shared folder {folder}; copy it before changing it"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny random model with a guidance input, as FLUX.1-dev. Copy what you change."""
    yield from _lend(build_random_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def tiny_schnell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny random model without a guidance input, as FLUX.1-schnell. Copy what you change."""
    yield from _lend(build_random_model(tmp_path_factory.mktemp("models") / "tiny-schnell", variant="schnell"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of 12 real pictures of 96 x 96 pixels with their captions. Copy what you change."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for source in sorted((EXAMPLES / "fluent").glob("*.png"))[:NUM_PICTURES]:
        with Image.open(source) as picture:
            picture.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.LANCZOS).save(folder / source.name)
        shutil.copyfile(source.with_suffix(".txt"), folder / f"{source.stem}.txt")
    yield from _lend(folder)


@pytest.fixture
def run_toml(tmp_path: Path, pictures: Path) -> Path:
    """The settings of a run of four steps on the pocket model, as a file."""
    path = tmp_path / "run.toml"
    path.write_text(
        f"""
[model]
variant = "pocket"
[[data]]
path = '{pictures}'
[memory]
device = "cpu"
[train]
steps = 4
[output]
folder = '{tmp_path / "run"}'
cache = '{tmp_path / "cache"}'
"""
    )
    return path


@pytest.fixture
def weber(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["weber", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
