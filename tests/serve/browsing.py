"""A real server in a thread, and somebody who asks it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import uvicorn

from weber.serve.app import build_app
from weber.serve.server import open_socket
from weber.serve.site import Site

BOUNDARY = "a-boundary-of-the-tests"


@dataclass
class Answer:
    """What a server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass
class Client:
    """Asks as a browser that has followed the link: with its cookie, and from the same address."""

    port: int
    token: str
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.token:
            self.headers["Cookie"] = self.ask("GET", f"/?token={self.token}").headers["set-cookie"].partition(";")[0]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **fields: object) -> Answer:
        return self.ask("GET", path + (f"?{urlencode(fields)}" if fields else ""))

    def post(self, path: str, **fields: object) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin}
        return self.ask("POST", path, urlencode(fields, doseq=True).encode(), headers)

    def upload(self, path: str, files: Mapping[str, bytes], **fields: str) -> Answer:
        """As a form with files, each under the name `files`."""
        parts = [f'form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
        for name, data in files.items():
            shown = name.replace('"', "%22").encode("utf-8", "surrogatepass")
            parts.append(b'form-data; name="files"; filename="' + shown + b'"\r\nContent-Type: application/octet-stream\r\n\r\n' + data)
        mark = f"--{BOUNDARY}".encode()
        body = b"".join(mark + b"\r\nContent-Disposition: " + part + b"\r\n" for part in parts) + mark + b"--\r\n"
        return self.ask("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Origin": self.origin})


@contextmanager
def serving(site: Site) -> Iterator[Client]:
    """The pages of a site, while the context lasts."""
    with open_socket("127.0.0.1", 0) as listening:
        config = uvicorn.Config(build_app(site), log_level="error", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Client(listening.getsockname()[1], site.token)
        finally:
            server.should_exit = True
            thread.join(10)
