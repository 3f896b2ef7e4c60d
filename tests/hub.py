"""A hub of our own on this machine that repositories can be made in and committed to, and that misbehaves where it is told to."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_TestTokenThatNobodyMaySee"
Misbehave = Callable[[str, int], int | None]
HANG = 0


@dataclass
class Repository:
    """What was made, and all of its files now."""

    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """`misbehave`: gets what is asked for and how often it was until now; gives a status to answer in place of it, HANG: none at all.

    `asked`: all requests; `sent`: bytes of large files by their hash, which the hub keeps whatever becomes of the commit.
    """

    misbehave: Misbehave = lambda asked, number: None
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def count_files(self, name: str) -> int:
        """Files of a repository; 0 where there is none."""
        return len(self.repositories[name].files) if name in self.repositories else 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """What a request is answered."""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path.startswith("/upload/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/upload/")
            self.uploads.append(path.removeprefix("/upload/"))
            self.sent[self.uploads[-1]] = body
            return 200, {}
        owner, name, *rest = path.removeprefix("/api/models").removeprefix("/").split("/")
        name = name.removesuffix(".git")
        repository = self.repositories.get(f"{owner}/{name}")
        if repository is None:
            return 404, {"error": "Repository not found"}
        if not rest:
            return 200, {"id": f"{owner}/{name}", "private": repository.is_private, "siblings": [], "tags": []}
        if rest[0] == "preupload":
            return 200, {"files": [self._choose(one) for one in json.loads(body)["files"]]}
        if rest[-1] == "batch":
            return 200, {"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]}
        assert rest[0] == "commit", path
        return self._commit(repository, body, f"{owner}/{name}")

    def _create(self, wish: dict[str, Any]) -> tuple[int, object]:
        name = f"{wish.get('organization') or 'me'}/{wish['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        is_private = wish.get("private", wish.get("visibility") == "private")
        self.repositories[name] = Repository(bool(is_private))
        return 200, {"url": f"{self.url}/{name}", "name": name}

    def _validate(self, content: str) -> tuple[int, object]:
        _, front, _ = content.split("---\n", 2)
        assert isinstance(yaml.safe_load(front), dict)
        return 200, {"errors": [], "warnings": []}

    def _choose(self, file: dict[str, Any]) -> dict[str, object]:
        mode = "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _place(self, one: dict[str, Any]) -> dict[str, object]:
        known = one["oid"] in self.sent
        upload = {} if known else {"actions": {"upload": {"href": f"{self.url}/upload/{one['oid']}", "header": {}}}}
        return {"oid": one["oid"], "size": one["size"], **upload}

    def _commit(self, repository: Repository, body: bytes, name: str) -> tuple[int, object]:
        lines = [json.loads(line) for line in body.decode().splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                repository.files[value["path"]] = self.sent[value["oid"]]
        commit = f"{len(repository.messages):040d}"
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit, "success": True}


@contextmanager
def serving_hub(misbehave: Misbehave = lambda asked, number: None) -> Iterator[Hub]:
    """A hub while the context lasts."""
    hub = Hub(misbehave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = f"{self.command} {path}"
            status = hub.misbehave(asked, hub.asked.count(asked))
            hub.asked.append(asked)
            if status == HANG:
                hub.over.wait(30)
                self.close_connection = True
                return
            if status is None and not path.startswith("/upload/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status = 401
            code, content = hub.answer(self.command, path, body) if status is None else (status, {"error": f"{TOKEN} is not good"})
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = handle_all

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
