"""A real server on this machine that is told of runs: it takes messages, fails, hangs or wants to be left alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (204, {}, b"")


@dataclass
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float

    @property
    def json(self) -> dict[str, Any]:
        """What a raw webhook sent."""
        assert self.headers["Content-Type"] == "application/json"
        return dict(json.loads(self.body))

    @property
    def parts(self) -> dict[str, tuple[str | None, str, bytes]]:
        """Name -> file name, type and bytes of a multipart message."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        found = {}
        for part in message_from_bytes(head + self.body).walk():
            if not part.is_multipart():
                name = str(part.get_param("name", header="content-disposition"))
                found[name] = part.get_filename(), part.get_content_type(), bytes(part.get_payload(decode=True))
        return found

    @property
    def text(self) -> str:
        """What Discord shows."""
        return self.parts["content"][2].decode("utf-8")


@dataclass
class Receiver:
    """`answer`: what a request is answered, by its number; None: never."""

    answer: Callable[[int], Answer | None]
    received: list[Received] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that a raw webhook sent."""
        return [one.json for one in self.received]


@contextmanager
def receiving(answer: Callable[[int], Answer | None] = lambda _: OK) -> Iterator[Receiver]:
    """A server that listens while the context lasts."""
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(Received(self.path, dict(self.headers.items()), body, time.monotonic()))
            answer = receiver.answer(len(receiver.received))
            if answer is None:
                receiver.over.wait(30)
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/s3cret-path"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
