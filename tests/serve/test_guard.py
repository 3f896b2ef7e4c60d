"""Who is let through, and what a browser is told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from filelock import FileLock

from tests.serve.browsing import Client
from weber.errors import ConfigError
from weber.serve.server import open_socket, serve
from weber.serve.site import TOKEN_NAME, Site, build_site, list_slots


def test_the_link_makes_a_browser_known(client: Client) -> None:
    stranger = Client(client.port, "")
    assert stranger.get("/").status == 403 and "link" in stranger.get("/").text
    assert stranger.get("/", token="wrong").status == 403
    linked = stranger.get("/", token=client.token, other="1")
    assert linked.status == 303 and linked.headers["location"] == "/?other=1"
    assert "HttpOnly" in linked.headers["set-cookie"] and "SameSite" in linked.headers["set-cookie"]
    assert stranger.ask("GET", f"//evil.example/?token={client.token}").headers["location"].startswith("/evil.example")
    assert client.get("/jobs").status == 200 and client.token not in client.get("/jobs").text
    assert stranger.ask("GET", "/jobs", headers={"Authorization": f"Bearer {client.token}"}).status == 200
    assert stranger.ask("GET", "/", headers={"Cookie": "weber=\xff; =;"}).status == 403


def test_answers_say_what_a_browser_may_do(client: Client) -> None:
    for path in ("/jobs", "/nothing", "/static/weber.css"):
        headers = client.get(path).headers
        assert headers["cache-control"] in ("no-store", "no-cache") and headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    text = client.get("/jobs").text
    assert "<script>" not in text and "onclick=" not in text and " style=" not in text


def test_other_names_of_this_machine_are_not_answered_to(client: Client) -> None:
    for host, status in (("evil.example", 421), (f"localhost:{client.port}", 200), ("[::1]:80", 200), ("127.0.0.1.evil.example", 421)):
        assert client.ask("GET", "/jobs", headers={"Host": host}).status == status


def test_changes_come_from_these_pages_alone(client: Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers in (
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{client.port + 1}"},
        {"Origin": client.origin, "Sec-Fetch-Site": "cross-site"},
        {"Origin": client.origin, "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://["},
    ):
        assert client.ask("POST", "/", b"a=1", form | headers).status == 403, headers
    for headers in ({"Origin": client.origin}, {"Sec-Fetch-Site": "same-origin"}, {"Authorization": f"Bearer {client.token}"}):
        assert client.ask("POST", "/", b"a=1", form | headers).status == 405
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Length": "99999999"} | form, 413),
        ({"Content-Length": "-1"} | form, 400),
    ):
        answer = client.ask("POST", "/", b"a=1" if status == 415 else b"", {"Origin": client.origin} | headers)
        assert answer.status == status, headers


def test_which_gpus_runs_may_have(tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    here, none = tmp_path / "gpus", tmp_path / "none"
    assert list_slots({}, folder=here) == ["0", "1"] and list_slots({}, folder=none) == []
    assert list_slots({"CUDA_VISIBLE_DEVICES": "3, GPU-a"}, folder=here) == ["3", "GPU-a"]
    assert list_slots({"CUDA_VISIBLE_DEVICES": "-1"}, folder=here) == [] == list_slots({"CUDA_VISIBLE_DEVICES": ""}, folder=here)


def test_one_server_alone_has_a_queue(site: Site) -> None:
    said: list[str] = []
    with FileLock(site.home / "serve.lock"), pytest.raises(ConfigError, match="shows this folder already"):
        serve(site, host="127.0.0.1", port=0, say=said.append)
    with open_socket("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="cannot be served there"):
        serve(site, host="127.0.0.1", port=taken.getsockname()[1], say=said.append)
    assert not said


def test_the_token_stays_and_nobody_else_reads_it(site: Site) -> None:
    file = site.home / TOKEN_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(site.home.stat().st_mode) == 0o700
    assert build_site(site.roots).token == site.token
    file.unlink()
    assert build_site(site.roots).token != site.token
    assert site.token not in repr(build_site(site.roots))
