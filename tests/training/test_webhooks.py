"""A run that tells others how it goes is the same run, whatever becomes of what it tells; and what is secret stays secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.receiver import OK, receiving
from tests.runs import BuildRun, build_watcher
from weber.config.load import load_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError
from weber.track import sender
from weber.training.assemble import train
from weber.training.stop import Stop


def run_whole(config: RunConfig, *, resume: bool = False, stop: Stop | None = None) -> str:
    watcher, buffer = build_watcher()
    train(config, resume=resume, watcher=watcher, stop=stop)
    return buffer.getvalue()


def build(build_run: BuildRun, cache: Path, webhooks: list[dict[str, Any]], *, name: str = "told", steps: int = 4) -> RunConfig:
    return build_run(
        name,
        data=[{"resolution": 64}],
        train={"steps": steps, "batch_size": 1},
        sampling={"prompts": ["a dog", "a cat"], "every": 2, "steps": 1},
        output={"save_every": 2, "cache": str(cache), "webhooks": webhooks},
    )


def read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_the_same_whatever_becomes_of_it(build_run: BuildRun, small_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CLOSING_SECONDS", 1.0)
    plain = build(build_run, small_cache, [], name="plain")
    run_whole(plain)
    with (
        receiving() as raw,
        receiving() as discord,
        receiving(lambda _: (500, {}, b"")) as failing,
        receiving(lambda _: None) as hanging,
        receiving(lambda _: (429, {}, b'{"retry_after": 60}')) as limited,
    ):
        kinds = {"raw": raw, "discord": discord, "failing": failing, "hanging": hanging, "limited": limited}
        webhooks = [
            {"kind": "discord" if name == "discord" else "raw", "url": receiver.url, "level": "debug", "every": 1}
            for name, receiver in kinds.items()
        ]
        webhooks[0]["token"] = "t0ken"
        config = build(build_run, small_cache, webhooks)
        said = run_whole(config)
        events, texts = raw.events, [one.text for one in discord.received]
        pictures = [one.parts for one in discord.received if len(one.parts) > 1]

    folder, other = config.output.folder, plain.output.folder
    assert read_losses(folder) == read_losses(other)
    learned, expected = (load_file(one / "adapter.safetensors") for one in (folder, other))  # headers name the folder
    assert learned.keys() == expected.keys() and all(torch.equal(learned[name], expected[name]) for name in expected)
    for painted in sorted((other / "pictures").rglob("*.png")):
        assert (folder / painted.relative_to(other)).read_bytes() == painted.read_bytes()

    lost = [line for line in said.splitlines() if line.startswith("Lost")]
    assert [line.partition(" to ")[2].partition(" (")[0] for line in lost] == [f"output.webhooks.{number}" for number in (2, 3, 4)]
    assert "429" in lost[2]

    types = [event["type"] for event in events]
    assert types.count("training.progress") == 4 and types.count("validation.image") == 3  # at the start, halfway, at the end
    assert types.count("training.checkpoint") == 3 and types[-1] == "training.status" and types[0] in ("notification", "lifecycle.stage")
    assert [event["progress"]["metrics"]["loss"] for event in events if event["type"] == "training.progress"] == read_losses(folder)
    stages = {event["stage"]["label"]: event["stage"]["status"] for event in events if event["type"] == "lifecycle.stage"}
    assert stages and set(stages.values()) == {"completed"}
    assert texts[-1] == "`(told)` Training is done; the result is adapter.safetensors"
    assert len(pictures) == 3 and pictures[-1]["file1"][2] == (folder / "pictures" / "step-000004" / "01.png").read_bytes()

    check_secrets(folder, said)


def check_secrets(folder: Path, said: str) -> None:
    """What is secret is in the settings of the run alone."""
    for secret in ("s3cret-path", "t0ken"):
        assert secret not in said
        found = [path.name for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert found == ["config.toml"]


def test_a_stopped_run_goes_on_with_its_webhooks(build_run: BuildRun, small_cache: Path) -> None:
    with receiving() as receiver:
        config = build(build_run, small_cache, [{"kind": "raw", "url": receiver.url, "every": 1}], steps=3)
        metrics = config.output.folder / "metrics.jsonl"
        with pytest.raises(KeyboardInterrupt):
            run_whole(config, stop=Stop(lambda: metrics.is_file() and metrics.stat().st_size > 0))
        assert receiver.events[-1]["data"]["status"] == "cancelled"
        receiver.received.clear()
        run_whole(load_config(config.output.folder / "config.toml"), resume=True)
        told = receiver.events
    assert told[-1]["data"]["status"] == "completed"
    assert [event["message"] for event in told if event["type"] == "training.status"][0].startswith("Training goes on after step ")


def test_a_run_that_fails_says_why(build_run: BuildRun, small_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "PAUSES_SECONDS", (0.05,))
    with receiving(lambda number: (502, {}, b"") if number == 1 else OK) as receiver:
        config = build(build_run, small_cache, [{"kind": "discord", "url": receiver.url, "level": "error"}])
        config.output.folder.mkdir()
        (config.output.folder / "config.toml").write_text("")
        (config.output.folder / "metrics.jsonl").write_text("")
        with pytest.raises(CheckpointError):
            run_whole(config)
        texts = [one.text for one in receiver.received]
    assert texts[0] == texts[1] and "The run folder already holds a run." in texts[1] and "fix: add --resume" in texts[1]
    assert texts[2] == "`(told)` The run has failed: The run folder already holds a run."
