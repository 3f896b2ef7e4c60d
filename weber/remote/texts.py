"""A small HTTP server that encodes texts for runs on other machines (`cache/served` is the other end, and says what is spoken).

Its text encoders are read when they are first asked for, and stay. One request is served after the other, so that memory holds one batch;
what is encoded together is what was asked for together, so that a cache has the bits that it would have had where the run is.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from weber.cache.encode import Encoders
from weber.cache.served import NAMES
from weber.data.words import describe_count
from weber.errors import WeberError
from weber.version import VERSION

MOST_TEXTS = 256
"""Of one request."""
MOST_BYTES = 2**22
"""Of one request."""
_TIMEOUT_SECONDS = 60.0
"""For a request to arrive."""


class TextService:
    """The text encoders of a model, for whoever asks. Any thread may ask."""

    def __init__(self, encoders: Encoders, *, write: Callable[[str], None]) -> None:
        self._encoders, self._write = encoders, write
        self._modules: dict[str, nn.Module] = {}
        self._lock = Lock()

    def describe(self) -> dict[str, object]:
        """Which model it is, in which precision, and what its parts are called in cache keys."""
        encoders = self._encoders
        family = encoders.family
        parts = {part: encoders.identify(part) for part in family.text_parts}
        return {"weber": VERSION, "variant": family.variant, "dtype": NAMES[encoders.dtype], "parts": parts}

    def encode(self, part: str, texts: Sequence[str]) -> dict[str, Tensor]:
        """What a part makes of texts, on the host."""
        encoders = self._encoders
        with self._lock, torch.no_grad():
            if part not in self._modules:
                self._write(f"Reading the text encoder {part}.")
                self._modules[part] = encoders.load(part)
            tensors = encoders.encode_prompts(part, self._modules[part], texts)
            self._write(f"Encoded {describe_count(len(texts), 'text')} ({part}).")
        cast = {name: tensor.to(encoders.dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        return {name: tensor.cpu().contiguous() for name, tensor in cast.items()}

    @property
    def parts(self) -> Sequence[str]:
        """The text parts that there are."""
        return self._encoders.family.text_parts

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return NAMES[self._encoders.dtype]


class TextSite(ThreadingHTTPServer):
    """The service at an address; who does not say the token is told nothing."""

    daemon_threads = True

    def __init__(self, place: tuple[str, int], *, service: TextService, token: str) -> None:
        super().__init__(place, _Handler)
        self.service, self.token = service, token

    def handle_error(self, request: Any, client_address: Any) -> None:
        """See socketserver: whoever asked has gone, which is no fault of ours."""


class _Refusal(Exception):
    """An answer that is none."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: TextSite
    timeout = _TIMEOUT_SECONDS
    server_version = f"weber/{VERSION}"
    sys_version = ""

    def do_GET(self) -> None:
        """See http.server."""
        self._answer("/model", lambda: json.dumps(self.server.service.describe()).encode(), kind="application/json")

    def do_POST(self) -> None:
        """See http.server."""
        self._answer("/encode", self._encode, kind="application/octet-stream")

    def log_message(self, format: str, *args: Any) -> None:
        """See http.server: addresses may hold tokens, so none is written."""

    def _answer(self, path: str, build: Callable[[], bytes], *, kind: str) -> None:
        try:
            said = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(said.encode(), self.server.token.encode()):
                raise _Refusal(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
            if self.path != path:
                raise _Refusal(HTTPStatus.NOT_FOUND, "there are GET /model and POST /encode")
            status, content = HTTPStatus.OK, build()
        except _Refusal as refusal:
            status, content, kind = refusal.status, json.dumps({"error": str(refusal)}).encode(), "application/json"
        except WeberError as error:
            status, content, kind = HTTPStatus.UNPROCESSABLE_ENTITY, json.dumps({"error": str(error)}).encode(), "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _encode(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has to say its length, at most {MOST_BYTES} bytes")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the request is not JSON") from None
        service, (part, texts, dtype) = self.server.service, _read_asked(asked)
        if part not in service.parts:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"the text encoders here are {', '.join(service.parts)}")
        if dtype != service.dtype:
            raise _Refusal(HTTPStatus.CONFLICT, f"texts are encoded in {service.dtype} here, not in {dtype}")
        return safetensors.torch.save(service.encode(part, texts))


def _read_asked(asked: object) -> tuple[str, list[str], object]:
    """Part, texts and precision."""
    table: Mapping[str, object] = asked if isinstance(asked, dict) else {}
    part, texts = table.get("part"), table.get("texts")
    if not isinstance(part, str) or not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise _Refusal(HTTPStatus.BAD_REQUEST, 'a request is {"part": "...", "texts": ["...", ...], "dtype": "..."}')
    if not 0 < len(texts) <= MOST_TEXTS:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{len(texts)} texts in one request; 1 to {MOST_TEXTS} are taken")
    return part, texts, table.get("dtype")
