"""Tables of addresses: what comes is kept and never asked for again; what does not is set aside with its reason, or tried again."""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.data.servers import Web, drop, fail_first, hang, redirect, send, serve_web, stream
from weber.config.data import DataConfig
from weber.config.elsewhere import build_path, write_address
from weber.data.backends import web as web_backend
from weber.data.backends.download import Limits
from weber.data.dataset import Dataset
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    limits = Limits(answer_seconds=0.3, whole_seconds=5, most_bytes=2**20, num_tries=3, pause_seconds=0.01)
    monkeypatch.setattr(web_backend, "LIMITS", limits)
    with serve_web() as served:
        yield served


@pytest.fixture
def pictures(tmp_path: Path, write_picture: Write) -> list[bytes]:
    return [write_picture(tmp_path / "set" / f"{n}.png", 64 + 16 * n, seed=n, caption=f"picture {n}").read_bytes() for n in range(4)]


def _write(table: Path, rows: Sequence[Mapping[str, object]]) -> DataConfig:
    if table.suffix == ".csv":
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(metadata=table, resolution=64, bucket_step=16)


def _facts(dataset: Dataset) -> list[object]:
    return sorted((one.content, one.captions, one.bucket, one.crops) for one in dataset.examples)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_list_of_addresses_is_the_set_that_it_names(
    tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read, ending: str
) -> None:
    web.pages = {f"/{number}.png": data for number, data in enumerate(pictures)}
    rows = [{"url": f"{web.address}/{number}.png", "caption": f"picture {number}"} for number in range(4)]
    config = _write(tmp_path / f"list{ending}", rows)
    found = read_sets(config)
    assert _facts(found) == _facts(read_sets(DataConfig(path=tmp_path / "set", resolution=64, bucket_step=16)))
    again = read_sets(config)
    assert (again.num_opened, again.examples) == (0, found.examples)
    assert set(web.asked.values()) == {1}
    assert write_address(found.examples[0].path) == rows[0]["url"]
    changed = read_sets(_write(tmp_path / f"list{ending}", [{**row, "caption": "another"} for row in rows]))
    assert {one.captions for one in changed.examples} == {("another",)}
    assert (changed.num_opened, set(web.asked.values())) == (0, {1})


def test_what_goes_wrong_and_passes(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {
        "/fails": fail_first(pictures[0], 2),
        "/busy": fail_first(pictures[1], 1, code=429),
        "/moved": redirect("/there"),
        "/there": pictures[2],
        "/down": fail_first(pictures[3], 9, code=500),
    }
    names = ("fails", "busy", "moved", "down")
    config = _write(tmp_path / "list.jsonl", [{"image": f"{web.address}/{name}", "text": name} for name in names])
    first = read_sets(config)
    assert {one.captions[0] for one in first.examples} == {"fails", "busy", "moved"}
    [aside] = first.set_aside
    assert aside.reason == f"not to be had from the web today: 500 Internal Server Error ({web.address}/down)"
    web.pages["/down"] = pictures[3]
    second = read_sets(config)
    assert len(second.examples) == 4 and not second.set_aside
    assert web.asked == {"/fails": 3, "/busy": 2, "/moved": 1, "/there": 1, "/down": 4}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang, "timed out"),
        (drop, "closed connection without response"),
        (lambda handler: send(handler, b"\x89PNG", length=100), "4 bytes came instead of 100"),
    ],
)
def test_servers_that_do_not_answer_are_asked_again_next_time(
    tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read, answer: Any, reason: str
) -> None:
    web.pages = {"/bad": answer, "/good": pictures[0]}
    config = _write(tmp_path / "list.jsonl", [{"image": f"{web.address}/{name}", "text": name} for name in ("bad", "good")])
    [aside] = read_sets(config).set_aside
    assert aside.reason.startswith("not to be had from the web today: ") and reason in aside.reason
    assert web.asked["/bad"] == 3
    web.pages["/bad"] = pictures[1]
    assert len(read_sets(config).examples) == 2 and web.asked["/good"] == 1


LASTING: dict[str, tuple[Any, str]] = {
    "missing": (None, "404 Not Found"),
    "gone": (lambda handler: handler.send_error(410), "410 Gone"),
    "page": (b"<!DOCTYPE html><html>sign in</html>", "web page, not a picture"),
    "empty": (b"", "the file is empty"),
    "circle": (redirect("/circle"), "redirected in a circle"),
    "file": (redirect("file:///etc/passwd"), "redirected in a circle, or out of the web"),
    "endless": (stream, "more than 1 MiB"),
}


