"""Several devices: what each holds, why, and what they send each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.runs import BuildRun
from weber.errors import ConfigError
from weber.planning.budget import build_estimate
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.planning.spread import choose_spread, describe_spread, find_limit
from weber.planning.traffic import Demand, Links, count_gradient_bytes, list_demands

ALL = {"gradient_checkpointing": "all"}
TWO = {"devices": 2}
TRAIN = {"accumulation": 2, "batch_size": 1}


def test_the_planner_chooses_by_bytes(build_run: BuildRun) -> None:
    config = build_run(memory=ALL, train=TRAIN, parallel=TWO)
    workload = build_plan(config).workload
    peak = build_estimate(config, workload).peak.num_bytes
    fits, lacks = (choose_spread(config, replace(workload, device_bytes=peak + more), num_processes=2) for more in (1, -1))
    assert not fits.is_sharded and lacks.is_sharded and "at its peak of" in lacks.why
    plain = build_run(memory={"gradient_checkpointing": "none"}, train=TRAIN, parallel=TWO)
    kept = choose_spread(plain, replace(workload, device_bytes=1), num_processes=2)
    assert not kept.is_sharded and "blocks cannot be sharded: what is kept of a block" in kept.why
    assert choose_spread(config, replace(workload, device_bytes=1), num_processes=1).num_processes == 1


def test_groups_are_the_processes_of_a_machine_where_they_have_room(build_run: BuildRun) -> None:
    train = {"accumulation": 4, "batch_size": 1}
    config = build_run(memory=ALL, train=train, parallel={"devices": 4, "strategy": "fsdp"})
    workload = build_plan(config).workload
    peaks = [build_estimate(config, replace(workload, group=group)).peak.num_bytes for group in (2, 4)]
    assert peaks[0] > peaks[1]
    near, far = (
        choose_spread(config, replace(workload, device_bytes=peaks[0] + more), num_processes=4, num_near=2) for more in (0, -1)
    )
    assert near.group == 2 and "the 2 of one machine hold it all" in near.why
    assert far.group == 4 and "the 2 of one machine do not hold it all" in far.why
    assert choose_spread(config, workload, num_processes=4, num_near=2).group == 4, "on processors nothing is known"
    parallel: dict[str, Any] = {"devices": 4, "strategy": "fsdp", "group": 2}
    asked = build_plan(build_run(memory=ALL, train=train, parallel=parallel))
    assert "4 devices, each with a part of every block (fsdp, groups of 2 that hold all of them): as" in build_report(asked)
    weights = [
        list_demands(config, load, links=Links(1e9), save_bytes=1, save_every=1)[1].num_bytes for load in (workload, asked.workload)
    ]
    assert weights[1] == pytest.approx(weights[0] * (1 / 2) / (3 / 4))
    with pytest.raises(ConfigError, match=r"set parallel.group to 2, or remove it"):
        build_plan(build_run(memory=ALL, train=train, parallel=parallel | {"group": 3}))
    with pytest.raises(ConfigError, match=r'set strategy = "fsdp", or remove group'):
        build_run(memory=ALL, train=train, parallel=parallel | {"strategy": "ddp"})


def test_a_text_encoder_that_is_too_large_is_sharded(build_run: BuildRun) -> None:
    config = build_run(model={"variant": "flux1-dev"}, data=[{"resolution": 256}], memory=ALL, train=TRAIN, parallel=TWO)
    workload = replace(build_plan(config).workload, num_processes=2)
    whole = {part: build_estimate(config, workload).find(f"encoding captions ({part})") for part in ("clip", "t5")}
    here = replace(workload, device_bytes=whole["t5"].num_bytes - 1)
    spread = choose_spread(config, here, num_processes=2)
    assert spread.divided == {"t5"} and choose_spread(config, here, num_processes=1).divided == frozenset()
    load = replace(here, divided=spread.divided)
    parts = build_estimate(config, load).find("encoding captions (t5)").parts
    assert 0.5 < parts["text encoder"] / whole["t5"].parts["text encoder"] < 0.6, "half, and two layers"
    assert build_estimate(config, load).find("encoding captions (clip)") == whole["clip"]
    assert "each with a part of every layer of t5: too large for one device" in "".join(describe_spread(config, load, spread=spread))
    for name, url in (("whole", None), ("auto", "http://localhost:1")):
        parallel = config.parallel.model_copy(update={"text_encoders": name})
        model = config.model.model_copy(update={"text_encoder_url": url})
        other = config.model_copy(update={"parallel": parallel, "model": model})
        assert choose_spread(other, here, num_processes=2).divided == frozenset()
    live = build_run(output={"text_cache": "live"}, memory=ALL, train=TRAIN, parallel=TWO | {"text_encoders": "sharded"})
    with pytest.raises(ConfigError, match="Text encoders cannot be sharded: each process encodes"):
        build_plan(live)


def test_sharded_blocks_take_less(build_run: BuildRun) -> None:
    config = build_run(memory=ALL, adapter={"kind": "full", "rank": 16}, optim={"name": "adamw_8bit"}, train=TRAIN, parallel=TWO)
    workload = replace(build_plan(config).workload, num_processes=4)
    whole, parts = (build_estimate(config, replace(workload, is_sharded=one)).find("training").parts for one in (False, True))
    share = workload.count_sharded_share()
    assert 0.8 < share < 1
    assert parts["weights of the blocks"] == whole["weights of the blocks"] // 4 and parts["slots for whole blocks"] > 0
    assert parts["activations"] == whole["activations"] > 0 and 0 < parts["gradients"] < whole["gradients"]
    for part in ("optimizer", "sums of gradients"):
        assert parts[part] == pytest.approx(whole[part] * (1 - share + share / 4), rel=1e-3)
    kept = config.model_copy(update={"parallel": config.parallel.model_copy(update={"reshard": False})})
    found = build_estimate(kept, replace(workload, is_sharded=True)).find("training").parts
    assert found.pop("slots for whole blocks") == whole["weights of the blocks"] > parts.pop("slots for whole blocks")
    assert found == parts


def test_parts_in_the_memory_of_the_host(build_run: BuildRun) -> None:
    config = build_run(memory=ALL, train=TRAIN, parallel=TWO | {"strategy": "fsdp"})
    away = config.model_copy(update={"parallel": config.parallel.model_copy(update={"offload": True})})
    workload = build_plan(config).workload
    assert workload.count_frozen_share() == 1
    here, there = (build_estimate(one, workload) for one in (config, away))
    moved = here.find("training").parts["weights of the blocks"]
    assert "weights of the blocks" not in there.find("training").parts and there.host["parts of blocks"] == moved
    assert there.time.copied_forward == pytest.approx(2 * here.time.copied_forward), "the part of this process is copied too"
    with pytest.raises(ConfigError, match="which has no memory of its own") as caught:
        build_plan(away)
    assert "parallel.offload = true" in str(caught.value)
    full = build_run(memory=ALL, adapter={"kind": "full", "rank": 16}, optim={"name": "adamw_8bit"}, train=TRAIN, parallel=TWO)
    sharded = full.model_copy(update={"parallel": full.parallel.model_copy(update={"offload": True, "strategy": "fsdp"})})
    with pytest.raises(ConfigError, match="Nothing of the blocks is frozen"):
        choose_spread(sharded, build_plan(full).workload, num_processes=2)


def test_the_plan_says_it(build_run: BuildRun) -> None:
    config = build_run(memory=ALL, train={"accumulation": 3, "batch_size": 1}, parallel=TWO | {"strategy": "fsdp"})
    report = build_report(build_plan(config))
    assert "2 devices, each with a part of every block (fsdp): as parallel.strategy says" in report
    assert "the same 3 pictures as on one device, in 2 rounds of micro-batches" in report
    assert "weights of blocks between devices: " in report and "what limits first: " in report
    assert "Devices" not in build_report(build_plan(build_run()))


def test_what_is_sent(build_run: BuildRun) -> None:
    """A ring that adds on the way sends as much, for one round."""
    assert count_gradient_bytes(100, 2) == 100 and count_gradient_bytes(100, 4, rounds=2) == 225
    config = build_run(memory=ALL, train={"accumulation": 4, "batch_size": 1}, parallel=TWO)
    workload = build_plan(config).workload
    assert workload.num_processes == 2
    links = Links(between=1e9, network=1e8, disk=1e7)

    def find(num: int, *, is_sharded: bool = False) -> dict[str, Demand]:
        load = replace(workload, num_processes=num, is_sharded=is_sharded)
        return {one.name: one for one in list_demands(config, load, links=links, save_bytes=1e6, save_every=10)}

    gradients, weights, words, cache, saved = find(2).values()
    assert gradients.num_bytes == count_gradient_bytes(workload.trained.num_bytes, 2, rounds=2)
    assert gradients.seconds == pytest.approx(gradients.num_bytes / 1e9) and weights.num_bytes == 0 and words.seconds > 0
    assert saved.num_bytes == 1e5 and cache.seconds == pytest.approx(cache.num_bytes / 1e7)
    assert find(2, is_sharded=True)[weights.name].num_bytes > workload.trained.num_bytes
    far = find(16)[gradients.name]
    assert far.seconds == pytest.approx(far.num_bytes / 2 / 1e9 + far.num_bytes / 2 / 1e8), "half of it goes to other machines"
    assert find_limit([gradients, far], 2 * far.seconds) is None and find_limit([gradients, far], far.seconds / 2) is far


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"memory": {"gradient_checkpointing": "none"}}, 'set memory.gradient_checkpointing = "all"'),
        ({"objective": {"rollout": {"max_steps": 1, "start_step": 0}}}, "remove objective.rollout"),
        ({"parallel": {"reshard": False}}, 'set parallel.strategy = "ddp" and remove parallel.reshard'),
        ({"adapter": {"kind": "full", "rank": 16}, "optim": {"name": "torch_adamax"}}, "may look at all weights at once"),
        (
            {"adapter": {"kind": "full", "rank": 16}, "optim": {"ema_decay": 0.9}, "sampling": {"weights": "ema", "prompts": ["a"]}},
            'set sampling.weights and evaluation.weights to "trained"',
        ),
    ],
)
def test_what_cannot_be_sharded(build_run: BuildRun, sections: dict[str, Any], message: str) -> None:
    parallel = TWO | {"strategy": "fsdp"} | sections.get("parallel", {})
    config = build_run(**{"memory": ALL, "train": TRAIN} | sections | {"parallel": parallel})
    with pytest.raises(ConfigError, match="Blocks (cannot be sharded|that stay whole)") as caught:
        build_plan(config)
    assert message in str(caught.value)
