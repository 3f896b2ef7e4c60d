"""`weber new` at a real terminal, with keys, and in a pipe, with flags; and what it writes is trained."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from weber import cli
from weber.commands.new import _CARDS
from weber.config.load import load_config
from weber.memory.cards import CARDS

DOWN, ENTER = b"\x1b[B", b"\r"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Terminal:
    """A process on a pseudo-terminal: what it says, and keys that are sent to it when it has said something."""

    def __init__(self, words: list[str], *, folder: Path) -> None:
        main, side = pty.openpty()
        environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
        call = [sys.executable, "-c", "from weber.cli import main; main()", *words]
        self.process = subprocess.Popen(call, cwd=folder, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True)
        os.close(side)
        self._main, self.said = main, ""

    def wait(self, words: str) -> None:
        """Until it has said that, behind what was waited for before."""
        deadline = time.monotonic() + 300
        while words not in _ESCAPES.sub("", self.said):
            assert time.monotonic() < deadline and self._read(), (words, self.said)
        self.said = ""

    def press(self, *keys: bytes) -> None:
        for key in keys:
            os.write(self._main, key)

    def finish(self) -> tuple[int, str]:
        """The exit code, and what it said in the end."""
        while self._read():
            pass
        os.close(self._main)
        return self.process.wait(300), _ESCAPES.sub("", self.said)

    def _read(self) -> bool:
        if select.select([self._main], [], [], 300)[0]:
            try:
                data = os.read(self._main, 65536)
            except OSError:  # the other side is closed
                return False
            self.said += data.decode("utf-8", "replace")
            return bool(data)
        return False


@pytest.fixture
def home(tmp_path: Path, pictures: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "pets")
    return tmp_path


def test_questions_are_answered_with_keys(home: Path) -> None:
    """From the folder to the file; one that is there is not written over."""
    (home / "run.toml").write_text("# mine\n", encoding="utf-8")
    terminal = Terminal(["new"], folder=home)
    terminal.wait("run.toml is there already")
    terminal.press(ENTER)
    terminal.wait("Which folder holds your pictures?")
    terminal.press(b"absent", ENTER)
    terminal.wait("is no folder")
    terminal.wait("Which folder holds your pictures?")
    terminal.press(b"pets", ENTER)
    terminal.wait("A word that is to be in all captions?")
    terminal.press(b"zorb", ENTER)
    terminal.wait("Which GPU will it run on?")
    terminal.press(DOWN, ENTER)
    terminal.wait("Which model is to learn them?")
    terminal.press(ENTER)
    terminal.wait("How long is it to train?")
    terminal.press(DOWN, DOWN, ENTER)
    terminal.wait("What is to be painted on the way?")
    terminal.press(ENTER)
    code, said = terminal.finish()
    assert code == 0 and "To start: weber train run-2.toml" in said and "What would happen:" in said, said
    assert (home / "run.toml").read_text(encoding="utf-8") == "# mine\n"
    tree = tomllib.loads((home / "run-2.toml").read_text(encoding="utf-8"))
    assert tree["train"]["steps"] == 75 and tree["data"][0]["caption_steps"][0]["text"] == "zorb" and tree["model"]["variant"] == "pocket"


def test_ctrl_c_ends_it_without_a_file(home: Path) -> None:
    terminal = Terminal(["new", "pets"], folder=home)
    terminal.wait("A word that is to be in all captions?")
    terminal.press(b"\x03")
    code, said = terminal.finish()
    assert code == 130 and "Traceback" not in said and not (home / "run.toml").exists()


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """A command in this process, of which standard input is no terminal."""
    monkeypatch.setattr(sys, "argv", ["weber", *words])
    try:
        cli.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_flags_are_answers_in_a_pipe_and_what_is_written_is_trained(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    flags = ["--word", "zorb", "--steps", "2", "--prompt", "a zorb", "--name", "first"]
    (home / "run.toml").write_text("# mine\n", encoding="utf-8")
    assert call(monkeypatch, "new", "pets") == 2 and "is there already" in capsys.readouterr().err
    assert call(monkeypatch, "new", "pets", "--overwrite", *flags) == 0
    assert "To start: weber train run.toml" in capsys.readouterr().out
    config = load_config(home / "run.toml")
    assert config.train.steps == 2 and config.sampling.prompts == ["a zorb"] and "# painted before" in (home / "run.toml").read_text()
    assert call(monkeypatch, "train", "run.toml") == 0
    assert (home / "runs" / "first" / "adapter.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "write weber new pictures"),
        (["absent"], "is no folder"),
        (["pets", "--model", "poket"], "did you mean pocket?"),
        (["pets", "--steps", "0"], "at least 1"),
        (["pets", "--out", "run.json"], "the name of a TOML file"),
        (["pets", "--card", "9090 Ti X"], "is written, but the run cannot be like that yet"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(
    home: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert call(monkeypatch, "new", *words) == 2
    assert said in capsys.readouterr().err


def test_cards_that_are_proposed_are_known() -> None:
    assert {one.name for one in CARDS} >= set(_CARDS)
