"""The queue, and one job of it."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.errors import ConfigError, WeberError
from weber.serve.desk import Desk, find_desk
from weber.serve.found import is_run_folder
from weber.serve.paths import resolve_path, shorten
from weber.serve.queue import Job
from weber.serve.reply import go, read_text, render, take_form
from weber.serve.site import Site
from weber.serve.telling import LABELS, tell_job
from weber.serve.workers import read_error, read_progress

_MOST_DONE, _MOST_PICTURES = 50, 200


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/jobs", show_jobs),
        Route("/jobs/list", show_list),
        Route("/jobs/pause", take_form(pause), methods=["POST"]),
        Route("/jobs/move", take_form(move), methods=["POST"]),
        Route("/jobs/stop", take_form(stop), methods=["POST"]),
        Route("/jobs/again", take_form(repeat), methods=["POST"]),
        Route("/jobs/forget", take_form(forget), methods=["POST"]),
        Route("/job", show_job),
        Route("/job/state", show_state),
    ]


def show_jobs(request: Request) -> Response:
    """What runs, what waits and what was done."""
    return render(request, "jobs.html", **_build_facts(request))


def show_list(request: Request) -> Response:
    """The lists alone; nothing where they are as the page has them."""
    facts = _build_facts(request)
    if request.query_params.get("seen") == facts["mark"]:
        return Response(status_code=204)
    return render(request, "jobs_list.html", **facts)


def show_job(request: Request) -> Response:
    """One job: what it is at, what it said, what it has made."""
    return render(request, "job.html", **_build_job(request))


def show_state(request: Request) -> Response:
    """The changing part of it; a run that has begun to train is shown by its own page from then on."""
    facts = _build_job(request)
    if facts["is_begun"] and "go" in request.query_params:
        return Response(status_code=204, headers={"HX-Redirect": f"/run?at={facts['quoted']}"})
    if request.query_params.get("seen") == facts["mark"]:
        return Response(status_code=204)
    return render(request, "job_state.html", **facts)


def pause(request: Request, form: FormData) -> Response:
    """Start nothing more of what waits, or go on."""
    find_desk(request).queue.pause(read_text(form, "paused") == "1")
    return go(request, "/jobs")


def move(request: Request, form: FormData) -> Response:
    """Another order: before another job, to the end, or up or down by one."""
    queue = find_desk(request).queue
    number, way, before = _read_id(form, "id"), read_text(form, "way"), read_text(form, "before")
    waiting = [job.id for job in queue.list_open() if job.state == "waiting"]
    if number not in waiting:
        raise ConfigError("This job waits no longer.", got=str(number), fix="look at the queue")
    place = waiting.index(number)
    others = [one for one in waiting if one != number]
    target = {"up": place - 1, "down": place + 1, "first": 0}.get(way)
    if target is not None:
        target = max(0, target)
        queue.move(number, before=others[target] if target < len(others) else None)
    else:
        queue.move(number, before=int(before) if before.isdecimal() and len(before) < 12 else None)
    return go(request, "/jobs")


def stop(request: Request, form: FormData) -> Response:
    """Take a job out of the queue, or ask it to stop; a second time at once."""
    desk = find_desk(request)
    job = desk.queue.read(_read_id(form, "id"))
    desk.workers.stop(job, at_once=read_text(form, "at_once") == "1")
    return go(request, f"/job?id={job.id}" if job.state == "running" else "/jobs")


def repeat(request: Request, form: FormData) -> Response:
    """Put a job that has ended into the queue again."""
    desk = find_desk(request)
    job = desk.queue.read(_read_id(form, "id"))
    if job.is_open:
        raise ConfigError("This job has not ended yet.", got=job.title, fix="wait for it")
    run = Path(job.run) if job.run else None
    again = desk.queue.add(job.kind, job.words, title=job.title, folder=job.folder, run=run, is_heavy=job.is_heavy)
    return go(request, f"/job?id={again.id}")


def forget(request: Request, form: FormData) -> Response:
    """Leave out one that has ended."""
    find_desk(request).queue.forget(_read_id(form, "id"))
    return go(request, "/jobs")


def _read_id(form: FormData, name: str) -> int:
    return _read_number(read_text(form, name))


def _read_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise ConfigError("There is no such job.", got=ascii(text[:20]), expected="a number of the queue", fix="look at the queue")
    return int(text)


def _build_facts(request: Request) -> dict[str, Any]:
    desk = find_desk(request)
    running, waiting = list[tuple[Job, str]](), list[tuple[Job, str]]()
    for job in desk.queue.list_open():
        (running if job.state == "running" else waiting).append((job, tell_job(desk, job)))
    done = [(job, tell_job(desk, job)) for job in desk.queue.list_done(_MOST_DONE)]
    said = [(job.id, job.state, text, job.asked is not None) for job, text in [*running, *waiting, *done]]
    is_paused = desk.queue.is_paused
    mark = hashlib.sha256(repr((said, is_paused)).encode()).hexdigest()[:16]
    return {
        "running": running,
        "waiting": waiting,
        "done": done,
        "mark": mark,
        "is_paused": is_paused,
        "labels": LABELS,
        "num_slots": len(desk.site.slots),
    }


def _build_job(request: Request) -> dict[str, Any]:
    desk = find_desk(request)
    job = desk.queue.read(_read_number(request.query_params.get("id", "")))
    log, sentence = desk.workers.read_log(job), tell_job(desk, job)
    run = Path(job.run) if job.run and is_run_folder(Path(job.run)) else None
    progress = read_progress(log) if job.state == "running" else None
    said = (job.state, job.asked, log, sentence, run)
    is_begun = run is not None and job.kind == "train" and job.state == "running" and desk.workers.is_at(job)
    return {
        "job": job,
        "label": "stopping" if job.state == "running" and job.asked is not None else LABELS[job.state],
        "sentence": sentence,
        "log": "\n".join(log.splitlines()[-60:]),
        "error": read_error(log) if job.state == "failed" else "",
        "run": None if run is None else shorten(desk.site, run),
        "quoted": "" if run is None else desk.site.templates.filters["urlencode"](shorten(desk.site, run)),
        "is_begun": is_begun,
        "share": None if not progress or not progress[2] else 100 * progress[1] / progress[2],
        "pictures": _list_pictures(desk, log) if job.kind in ("sample", "grid") else [],
        "mark": hashlib.sha256(repr(said).encode()).hexdigest()[:16],
        "words": shlex.join(["weber", *job.words]),
    }


def _list_pictures(desk: Desk, log: str) -> list[str]:
    """Files of pictures that a job says it has written."""
    found = []
    for line in log.splitlines()[-_MOST_PICTURES:]:
        if line.endswith(".png"):
            try:
                file = resolve_path(desk.site, line.strip())
            except WeberError:
                continue
            found += [shorten(desk.site, file)] if file.is_file() else []
    return found

