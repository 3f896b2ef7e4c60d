"""A hub of our own, over HTTP: what is fetched, what is said where nothing can be had, and silence offline."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

COMMIT = "0123456789012345678901234567890123456789"
WEIGHTS = save({"img_in.weight": torch.zeros(2, 2)})
CONFIG = json.dumps({"_class_name": "FluxTransformer2DModel"}).encode()
WHOLE = {
    "model_index.json": json.dumps({"transformer": ["diffusers", "X"], "tokenizer": ["transformers", "Y"]}).encode(),
    "transformer/config.json": CONFIG,
    "transformer/model.safetensors": WEIGHTS,
    "tokenizer/tokenizer.json": b"{}",
    "tokenizer/merges.txt": b"a b",
}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "owner/whole": WHOLE,
    "owner/partial": WHOLE,
    "owner/bare": {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/folder/model.safetensors": WEIGHTS, "README.md": b"hello"},
    "owner/language": {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}", "merges.txt": b"a b"},
    "owner/files": {"split_files/model.safetensors": WEIGHTS},
    "owner/lora": {"lora.safetensors": WEIGHTS, "more/a.safetensors": WEIGHTS, "README.md": b"hello"},
    "owner/loras": {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS},
}
FAILURES = {
    "owner/gated": (403, "GatedRepo"),
    "owner/gated-no-token": (401, "GatedRepo"),
    "owner/missing": (404, "RepoNotFound"),
    "owner/private": (401, "RepoNotFound"),
    "owner/no-revision": (404, "RevisionNotFound"),
    "owner/bad-token": (401, ""),
    "owner/broken": (500, ""),
}

SCRIPT = """
import errno, json, sys
import huggingface_hub
from weber.errors import ModelError
from weber.families import hub
from weber.families.places import find_file
from weber.families.source import Source

def run(path, part, call):
    try:
        if call == "revision":
            return str(Source(path, "v9").find(part))
        if call == "words":
            return str(Source("owner/bare", own={"tokenizer_path": path}).load_folder(part))
        if call == "file":
            return str(find_file("model.assistant", path))
        if call == "home":
            return str(Source("owner/bare").with_home(path).check_part(part))
        result = getattr(Source(path), call)(part)
        return str(getattr(result, "path", result))
    except ModelError as error:
        return str(error)

for line in sys.stdin:
    path, part, call = json.loads(line)
    if call == "full":
        def fail(*arguments, **settings):
            raise OSError(errno.ENOSPC, "No space left on device")
        huggingface_hub.snapshot_download, kept = fail, huggingface_hub.snapshot_download
        answer = run(path, part, "find")
        huggingface_hub.snapshot_download = kept
    else:
        answer = run(path, part, call)
    print(json.dumps(answer), flush=True)
