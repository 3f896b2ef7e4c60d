"""Webhooks against a real server: what arrives, and what becomes of it where the server fails, hangs or is limited."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.receiver import OK, Receiver, receiving
from tests.runs import build_watcher
from weber.config.webhooks import WebhookConfig
from weber.errors import ConfigError
from weber.track import posts, sender
from weber.track.events import LEVELS, build_notice
from weber.track.webhooks import Messages, Opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience than with servers far away."""
    monkeypatch.setattr(sender, "PAUSES_SECONDS", (0.05, 0.05, 0.05))
    monkeypatch.setattr(sender, "CLOSING_SECONDS", 2.0)


def build(receiver: Receiver, kind: str = "raw", **settings: Any) -> WebhookConfig:
    return WebhookConfig.model_validate({"kind": kind, "url": receiver.url, **settings})


@contextmanager
def telling(*configs: WebhookConfig) -> Iterator[tuple[Messages, list[str]]]:
    """Messages of a run of 20 steps, and what is said at the end."""
    watcher, buffer = build_watcher()
    said: list[str] = []
    with Opened(configs, job="cat", watcher=watcher) as opened:
        opened.messages.start(0, 20, count=int)
        yield opened.messages, said
    said += buffer.getvalue().splitlines()


def paint(folder: Path, *, num: int, edge: int = 8) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [folder / f"{number:02d}.png" for number in range(num)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (edge, edge, 3), dtype=np.uint8)).save(file)
    return files


def test_raw_events_have_the_shape_that_receivers_read(tmp_path: Path) -> None:
    picture = paint(tmp_path, num=1)
    with receiving() as receiver:
        with telling(build(receiver, token="t0ken")) as (messages, said):
            for step in range(1, 21):
                messages.tell_step(step, 20, numbers={"loss": 0.5, "lr": float("nan")}, seconds=2.0)
            messages.tell_pictures(20, prompts=["a cat"], files=picture)
            messages.tell_checkpoint(Path("run/checkpoint-000020"))
            messages.finish(Path("run/adapter.safetensors"))
        assert said == []
        events = receiver.events
        assert {one.headers["X-Api-Key"] for one in receiver.received} == {"t0ken"}
    assert [event["type"] for event in events] == [
        *("training.status", "training.progress", "training.progress", "validation.image"),
        *("training.checkpoint", "training.checkpoint", "training.status"),
    ]
    for event in events:
        assert event["message_type"] == event["type"] and event["job_id"] == "cat" and event["severity"] == "info"
        assert event["title"] and event["message"] and abs(event["timestamp"] - time.time()) < 60
    assert [events[place]["data"]["status"] for place in (0, -1)] == ["running", "completed"]
    assert events[1]["progress"] == {
        "label": "training",
        "current": 10,
        "total": 20,
        "percent": 50.0,
        "eta_seconds": 20.0,
        "metrics": {"loss": 0.5, "lr": None},
    }
    assert base64.b64decode(events[3]["images"][0]) == picture[0].read_bytes()
    assert events[3]["data"] == {"step": 20, "prompts": ["a cat"]}
    assert events[4]["checkpoint"] == {"path": "run/checkpoint-000020", "label": "Saved checkpoint-000020", "is_final": False}
    assert events[5]["checkpoint"]["is_final"] is True


def test_discord_gets_pictures_ten_at_a_time(tmp_path: Path) -> None:
    files = paint(tmp_path, num=12)
    with receiving() as receiver:
        with telling(build(receiver, "discord", message_prefix="Ünïcode")) as (messages, said):
            messages.tell_pictures(5, prompts=["a very long prompt " * 20] * 12, files=[*files, tmp_path / "gone.png"])
            messages.tell_step(10, 20, numbers={"loss": 0.5}, seconds=None)  # no `every`, no such messages
        assert said == []
        begins, first, second = receiver.received
        assert begins.text == "`(Ünïcode)` Training begins: 20 steps"
        assert first.text.startswith("`(Ünïcode)` Pictures after step 5:\n1. a very long") and len(first.text) == 2000
        assert second.text == "`(Ünïcode)` Pictures after step 5"
        sent = [one.parts for one in (first, second)]
    assert [len(parts) - 1 for parts in sent] == [10, 2]
    assert sent[0]["file0"] == ("image0.png", "image/png", files[0].read_bytes())
    assert sent[1]["file1"] == ("image1.png", "image/png", files[11].read_bytes())


