"""The queue, and the processes that it starts: real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.serve.browsing import Client
from weber.errors import ConfigError
from weber.serve.desk import Desk
from weber.serve.queue import Job
from weber.serve.site import Site
from weber.serve.workers import read_end, read_error, read_fetched, read_progress


@pytest.fixture
def desk(site: Site) -> Desk:
    return Desk(site)


def wait(desk: Desk, is_so: Callable[[], bool]) -> None:
    """Look after the jobs until it is."""
    deadline = time.monotonic() + 60
    while not is_so():
        desk.workers.look()
        assert time.monotonic() < deadline, [(job.title, job.state) for job in desk.queue.list_open()]
        time.sleep(0.02)


def last(desk: Desk, folder: Path, *, words: list[str], is_heavy: bool = True) -> Job:
    return desk.queue.add(words[0], words, title=words[0], folder=folder, is_heavy=is_heavy)


def test_the_order_is_that_of_a_person_and_stays(desk: Desk, site: Site) -> None:
    numbers = [last(desk, site.roots[0], words=[name]).id for name in "abcd"]
    a, b, c, d = numbers
    desk.queue.move(d, before=a)
    desk.queue.move(b, before=None)
    assert desk.queue.take(c, state="cancelled") and not desk.queue.take(c, state="running")
    desk.queue.pause(True)
    again = Desk(site)  # another server, later
    assert [job.id for job in again.queue.list_open()] == [d, a, b] and again.queue.is_paused
    assert again.queue.read(c).state == "cancelled" and again.workers.why_waiting() == "the queue is paused"
    again.workers.look()
    assert {job.state for job in again.queue.list_open()} == {"waiting"}


def test_a_run_is_in_the_queue_once(desk: Desk, site: Site) -> None:
    run = site.roots[0] / "run"
    first = desk.train(site.roots[0] / "run.toml", run=run)
    with pytest.raises(ConfigError, match="in the queue already"):
        desk.train(site.roots[0] / "run.toml", run=run)
    desk.workers.stop(first)
    desk.train(site.roots[0] / "run.toml", run=run)


def test_one_after_the_other_and_the_end_of_each_is_known_to_a_later_server(desk: Desk, site: Site) -> None:
    root = site.roots[0]
    (root / "inner").mkdir()
    long = last(desk, root, words=["serve", str(root / "inner"), "--port", "0"])
    wait(desk, lambda: desk.queue.read(long.id).state == "running")
    short = last(desk, root, words=["schema"])
    light = last(desk, root, words=["train", "nothing.toml"], is_heavy=False)
    wait(desk, lambda: "Open http" in desk.workers.read_log(long) and desk.queue.read(light.id).state == "failed")
    assert desk.queue.read(short.id).state == "waiting" and desk.workers.why_waiting() == "serve is running"
    job = desk.queue.read(long.id)
    assert job.pid is not None and os.getsid(job.pid) == job.pid != os.getsid(0)

    later = Desk(site)  # as after a kill -9 of the first one
    assert [job.id for job in later.queue.list_open()] == [long.id, short.id]
    later.workers.stop(job)
    wait(later, lambda: not later.queue.list_open())
    assert [later.queue.read(one.id).state for one in (long, short)] == ["stopped", "finished"]
    assert later.queue.read(light.id).code == 2 and '"properties"' in later.workers.read_log(short)
    assert read_error(later.workers.read_log(light)).splitlines()[0] == "there is no file nothing.toml"


def test_what_is_killed_is_said_to_be_and_each_gpu_has_its_own_run(site: Site) -> None:
    root, desk = site.roots[0], Desk(replace(site, slots=("3", "7")))
    job = last(desk, root, words=["serve", str(root), "--home", str(root / "other"), "--port", "0"])
    wait(desk, lambda: "Open http" in desk.workers.read_log(job))
    found = desk.queue.read(job.id)
    assert found.pid is not None and b"CUDA_VISIBLE_DEVICES=3\0" in Path(f"/proc/{found.pid}/environ").read_bytes()
    assert found.slot == "3" and desk.workers.why_waiting() == ""
    os.killpg(found.pid, signal.SIGKILL)
    wait(desk, lambda: not desk.queue.list_open())
    assert desk.queue.read(job.id).state == "killed"
    assert desk.queue.take(last(desk, root, words=["schema"]).id, state="running")  # and then its server was killed
    desk.workers.look()
    assert not desk.queue.list_open() and desk.queue.list_done(1)[0].state == "killed"
    desk.queue.forget(job.id)
    with pytest.raises(ConfigError, match="no such job"):
        desk.queue.read(job.id)


ELSEWHERE = """
import sys, time
from pathlib import Path
from weber.checkpoint.lock import lock_folder
from weber.track.record import Record
with lock_folder(Path(sys.argv[1])):
    record = Record()
    record.open(Path(sys.argv[1]))
    record.report("encoding", 40, 400)
    (Path(sys.argv[1]) / "metrics.jsonl").touch()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_of_a_terminal_is_seen_holds_the_place_and_can_be_stopped(client: Client, site: Site) -> None:
    folder, desk = site.roots[0] / "runs" / "terminal", Desk(site)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[[data]]\npath = 'dogs'\n")
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(folder)], stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        assert "at work" in client.get("/run", at="runs/terminal").text and "terminal" in client.get("/").text
        waiting = last(desk, site.roots[0], words=["schema"])
        desk.workers.look()
        assert desk.queue.read(waiting.id).state == "waiting"
        assert desk.workers.why_waiting() == "terminal is training, which was started elsewhere"
        assert client.post("/run/resume", at="runs/terminal").status == 400
        assert client.post("/run/delete", at="runs/terminal", name="terminal").status == 400
        assert client.post("/run/stop", at="runs/terminal").status == 303
        assert child.wait(10) == -signal.SIGTERM
    assert "killed" in client.get("/run", at="runs/terminal").text  # this one has not said why
    assert client.post("/run/stop", at="runs/terminal").status == 400