"""


class _Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does, for `REPOSITORIES`."""

    protocol_version = "HTTP/1.1"
    requests: list[str]

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, *, has_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        repository, rest = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
        if repository in FAILURES:
            status, code = FAILURES[repository]
            self._send(status, b'{"error": "no"}', has_body=has_body, headers={"X-Error-Code": code} if code else {})
            return
        files = REPOSITORIES.get(repository, {})
        if rest.startswith("resolve/"):
            body = files.get("/".join(rest.split("/")[2:]))
            if body is None:
                self._send(404, b"", has_body=has_body, headers={"X-Error-Code": "EntryNotFound"})
            else:
                etag = hashlib.sha256(body).hexdigest()
                self._send(200, body, has_body=has_body, headers={"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
        elif rest.startswith("tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()} for name, body in files.items()
            ]
            self._send(200, json.dumps(rows).encode(), has_body=has_body, headers={"Content-Type": "application/json"})
        else:
            info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self._send(200, json.dumps(info).encode(), has_body=has_body, headers={"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, *, has_body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


class Machine:
    """A process of its own with this hub, which asks for parts of models one after the other."""

    def __init__(self, endpoint: str, home: Path, *, is_offline: bool) -> None:
        settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(is_offline)), "HF_HUB_DISABLE_XET": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, path: str, part: str = "transformer", call: str = "find") -> str:
        """The place that was found, or the message."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([path, part, call]), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, str)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """What the hub was asked, in order."""
    return []


@pytest.fixture(scope="module")
def endpoint(requests: list[str]) -> Iterator[str]:
    """Address of the hub."""
    handler = type("Hub", (_Hub,), {"requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that both machines share."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def online(endpoint: str, cache: Path) -> Iterator[Machine]:
    """A machine that has fetched what the tests expect on it, and may fetch more."""
    machine = Machine(endpoint, cache, is_offline=False)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def offline(online: Machine, endpoint: str, cache: Path) -> Iterator[Machine]:
    """The same machine with HF_HUB_OFFLINE set."""
    online.ask("owner/whole")
    online.ask("owner/whole", "tokenizer")
    online.ask("owner/partial", "tokenizer")
    online.ask("owner/lora", "", "file")
    machine = Machine(endpoint, cache, is_offline=True)
    yield machine
    machine.close()


def test_a_part_is_fetched_and_no_more(online: Machine, requests: list[str]) -> None:
    folder = Path(online.ask("owner/whole"))
    assert folder.name == "transformer"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == CONFIG
    assert not (folder.parent / "tokenizer" / "merges.txt").exists()
    tokenizer = Path(online.ask("owner/whole", "tokenizer"))
    assert (tokenizer / "merges.txt").is_file()
    assert any("/api/models/owner/whole" in request for request in requests)


def test_checking_fetches_tokenizers_but_no_weights(online: Machine, requests: list[str]) -> None:
    start = len(requests)
    assert online.ask("owner/partial", "transformer", "check_part") == "None"
    assert online.ask("owner/partial", "tokenizer", "check_part") == "None"
    asked = [request for request in requests[start:] if "resolve" in request]
    assert any("tokenizer/merges.txt" in request for request in asked)
    assert not any("safetensors" in request for request in asked)


def test_a_repository_that_holds_only_a_transformer(online: Machine) -> None:
    folder = Path(online.ask("owner/bare"))
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert "no part named vae" in online.ask("owner/bare", "vae")


def test_tokenizers_of_a_repository_come_without_its_weights(online: Machine) -> None:
    folder = Path(online.ask("owner/language", "tokenizer", "words"))
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "merges.txt", "tokenizer.json"]


def test_a_single_file_on_the_hub(online: Machine) -> None:
    file = Path(online.ask("owner/files/split_files/model.safetensors"))
    assert file.read_bytes() == WEIGHTS
    message = online.ask("owner/files/split_files/other.safetensors")
    assert "The model owner/files has no such file." in message
    assert "got: split_files/other.safetensors" in message
    assert "fix: correct model.path" in message


def test_the_one_file_of_a_repository(online: Machine, requests: list[str]) -> None:
    file = Path(online.ask("owner/lora", "", "file"))
    assert (file.name, file.read_bytes()) == ("lora.safetensors", WEIGHTS)
    assert [name.name for name in file.parent.iterdir()] == ["lora.safetensors"]
    assert Path(online.ask("owner/lora/more/a.safetensors", "", "file")).read_bytes() == WEIGHTS
    message = online.ask("owner/files", "", "file")
    assert "got: model.assistant = 'owner/files' with no *.safetensors" in message
    start = len(requests)
    message = online.ask("owner/loras", "", "file")
    assert "got: model.assistant = 'owner/loras' with a.safetensors, b.safetensors" in message
    assert "fix: set model.assistant to the file itself, such as owner/loras/a.safetensors" in message
    assert not any(request.startswith("GET") and "resolve" in request for request in requests[start:])
    assert "asks you to accept its license first" in online.ask("owner/gated", "", "file")
    assert "The hub has no model owner/missing." in online.ask("owner/missing", "", "file")


@pytest.mark.parametrize("repository", ["owner/gated", "owner/gated-no-token"])
def test_a_gated_model(repository: str, online: Machine, endpoint: str) -> None:
    message = online.ask(repository)
    assert f"The model {repository} asks you to accept its license first." in message
    assert f"accept the license at {endpoint}/{repository}, then run `hf auth login`" in message


@pytest.mark.parametrize("repository", ["owner/missing", "owner/private"])
def test_a_model_that_is_missing_or_private(repository: str, online: Machine, endpoint: str) -> None:
    message = online.ask(repository)
    assert f"The hub has no model {repository}." in message
    assert f"nothing at {endpoint}/{repository} that this account can see" in message
    assert "run `hf auth login` if the model is private" in message


def test_a_token_that_is_not_accepted(online: Machine) -> None:
    message = online.ask("owner/bad-token")
    assert "The hub does not accept your token" in message
    assert "fix: run `hf auth login` again" in message


def test_a_revision_that_is_not_there(online: Machine, endpoint: str) -> None:
    message = online.ask("owner/no-revision", "transformer", "revision")
    assert "The model owner/no-revision has no such revision." in message
    assert "got: model.revision = 'v9'" in message
    assert "fix: correct model.revision, or leave it out" in message


def test_a_hub_that_fails(online: Machine, endpoint: str) -> None:
    message = online.ask("owner/broken")
    assert "The model owner/broken is not on this machine and could not be downloaded." in message
    assert f"check the connection to {endpoint}" in message
    assert "hf download owner/broken" in message


def test_a_disk_that_is_full(online: Machine, cache: Path) -> None:
    message = online.ask("owner/whole", "transformer", "full")
    assert "There is no room on the disk for the model owner/whole." in message
    assert f"{cache}" in message
    assert "set HF_HOME" in message


def test_a_home_that_is_gated_says_which_setting_does_without(online: Machine, endpoint: str) -> None:
    message = online.ask("owner/gated", "tokenizer", "home")
    assert "The tokenizer of the model is not with what was given, and cannot be had from owner/gated." in message
    assert f"accept the license at {endpoint}/owner/gated" in message
    assert "set model.tokenizer_path to a folder with tokenizer" in message


def test_offline_no_request_is_made(offline: Machine, requests: list[str]) -> None:
    start = len(requests)
    assert Path(offline.ask("owner/whole")).name == "transformer"
    assert offline.ask("owner/whole", "transformer", "check_part") == "None"
    assert offline.ask("owner/whole", "tokenizer", "check_part") == "None"
    assert Path(offline.ask("owner/lora", "", "file")).name == "lora.safetensors"
    assert "model.assistant" in offline.ask("owner/never-seen", "", "file")
    for path in ("owner/missing", "owner/gated", "owner/never-seen", "owner/files/split_files/third.safetensors"):
        message = offline.ask(path)
        assert "HF_HUB_OFFLINE is set" in message
        assert f"run `hf download {'/'.join(path.split('/')[:2])}" in message
    assert requests[start:] == []


def test_offline_what_is_cached_in_part_is_found_in_part(offline: Machine, requests: list[str]) -> None:
    start = len(requests)
    assert Path(offline.ask("owner/partial", "tokenizer")).name == "tokenizer"
    message = offline.ask("owner/partial", "transformer", "check_part")
    assert "The model's part transformer is not complete." in message
    assert 'run `hf download owner/partial --include "transformer/*"`' in message
    assert offline.ask("owner/partial", "tokenizer", "home") == "None"
    assert requests[start:] == []


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    machine = Machine("http://127.0.0.1:9", tmp_path, is_offline=False)
    message = machine.ask("owner/whole")
    machine.close()
    assert "got: ConnectError" in message
