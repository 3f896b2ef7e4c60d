"""The page of a run: one file, that is true to the run folder and needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BuildRun, build_watcher
from weber.errors import CheckpointError, ConfigError
from weber.pages.facts import MOST_POINTS, MOST_STEPS, read_run
from weber.pages.page import build_page, write_report
from weber.track.jsonl import read_metrics
from weber.training.assemble import train

PROMPT = 'a </script><b>dog</b> & "cat"'


def _read_data(page: Path) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: list[dict[str, Any]] = json.loads(found[1])
    return data


def _train(build_run: BuildRun, name: str, **sections: Any) -> Path:
    own = {"train": {"steps": 3, "batch_size": 1}, "sampling": {"prompts": [PROMPT], "every": 2, "steps": 2}}
    config = build_run(name, **own | sections)
    train(config, resume=False, watcher=build_watcher()[0])
    return config.output.folder


def test_a_run_is_a_page_and_two_are_one(build_run: BuildRun, tmp_path: Path) -> None:
    folder = _train(build_run, "first")
    page = write_report(folder)
    assert page == folder / "report.html"
    [run] = _read_data(page)
    assert (run["name"], run["done"], run["wanted"]) == ("first", 3, 3)
    assert run["curves"]["loss"] == [[line["step"], line["loss"]] for line in read_metrics(folder)]
    assert [one["step"] for one in run["pictures"]] == [0, 2, 3]
    assert all(image.startswith("data:image/webp;base64,") for one in run["pictures"] for image in one["images"])
    assert ["train.steps", "3", ""] in run["settings"] and run["prompts"] == [PROMPT]
    assert [name for name, _ in run["results"]] == ["adapter.safetensors"] and [step for _, step in run["checkpoints"]] == [3]
    assert run["planned"]["perStep"] > 0 and "cut away" in run["planned"]["pictures"]

    text = page.read_text(encoding="utf-8")
    assert {address.split("/")[2] for address in re.findall(r"https?://[^\s\"']+", text)} <= {"www.w3.org"}, "nothing is fetched"
    assert "default-src 'none'" in text and "<b>dog" not in text.split("</head>")[0]
    assert text.count("</script>") == 2, "a prompt ends no script"

    other = _train(build_run, "second", optim={"lr": 2e-3})
    both = _read_data(write_report(folder / "checkpoint-000003", other, out=tmp_path / "pages" / "both.html"))
    assert [one["name"] for one in both] == ["first", "second"]


def test_a_run_that_has_only_begun_and_one_whose_pictures_are_gone(build_run: BuildRun, tmp_path: Path) -> None:
    folder = _train(build_run, "run", sampling={})
    config = folder / "config.toml"
    config.write_text(re.sub(r'(?m)^path = ".*pictures.*"$', 'path = "/gone"', config.read_text()))
    (folder / "metrics.jsonl").write_text("")
    [run] = _read_data(write_report(folder))
    assert run["done"] == 0 and run["curves"] == {} and run["pictures"] == [] and "why" in run["planned"]


def test_long_runs_are_cut_to_what_a_page_can_hold(build_run: BuildRun) -> None:
    folder = _train(build_run, "long", sampling={})
    lines = [{"step": step, "loss": float(step), "lr": 1.0, "seconds": 1.0} for step in range(1, 5 * MOST_POINTS + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for step in range(50):
        (folder / "pictures" / f"step-{step:06d}").mkdir(parents=True)
    run = read_run(folder)
    assert run["curves"]["loss"][0] == [5, 3.0] and len(run["curves"]["loss"]) == MOST_POINTS
    steps = [one["step"] for one in run["pictures"]]
    assert len(steps) == MOST_STEPS and steps[0] == 0 and steps[-1] == 49


def test_what_is_no_run_and_no_page(build_run: BuildRun, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="This is not a run folder"):
        write_report(tmp_path)
    with pytest.raises(CheckpointError, match="There is no such run"):
        write_report(tmp_path / "none")
    folder = _train(build_run, "run", sampling={})
    with pytest.raises(ConfigError, match="The page is an HTML file"):
        write_report(folder, out=tmp_path)
    assert "&lt;i&gt;" in build_page([{"name": "<i>"}]).split("</title>")[0]
