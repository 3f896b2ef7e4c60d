"""Two hundred requests that nobody means well with: each gets an answer of a page, and nothing is written outside."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.serve.browsing import BOUNDARY, Client, serving
from weber.serve.app import build_app
from weber.serve.guard import MOST_BYTES
from weber.serve.site import build_site

NUM_REQUESTS = 240
PATHS = [
    *("../../etc/passwd", "/etc/passwd", "..\\..\\x", "C:\\x", "\\\\host\\share", "file:///etc/passwd", "a\x00b", "out/passwd"),
    *(".weber/token", "CON", "~root", "x" * 5000, "//x/y", "\ud800", "run/../../x", "%00", "${HOME}", "$(touch x)", "`touch x`"),
    *("--out=/tmp/x", "-o", "{{7*7}}", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' OR 1=1 --"),
    *("run/config.toml", "dogs", "", "\u202e", "NaN", "-1", "1e999", "9" * 400, "null", "[]", "a" * 255, "run/checkpoint-000001"),
    *("/proc/self/environ", "/dev/zero", "run.toml", "run/metrics.jsonl", "."),
]
FIELDS = [
    *("at", "file", "folder", "name", "id", "a", "b", "place", "other", "small", "v", "from", "most", "seen", "all", "card", "pictures"),
    *("word", "captions", "prompt", "num", "strength", "seed", "steps", "format", "weight", "other_weight", "to", "trigger", "send"),
    *("public", "consent", "way", "before", "paused", "sure", "at_once", "model", "resolution", "rank", "every", "prompts", "stamp"),
    *("resume", "set", "text", "number"),
]
GOOD = {"at": "run", "file": "run.toml", "a": "run", "b": "run", "pictures": "dogs", "id": "1"}
"""What leads into a page, so that all else is looked at too."""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with a run that nobody trains, a link that leads out, and pictures that are none."""
    root = tmp_path / "work"
    (root / "run" / "checkpoint-000001").mkdir(parents=True)
    (root / "run" / "config.toml").write_text('[model]\nvariant = "pocket"\n[[data]]\npath = "dogs"\n')
    (root / "run.toml").write_text((root / "run" / "config.toml").read_text())
    (root / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": "x"}\n[]\nnull\n{"step": 1e99}\n')
    (root / "run" / "events.jsonl").write_text('{"time": "x"}\n[]\n\xff\n{"type": "finding", "time": 1, "text": "<b>", "step": "x"}\n')
    (root / "run" / "status.json").write_text('{"status": "<u>", "time": "x", "step": [], "steps": 1e400, "pid": -1, "host": 3}')
    (root / "run" / "readings.jsonl").write_text('{"step": 1, "finding": "<i>", "text": 3}\n')
    (root / "run" / "pictures" / "step-000001").mkdir(parents=True)
    (root / "run" / "pictures" / "step-000001" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    (root / "dogs").mkdir()
    (root / "dogs" / "a.png").write_text("not a picture")
    (root / "out").symlink_to("/etc")
    (tmp_path / "outside.txt").write_text("as it was")
    return root


def draw(random_: random.Random, routes: list[tuple[str, list[str]]]) -> tuple[str, str, bytes | None, dict[str, str]]:
    """A request: one of the pages, with fields that it knows and values that it does not like."""
    path, methods = random_.choice(routes)
    method = random_.choice(methods)
    fields = [(random_.choice(FIELDS), random_.choice(PATHS)) for _ in range(random_.randint(1, 5))]
    fields += [(name, value if random_.random() < 0.7 else random_.choice(PATHS)) for name, value in GOOD.items()]
    text = urlencode([(name, value.encode("utf-8", "surrogatepass")) for name, value in fields])
    if method == "GET":
        return method, f"{path}?{text}", None, random_.choice([{}, {"Last-Event-ID": "x"}, {"HX-Request": "true"}, {"Range": "bytes=9-1"}])
    kind = random_.choice(["form", "form", "files", "broken"])
    if kind == "form":
        return method, path, text.encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    mark, name = f"--{BOUNDARY}", random_.choice(PATHS).replace("\x00", "").replace("\n", "").replace('"', "%22")
    parts = [f'{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\nx\r\n']
    parts += [f'{mark}\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{value}\r\n' for one, value in fields]
    body = "".join(parts).encode("utf-8", "replace")
    end = f"{mark}--\r\n".encode() if kind == "files" else random_.choice([b"", b"--", b"\xff\x00", mark.encode()])
    return method, path, body + end, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def list_outside(root: Path) -> dict[str, bytes]:
    """What lies beside the folder that pages may change."""
    return {path.name: path.read_bytes() for path in root.parent.iterdir() if path.is_file()}


def test_hostile_requests_are_answered_and_change_nothing_outside(hostile: Path) -> None:
    site = build_site([hostile], environment={"PYTHONHOME": "/nowhere"})  # with which no `weber` that a page starts gets far
    routes = [(route.path, sorted((route.methods or set()) - {"HEAD"})) for route in build_app(site).routes if hasattr(route, "methods")]
    routes = [one for one in routes if one[0] != "/run/events"]  # which does not end
    random_, outside, told = random.Random(7), list_outside(hostile), []
    etc = sorted(path.name for path in Path("/etc").iterdir())
    with serving(site) as client:
        client.post("/jobs/pause", paused="1")
        for number in range(NUM_REQUESTS):
            method, path, body, headers = draw(random_, routes)
            answer = client.ask(method, path, body, {"Origin": client.origin, **headers})
            told.append(answer.status)
            assert answer.status < 500, (number, method, path[:300], body, answer.text[-500:])
            assert site.token not in answer.text and "root:" not in answer.text
            assert not re.search(r"<script>alert|<img src=x", answer.text), (method, path)
            if path.startswith("/jobs/pause"):
                client.post("/jobs/pause", paused="1")
        for path in ("/static/../../token", "/static/%2e%2e/%2e%2e/guard.py", "/%00", "/static/%00", "//etc/passwd", "/run/../..", "/é"):
            assert client.ask("GET", quote(path, safe="/%")).status in (303, 403, 404), path
        assert client.ask("POST", "/start", b"x" * 10, {"Content-Length": str(MOST_BYTES + 1), "Origin": client.origin}).status == 413
    assert list_outside(hostile) == outside and etc == sorted(path.name for path in Path("/etc").iterdir())
    assert sum(status >= 400 for status in told) > NUM_REQUESTS / 4 < sum(status < 400 for status in told)


def test_streams_of_wrong_places_are_refused(client: Client) -> None:
    for at in PATHS[:12]:
        field = urlencode({"at": at.encode("utf-8", "surrogatepass")})
        assert client.ask("GET", f"/run/events?{field}").status == 400


def test_uploads_stay_in_their_folder_and_overwrite_nothing(client: Client, tmp_path: Path) -> None:
    root = tmp_path / "work"
    done = client.upload("/upload", {"../../evil.png": b"x", "C:\\dir\\b.txt": b"y"})
    assert done.status == 303 and done.headers["location"] == "/start?pictures=pictures"
    assert sorted(path.name for path in (root / "pictures").iterdir()) == ["b.txt", "evil.png"]
    for files, folder, words in (
        ({"evil.png": b"z"}, "pictures", "of this name already"),
        ({"run.sh": b"z"}, "", "neither a picture nor a caption"),
        ({"a.png": b"z"}, "../x", "leads upwards"),
        ({"a.png": b"z"}, "/etc", "outside"),
        ({"CON.png": b"z"}, "", "cannot be used"),
        ({}, "", "No file was sent"),
    ):
        answer = client.upload("/upload", files, folder=folder)
        assert answer.status == 400 and words in answer.text, answer.text
    assert (root / "pictures" / "evil.png").read_bytes() == b"x" and not (tmp_path / "evil.png").exists()
    shutil.rmtree(root / "pictures")
