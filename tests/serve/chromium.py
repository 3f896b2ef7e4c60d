"""A browser without a window, driven over its own protocol: it clicks where a person would, and types."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here (apt-get install chromium)")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32}


class Browser:
    """One page of it. `asked`: every address that was asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.asked: list[str] = []
        self.errors: list[str] = []
        self._choosers: list[int] = []
        self._drags: list[Any] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        self.call("Input.setInterceptDrags", enabled=True)

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Ask the browser for something, and wait for its answer."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": values}))
        while True:
            said = json.loads(self._connection.recv(timeout=30))
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
            self._note(said)

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is there."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def read(self, script: str) -> Any:
        """The value of an expression."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 400.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            if self.call("Runtime.evaluate", expression=f"!!({script})", returnByValue=True)["result"].get("value"):
                return
            assert time.monotonic() < end, f"{script} is not so: {self.text[-3000:]}"
            time.sleep(0.1)

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.call("Runtime.evaluate", expression="document.body.innerText", returnByValue=True)["result"].get("value", ""))

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of something."""
        at = "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2];"
        x, y = self.read(f"(() => {{ const one = document.querySelector({selector!r}); one.scrollIntoView({{block: 'center'}}); {at} }})()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Click into a field, and write another text into it."""
        self.click(selector)
        self.read(f"document.querySelector({selector!r}).select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """A key of the keyboard."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        values = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose(self, files: Sequence[Path]) -> None:
        """Files in the window that a field has just opened for them."""
        end = time.monotonic() + 30
        while not self._choosers:
            assert time.monotonic() < end, "no window for files was opened"
            self.read("1")
        self.call("DOM.setFileInputFiles", files=[str(one) for one in files], backendNodeId=self._choosers.pop())

    def drag(self, selector: str, to: str) -> None:
        """Something onto the upper half of something else, with the mouse held down."""
        self.read(f"document.querySelector({to!r}).scrollIntoView({{block: 'center'}})")
        middle = "const box = one.getBoundingClientRect(); return [box.x + 40, box.y + box.height / 4];"
        places = [self.read(f"(() => {{ const one = document.querySelector({one!r}); {middle} }})()") for one in (selector, to)]
        (x, y), (end_x, end_y) = places
        self._drags.clear()
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for step in range(1, 5):
            at = {"x": x + (end_x - x) * step / 4, "y": y + (end_y - y) * step / 4}
            self.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, **at)
        end = time.monotonic() + 30
        while not self._drags:
            assert time.monotonic() < end, f"{selector} cannot be dragged"
            self.read("1")
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=end_x, y=end_y, data=self._drags[-1])
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end_x, y=end_y, button="left", clickCount=1)

    def tab_to(self, selector: str, most: int = 80) -> None:
        """Go on by the keyboard until something has the focus."""
        for _ in range(most):
            if self.read(f"document.activeElement?.matches({selector!r}) ?? false"):
                return
            self.press("Tab")
        raise AssertionError(f"{selector} is not reached by the keyboard: {self.read('document.activeElement?.outerHTML')}")

    def show(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """The size of the window, and the colors that its person likes."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}])

    def take(self, file: Path, *, is_whole: bool = True) -> Path:
        """A picture of the page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def _note(self, said: dict[str, Any]) -> None:
        values = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.asked.append(values["request"]["url"])
        if said.get("method") == "Page.fileChooserOpened":
            self._choosers.append(values["backendNodeId"])
        if said.get("method") == "Input.dragIntercepted":
            self._drags.append(values["data"])
        if said.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"].get("exception", values)))
        if said.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(f"{values['entry'].get('url', '')} {values['entry']['text']}")


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it has to in a folder, while the context lasts."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--disable-dev-shm-usage"]
    process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _wait_for((folder / "DevToolsActivePort").read_text).split()[0]
        pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10).read())
        page = next(one for one in pages if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, ping_interval=None) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(read: Callable[[], str]) -> str:
    end = time.monotonic() + 30
    while True:
        try:
            if text := read().strip():
                return text
        except OSError:
            pass
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.05)
