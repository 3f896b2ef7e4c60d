"""What a run costs, in words: the whole time, and what limits it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.runs import BuildRun
from weber.memory.estimate import Estimate, Phase, StepTime
from weber.memory.rates import MEMORY, PRODUCTS
from weber.memory.simulate import ATTENTION, Work
from weber.planning.costs import describe_costs, describe_step, write_seconds
from weber.planning.plan import build_plan, list_captions, list_views

PHASES = (
    Phase("training at 64 x 64", {"activations": 100}),
    Phase("painting 64 x 64", {"activations": 10}, seconds=0.5),
    Phase("decoding 64 x 64", {"activations": 10}, seconds=1.0),
    Phase("encoding pictures", {"activations": 10}, has_network=False, seconds=10.0),
    Phase("encoding captions (clip)", {"activations": 10}, has_network=False, seconds=1.0),
    Phase("encoding captions (t5)", {"activations": 10}, has_network=False, seconds=3.0),
)


def _build_estimate(time: StepTime) -> Estimate:
    limits = {PRODUCTS: 6.0, ATTENTION: 3.0, MEMORY: 1.0}
    return Estimate(PHASES, {}, time, Work(Counter({("bfloat16", 10**12, 10**9): 1})), "a GPU", False, limits)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.05, "50 ms"), (2.5, "2.5 s"), (59, "59 s"), (90, "1.5 min"), (3000, "50 min"), (5400, "1.5 h"), (40000, "11 h"), (2e5, "2.3 days")],
)
def test_a_time_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert write_seconds(seconds) == text


def test_the_whole_run_is_steps_pictures_and_encoding(build_run: BuildRun) -> None:
    plan = build_plan(build_run(sampling={"prompts": ["a cat", "a dog"], "steps": 4, "every": 5}))
    lines = describe_costs(plan, _build_estimate(StepTime(20.0, 40.0)))
    views, captions = len(list_views(plan)), len(list_captions(plan))
    painting = 3 * 2 * (4 * 0.5 + 1.0)  # at the start, after 5 steps and after 10: two pictures each
    whole = 10 * 60 + painting + views * 10 + captions * 4
    [line] = [line for line in lines if line.startswith("the whole run: ")]
    assert line.startswith(f"the whole run: about {write_seconds(whole)} (10 min for 10 steps, ")
    assert f"{write_seconds(views * 10 + captions * 4)} for encoding" in line


def test_classifier_free_guidance_paints_twice(build_run: BuildRun) -> None:
    sampling = {"prompts": ["a cat"], "steps": 100, "cfg": 3.0}
    lines = describe_costs(build_plan(build_run(sampling=sampling)), _build_estimate(StepTime(20.0, 40.0)))
    assert any(f"{write_seconds(2 * (200 * 0.5 + 1))} for 2 pictures on the way" in line for line in lines)


def test_what_limits_a_step_is_said_the_most_first() -> None:
    [_, computing] = describe_step(_build_estimate(StepTime(1.0, 3.0)))
    assert computing == f"  what limits it: {PRODUCTS} (60%), {ATTENTION} (30%), {MEMORY} (10%)"
    [_, copying] = describe_step(_build_estimate(StepTime(1.0, 3.0, copied_forward=4.0, copied_backward=4.0)))
    assert copying == f"  what limits it: copies from the host (50%), {PRODUCTS} (30%), {ATTENTION} (15%), {MEMORY} (5%)"
    [_, waiting] = describe_step(_build_estimate(StepTime(1.0, 3.0, on_host=5.0)))
    assert "the processor, which computes what is on the host (50%)" in waiting