def test_what_never_comes_is_set_aside_for_good(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {"/good": pictures[0]} | {f"/{name}": answer for name, (answer, _) in LASTING.items() if answer is not None}
    config = _write(tmp_path / "list.jsonl", [{"image": f"{web.address}/{name}", "text": name} for name in ("good", *LASTING)])
    found = read_sets(config)
    reasons = {one.path.name: one.reason for one in found.set_aside}
    assert set(reasons) == set(LASTING)
    for name, (_, reason) in LASTING.items():
        assert reason in reasons[name] and f"({web.address}/{name})" in reasons[name]
    asked = web.asked.copy()
    again = read_sets(config)
    assert again.set_aside == found.set_aside and web.asked == asked
    assert asked["/missing"] == 1


def test_contents_are_checked(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {"/0.png": pictures[0], "/1.png": pictures[1]}
    digests = [hashlib.sha256(pictures[0]).hexdigest(), hashlib.sha256(b"other").hexdigest()]
    rows = [{"url": f"{web.address}/{n}.png", "text": "a", "SHA256": digests[n]} for n in range(2)]
    found = read_sets(_write(tmp_path / "list.jsonl", rows))
    assert len(found.examples) == 1 and "another file than its row says" in found.set_aside[0].reason
    with pytest.raises(DataError, match="holds no sha256"):
        read_sets(_write(tmp_path / "list.jsonl", [{**rows[0], "SHA256": "abc"}]))


def test_a_host_that_is_down_is_left_alone(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {"/good": pictures[0]}
    rows = [{"url": f"http://127.0.0.1:9/{n}.png", "text": "a"} for n in range(60)]
    found = read_sets(_write(tmp_path / "list.jsonl", [{"url": f"{web.address}/good", "text": "good"}, *rows]))
    assert len(found.examples) == 1
    assert sum("did not answer several times" in one.reason for one in found.set_aside) >= 30


def test_half_of_a_table_is_files(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {"/far.png": pictures[0]}
    rows = [(f"{web.address}/far.png", "far"), ("set/1.png", "near"), ("ftp://x/a.png", "x")]
    found = read_sets(_write(tmp_path / "list.jsonl", [{"image": image, "text": text} for image, text in rows]))
    assert {one.captions[0] for one in found.examples} == {"far", "near"}
    assert found.set_aside[0].reason == "address of an unknown kind: ftp:// in line 3"


@pytest.mark.parametrize(
    "address", ["https://a.b/c.png", "s3://b/c", "https://a/b//c.png", "http://a/./b?x=1#y", "http://a", "http://a/../b", "http://a/b/"]
)
def test_addresses_are_paths_and_back(address: str) -> None:
    assert write_address(build_path(address)) == address


def test_a_start_that_is_killed_goes_on_where_it_was(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    web.pages = {f"/{number}.png": data for number, data in enumerate(pictures)}
    rows = [{"url": f"{web.address}/{number}.png", "caption": f"picture {number}"} for number in range(4)]
    config = _write(tmp_path / "list.csv", rows)

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("fetching") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_sets(config, progress=stop)
    assert len(read_sets(config).examples) == 4
    assert set(web.asked.values()) == {1}
    assert not list((tmp_path / "cache").rglob("*.unfinished"))


def test_an_archive_of_the_web(tmp_path: Path, web: Web, pictures: list[bytes], read_sets: Read) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "set", ".")
    web.pages["/a.tar"] = (tmp_path / "a.tar").read_bytes()
    config = DataConfig(path=Path(f"{web.address}/a.tar"), resolution=64, bucket_step=16)
    found = read_sets(config)
    assert _facts(found) == _facts(read_sets(DataConfig(path=tmp_path / "set", resolution=64, bucket_step=16)))
    assert read_sets(config).num_opened == 0 and web.asked == {"/a.tar": 1}
    with pytest.raises(DataError, match="cannot be had\\n  got: 404"):
        read_sets(DataConfig(path=Path(f"{web.address}/b.tar"), resolution=64, bucket_step=16))


def test_what_the_web_cannot_do_is_said(tmp_path: Path, read_sets: Read) -> None:
    with pytest.raises(DataError, match="no folder can be listed"):
        read_sets(DataConfig(path=Path("https://127.0.0.1:9/pictures"), resolution=64, bucket_step=16))
    with pytest.raises(DataError, match="download the table"):
        read_sets(DataConfig(metadata=Path("https://127.0.0.1:9/list.csv"), resolution=64, bucket_step=16))
