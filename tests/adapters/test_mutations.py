"""A thousand adapter files with a fault or three: tensors dropped, renamed, reshaped, retyped, headers changed. No traceback."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter
from weber.adapters.inspect import inspect_file
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.adapters.lycoris_files import is_lycoris, load_lycoris
from weber.adapters.lycoris_layers import count_factors
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.merge import build_merged_adapter, build_merged_weights
from weber.adapters.start import load_start
from weber.config.adapter import AdapterConfig
from weber.errors import WeberError
from weber.families.flux1.keys import PAIRINGS
from weber.families.pairing import find_module, find_original
from weber.families.tensors import Weights, build_entry

NUM_FILES = 1000
WIDTH = 12
MODULES = {
    **{f"transformer_blocks.0.attn.to_{name}": (WIDTH, WIDTH) for name in "qkv"},
    "transformer_blocks.0.attn.to_out.0": (WIDTH, WIDTH),
    "transformer_blocks.0.ff.net.2": (WIDTH, 4 * WIDTH),
    "transformer_blocks.0.norm1.linear": (6 * WIDTH, WIDTH),
    "norm_out.linear": (2 * WIDTH, WIDTH),
}
ORIGINALS = {
    "double_blocks.0.img_attn.qkv": (3 * WIDTH, WIDTH),
    "double_blocks.0.img_attn.proj": (WIDTH, WIDTH),
    "double_blocks.0.img_mlp.2": (WIDTH, 4 * WIDTH),
    "double_blocks.0.img_mod.lin": (6 * WIDTH, WIDTH),
    "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
}
CLIP = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
BASE: Weights = {
    **{f"{name}.weight": build_entry(torch.ones(shape)) for name, shape in MODULES.items()},
    **{f"{name}.bias": build_entry(torch.ones(shape[0])) for name, shape in MODULES.items()},
}


def _lora(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"lora_down.weight": torch.ones(2, inputs), "lora_up.weight": torch.ones(outputs, 2), "alpha": torch.tensor(1.0)}


def _peft(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"lora_A.weight": torch.ones(2, inputs), "lora_B.weight": torch.ones(outputs, 2)}


def _dora(outputs: int, inputs: int) -> dict[str, Tensor]:
    return _peft(outputs, inputs) | {"lora_magnitude_vector": torch.ones(outputs)}


def _by_inputs(outputs: int, inputs: int) -> dict[str, Tensor]:
    return _lora(outputs, inputs) | {"dora_scale": torch.ones(1, inputs)}


def _lokr(outputs: int, inputs: int) -> dict[str, Tensor]:
    second = {"lokr_w2_a": torch.ones(outputs // 3, 2), "lokr_w2_b": torch.ones(2, inputs // 2), "alpha": torch.tensor(1.0)}
    return {"lokr_w1": torch.ones(3, 2)} | second


def _whole(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"lokr_w1": torch.ones(4, 4), "lokr_w2": torch.ones(outputs // 4, inputs // 4)}


def _loha(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {f"hada_w{one}_{side}": torch.ones(shape) for one in (1, 2) for side, shape in (("a", (outputs, 2)), ("b", (2, inputs)))}


def _full(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"diff": torch.ones(outputs, inputs), "diff_b": torch.ones(outputs)}


def _oft(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"oft_blocks": torch.zeros(3, outputs // 3, outputs // 3), "rescale": torch.ones(outputs, 1), "alpha": torch.tensor(0.0)}


def _boft(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {"oft_blocks": torch.zeros(2, 2, outputs // 2, outputs // 2), "alpha": torch.tensor(0.0)}


def _glora(outputs: int, inputs: int) -> dict[str, Tensor]:
    shapes = {"a1": (inputs, 2), "a2": (2, inputs), "b1": (outputs, 2), "b2": (2, inputs)}
    return {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}


FORMS = (_lora, _peft, _dora, _by_inputs, _lokr, _whole, _loha, _full, _oft, _boft, _glora)
NAMES: dict[str, tuple[Mapping[str, tuple[int, int]], Callable[[str], str]]] = {
    "transformer.": (MODULES, lambda name: f"transformer.{name}"),
    "lycoris_": (MODULES, lambda name: "lycoris_" + name.replace(".", "_")),
    "base_model.model.": (MODULES, lambda name: f"base_model.model.{name}"),
    "lora_unet_": (ORIGINALS, lambda name: "lora_unet_" + name.replace(".", "_")),
    "diffusion_model.": (ORIGINALS, lambda name: f"diffusion_model.{name}"),
}
SETTINGS = {"transformer.r": 2, "transformer.lora_alpha": 3, "transformer.alpha_pattern": {"attn.to_q": 4}, "text_encoder.lora_alpha": 2}
ODD = (None, -1, 0, "", "x", [], {}, [1], {"a": 1}, math.inf, "*", {"*": 2}, {"(": None}, True)
SHAPES = ((), (0,), (1,), (2,), (1, 1), (2, 2), (0, 4), (12,), (12, 1), (1, 12), (2, 1, 1), (3, 4, 4), (2, 2, 2, 2), (1, 1, 1, 1, 1))
DTYPES = (torch.int8, torch.int64, torch.bool, torch.uint8, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
ENDINGS = ("lokr_w2", "lokr_w1_a", "lora_up.weight", "lora_A.weight", "alpha", "diff", "dora_scale", "oft_blocks", "rescale", "x", "weight")


def _build(draw: random.Random) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A whole file: of one form, or of two, with the names of one program."""
    layers, rename = NAMES[draw.choice(list(NAMES))]
    forms = draw.sample(FORMS, draw.choice((1, 1, 1, 2)))
    tensors = {}
    for name, (outputs, inputs) in layers.items():
        tensors |= {f"{rename(name)}.{part}": tensor for part, tensor in draw.choice(forms)(outputs, inputs).items()}
    if draw.random() < 0.2:
        tensors |= {f"{CLIP}.{part}": tensor for part, tensor in _peft(WIDTH, WIDTH).items()}
    return tensors, {"lora_adapter_metadata": json.dumps(SETTINGS)} if draw.random() < 0.5 else {}


