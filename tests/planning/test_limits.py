"""Settings of memory that cannot act are refused in words, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

import weber
from tests.runs import BuildRun
from weber.config.memory import MemoryConfig
from weber.errors import ConfigError

FULL = {"adapter": {"kind": "full", "rank": 16}}
ZOO: dict[str, tuple[dict[str, dict[str, Any]], str, str]] = {
    "swap on a CPU": ({"memory": {"swap_blocks": 2}}, "memory.swap_blocks = 2", "no memory of its own"),
    "activations on a CPU": ({"memory": {"offload_activations": True}}, "memory.offload_activations = true", "no memory of its own"),
    "modulation on a CPU": ({"memory": {"modulation": "host"}}, 'memory.modulation = "host"', "no memory of its own"),
    "a device to quantize on": ({"memory": {"quantize": "int8", "quantize_on": "device"}}, "memory.quantize_on", "by the processor"),
    "products of fp8 on a CPU": ({"memory": {"quantize": "fp8", "fp8_matmul": True}}, "memory.fp8_matmul = true", "runs on cpu"),
    "moments on a CPU": ({"optim": {"state_on": "host"}}, "optim.state_on", "no memory of its own"),
    "a mean on a CPU": ({"optim": {"ema_decay": 0.9, "ema_on": "device"}}, "optim.ema_on", "no memory of its own"),
    "nothing to keep": ({"memory": {"keep_quantized": False}}, "memory.keep_quantized = false", "none to be kept"),
    "nothing to quantize": ({"memory": {"quantize_on": "cpu"}}, "memory.quantize_on = 'cpu'", "does not matter where"),
    "too many blocks": ({"memory": {"swap_blocks": 99, "swap_to": "disk"}}, "memory.swap_blocks = 99", "fewer blocks"),
    "checkpoints too rare": ({"memory": {"gradient_checkpointing": 99}}, "gradient_checkpointing = 99", "none would be checkpointed"),
    "lean with dropout": ({"memory": {"gradient_checkpointing": "lean"}, "adapter": {"dropout": 0.1}}, "adapter.dropout = 0.1", "dropout"),
    "modulation that is trained": (
        {"memory": {"modulation": "int8"}, "adapter": {"targets": ["norm1.linear"]}},
        "transformer_blocks.0.norm1.linear",
        "have adapters or are trained",
    ),
    "modulation twice": ({"memory": {"modulation": "int8", "quantize": "int8"}}, 'memory.modulation = \'int8\'', "as all others"),
    "trained weights that wait": ({"memory": {"swap_blocks": 1, "swap_to": "disk"}, **FULL}, "swap_blocks = 1", "as soon as"),
    "trained weights on the disk": (
        {"memory": {"swap_blocks": 1, "swap_to": "disk"}, "optim": {"fused_backward": True}, **FULL},
        'memory.swap_to = "disk"',
        "not kept on the disk",
    ),
    "bf16 in fp32": (
        {"adapter": {"kind": "full", "rank": 16, "precision": "bf16"}, "optim": {"name": "adamw_bf16"}},
        "adapter.precision",
        "in fp32",
    ),
    "fit without a card": ({"memory": {"fit": "auto"}}, "memory.fit", ""),
}


@pytest.mark.parametrize("case", ZOO)
def test_what_cannot_act_is_refused(case: str, build_run: BuildRun) -> None:
    sections, got, what = ZOO[case]
    with pytest.raises(ConfigError) as caught:
        weber.plan(build_run(**sections))
    assert got in str(caught.value.got), caught.value
    assert what in caught.value.what, caught.value
    assert caught.value.fix


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_products_of_8_bits_need_weights_of_that_form(form: str) -> None:
    with pytest.raises(ValueError, match=f'{form}_matmul has no effect with quantize = "nf4"; set quantize = "{form}" or remove it'):
        MemoryConfig(quantize="nf4", **{f"{form}_matmul": True})
