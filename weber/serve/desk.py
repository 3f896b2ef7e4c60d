"""What pages work with: the queue, who does what is in it, and who looks for runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from weber.errors import ConfigError
from weber.results.condition import read_condition
from weber.serve.files import find_root
from weber.serve.found import Finder, is_run_folder
from weber.serve.paths import resolve_path, shorten
from weber.serve.queue import Job, Queue
from weber.serve.site import Site
from weber.serve.workers import Workers

_SECONDS = 0.5


class Desk:
    """See above. `start_weber` is how a page has something done."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.queue = Queue(site)
        self.finder = Finder(site, self.queue)
        self.workers = Workers(site, queue=self.queue, finder=self.finder)

    def find_run(self, text: str) -> Path:
        """The run folder that a page is asked about. Raises ConfigError where there is none."""
        folder = resolve_path(self.site, text)
        if not is_run_folder(folder):
            raise ConfigError("There is no run in this folder.", got=shorten(self.site, folder), fix="look at the list of runs")
        return folder

    def train(self, settings: Path, *, run: Path, is_resumed: bool = False, overrides: tuple[str, ...] = ()) -> Job:
        """Put a run into the queue. Raises ConfigError where it is at work."""
        self.workers.settle(run)
        if read_condition(run).is_running:
            raise ConfigError("This run is at work.", got=shorten(self.site, run), fix="stop it first")
        words = ["train", str(settings), *overrides, *(["--resume"] if is_resumed else [])]
        return self.queue.add("train", words, title=run.name, folder=find_root(self.site, settings), run=run, is_heavy=True)

    def start_weber(self, words: list[str], *, title: str, run: Path | None = None, is_heavy: bool = False) -> Job:
        """Call another verb of `weber`, beside or in the queue."""
        folder = self.site.roots[0] if run is None else find_root(self.site, run)
        return self.queue.add(words[0], words, title=title, folder=folder, run=run, is_heavy=is_heavy)


def find_desk(request: Request) -> Desk:
    """The desk of the server that is asked."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


@asynccontextmanager
async def working(app: Starlette) -> AsyncIterator[None]:
    """The jobs are looked after while the server is there."""

    async def look() -> None:
        while True:
            with suppress(OSError, sqlite3.Error):  # a disk that is full now may not be so later
                await run_in_threadpool(app.state.desk.workers.look)
            await asyncio.sleep(_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