def _mutate(tensors: dict[str, Tensor], metadata: dict[str, str], draw: random.Random) -> None:
    """One fault."""
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    match draw.randrange(9):
        case 0 | 1:
            del tensors[name]
        case 2:
            stem, _, _ = name.partition(".lo" if ".lo" in name else ".alpha" if ".alpha" in name else ".diff")
            tensors[f"{stem}.{draw.choice(ENDINGS)}"] = tensors.pop(name)
        case 3:
            cut = draw.randrange(len(name))
            tensors[name[:cut] + draw.choice(("", "_", ".", "0", "x.")) + name[cut + draw.randrange(2) :] or "x"] = tensors.pop(name)
        case 4:
            tensors[name] = torch.ones(draw.choice(SHAPES))
        case 5:
            tensors[name] = draw.choice((tensor.T if tensor.dim() == 2 else tensor[None], tensor.flatten()[:-1], tensor[None])).contiguous()
        case 6:
            tensors[name] = tensor.to(draw.choice(DTYPES))
        case 7:
            tensors[name] = tensor.float() * draw.choice((math.nan, math.inf, 0.0, -1e30))
        case _:
            settings = dict(SETTINGS)
            settings[draw.choice(list(SETTINGS))] = draw.choice(ODD)
            metadata["lora_adapter_metadata"] = draw.choice((json.dumps(settings), "[]", "{", json.dumps(settings)))
            metadata["weber"] = draw.choice(("{}", "[", '{"lycoris": 3}'))


def _write(modules: Mapping[str, Factors], layout: str) -> None:
    check_layout(modules, layout=layout, pairings=PAIRINGS)
    LAYOUTS[layout].write({name: one.build_baked() for name, one in modules.items()}, PAIRINGS)


def _use(path: Path) -> None:
    """All that can be done with a file; WeberError ends it."""
    if is_lycoris(path):
        adapter = load_lycoris(path)
        count_factors(adapter.layers)
        for entry in build_changed_weights(BASE, adapter.changes, fused=adapter.fused, strength=0.5).values():
            entry.read()
        return
    modules = load_adapter(path).modules
    shapes = {name: shape[::-1] for name, shape in MODULES.items()}
    for use in (
        lambda: [entry.read() for entry in build_merged_weights(BASE, [(modules, 0.5)]).values()],
        lambda: build_merged_adapter([(modules, 1.0), (modules, -0.5)], rank=3),
        lambda: load_start(AdapterConfig(rank=4, alpha=3, start_from=str(path)), shapes),
        *(partial(_write, modules, layout) for layout in LAYOUTS),
    ):
        try:
            use()
        except WeberError:
            continue


@pytest.mark.parametrize("part", range(4))
def test_faulty_files(part: int, tmp_path: Path) -> None:
    path, num_read = tmp_path / "a.safetensors", 0
    for number in range(part, NUM_FILES, 4):
        draw = random.Random(number)
        tensors, metadata = _build(draw)
        for _ in range(draw.choice((1, 1, 2, 3))):
            if tensors:
                _mutate(tensors, metadata, draw)
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata=metadata)
        try:
            assert str(path) in str(inspect_file(path))
            _use(path)
            num_read += 1
        except WeberError as error:
            assert error.fix and (str(path) in str(error) or "not for this model" in error.what), error
        except Exception as error:
            raise AssertionError(f"file {number}: {sorted(tensors)} {metadata}") from error
    assert 20 < num_read < NUM_FILES / 4 - 50, "some are still whole, and most are not"


def test_the_files_are_whole_without_their_faults(tmp_path: Path) -> None:
    """Every form with every program's names; what its readers do not agree on is refused in words."""
    refused = set()
    for names, (layers, rename) in NAMES.items():
        for form in FORMS:
            tensors = {f"{rename(name)}.{part}": one for name, shape in layers.items() for part, one in form(*shape).items()}
            save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
            try:
                _use(tmp_path / "a.safetensors")
            except WeberError as error:
                refused.add((names, form.__name__, error.what))
    message = "A DoRA is read in the library's layout only."
    assert refused == {(names, "_dora", message) for names in ("lora_unet_", "diffusion_model.")}


def test_the_layers_are_those_of_the_tables() -> None:
    for name in MODULES:
        assert find_module(PAIRINGS, name) is not None
    for name in ORIGINALS:
        assert find_original(PAIRINGS, name) is not None
