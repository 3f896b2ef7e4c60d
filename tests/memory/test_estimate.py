from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from weber.memory.estimate import IN_FLIGHT, Estimate, Phase, Profile, StepTime, build_average, build_between, build_profile
from weber.memory.rates import Rates
from weber.memory.simulate import ATTENTION, Stretch, Trace, Work


def _build_trace(kept: int, *, peak: int = 100) -> Trace:
    """Three blocks: the first finds 7 bytes more to keep, each keeps `kept`; gradients of 5 bytes each."""
    work = Work(Counter({("bfloat16", 10, 1): 1}), 1, 1)
    forward = {number: Stretch(kept + (7 if number == 0 else 0), kept + 20, work) for number in range(3)}
    backward = {number: Stretch(5 - kept, peak, work, 5) for number in range(3)}
    return Trace(forward, Stretch(3, 30, work), backward, left_bytes=7)


def test_a_block_between_stands_for_all_of_its_kind() -> None:
    profile = build_profile([_build_trace(50)] * 6, [0, 1, 1, 1, 1, 2])
    assert profile.saved_bytes == 6 * 50 + 7
    assert profile.peak_bytes == 6 * 50 + 7 + 3 + 100, "in the backward pass of the last block"
    assert profile.gradient_bytes == 0 and profile.left_bytes == 7 and profile.hosted_bytes == 0
    assert profile.forward.flops["bfloat16"] == 60 and profile.backward.flops["bfloat16"] == 70


def test_the_peak_may_be_later_and_then_holds_gradients() -> None:
    trace = _build_trace(1, peak=10)
    late = Trace(trace.forward, trace.turn, {**trace.backward, 0: Stretch(-4, 500, Work(), 5)}, 7)
    profile = build_profile([late] * 4, [0, 1, 1, 2])
    assert profile.gradient_bytes == 3 * 5
    assert profile.peak_bytes == 4 + 7 + 3 + 3 * 4 + 500


def test_blocks_may_be_run_in_different_ways() -> None:
    plain, checkpointed = _build_trace(50), _build_trace(10)
    profile = build_profile([plain, checkpointed, plain, checkpointed], [0, 1, 1, 2])
    assert profile.saved_bytes == 2 * 50 + 2 * 10 + 7


def test_a_block_that_did_not_run_has_no_part_in_it() -> None:
    assert build_profile([_build_trace(50)] * 4, [0, 1, 9, 2]).saved_bytes == 3 * 50 + 7


def test_of_offloaded_inputs_the_first_and_those_on_their_way_stay() -> None:
    profile = build_profile([_build_trace(50)] * 6, [0, 1, 1, 1, 1, 2], is_offloaded=True)
    assert profile.hosted_bytes == 5 * 50
    assert profile.gradient_bytes == 5 * 5, "nothing but gradients adds up, so the first block's backward pass is the peak"
    assert profile.peak_bytes == 50 + 7 + 3 + 5 * 5 + 100 + IN_FLIGHT * 50


def _build_profile(tokens: int) -> Profile:
    sizes = {("bfloat16", 8 * tokens, 4 * tokens): 3, ("bfloat16", tokens, 6 * tokens): 5, (ATTENTION, 2 * tokens**2, tokens): 2}
    work = Work(Counter(sizes), 6 * tokens, 100)
    return Profile(1000 + 40 * tokens, 12, 10 * tokens, 4, work, work)


def test_sizes_between_grow_with_tokens_and_attention_with_their_square() -> None:
    found = build_between((16, _build_profile(16)), (64, _build_profile(64)), at=32)
    exact = _build_profile(32)
    assert replace(found, forward=exact.forward, backward=exact.backward) == exact
    rates = Rates("a device", {"bfloat16": 1.0, "float32": 1.0}, attention=1.0, bandwidth=1.0, link=1.0)
    for one, other in ((found.forward, exact.forward), (found.backward, exact.backward)):
        assert (one.flops, one.moved_bytes, one.num_kernels) == (other.flops, other.moved_bytes, other.num_kernels)
        assert rates.count_parts(one) == rates.count_parts(other) and rates.count_skinny_bytes(one) == rates.count_skinny_bytes(other) > 0
    assert build_between((16, _build_profile(16)), (16, _build_profile(16)), at=16) == _build_profile(16)


def test_copies_are_hidden_behind_computing_in_each_direction() -> None:
    assert StepTime(2, 4, 1, 3, update=0.5).seconds == 6.5
    slow = StepTime(2, 4, 3, 3, update=0.5)
    assert slow.seconds == 7.5 and slow.computing_share == pytest.approx(6.5 / 7.5)
    assert StepTime(2, 4, on_host=5).seconds == 9
    assert build_average([(StepTime(1, 2), 3), (StepTime(5, 2), 1)]) == StepTime(2, 2)


def test_the_peak_is_that_of_the_largest_phase() -> None:
    phases = (Phase("training at 64", {"weights": 5, "activations": 1}), Phase("training at 128", {"weights": 5, "activations": 3}))
    estimate = Estimate((*phases, Phase("loading", {"weights": 5})), {"a": 1, "b": 2}, StepTime(1, 1), Work(), "cpu", True)
    assert estimate.peak is phases[1] and estimate.find("training") is phases[1] and estimate.host_bytes == 3
