"""The pages as a person has them, in a browser: by clicks, by the keyboard alone, and while the server is killed."""

from __future__ import annotations

import json
import os
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
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; runs there outlive their server, but not the test."""
    (tmp_path / "work").mkdir()
    yield tmp_path / "work"
    for file in tmp_path.glob("work/runs/*/status.json"):
        status = json.loads(file.read_text())
        if is_alive(status["pid"], status["process"]):
            os.kill(status["pid"], signal.SIGKILL)


def read_run(root: Path, word: str = "zorb") -> dict[str, Any]:
    """What a run says of itself."""
    found: dict[str, Any] = json.loads((root / "runs" / word / "status.json").read_text())
    return found


def begin_by_clicks(browser: Browser, server: Server, *, word: str, steps: int, waits: bool = True) -> None:
    """From the start page to a run that is at work or waits; who is not patient starts it before the plan is there."""
    browser.open(server.address + "/start")
    browser.type("#pictures", "dogs")
    browser.type("#word", word)
    browser.click("#next")
    browser.wait("location.pathname === '/start/look' && document.querySelector('#steps')")
    assert browser.read("document.querySelector('#model').value") == "pocket"
    browser.type("#steps", str(steps))
    browser.type("#every", "3")
    browser.read("window.isOld = true")
    browser.click(".sentence button")
    browser.wait(f"!window.isOld && document.querySelector('#steps')?.value === '{steps}' && document.querySelector('#go:enabled')")
    if waits:
        browser.wait(f"document.querySelector('#look h2')?.innerText.includes(' {steps} steps')")
        assert "12 pictures" in browser.text
    browser.click("#go")
    browser.wait("['/run', '/job'].includes(location.pathname)")


def list_waiting(browser: Browser) -> list[str]:
    """The words of the runs that wait, in their order."""
    texts = browser.read("[...document.querySelectorAll('#waiting > li[data-id] a')].map((one) => one.innerText)")
    return [word for text in texts for word in ("second", "third") if word in text]


def test_by_clicks_to_a_finished_lora_then_on_while_the_server_is_killed_then_stopped_by_keys(
    browser: Browser, root: Path, pictures: Path
) -> None:
    with serving(root) as server:
        browser.open(server.link)
        browser.wait("location.pathname === '/start' && document.querySelector('#files')")
        browser.click("#files")
        browser.choose(sorted(pictures.iterdir()))
        browser.type("#folder", "dogs")
        browser.click("#upload button")
        browser.wait("document.querySelector('#pictures')?.value.endsWith('dogs')")
        begin_by_clicks(browser, server, word="zorb", steps=6)
        browser.wait("location.pathname === '/run'")
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
        for word in ("second", "third"):
            begin_by_clicks(browser, server, word=word, steps=2, waits=False)
        browser.open(server.address + "/jobs")
        assert list_waiting(browser) == ["second", "third"]
        browser.drag("#waiting > li:last-child", "#waiting > li:first-child")
        browser.wait("document.querySelector('#waiting > li a')?.innerText.includes('third')")
    with serving(root, port=port) as server:  # the first one was killed
        assert read_run(root)["pid"] == pid and is_alive(pid, read_run(root)["process"])
        browser.open(server.address + "/jobs")
        assert list_waiting(browser) == ["third", "second"]
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
        browser.open(server.address + "/jobs")  # and those that have waited are trained, in the order that was given to them
        browser.wait("document.querySelectorAll('#waiting > li[data-id]').length === 0 && document.body.innerText.includes('Nothing')")
        browser.wait("['second', 'third'].every((one) => document.querySelectorAll('#jobs section')[3].innerText.includes(one))")
        second, third = (read_run(root, word) for word in ("second", "third"))
        assert second["status"] == third["status"] == "finished" and third["time"] < second["started"]
        assert all((root / "runs" / word / "adapter.safetensors").is_file() for word in ("second", "third"))
        browser.open(server.address + "/run?at=runs/zorb")
        browser.click("#resume")
        browser.wait(f"parseInt(document.querySelector('#sentence')?.innerText.match(/step ([\\d,]+)/)?.[1].replace(',', '')) > {step}")
        browser.click("#stop")
        browser.wait("document.querySelector('#state .tag')?.innerText === 'stopped'")
        assert read_run(root)["step"] > step and not browser.errors


def write_into(browser: Browser, field: str, text: str) -> None:
    """Go to a field by the keyboard, which selects what is in it, and type."""
    browser.tab_to(field)
    browser.write(text)


def test_by_the_keyboard_alone_to_a_finished_lora_and_every_field_has_a_name(browser: Browser, root: Path, pictures: Path) -> None:
    with serving(root) as server:
        browser.open(server.link)
        browser.wait("location.pathname === '/start' && document.querySelector('#files')")
        browser.errors.clear()
        browser.tab_to("#files")
        browser.press("Enter")
        browser.choose(sorted(pictures.iterdir()))
        write_into(browser, "#folder", "dogs")
        browser.press("Enter")
        browser.wait("document.querySelector('#pictures')?.value.endsWith('dogs')")
        write_into(browser, "#word", "zorb")
        browser.press("Enter")
        browser.wait("location.pathname === '/start/look' && document.querySelector('#steps')")
        write_into(browser, "#steps", "2")
        browser.press("Enter")
        browser.wait("document.querySelector('#look h2')?.innerText.includes(' 2 steps') && document.querySelector('#go:enabled')")
        browser.tab_to("#go")
        browser.press("Enter")
        browser.wait("location.pathname === '/run' && document.querySelector('#state .tag')?.innerText === 'finished'")
        browser.wait("document.querySelectorAll('.strips img').length > 0")
        browser.tab_to(".strips td a")
        browser.press("Enter")
        browser.wait("document.querySelector('#zoom').open && document.querySelector('#zoom-picture').naturalWidth > 0")
        browser.press("Escape")
        assert (root / "runs" / "zorb" / "adapter.safetensors").is_file() and not browser.errors
        for page in ("/start", "/jobs", "/?all=1", "/start/look?file=zorb.toml"):
            browser.open(server.address + page)
            named = "one.labels?.length || one.getAttribute('aria-label') || one.type === 'hidden'"
            assert browser.read(f"[...document.querySelectorAll('input, select, textarea')].filter((one) => !({named})).length") == 0, page
            assert browser.read("[...document.querySelectorAll('button, a')].every((one) => one.innerText || one.ariaLabel || one.hidden)")
            for width in (390, 1280):
                browser.show(width, 800)
                assert browser.read("document.documentElement.scrollWidth") <= width, (page, width)
