"""The pages as a person has them, in a browser: by clicks, by the keyboard alone, and while the server is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serve.chromium import Browser, browsing, needs_chromium
from weber.track.process import is_alive

SERVE = "from weber.cli import main; main()"
pytestmark = needs_chromium


class Server:
    """`weber serve` as a process."""

    def __init__(self, root: Path, *, port: int = 0) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SERVE, "serve", str(root), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2])
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().split()[-1]
        self.address = self.link.partition("/?")[0]

    @property
    def port(self) -> int:
        return urlsplit(self.link).port or 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(root: Path, *, port: int = 0) -> Iterator[Server]:
    server = Server(root, port=port)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def root(tmp_path: Path, pictures: Path) -> Path:
    """A folder with nothing but pictures."""
    shutil.copytree(pictures, tmp_path / "work" / "dogs")
    return tmp_path / "work"


def read_run(root: Path) -> dict[str, Any]:
    """What the run says of itself."""
    found: dict[str, Any] = json.loads((root / "runs" / "zorb" / "status.json").read_text())
    return found


def begin_by_clicks(browser: Browser, server: Server) -> None:
    """From the link to a run that is at work."""
    browser.open(server.link)
    browser.wait("location.pathname === '/start' && document.querySelector('#pictures')")
    browser.type("#pictures", "dogs")
    browser.type("#word", "zorb")
    browser.click("#next")
    browser.wait("location.pathname === '/start/look' && document.querySelector('#steps')")
    assert browser.read("document.querySelector('#model').value") == "pocket"
    browser.type("#steps", "6")
    browser.type("#every", "3")
    browser.click(".sentence button")
    browser.wait("document.querySelector('#steps')?.value === '6' && document.querySelector('#look h2')?.innerText.includes(' 6 steps')")
    assert "12 pictures" in browser.text
    browser.click("#go")
    browser.wait("location.pathname === '/run'")


def test_by_clicks_to_a_finished_lora_then_on_while_the_server_is_killed_then_stopped_by_keys(browser: Browser, root: Path) -> None:
    with serving(root) as server:
        begin_by_clicks(browser, server)
        browser.wait("document.querySelector('#state .tag').innerText === 'finished'")
        browser.wait("document.querySelectorAll('.strips img').length === 6 && document.querySelectorAll('.u-over').length > 3")
        browser.click(".strips td a")
        browser.wait("document.querySelector('#zoom').open && document.querySelector('#zoom-picture').naturalWidth > 0")
        browser.press("ArrowRight")
        browser.press("Escape")
        assert not browser.read("document.querySelector('#zoom').open")
        assert (root / "runs" / "zorb" / "adapter.safetensors").is_file() and (root / "zorb.toml").is_file()
        assert not browser.errors
        assert {urlsplit(one).netloc for one in browser.asked if one.startswith("http")} == {urlsplit(server.address).netloc}
        browser.type("#more", "3000")
        browser.tab_to("#further")
        browser.press("Enter")
        browser.wait("location.pathname === '/run' && document.querySelector('#sentence')?.innerText.includes('of 3,000')")
        port, pid = server.port, read_run(root)["pid"]
    with serving(root, port=port) as server:  # the first one was killed
        assert read_run(root)["pid"] == pid and is_alive(pid, read_run(root)["process"])
        browser.open(server.address + "/")
        browser.wait("document.querySelector('.run .tag')?.innerText === 'at work'")
        browser.tab_to(".run a")
        browser.press("Enter")
        browser.wait("location.pathname === '/run'")
        browser.tab_to("#stop")
        browser.press("Enter")
        browser.wait("document.querySelector('#state .tag')?.innerText === 'stopped'")
        step = read_run(root)["step"]
        assert step > 6 and (root / "runs" / "zorb" / f"checkpoint-{step:06d}").is_dir()
        assert f"it goes on from step {step}" in browser.text
        browser.wait("document.querySelector('#resume')")


def test_the_first_run_is_reached_by_the_keyboard_alone_and_every_field_has_a_name(browser: Browser, root: Path) -> None:
    with serving(root) as server:
        browser.open(server.link)
        browser.tab_to("#pictures")
        browser.write("dogs")
        browser.press("Tab")
        browser.write("zorb")
        browser.tab_to("#next")
        browser.press("Enter")
        browser.wait("location.pathname === '/start/look' && document.querySelector('#go')")
        browser.tab_to("#steps")
        browser.tab_to("#go")
        for page in ("/start", "/jobs", "/?all=1", "/start/look?file=zorb.toml"):
            browser.open(server.address + page)
            named = "one.labels?.length || one.getAttribute('aria-label') || one.type === 'hidden'"
            assert browser.read(f"[...document.querySelectorAll('input, select, textarea')].filter((one) => !({named})).length") == 0, page
            assert browser.read("[...document.querySelectorAll('button, a')].every((one) => one.innerText || one.ariaLabel || one.hidden)")
            for width in (390, 1280):
                browser.show(width, 800)
                assert browser.read("document.documentElement.scrollWidth") <= width, (page, width)
