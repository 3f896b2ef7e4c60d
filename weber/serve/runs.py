"""The first page: all runs below the roots, and what has become of each."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from weber.serve.desk import find_desk
from weber.serve.reply import find_site, render
from weber.serve.site import Site
from weber.serve.telling import LABELS, Row, tell_job, tell_run

_MOST = 60


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [Route("/", show_runs), Route("/runs/list", show_list)]


def show_runs(request: Request) -> Response:
    """All runs; where there is none, how to begin."""
    desk = find_desk(request)
    if not desk.finder.list() and not desk.queue.list_open() and "all" not in request.query_params:
        return RedirectResponse("/start", status_code=303)
    return render(request, "runs.html", **_build_facts(request))


def show_list(request: Request) -> Response:
    """The list alone; nothing where it is as the page has it."""
    facts = _build_facts(request)
    answer = render(request, "runs_list.html", **facts)
    return Response(status_code=204) if request.query_params.get("seen") == facts["mark"] else answer


def _build_facts(request: Request) -> dict[str, Any]:
    desk = find_desk(request)
    folders = desk.finder.list()
    try:
        number = max(1, int(request.query_params.get("most", _MOST)))
    except ValueError:
        number = _MOST
    rows: list[Row] = [tell_run(desk, folder) for folder in folders[:number]]
    jobs = [(job, tell_job(desk, job)) for job in desk.queue.list_open()]
    said = [(row.at, row.status, row.label, row.sentence, row.error, str(row.picture)) for row in rows]
    mark = hashlib.sha256(repr((said, [(job.id, job.state, text) for job, text in jobs])).encode()).hexdigest()[:16]
    return {
        "rows": rows,
        "jobs": jobs,
        "mark": mark,
        "num_more": len(folders) - len(rows),
        "most": number,
        "is_paused": desk.queue.is_paused,
        "labels": LABELS,
        "roots": find_site(request).roots,
    }
