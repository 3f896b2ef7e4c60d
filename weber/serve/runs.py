"""The first page: all runs below the roots, and what becomes of each."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.serve.reply import render
from weber.serve.site import Site


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [Route("/", show_runs)]


def show_runs(request: Request) -> Response:
    """All runs."""
    return render(request, "runs.html")