def test_a_message_is_no_larger_than_discord_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = paint(tmp_path, num=3, edge=64)
    size = files[0].stat().st_size
    monkeypatch.setattr(posts, "MOST_BYTES", 2 * size)
    large = tmp_path / "large.png"
    noise = np.random.default_rng(1).integers(100, 116, (160, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    assert large.stat().st_size > 2 * size
    with receiving() as receiver:
        with telling(build(receiver, "discord")) as (messages, _):
            messages.tell_pictures(5, prompts=[], files=[*files, large])
        _, *sent = [one.parts for one in receiver.received]
    assert [sorted(parts)[1:] for parts in sent] == [["file0", "file1"], ["file0", "file1"]]
    name, kind, data = sent[1]["file1"]
    assert (name, kind, Image.open(io.BytesIO(data)).size) == ("image1.jpg", "image/jpeg", (160, 160))


def test_each_hears_what_it_wants() -> None:
    with receiving() as receiver:
        configs = [build(receiver, "discord", level=level, message_prefix=level) for level in LEVELS]
        watcher, _ = build_watcher()
        with pytest.raises(ConfigError), Opened(configs, job="cat", watcher=watcher) as opened:
            opened.messages.start(0, 2, count=int)
            opened.watcher.write("Warning: it goes wrong")
            opened.watcher.write("a line")
            opened.watcher.report("encoding pictures", 0, 2)
            raise ConfigError("It went wrong.", fix="try again")
        heard = {level: [one.text for one in receiver.received if f"({level})" in one.text] for level in LEVELS}
    assert len(heard["error"]) == 2 and "It went wrong.\n  fix: try again" in heard["error"][0]
    assert [len(texts) for texts in heard.values()] == [2, 3, 4, 5]
    assert not [text for texts in heard.values() for text in texts if "encoding" in text]  # that is for programs


def test_stages_are_told_with_their_start_and_end() -> None:
    with receiving() as receiver:
        watcher, buffer = build_watcher()
        with Opened([build(receiver)], job="cat", watcher=watcher) as opened, opened.watcher.shown() as shown:
            for done in range(101):
                shown.report("encoding pictures", done, 100)
            shown.report("training", 1, 2)
        stages = [event["stage"] for event in receiver.events]
    assert [(one["key"], one["status"], one["progress"]["percent"]) for one in stages] == [
        ("encoding_pictures", "running", 0.0),
        ("encoding_pictures", "completed", 100.0),
    ]
    assert "encoding pictures: 100/100" in buffer.getvalue()


def test_a_limited_server_is_left_alone_as_long_as_it_asks_for() -> None:
    answers = {1: (429, {}, b'{"retry_after": 0.4, "global": false}'), 3: (429, {"Retry-After": "0.3"}, b"slow down")}
    with receiving(lambda number: answers.get(number, OK)) as receiver:
        with telling(build(receiver, "discord")) as (messages, said):
            messages.tell(build_notice("second", level="info"))
        assert said == []
        times = [one.time for one in receiver.received]
        assert [one.text.partition(" ")[2] for one in receiver.received] == [*["Training begins: 20 steps"] * 2, *["second"] * 2]
    assert times[1] - times[0] >= 0.4 and times[3] - times[2] >= 0.3


@pytest.mark.parametrize(
    ("status", "tries", "said"),
    [(503, 4 + 1, "Lost 2 messages to output.webhooks.0 (raw): its server answers 503."), (404, 2, "its server answers 404.")],
)
def test_what_fails_is_tried_again_only_where_that_may_help(status: int, tries: int, said: str) -> None:
    with receiving(lambda _: (status, {}, b"")) as receiver:
        with telling(build(receiver)) as (messages, lines):
            messages.tell(build_notice("second", level="info"))
        assert len(receiver.received) == tries
    assert len(lines) == 1 and lines[0].endswith(said)


def test_a_server_that_recovers_loses_nothing() -> None:
    with receiving(lambda number: OK if number > 2 else (500, {}, b"")) as receiver:
        with telling(build(receiver)) as (_, said):
            pass
        assert len(receiver.received) == 3
    assert said == []


def test_secrets_go_nowhere_else() -> None:
    with receiving() as other, receiving(lambda _: (302, {"Location": other.url}, b"")) as receiver:
        with telling(build(receiver, token="t0ken")) as (_, said):
            pass
        assert other.received == []
    assert len(said) == 1 and "302" in said[0] and "s3cret" not in said[0] and "t0ken" not in said[0]


def test_a_server_that_is_not_there() -> None:
    with receiving() as receiver:
        pass
    with telling(build(receiver)) as (_, said):
        pass
    assert said == ["Lost 1 message to output.webhooks.0 (raw): it cannot be reached (ConnectionRefusedError)."]


def test_nobody_waits_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CLOSING_SECONDS", 0.5)
    with receiving(lambda _: None) as receiver:
        start = time.monotonic()
        watcher, buffer = build_watcher()
        with Opened([build(receiver, every=1)] * 2, job="cat", watcher=watcher) as opened:
            opened.messages.start(0, 1001, count=int)
            for step in range(1, 1001):
                opened.messages.tell_step(step, 1001, numbers={"loss": 0.5}, seconds=None)
            told = time.monotonic() - start
        closed = time.monotonic() - start
    assert told < 0.5 and 0.5 <= closed < 1.5  # both together
    lost = [f"Lost 1001 messages to output.webhooks.{number} (raw): it is slower than the run." for number in (0, 1)]
    assert buffer.getvalue().splitlines() == lost


def test_reports_of_progress_are_lost_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MOST_WAITING", 4)
    go = threading.Event()

    def wait(number: int) -> tuple[int, dict[str, str], bytes]:
        go.wait(5)
        return OK

    with receiving(wait) as receiver:
        with telling(build(receiver, every=1)) as (messages, said):
            while not receiver.received:
                time.sleep(0.01)
            for step in range(1, 10):
                messages.tell_step(step, 20, numbers={}, seconds=None)
            messages.finish(Path("adapter.safetensors"))
            go.set()
        kept = [(event["type"], event.get("progress", {}).get("current")) for event in receiver.events]
    assert kept == [
        *[("training.status", None), ("training.progress", 8), ("training.progress", 9)],
        *[("training.checkpoint", None), ("training.status", None)],
    ]
    assert said == ["Lost 7 messages to output.webhooks.0 (raw): it is slower than the run."]


def test_no_thread_is_left() -> None:
    def count() -> int:
        return sum(thread.name == "weber webhook" for thread in threading.enumerate())

    before = count()  # a server of another test may have one that waits for its time to be over
    with receiving() as receiver, telling(build(receiver), build(receiver)):
        assert count() == before + 2
    assert count() <= before
