from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from weber.config.memory import MemoryConfig
from weber.errors import ConfigError
from weber.memory.estimate import Estimate, Phase, StepTime
from weber.memory.fit import Choices, Fit, choose_settings, count_usable_bytes, read_budget_bytes
from weber.memory.rates import GIB
from weber.memory.simulate import Work

CHOICES = Choices(
    num_blocks=20,
    num_text_encoders=2,
    precisions=("none", "int8", "nf4"),
    quantizes=True,
    places_modulation=True,
    swaps=True,
    leans=True,
    paints=True,
    has_host=True,
)
BITS = {"none": 1.0, "int8": 0.5, "nf4": 0.26}
KEPT = {"none": 10.0, "lean": 5.0, "all": 1.0}
TIMES = {"none": 3.0, "lean": 3.1, "all": 4.0}


def _weigh(memory: MemoryConfig) -> Estimate:
    """A model of 20 blocks of 0.8 GiB, of which a quarter is modulation; 1 GiB of other things; encoders of 2 and 6 GiB."""
    mode = memory.gradient_checkpointing
    swapped = 20 if memory.swap_blocks == "all" else memory.swap_blocks
    own = {"model": 0.2 * BITS[memory.quantize], "int8": 0.1, "host": 0.0}[memory.modulation]
    block = 0.6 * BITS[memory.quantize] + own
    kept = 0.2 if memory.offload_activations else KEPT[mode] if isinstance(mode, str) else 1 + 9 * (mode - 1) / mode
    still = {"blocks": (20 - swapped) * block, "slots": 2 * block if swapped else 0.0, "others": 1.0}
    decoding = 0.4 if memory.vae_tiling else 1.6
    phases = [
        Phase("training at 512 x 512", _count({**still, "activations": kept})),
        Phase("decoding 512 x 512", _count({**still, "activations": decoding})),
        Phase("encoding pictures", _count({"activations": memory.encode_batch_size * decoding}), has_network=False),
        Phase("encoding captions (one)", _count({"text encoder": 2 * BITS[memory.quantize_text_encoder]}), has_network=False),
        Phase("encoding captions (two)", _count({"text encoder": 6 * BITS[memory.quantize_text_encoder_2]}), has_network=False),
    ]
    seconds = TIMES[mode] if isinstance(mode, str) else 3 + 1 / mode
    copied = swapped * block / 4
    time = StepTime(1, seconds - 1, copied, copied)
    host = _count({"swapped": swapped * block, "modulation": 4.0 if memory.modulation == "host" else 0.0})
    return Estimate(tuple(phases), host, time, Work(Counter(), 0, 0), "a GPU", False)


def _count(parts: Mapping[str, float]) -> dict[str, int]:
    return {name: int(size * GIB) for name, size in parts.items()}


def _choose(gib: float, *, choices: Choices = CHOICES, host: int | None = None, hints: tuple[str, ...] = (), **settings: Any) -> Fit:
    budget_bytes = int((gib + 0.5) * GIB)  # below 10 GiB that is what is left free
    return choose_settings(
        MemoryConfig(fit="auto", **settings),
        choices,
        weigh=_weigh,
        hint=lambda smallest: hints,
        budget_bytes=budget_bytes,
        host_bytes=host,
    )


def test_amounts_are_decimal_or_binary() -> None:
    cpu = torch.device("cpu")
    assert read_budget_bytes("10GB", cpu) == 10 * 10**9
    assert read_budget_bytes("11.5 GiB", cpu) == int(11.5 * GIB)
    with pytest.raises(ConfigError, match='set memory.fit = "8GB"'):
        read_budget_bytes("auto", cpu)


def test_a_twentieth_or_half_a_gib_stays_free() -> None:
    assert count_usable_bytes(4 * GIB) == 3.5 * GIB
    assert count_usable_bytes(100 * GIB) == 95 * GIB


def test_with_room_for_all_nothing_is_lost() -> None:
    fit = _choose(60)
    assert fit.settings == {"gradient_checkpointing": "none"} and fit.memory.fit is None
    assert fit.reasons == ('gradient_checkpointing = "none": there is room for what it keeps, and a step takes 75% of the time',)


def test_what_costs_least_is_chosen_first() -> None:
    # 27 GiB are needed for the whole: the modulation on the host costs nothing, 8 bits count 2 %, "lean" 3 %.
    assert _choose(25).settings == {"gradient_checkpointing": "none", "modulation": "host"}
    assert _choose(20).settings == {"gradient_checkpointing": "none", "quantize": "int8"}
    assert _choose(15).settings == {"gradient_checkpointing": "lean", "quantize": "int8"}


