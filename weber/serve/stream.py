"""What happens in a run, sent to its page as it happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from weber.results.condition import read_condition
from weber.serve.desk import find_desk
from weber.serve.site import Site
from weber.track.record import EVENTS_NAME, STATUS_NAME

_SECONDS, _QUIET_SECONDS, _MOST_BYTES = 0.5, 15.0, 256 * 1024
_PREVIEW = "preview.webp"
_STEADY = ("status", "what", "done", "total", "step", "steps", "loss", "eta_seconds")


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [Route("/run/events", show_events)]


def show_events(request: Request) -> Response:
    """A stream: `line` for each thing that happened, whose id is the place in the file behind it, so that a browser that comes back goes on
    from there; `status` whenever the run is at something else."""
    folder = find_desk(request).find_run(request.query_params.get("at", ""))
    last = request.headers.get("last-event-id", request.query_params.get("from", ""))
    place = int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else None
    return StreamingResponse(_stream(request, folder, place), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(request: Request, folder: Path, place: int | None) -> AsyncIterator[str]:
    file = folder / EVENTS_NAME
    at, before, quiet = _measure(file) if place is None else place, "", 0.0
    yield "retry: 1000\n\n"
    while not await request.is_disconnected():
        at, lines = await run_in_threadpool(read_lines, file, at)
        for end, line in lines:
            yield f"id: {end}\nevent: line\ndata: {line}\n\n"
        status = await run_in_threadpool(_describe, folder)
        if status != before:
            before = status
            yield f"event: status\ndata: {status}\n\n"
            quiet = 0.0
        elif quiet >= _QUIET_SECONDS:
            yield ": still here\n\n"
            quiet = 0.0
        quiet += _SECONDS
        await anyio.sleep(_SECONDS)


def read_lines(file: Path, place: int) -> tuple[int, list[tuple[int, str]]]:
    """The whole lines behind a place of a file, each with the place behind it; and that of the last. A file that is shorter is another one,
    of which all is new."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            place = 0 if place > size else place
            stream.seek(place)
            data = stream.read(_MOST_BYTES)
    except OSError:
        return 0, []
    whole = data.rfind(b"\n") + 1
    if whole == 0 and len(data) == _MOST_BYTES:
        return place + len(data), []
    lines, end = [], place
    for line in data[:whole].splitlines(keepends=True):
        end += len(line)
        lines.append((end, line.decode("utf-8", errors="replace").strip()))
    return end, lines


def _measure(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _describe(folder: Path) -> str:
    """What a run is at, and of when its newest preview is."""
    found = read_condition(folder)
    facts = {name: found.__dict__[name] for name in _STEADY}
    try:
        facts["preview"] = (folder / _PREVIEW).stat().st_mtime_ns // 1_000_000
    except OSError:
        facts["preview"] = None
    try:
        facts["time"] = (folder / STATUS_NAME).stat().st_mtime
    except OSError:
        facts["time"] = None
    return json.dumps(facts)
