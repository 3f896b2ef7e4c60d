"""A small server in place of the hub, with datasets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories of datasets by name, each a mapping of file names to bytes; answers as the hub's API does."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.fails = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self, body=True)

            def do_HEAD(self) -> None:
                owner.answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        address = urlparse(handler.path)
        parts = unquote(address.path).strip("/").split("/")
        self.asked.append("/".join(parts))
        headers, status, data = {"X-Repo-Commit": COMMIT, "Content-Type": "application/json"}, 200, b""
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[1:3])
        if self.fails:
            status = 503
        elif name not in self.files:
            status, headers["X-Error-Code"] = 404, "RepoNotFound"
        elif parts[0] == "api" and parts[4:5] and parts[5] not in ("main", COMMIT):
            status, headers["X-Error-Code"] = 404, "RevisionNotFound"
        elif parts[0] == "api" and parts[4:5] == ["tree"]:
            assert parse_qs(address.query)["recursive"] in (["True"], ["true"])
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in self.files[name].items()
            ]
            data = json.dumps(entries).encode()
        elif parts[0] == "api":
            siblings = [{"rfilename": path} for path in self.files[name]]
            data = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}).encode()
        elif name in self.gated:
            status, headers["X-Error-Code"] = 403, "GatedRepo"
        else:
            assert parts[3:5] == ["resolve", COMMIT]
            data = self.files[name]["/".join(parts[5:])]
            headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if body:
            handler.wfile.write(data)


@pytest.fixture(name="served")
def serve_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of our own, with a cache of its own."""
    served = Hub()
    for name, value in {
        "ENDPOINT": served.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    yield served
    served.server.shutdown()
    served.server.server_close()


def build_picture(seed: int, *, kind: str = "png", size: tuple[int, int] = (64, 64)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def build_parquet(columns: Mapping[str, list[Any]]) -> bytes:
    buffer = BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").table(dict(columns)), buffer)
    return buffer.getvalue()
