"""A real S3 on loopback that misbehaves where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.server import ThreadedMotoServer

from tests.data.servers import Web


@contextmanager
def serve_s3() -> Iterator[Web]:
    """A real S3 (moto) behind a server that misbehaves where `pages` says so, by the name of an object with its bucket."""
    behind = ThreadedMotoServer(port=0, verbose=False)
    behind.start()
    _, port = behind.get_host_and_port()
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            web.asked[f"{self.command} {self.path}"] += 1
            page = web.pages.get(self.path.partition("?")[0]) if self.command == "GET" else None
            if page is not None:
                assert callable(page)
                page(self)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = HTTPConnection("127.0.0.1", port)
            asked.request(self.command, self.path, body=body, headers=dict(self.headers))
            answer = asked.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            asked.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    web.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield web
    server.shutdown()
    server.server_close()
    behind.stop()
