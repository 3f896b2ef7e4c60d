"""The server: all pages, behind the guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from weber.errors import WeberError
from weber.serve import actions, data, describing, jobs, paintings, plan, problems, run, runs, settings, start, stream
from weber.serve.columns import Library
from weber.serve.desk import Desk, working
from weber.serve.guard import Guard
from weber.serve.reply import answer_error
from weber.serve.site import Site

PAGES: Sequence[Callable[[Site], list[Route]]] = (
    *(runs.routes, run.routes, actions.routes, jobs.routes, paintings.routes, stream.routes),
    *(start.routes, data.routes, describing.routes, problems.routes, settings.routes, plan.routes),
)
"""A function for each group of pages: which there are."""


def build_app(site: Site, *, is_local: bool = True) -> Starlette:
    """The application of a site. `is_local`: it is only reached from this machine."""
    static = StaticFiles(directory=Path(__file__).parent / "static")
    pages: list[BaseRoute] = [route for routes in PAGES for route in routes(site)]
    app = Starlette(
        routes=[*pages, Mount("/static", static, name="static")],
        lifespan=working,
        middleware=[Middleware(Guard, token=site.token, is_local=is_local)],
        exception_handlers={WeberError: answer_error, HTTPException: answer_error, OSError: answer_error},
    )
    app.state.desk, app.state.library = Desk(site), Library()
    app.state.site, app.state.pages = site, {route.path for route in app.routes if isinstance(route, Route)}
    return app
