"""Real servers on loopback that serve a folder, and misbehave where they are told to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """What is served: bytes by path, or what else is to be done; `asked` counts requests."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Answer] = {}
        self.asked = Counter[str]()
        self.address = ""


@contextmanager
def serve_web() -> Iterator[Web]:
    """A server in a thread."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked[self.path] += 1
            page = web.pages.get(self.path)
            if callable(page):
                page(self)
            elif page is None:
                self.send_error(404)
            else:
                send(self, page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    web.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield web
    server.shutdown()
    server.server_close()


def send(handler: BaseHTTPRequestHandler, data: bytes, *, code: int = 200, length: int | None = None) -> None:
    """An answer that says its length, perhaps a wrong one."""
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def fail_first(data: bytes, num_failures: int, *, code: int = 503) -> Answer:
    """An error some times, then the file."""
    left = iter(range(num_failures))
    return lambda handler: handler.send_error(code) if next(left, None) is not None else send(handler, data)


def hang(handler: BaseHTTPRequestHandler) -> None:
    """No answer for longer than any test waits."""
    time.sleep(5)


def drop(handler: BaseHTTPRequestHandler) -> None:
    """A connection that ends without an answer."""
    handler.close_connection = True


def redirect(target: str) -> Answer:
    """The file is elsewhere."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


def stream(handler: BaseHTTPRequestHandler) -> None:
    """Bytes without end or length."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"\x89PNG\r\n\x1a\n" + bytes(2**16))
    except OSError:
        handler.close_connection = True
