"""Who may ask, and what a browser may do with the answer: in front of every page."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES, MOST_UPLOAD_BYTES = 4 * 2**20, 8 * 2**30
UPLOADS = ("/upload",)
"""Pages that take pictures; all others take forms."""
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SAFE, _STATIC = ("GET", "HEAD"), "/static/"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
}
_ASK = "This page needs the link that `weber serve` has printed when it started: open that one once, and this browser is known.\n"


class Guard:
    """Lets through who shows the token: a browser in a cookie, which the link sets, a program as `Authorization: Bearer`.

    A browser that changes something must come from one of these pages. `is_local`: only names of this machine itself are answered to, so
    that no other site can point a name of its own here.
    """

    def __init__(self, app: ASGIApp, *, token: str, is_local: bool) -> None:
        self._app, self._token, self._is_local = app, token, is_local
        self._cookie = f"weber-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope, Headers(scope=scope))
        is_static = scope["path"].startswith(_STATIC)
        await (refusal or self._app)(scope, receive, _dress(send, cache="no-cache" if is_static else "no-store"))

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """What is answered in the place of the page, if anything is."""
        host = headers.get("host", "")
        if self._is_local and _name_host(host) not in _LOOPBACK:
            return PlainTextResponse("This page is only there under the name of this machine itself.\n", 421)
        if _CONTROL.search(scope["path"]):
            return PlainTextResponse("There is no such page.\n", 404)
        if scope["path"].startswith(_STATIC) and scope["method"] in _SAFE:
            return None  # the same for everybody: what is in the package
        link = self._follow_link(scope)
        if link is not None:
            return link
        is_program = self._knows(headers.get("authorization", "").removeprefix("Bearer "))
        if not is_program and not self._knows(cookie_parser(headers.get("cookie", "")).get(self._cookie, "")):
            return PlainTextResponse(_ASK, 403)
        if scope["method"] in _SAFE:
            return None
        if not is_program and not _is_same_origin(headers, host):
            return PlainTextResponse("Changes are only made from these pages themselves.\n", 403)
        return _refuse_body(scope["path"], headers)

    def _follow_link(self, scope: Scope) -> Response | None:
        """The token in an address becomes a cookie, and is no longer in the address."""
        if b"token=" not in scope["query_string"] or scope["method"] != "GET":
            return None
        fields = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in fields if name == "token"]
        if not given or not self._knows(given[-1]):
            return None
        rest = urlencode([one for one in fields if one[0] != "token"])
        place = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(place + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax", max_age=365 * 24 * 3600)
        return answer

    def _knows(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token.encode())


def _name_host(host: str) -> str:
    """Without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(headers: Mapping[str, str], host: str) -> bool:
    """Whether a browser says that a request comes from a page of this very address."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return site == "same-origin"
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _refuse_body(path: str, headers: Mapping[str, str]) -> Response | None:
    """What is sent has to be a form, and to say how large it is."""
    length, is_upload = headers.get("content-length", ""), path.startswith(UPLOADS)
    if not (length.isascii() and length.isdecimal()) or "transfer-encoding" in headers:
        return PlainTextResponse("What is sent has to say how large it is.\n", 411)
    if int(length) > (MOST_UPLOAD_BYTES if is_upload else MOST_BYTES):
        return PlainTextResponse("This is larger than what this page takes.\n", 413)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _FORMS and not (kind == "" and length == "0"):
        return PlainTextResponse("This page takes forms.\n", 415)
    return None


def _dress(send: Send, *, cache: str) -> Send:
    """Every answer says what a browser may do with it; what a page sets for itself stays."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**_HEADERS, "Content-Security-Policy": POLICY, "Cache-Control": cache}.items():
                headers.setdefault(name, value)
        await send(message)

    return answer