@pytest.mark.parametrize("gib", [25, 20, 15, 12, 9, 7, 5, 4, 3])
def test_what_is_chosen_fits_and_no_block_is_swapped_in_vain(gib: float) -> None:
    fit = _choose(gib)
    assert fit.estimate.peak.num_bytes <= gib * GIB * 1.001
    assert [reason.partition(" ")[0] for reason in fit.reasons] == list(fit.settings)
    if (swapped := fit.settings.get("swap_blocks")) not in (None, "all"):
        fewer = fit.memory.model_copy(update={"swap_blocks": swapped - 1})
        assert _weigh(fewer).peak.num_bytes > gib * GIB
    MemoryConfig.model_validate(fit.memory.model_dump())


def test_what_was_set_stays() -> None:
    fit = _choose(7, quantize="none", modulation="model")
    assert not {"quantize", "modulation"} & set(fit.settings) and fit.memory.quantize == "none"
    assert fit.settings["swap_blocks"] not in (0, None)
    assert _choose(60, gradient_checkpointing="all").settings == {}
    assert _choose(25, swap_blocks=3).memory.swap_blocks == 3


def test_encoders_are_run_as_well_as_they_can_be() -> None:
    roomy, tight, tighter = _choose(7).memory, _choose(5).memory, _choose(2.9).memory
    assert (roomy.quantize_text_encoder_2, roomy.encode_batch_size) == ("none", 4)
    assert (tight.quantize_text_encoder_2, tight.quantize_text_encoder) == ("int8", "none")
    assert (tighter.quantize_text_encoder_2, tighter.quantize_text_encoder) == ("nf4", "none")


def test_what_cannot_act_is_not_chosen() -> None:
    bare = replace(CHOICES, quantizes=False, places_modulation=False, leans=False, has_host=False, paints=False)
    assert set(_choose(16, choices=bare).settings) == {"swap_blocks"}
    with pytest.raises(ConfigError, match="whatever is chosen"):
        _choose(16, choices=replace(bare, swaps=False))


def test_the_memory_of_the_host_counts_too() -> None:
    plenty, scarce = _choose(9, quantize="none"), _choose(9, quantize="none", host=12 * GIB)
    assert plenty.estimate.host_bytes > 8 * GIB
    assert scarce.estimate.host_bytes <= 0.85 * 12 * GIB


def test_how_to_do_what_is_not_done_is_dropped() -> None:
    memory = _choose(60, swap_to="disk", quantize_on="cpu", keep_quantized=False).memory
    assert (memory.swap_to, memory.quantize_on, memory.keep_quantized) == ("host", "auto", True)
    assert _choose(5, swap_to="disk", quantize="none").memory.swap_to == "disk"


def test_8_bit_products_need_8_bit_weights() -> None:
    assert _choose(60, int8_matmul=True).memory.quantize == "int8"


def test_where_nothing_fits_it_is_said_what_would() -> None:
    with pytest.raises(ConfigError) as caught:
        _choose(1.2, hints=("set optim.fused_backward = true", "set adapter.rank = 4"), quantize_on="cpu")
    message = str(caught.value)
    assert "does not fit into 1.7 GiB" in message and "a card of 4 GB" in message
    assert 'quantize = "nf4"' in message and 'swap_blocks = "all"' in message
    assert caught.value.fix == "set optim.fused_backward = true; or set adapter.rank = 4", "what was set is not the reason"


def test_what_closes_no_gap_is_not_offered() -> None:
    with pytest.raises(ConfigError) as caught:
        _choose(1.2)
    assert caught.value.fix == "choose a smaller model (`weber variants`): no setting closes the gap"


def test_what_was_set_is_named_where_it_is_the_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        _choose(5, quantize="none", swap_blocks=0)
    assert caught.value.fix == "leave out memory.quantize, memory.swap_blocks, which were set"


def test_where_an_encoder_is_the_reason_the_cache_can_be_filled_elsewhere() -> None:
    with pytest.raises(ConfigError, match="weber cache"):
        _choose(1.8, quantize_text_encoder_2="none")


def test_where_the_host_is_the_reason_it_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        _choose(3, host=2 * GIB, hints=("set train.batch_size = 1",), quantize="none")
    assert "only with more memory of the host" in caught.value.what and "of the host's 2.0 GiB" in caught.value.got
    assert caught.value.fix.endswith("set train.batch_size = 1")
