"""Sets that take part in some of the steps, or at a share of their own: what the plan says, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import BuildRun
from weber.errors import ConfigError
from weber.planning.plan import build_plan
from weber.planning.report import build_report


def _sets(pictures: Path, first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"path": str(pictures), "name": "a", "limit": 4, **first}, {"path": str(pictures), "name": "b", "limit": 2, **second}]


def test_the_plan_says_who_takes_part_when(build_run: BuildRun, pictures: Path) -> None:
    data = _sets(pictures, {"share": 0.5}, {"start_after": 2, "stop_after": "3 epochs"})
    plan = build_plan(build_run(data=data, train={"steps": 20, "batch_size": 2}))
    per_epoch = plan.batches.steps_per_epoch
    report = build_report(plan)
    assert "a: drawn 0.5 times as often as its pictures and repeats say" in report
    assert f"b: from step 2 on, until step {3 * per_epoch}" in report
    assert f"an epoch is {per_epoch} step" in report
    drawn = [{plan.dataset.examples[one.example].set_name for batch in plan.batches.draw_step(step) for one in batch} for step in range(20)]
    assert all("b" not in names for step, names in enumerate(drawn) if not 2 <= step < 3 * per_epoch)


def test_a_balance_of_sets(build_run: BuildRun, pictures: Path) -> None:
    plan = build_plan(build_run(data=_sets(pictures, {}, {}), train={"steps": 20, "batch_size": 1, "balance": "sets"}))
    drawn = [plan.dataset.examples[plan.batches.draw_step(step)[0][0].example].set_name for step in range(600)]
    assert abs(drawn.count("a") / 600 - 0.5) < 0.02


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"start_after": 20}, {}, 'The set "a" would never take part'),
        ({"start_after": 5, "stop_after": 3}, {}, "raise data.0.stop_after above start_after"),
        ({"start_after": 5}, {"start_after": 3}, "after step 0 no set takes part"),
        ({"stop_after": 5}, {"stop_after": 9}, "after step 9 no set takes part"),
        ({"resolution": [32, 48]}, {"start_after": 20}, "lower data.1.start_after"),
    ],
)
def test_steps_without_pictures_are_refused(
    build_run: BuildRun, pictures: Path, first: dict[str, Any], second: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build_plan(build_run(data=_sets(pictures, first, second), train={"steps": 10, "batch_size": 2}))
    assert words in str(error.value)