def test_the_order_is_changed_by_a_page(client: Client, site: Site) -> None:
    desk = Desk(site)
    client.post("/jobs/pause", paused=1)
    a, b, c = (last(desk, site.roots[0], words=[name]).id for name in "abc")
    for fields, order in (
        ({"id": c, "way": "up"}, [a, c, b]),
        ({"id": a, "way": "down"}, [c, a, b]),
        ({"id": b, "way": "first"}, [b, c, a]),
        ({"id": b, "before": a}, [c, b, a]),
        ({"id": c, "before": ""}, [b, a, c]),
        ({"id": b, "way": "up"}, [b, a, c]),
        ({"id": c, "way": "down"}, [b, a, c]),
    ):
        assert client.post("/jobs/move", **fields).status == 303
        assert [job.id for job in desk.queue.list_open()] == order, fields
    assert client.post("/jobs/stop", id=b).status == 303 and "cancelled" in client.get("/job", id=b).text
    assert client.post("/jobs/again", id=b).status == 303 and [job.words for job in desk.queue.list_open()] == [("a",), ("c",), ("b",)]
    assert client.post("/jobs/move", id=b, way="up").status == 400


def test_what_a_job_said_is_read(tmp_path: Path) -> None:
    log = "reading: 3/3\nencoding texts: 40/400 now\nnote: 1/2 of it\nerror: It cannot.\n  got: a\n  fix: b\nmore\n"
    assert read_progress("a\nencoding texts: 40/400 now\n") == ("encoding texts", 40, 400) and read_progress("a") is None
    assert read_error(log) == "It cannot.\n  got: a\n  fix: b" and read_error("a\n\nb \n\n") == "b" and read_error("") == ""
    bar = "a\nFetching 3 files:  33%|###  | 1/3\rmodel.safetensors:  13%|#3   | 3.10G/23.8G [00:31<03:20, 103MB/s]"
    assert read_fetched(bar) == "fetching 3.10 GB of 23.8 GB" and read_fetched(f"{bar}\nencoding: 1/2") == read_fetched("") == ""
    (tmp_path / "log").write_text("first\n" + "x" * 50 + "\nlast\n")
    assert read_end(tmp_path / "log", num_bytes=20) == "last\n" and read_end(tmp_path / "none") == ""
