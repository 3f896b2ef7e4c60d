"""Pages must be there at once while a run trains, with ten thousand pictures, and after an hour of events.

    python benchmarks/pages.py [--rounds 30] [--pictures 10000] [--events 3600] [--pause 0.05] [--runs 1] \
        [--threads 1]

`weber serve` shows a folder with two finished runs of `--events` steps, a set of `--pictures` pictures, and a run of the pocket model that
is trained meanwhile (`--runs 0`: none is). Each page is asked for `--rounds` times: the median, the 95th percentile and the size of the
answer. Where Chromium is installed, it opens the page of pictures (its first paint), and then a run's page while `--events` steps and lines
are written, `--pause` seconds apart: bytes of its scripts, elements of the page, and bytes of the server, after a quarter and at the end.
Exit code 1 if the median of a page is above 150 ms, the first paint above 1 s, or if scripts, elements or the server have grown by more
than a tenth and 4 MiB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlencode, urlsplit

import machine
import psutil
from PIL import Image

from weber.track.process import read_identity
from weber.track.record import EVENTS_NAME, STATUS_NAME

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

from tests.serve.chromium import CHROMIUM, Browser, browsing  # noqa: E402  (beside the tests, not in the package)

MOST_SECONDS, MOST_PAINT_SECONDS, MOST_SHARE, MOST_BYTES = 0.15, 1.0, 0.1, 4 * 2**20
CALL = "from weber.cli import main; main()"
SETTINGS = '[model]\nvariant = "pocket"\n[[data]]\npath = "{data}"\nresolution = 64\n[memory]\ndevice = "cpu"\n'
PAGES = {
    "runs": "/?all=1",
    "start": "/start",
    "queue": "/jobs",
    "a run": "/run?at=runs/a",
    "its numbers": "/run/charts?at=runs/a",
    "its state": "/run/state?at=runs/a",
    "two runs": "/compare?a=runs/a&b=runs/b",
    "pictures": "/data?file=many.toml",
    "settings": "/settings?file=many.toml",
    "plan": "/plan?file=many.toml",
}


def write_finished(folder: Path, *, num_steps: int) -> None:
    """What a run of so many steps leaves."""
    (folder / "pictures" / "step-000001").mkdir(parents=True)
    (folder / "config.toml").write_text(SETTINGS.format(data="dogs") + f'[output]\nfolder = "{folder}"\n')
    lines = [json.dumps({"step": step, "loss": 1 / step, "lr": 1e-4, "seconds": 0.5, "grad_norm": 1.0}) for step in range(1, num_steps + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / STATUS_NAME).write_text(json.dumps({"status": "finished", "step": num_steps, "steps": num_steps, "time": 5, "started": 1}))
    (folder / EVENTS_NAME).write_text(json.dumps({"time": 1, "type": "notification", "level": "info", "text": "it begins"}) + "\n")
    Image.new("RGB", (256, 256), "teal").save(folder / "pictures" / "step-000001" / "00.png")


def write_folder(root: Path, *, num_pictures: int, num_steps: int) -> None:
    """Runs, pictures and settings. The pictures are one file under many names, as far as the disk goes."""
    for name in "ab":
        write_finished(root / "runs" / name, num_steps=num_steps)
    for folder, number in (("dogs", 8), ("many", num_pictures)):
        (root / folder).mkdir()
        first = root / folder / "000000.png"
        Image.new("RGB", (96, 96), "orange").save(first)
        first.with_suffix(".txt").write_text("a dog")
        for place in range(1, number):
            os.link(first, root / folder / f"{place:06d}.png")
    (root / "many.toml").write_text(SETTINGS.format(data="many"))
    output = '[train]\nsteps = 1000000\nbatch_size = 1\n[output]\nfolder = "runs/now"\ncache = "cache"\n'
    (root / "now.toml").write_text(SETTINGS.format(data="dogs") + output)


class Server:
    """`weber serve`, and somebody who asks it."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", CALL, "serve", str(root), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().split()[-1]
        parts = urlsplit(self.link)
        self._headers = {"Authorization": f"Bearer {parts.query.partition('=')[2]}"}
        self.address = f"http://127.0.0.1:{parts.port}"
        self._port = parts.port or 0

    @property
    def memory_bytes(self) -> int:
        """What the process has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def ask(self, path: str, **fields: str) -> tuple[float, int]:
        """Seconds and bytes of an answer. Raises RuntimeError where it is none."""
        begin = time.perf_counter()
        form = {"Content-Type": "application/x-www-form-urlencoded"} if fields else {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("POST" if fields else "GET", path, urlencode(fields) or None, self._headers | form)
            answer = connection.getresponse()
            size = len(answer.read())
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{path} is answered with {answer.status}")
        return time.perf_counter() - begin, size


@contextmanager
def serving(root: Path, *, is_alone: bool) -> Iterator[Server]:
    """The server, and unless it is alone a run that is trained, until the end."""
    server = Server(root)
    try:
        if not is_alone:
            server.ask("/start/go", file="now.toml")
            while not (root / "runs" / "now" / "metrics.jsonl").is_file():
                time.sleep(0.2)
        yield server
    finally:
        if not is_alone:
            server.ask("/run/stop", at="runs/now")
            while json.loads((root / "runs" / "now" / STATUS_NAME).read_text())["status"] == "running":
                time.sleep(0.2)
        server.process.kill()
        server.process.wait()


def measure_pages(server: Server, rounds: int) -> float:
    """Print what each page takes; returns the slowest median in seconds."""
    slowest = 0.0
    for name, path in PAGES.items():
        server.ask(path)  # templates are read once
        taken = [server.ask(path) for _ in range(rounds)]
        seconds = [one[0] for one in taken]
        most = quantiles(seconds, n=20)[-1] if rounds > 1 else seconds[0]
        print(f"{name}: {1000 * median(seconds):.1f} ms, 95th percentile {1000 * most:.1f} ms, {taken[-1][1] / 1000:.1f} kB")
        slowest = max(slowest, median(seconds))
    print(f"the slowest page: {1000 * slowest:.1f} ms, {slowest / MOST_SECONDS:.2f} of what it may take")
    return slowest


def measure_paint(browser: Browser, server: Server) -> float:
    """Print and return the seconds until something of the page of pictures is seen."""
    browser.open(server.link)
    browser.open(f"{server.address}/data?file=many.toml")
    browser.wait("performance.getEntriesByName('first-contentful-paint').length")
    milliseconds = float(browser.read("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    print(f"first paint of the pictures: {milliseconds:.0f} ms")
    return milliseconds / 1000


def measure_hour(browser: Browser, server: Server, *, folder: Path, num_events: int, pause: float) -> bool:
    """Write events into a run that a page is open of; print how it grows, and return whether it does not."""
    browser.open(f"{server.address}/run?at=runs/b")
    looks = []
    said = {"status": "running", "pid": os.getpid(), "process": read_identity(os.getpid()), "host": socket.gethostname(), "started": 1}
    with (folder / EVENTS_NAME).open("a") as events, (folder / "metrics.jsonl").open("a") as metrics:
        for number in range(1, num_events + 1):
            step = num_events + number
            events.write(json.dumps({"time": time.time(), "type": "notification", "level": "info", "text": f"event {number}"}) + "\n")
            metrics.write(json.dumps({"step": step, "loss": 0.5, "lr": 1e-4, "seconds": 0.5, "grad_norm": 1.0}) + "\n")
            events.flush()
            metrics.flush()
            status = said | {"what": "training", "step": step, "steps": 10**6, "time": time.time()}
            unfinished = folder / "status.tmp"
            unfinished.write_text(json.dumps(status))
            unfinished.replace(folder / STATUS_NAME)
            time.sleep(pause)
            if number % 20 == 0:
                browser.read("1")  # what it has told meanwhile is taken in
            if number in (max(1, num_events // 4), num_events):
                browser.wait(f"document.querySelector('#sentence')?.innerText.includes('{step:,}')")
                browser.call("HeapProfiler.collectGarbage")
                heap = int(browser.read("performance.memory.usedJSHeapSize"))
                looks.append((heap, int(browser.read("document.querySelectorAll('*').length")), server.memory_bytes))
    first, last = looks[0], looks[-1]
    print(f"scripts {first[0] / 1e6:.1f} MB after a quarter and {last[0] / 1e6:.1f} MB at the end")
    print(f"elements {first[1]} and {last[1]}")
    print(f"server {first[2] / 1e6:.1f} MB and {last[2] / 1e6:.1f} MB")
    slack = (MOST_BYTES, 20, MOST_BYTES)
    return all(after <= before * (1 + MOST_SHARE) + more for before, after, more in zip(first, last, slack, strict=True))


def build_options() -> argparse.ArgumentParser:
    """The options at the top of the file."""
    parser = machine.build_parser(__doc__)
    parser.add_argument("--rounds", type=machine.read_count, default=30)
    parser.add_argument("--pictures", type=machine.read_count, default=10_000)
    parser.add_argument("--events", type=machine.read_count, default=3600)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--runs", type=partial(machine.read_count, at_least=0), default=1)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """See the docstring of the file."""
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve() / "work"
        write_folder(root, num_pictures=options.pictures, num_steps=options.events)
        with serving(root, is_alone=options.runs == 0) as server:
            passed = measure_pages(server, options.rounds) <= MOST_SECONDS
            if CHROMIUM is None:
                print("no browser here: nothing is said of the first paint, and of an hour of events")
            else:
                with browsing(Path(name) / "chromium") as browser:
                    passed = measure_paint(browser, server) <= MOST_PAINT_SECONDS and passed
                    folder = root / "runs" / "b"
                    passed = measure_hour(browser, server, folder=folder, num_events=options.events, pause=options.pause) and passed
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
