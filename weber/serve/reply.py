"""What pages answer: a template with facts, or one clear sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from weber.errors import WeberError
from weber.serve.site import Site
from weber.version import VERSION

MOST_FIELDS, MOST_FILES = 4000, 20_000
MOST_FIELD_BYTES = 2**20
_REASONS = {
    404: ("There is no such page.", "the address may be misspelled, or what it showed was deleted"),
    405: ("This page cannot be asked that way.", "go back, and use its buttons"),
}


def find_site(request: Request) -> Site:
    """The site that a request is made to."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site


def render(request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **facts: Any) -> Response:
    """A page, or a part of one for htmx."""
    site = find_site(request)
    text = site.templates.get_template(template).render(
        site_pages=request.app.state.pages, version=VERSION, path=request.url.path, **facts
    )
    return HTMLResponse(text, status_code=status, headers=dict(headers or {}))


def refuse(request: Request, what: str, *, status: int = 400, got: str = "", expected: str = "", fix: str = "") -> Response:
    """A page that says what is wrong and what to do, with a status of 400 and above."""
    return render(request, "refusal.html", status=status, what=what, got=got, expected=expected, fix=fix)


def go(request: Request, address: str) -> Response:
    """To another page, after something was done."""
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def take_form(work: Callable[[Request, FormData], Response]) -> Callable[[Request], Awaitable[Response]]:
    """A page that reads what a form sends, and then works in a thread."""

    async def answer(request: Request) -> Response:
        async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES) as form:
            return await run_in_threadpool(work, request, form)

    return answer


def read_text(form: FormData, name: str, *, default: str = "") -> str:
    """A field of a form as text."""
    value = form.get(name, default)
    return default if isinstance(value, UploadFile) or value is None else value.strip()


def answer_error(request: Request, error: Exception) -> Response:
    """What a page says of an error that a person can do something about."""
    if isinstance(error, WeberError):
        return refuse(request, error.what, got=error.got, expected=error.expected, fix=error.fix)
    if isinstance(error, HTTPException):
        what, fix = _REASONS.get(error.status_code, ("This cannot be answered.", "go back, and try something else"))
        return refuse(request, what, status=error.status_code, got=error.detail if error.status_code not in _REASONS else "", fix=fix)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be read or written"
    return refuse(request, "The disk refused.", status=409, got=reason, fix="check that it is there, the disk's space and permissions")
