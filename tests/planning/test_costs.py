"""What a run costs, in words: the whole time, and what limits it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.runs import BuildRun
from weber.memory.estimate import Estimate, Phase, StepTime
from weber.memory.rates import MEMORY, PRODUCTS, STARTS
from weber.memory.simulate import ATTENTION, Work
from weber.planning.costs import describe_costs, describe_step, write_seconds
from weber.planning.faster import COPIES, PROCESSOR
from weber.planning.plan import Plan, build_plan, list_views

PHASES = (
    Phase("training at 64 x 64", {"activations": 100}),
    Phase("painting 64 x 64", {"activations": 10}, seconds=0.5),
    Phase("decoding 64 x 64", {"activations": 10}, seconds=1.0),
    Phase("encoding pictures", {"activations": 10}, has_network=False, seconds=10.0),
    Phase("encoding captions (clip)", {"activations": 10}, has_network=False, seconds=1.0),
    Phase("encoding captions (t5)", {"activations": 10}, has_network=False, seconds=3.0),
)


def _build_estimate(time: StepTime, limits: Mapping[str, float] | None = None) -> Estimate:
    limits = limits or {PRODUCTS: 6.0, ATTENTION: 3.0, MEMORY: 1.0}
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
    views, captions = len(list_views(plan)), len(plan.needs.texts)
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


def _advise(plan: Plan, estimate: Estimate) -> str | None:
    """What the plan says would make a step faster."""
    start = "  what would make it faster: "
    return next((line.removeprefix(start) for line in describe_costs(plan, estimate) if line.startswith(start)), None)


AGAIN = 'memory.gradient_checkpointing = "lean" computes nothing twice that is costly, if memory allows it'
SMALLER = "nothing but smaller pictures (data.resolution) or a faster device"
ALL = {"gradient_checkpointing": "all"}
NONE = {"gradient_checkpointing": "none"}


@pytest.mark.parametrize(
    ("name", "sections", "text"),
    [
        (PRODUCTS, {"memory": ALL}, AGAIN),
        (PRODUCTS, {"memory": {"gradient_checkpointing": 2}}, AGAIN),
        (PRODUCTS, {"memory": NONE}, SMALLER),
        (PRODUCTS, {"memory": {**ALL, "swap_blocks": 2, "swap_to": "disk"}}, SMALLER),
        (ATTENTION, {"memory": ALL}, AGAIN),
        (ATTENTION, {"memory": NONE}, SMALLER),
        (MEMORY, {"memory": ALL}, AGAIN),
        (MEMORY, {"memory": NONE, "adapter": {"dora": True}}, "without adapter.dora blocks are run in fewer passes over memory"),
        (MEMORY, {"memory": NONE, "adapter": {"dropout": 0.1}}, "without adapter.dropout blocks are run in fewer passes over memory"),
        (
            MEMORY,
            {"memory": {"quantize": "int8", **NONE}, "train": {"batch_size": 1}},
            "a larger train.batch_size takes less time per picture, if memory allows it",
        ),
        (MEMORY, {"memory": NONE}, None),
        (STARTS, {"train": {"batch_size": 1}}, "a larger train.batch_size takes less time per picture, if memory allows it"),
        (
            STARTS,
            {"train": {"batch_size": 1, "accumulation": 2}},
            "a larger train.batch_size and as much less train.accumulation is the same step in fewer passes, if memory allows it",
        ),
        (STARTS, {"train": {"batch_size": 12}, "memory": ALL}, AGAIN),
        (STARTS, {"train": {"batch_size": 12}, "memory": NONE}, "larger pictures (data.resolution) take hardly more time than these"),
    ],
)
def test_what_would_make_a_step_faster_acts_on_what_limits_it(
    build_run: BuildRun, name: str, sections: dict[str, Any], text: str | None
) -> None:
    plan = build_plan(build_run(**sections))
    found = _advise(plan, _build_estimate(StepTime(1.0, 3.0), {name: 9.5, "else": 0.5}))
    assert found == (None if text is None else f"{name}: {text}")


def test_what_nothing_acts_on_leaves_the_word_to_what_comes_after_it(build_run: BuildRun) -> None:
    plan = build_plan(build_run(memory=NONE))
    assert _advise(plan, _build_estimate(StepTime(1.0, 3.0), {MEMORY: 6.0, PRODUCTS: 4.0})) == f"{PRODUCTS}: {SMALLER}"
    assert _advise(plan, _build_estimate(StepTime(1.0, 3.0), {MEMORY: 9.1, PRODUCTS: 0.9})) is None, "too little to gain"


def test_a_step_that_waits_is_told_what_it_waits_for(build_run: BuildRun) -> None:
    copying, waiting = StepTime(1.0, 1.0, copied_forward=4.0, copied_backward=4.0), StepTime(1.0, 1.0, on_host=5.0)
    swapped = build_plan(build_run(memory={**ALL, "swap_blocks": 2, "swap_to": "disk"}))
    lower = 'a lower memory.swap_blocks, if memory allows it, or memory.quantize = "int8", which copies half'
    assert _advise(swapped, _build_estimate(copying)) == f"{COPIES}: {lower}"
    offloading = build_plan(build_run(memory={**ALL, "offload_activations": True, "device": "auto"}), card="RTX 4090")
    assert _advise(offloading, _build_estimate(copying)) == f"{COPIES}: memory.offload_activations = false, if memory allows it"
    on_host = build_plan(build_run(memory={"device": "auto"}, optim={"state_on": "host"}), card="RTX 4090")
    assert _advise(on_host, _build_estimate(copying)) == f'{COPIES}: optim.state_on = "device", if memory allows it'
    elsewhere = build_plan(build_run(memory={"modulation": "host", "device": "auto"}), card="RTX 4090")
    assert _advise(elsewhere, _build_estimate(waiting)) == f'{PROCESSOR}: memory.modulation = "int8", if memory allows it'


def test_fp32_is_advised_against_where_it_was_asked_for_on_a_gpu(build_run: BuildRun) -> None:
    told = 'memory.dtype = "bf16" takes half the bytes, and products are many times as fast'
    for name in (PRODUCTS, ATTENTION, MEMORY):
        estimate = _build_estimate(StepTime(1.0, 3.0), {name: 1.0})
        plan = build_plan(build_run(memory={"dtype": "fp32", "device": "auto"}), card="RTX 4090")
        assert _advise(plan, estimate) == f"{name}: {told}"
        assert told not in str(_advise(build_plan(build_run(memory={"dtype": "fp32"})), estimate))


def test_attention_for_any_gpu_is_advised_against_where_there_is_a_faster_one(build_run: BuildRun) -> None:
    estimate = _build_estimate(StepTime(1.0, 3.0), {ATTENTION: 1.0})
    memory = {"attention": "efficient", "device": "auto", **NONE}
    plan = build_plan(build_run(memory=memory), card="RTX 4090")
    assert _advise(plan, estimate) == f'{ATTENTION}: memory.attention = "auto" takes what is usually faster, where it is right'
    for others in ({"memory": memory, "objective": {"text_mask": True}}, {"memory": {**memory, "dtype": "fp32"}}):
        assert "memory.attention" not in str(_advise(build_plan(build_run(**others), card="RTX 4090"), estimate))


def test_settings_that_memory_forbids_are_not_advised(build_run: BuildRun) -> None:
    """Where they were chosen so that the run fits, and where it does not fit as it is."""
    estimate = _build_estimate(StepTime(1.0, 3.0))
    fitted = build_plan(build_run(memory={"device": "auto", "fit": "RTX 4090", **ALL}))
    assert fitted.fit is not None and _advise(fitted, estimate) == f"{PRODUCTS}: {SMALLER}"
    plan = build_plan(build_run(memory=ALL))
    tight = replace(plan, workload=replace(plan.workload, device_bytes=99))
    assert _advise(plan, estimate) == f"{PRODUCTS}: {AGAIN}" and _advise(tight, estimate) == f"{PRODUCTS}: {SMALLER}"
