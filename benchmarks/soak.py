"""A long run with everything that watches it must neither grow nor end with other bytes than the same run alone.

    python benchmarks/soak.py [--steps 3000] [--every 100] [--threads 1]

The pocket model learns the pictures in examples/zorb, twice: alone, and with evaluations of pictures that are held out, painted pictures
with previews and scores, a webhook, TensorBoard and wandb (without a network), each `--every` steps. Meanwhile a thread looks at the
process: bytes in memory, open files, threads. The second quarter of the run is compared with the last: by then all has been used for the
first time. Exit code 1 if the finished adapters differ in any byte, if memory has grown by more than 1 % and 8 MiB, or if there are more
files or threads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ["WANDB_MODE"] = "offline"

import machine
import psutil
from rich.console import Console

from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.track.jsonl import read_metrics
from weber.track.progress import Watcher
from weber.training.assemble import train

PICTURES = Path(__file__).absolute().parents[1] / "examples" / "zorb"
LOOK_SECONDS = 0.25
MOST_SHARE, MOST_BYTES = 0.01, 8 * 2**20
NEVER = 10**9


class Look(NamedTuple):
    """The process at one moment."""

    memory_bytes: int
    files: int
    threads: int


class Eye:
    """Looks at this process while it is open."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Eye:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        process = psutil.Process()
        while not self._over.wait(LOOK_SECONDS):
            with process.oneshot():
                self.looks.append(Look(process.memory_info().rss, process.num_fds(), process.num_threads()))

    def compare(self) -> tuple[Look, Look]:
        """The medians of the second quarter and of the last."""
        number = max(1, len(self.looks) // 4)
        parts = self.looks[number : 2 * number] or self.looks, self.looks[-number:]
        first, last = (Look(*(int(median(column)) for column in zip(*part, strict=True))) for part in parts)
        return first, last


class Hook(BaseHTTPRequestHandler):
    """Takes every message."""

    num_received = 0

    def do_POST(self) -> None:
        """See http.server."""
        self.rfile.read(int(self.headers["Content-Length"]))
        Hook.num_received += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def listening() -> Iterator[str]:
    """The address of a webhook."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def build_run(folder: Path, *, steps: int, every: int, webhook: str | None) -> RunConfig:
    """The run alone, or with all that watches it."""
    tree: dict[str, Any] = {
        "model": {"variant": "pocket"},
        "data": [{"path": str(PICTURES), "evaluation": 0.2, "resolution": 64}],
        "memory": {"device": "cpu"},
        "train": {"steps": steps},
        "evaluation": {"every": NEVER, "pictures": 1, "levels": [0.5]},
        "output": {"folder": str(folder / "run"), "cache": str(folder.parent / "cache"), "save_every": NEVER},
    }
    if webhook is not None:
        tree["evaluation"] = {"every": every, "pictures": 2}
        tree["sampling"] = {"prompts": ["a zorb"], "every": every, "steps": 4, "preview_every": 2, "likeness_model": "vae"}
        webhooks = [{"kind": "raw", "url": webhook, "level": "debug", "every": 1}]
        tree["output"] |= {"trackers": ["tensorboard", "wandb"], "webhooks": webhooks, "folder": str(folder / "run")}
    return build_config(tree)


def train_quietly(config: RunConfig) -> tuple[str, Eye]:
    """Hash of the finished adapter, and what was seen of the process."""
    with Eye() as eye:
        path = train(config, resume=False, watcher=Watcher(Console(file=io.StringIO())))
    return hashlib.sha256(path.read_bytes()).hexdigest(), eye


def build_options() -> argparse.ArgumentParser:
    """The options at the top of the file."""
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=machine.read_count, default=3000)
    parser.add_argument("--every", type=machine.read_count, default=100)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """See the docstring of the file."""
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory() as name, listening() as url:
        folders = [Path(name) / "alone", Path(name) / "watched"]
        alone, _ = train_quietly(build_run(folders[0], steps=options.steps, every=options.every, webhook=None))
        watched, eye = train_quietly(build_run(folders[1], steps=options.steps, every=options.every, webhook=url))
        losses = [[line["loss"] for line in read_metrics(folder / "run")] for folder in folders]
        num_pictures = len(list((folders[1] / "run" / "pictures").glob("step-*/*.png")))
    first, last = eye.compare()
    grown = last.memory_bytes - first.memory_bytes
    print(f"{options.steps} steps, {Hook.num_received} messages, {num_pictures} pictures, {len(eye.looks)} looks at the process")
    before, after = first.memory_bytes / 2**20, last.memory_bytes / 2**20
    print(f"memory {before:.1f} MiB in the second quarter, {after:.1f} MiB in the last ({after - before:+.1f})")
    print(f"open files {first.files} and {last.files}, threads {first.threads} and {last.threads}")
    same = "the same" if alone == watched and losses[0] == losses[1] else "OTHER"
    print(f"losses and bytes of the adapter: {same} as of the run alone")
    is_steady = grown <= max(MOST_BYTES, MOST_SHARE * first.memory_bytes) and last.files <= first.files and last.threads <= first.threads
    passed = same == "the same" and is_steady
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
