"""The page of a run: what it is at, its curves, pictures, findings, files and words."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weber.checkpoint.retention import LEFT, RUINED, list_aside
from weber.checkpoint.save import CONFIG_NAME, list_checkpoints
from weber.config.elsewhere import hide_logins
from weber.config.load import list_changes, load_config
from weber.config.toml import write_value
from weber.errors import WeberError
from weber.serve.actions import REPORT_NAME
from weber.serve.desk import Desk, find_desk
from weber.serve.paintings import list_steps, list_strips
from weber.serve.paths import shorten
from weber.serve.reply import render
from weber.serve.site import Site
from weber.serve.telling import LABELS, Row, tell_job, tell_run
from weber.serve.workers import read_end
from weber.track.record import EVENTS_NAME

MOST_STEPS, _MOST_LINES = 8, 200
_PREVIEW, _FINDING = "preview.webp", "finding"
_RESULTS = ("transformer", "transformer-ema")
_PREVIEW_SECONDS = 60.0


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    parts = {"state": show_state, "pictures": show_pictures, "files": show_files, "log": show_log, "charts": show_charts}
    return [Route("/run", show_run), *(Route(f"/run/{name}", show) for name, show in parts.items()), Route("/compare", compare)]


def show_run(request: Request) -> Response:
    """All of it."""
    desk, folder = _find(request)
    facts = {**_build_state(desk, folder), **_build_pictures(request, desk, folder), **_build_files(desk, folder), **_build_log(folder)}
    return render(request, "run.html", **facts, settings=_list_settings(folder), has_import=(folder / "import.md").is_file())


def show_state(request: Request) -> Response:
    """What it is at."""
    desk, folder = _find(request)
    facts = _build_state(desk, folder)
    return Response(status_code=204) if request.query_params.get("seen") == facts["mark"] else render(request, "run_state.html", **facts)


def show_pictures(request: Request) -> Response:
    """Pictures, prompt by prompt."""
    desk, folder = _find(request)
    return render(request, "run_pictures.html", **_build_pictures(request, desk, folder), row=tell_run(desk, folder))


def show_files(request: Request) -> Response:
    """Checkpoints and results, and what was done with them."""
    desk, folder = _find(request)
    return render(request, "run_files.html", **_build_files(desk, folder), row=tell_run(desk, folder))


def show_log(request: Request) -> Response:
    """What it said."""
    desk, folder = _find(request)
    return render(request, "run_log.html", **_build_log(folder), row=tell_run(desk, folder))


def show_charts(request: Request) -> Response:
    """Its numbers as columns for charts."""
    _, folder = _find(request)
    return JSONResponse({"charts": request.app.state.library.list_charts(folder)})


def compare(request: Request) -> Response:
    """Two runs beside each other: settings that differ, curves in one chart, pictures of the same prompts."""
    desk, asked = find_desk(request), request.query_params
    folders = [desk.find_run(asked.get("a", "")), desk.find_run(asked.get("b", ""))]
    rows = [tell_run(desk, folder) for folder in folders]
    settings = [{key: value for key, value, _ in _list_settings(folder)} for folder in folders]
    keys = sorted(set(settings[0]) | set(settings[1]))
    differing = [(key, *(one.get(key, "") for one in settings)) for key in keys if settings[0].get(key) != settings[1].get(key)]
    strips = []
    for folder in folders:
        steps = list_steps(folder)
        found = list_strips(desk.site, folder, steps=steps[-1:])
        strips.append({one.prompt: one.pictures[0] for one in found if one.pictures[0] is not None})
    pairs = [(prompt, strips[0][prompt], strips[1][prompt]) for prompt in strips[0] if prompt in strips[1]]
    return render(request, "compare.html", rows=rows, differing=differing, pairs=pairs)


def _find(request: Request) -> tuple[Desk, Path]:
    desk = find_desk(request)
    return desk, desk.find_run(request.query_params.get("at", ""))


def _build_state(desk: Desk, folder: Path) -> dict[str, Any]:
    row: Row = tell_run(desk, folder)
    findings = _list_findings(folder)
    preview = _find_preview(desk, folder, row=row)
    said = (row.status, row.label, row.sentence, row.error, findings, preview, row.checkpoint, row.can_resume)
    mark = hashlib.sha256(repr(said).encode()).hexdigest()[:16]
    log = desk.workers.read_log(row.job) if row.job is not None and row.status in ("failed", "killed") else ""
    if row.status in ("failed", "killed") and not log:
        log = "\n".join(line["text"] for line in _list_events(folder)[-20:])
    return {"row": row, "findings": findings, "preview": preview, "mark": mark, "last_lines": "\n".join(log.splitlines()[-20:])}


def _find_preview(desk: Desk, folder: Path, *, row: Row) -> str | None:
    """The picture that is being painted, while it is."""
    file = folder / _PREVIEW
    try:
        changed = file.stat()
    except OSError:
        return None
    is_new = row.is_running and time.time() - changed.st_mtime < _PREVIEW_SECONDS
    return f"{shorten(desk.site, file)}|{changed.st_mtime_ns}" if is_new else None


def _list_events(folder: Path) -> list[dict[str, Any]]:
    """The last things that happened."""
    found = []
    for line in read_end(folder / EVENTS_NAME, num_bytes=128 * 1024).splitlines():
        try:
            event = json.loads(line)
            known = {"text": str(event["text"]), "time": float(event["time"]), "type": str(event["type"])}
            found.append({**event, **known, "level": str(event.get("level")), "step": int(event.get("step") or 0)})
        except (ValueError, TypeError, KeyError, OverflowError):
            continue
    return found


def _list_findings(folder: Path) -> list[tuple[int, str]]:
    """What the doctor found, each fault once, as it was said last."""
    found: dict[str, tuple[int, str]] = {}
    for event in _list_events(folder):
        if event["type"] == _FINDING:
            found[str(event.get("finding"))] = event["step"], event["text"].partition(": ")[2] or event["text"]
    return list(found.values())


def _build_pictures(request: Request, desk: Desk, folder: Path) -> dict[str, Any]:
    steps = list_steps(folder)
    shown = steps
    if "all" not in request.query_params and len(steps) > MOST_STEPS:
        places = [round(number * (len(steps) - 1) / (MOST_STEPS - 1)) for number in range(MOST_STEPS)]
        shown = [steps[place] for place in dict.fromkeys(places)]
    return {"steps": shown, "num_steps": len(steps), "strips": list_strips(desk.site, folder, steps=shown)}


def _build_files(desk: Desk, folder: Path) -> dict[str, Any]:
    checkpoints = [(step, path.name, shorten(desk.site, path), _measure(path)) for step, path in list_checkpoints(folder)]
    aside = [(path.name, shorten(desk.site, path), _measure(path)) for ending in (RUINED, LEFT) for path in list_aside(folder, ending)]
    results = [
        (path.name, shorten(desk.site, path), _measure(path))
        for path in sorted(folder.iterdir())
        if (path.is_file() and path.suffix == ".safetensors") or (path.is_dir() and path.name in _RESULTS)
    ]
    jobs = [(job, LABELS[job.state], tell_job(desk, job)) for job in desk.queue.list_of_run(folder, most=12)]
    has_report = (folder / REPORT_NAME).is_file()
    return {"checkpoints": checkpoints[::-1], "aside": aside, "results": results, "jobs": jobs, "has_report": has_report}


def _measure(path: Path) -> int:
    """How many bytes it takes."""
    files = [path] if path.is_file() else path.rglob("*")
    total = 0
    for file in files:
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total


def _build_log(folder: Path) -> dict[str, Any]:
    lines = [
        (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"])), event["level"], event["text"])
        for event in _list_events(folder)[-_MOST_LINES:]
    ]
    return {"lines": lines[::-1]}


def _list_settings(folder: Path) -> list[tuple[str, str, str]]:
    """Key, value and default of what differs, without what is secret."""
    try:
        config = load_config(folder / CONFIG_NAME)
    except (WeberError, OSError):
        return []
    changes = [one for one in list_changes(config) if one[1] is not None]
    return [(key, _write(value), "" if default is None else _write(default)) for key, value, default in changes]


def _write(value: object) -> str:
    return hide_logins(write_value(value))


