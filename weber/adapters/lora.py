"""LoRA on the linear layers of a frozen model, by PEFT: the one that learns, in fp32 whatever the model's precision, and an assistant.

The assistant is a second, frozen adapter in the model's own precision, on layers of its own choice. It takes part in the forward pass and
in nothing else: it is not among the parameters, not in the factors, and has a strength of its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from weber.adapters.factors import Factors, build_scaled
from weber.adapters.files import AdapterFile
from weber.adapters.lowrank import LowRank
from weber.adapters.metadata import find_most_common
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

ADAPTER_NAME = "default"
ASSISTANT_NAME = "assistant"
_NUM_SHOWN = 3


def build_lora(
    model: nn.Module, config: AdapterConfig, *, modules: Sequence[str], seed: int, start: AdapterFile | None = None
) -> list[tuple[str, nn.Parameter]]:
    """Put adapters on `modules` of `model`, in place; returns the named parameters that learn, all fp32.

    A is drawn from a Kaiming uniform distribution (PEFT's default) with `seed`; B is zero, so the model starts as it was, or as `start`
    left it: `start.py` has checked that this fits. bf16 weights would not learn at usual rates (ecosystem.md 0.3), and PEFT does not
    upcast by itself.
    """
    alpha = config.rank if config.alpha is None else config.alpha
    lora = LoraConfig(r=config.rank, lora_alpha=alpha, lora_dropout=config.dropout, target_modules=_list_exactly(modules))  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _inject(model, lora, name=ADAPTER_NAME)
    parameters = list_parameters(model)
    for _, parameter in parameters:
        parameter.data = parameter.data.float()
    if start is not None:
        _write_start(model, start.modules)
    return parameters


def list_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, in the model's order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def list_factors(model: nn.Module) -> dict[str, Factors]:
    """What the adapter changes, by module; the tensors are the adapter's own, detached."""
    return {path: _build_factors(layer, ADAPTER_NAME) for path, layer in _list_layers(model, ADAPTER_NAME)}


def load_factors(model: nn.Module, modules: Mapping[str, Factors]) -> None:
    """Write weights into adapters that `build_lora` made. Raises AdapterError where layers, ranks or alphas differ."""
    have, come = list_factors(model), dict(modules)
    described = [{name: _describe(factors) for name, factors in one.items()} for one in (have, come)]
    different = sorted(set(described[0].items()) ^ set(described[1].items()))
    if different:
        name = different[0][0]
        raise AdapterError(
            "The adapter's weights do not fit the adapter settings.",
            got=f"{len(come)} layers, of which {name} with {described[1].get(name, 'nothing')}",
            expected=f"{len(have)} layers, {name} with {described[0].get(name, 'nothing')}",
            fix="use the rank, alpha and targets that the adapter was made with",
        )
    for name, factors in have.items():
        _copy(come[name], factors)


def load_adapter_onto(model: nn.Module, adapter: AdapterFile) -> None:
    """Put an adapter from a file on a model, to paint with: fp32, each layer with its own rank. Raises AdapterError if it does not fit."""
    _put(model, adapter.modules, name=ADAPTER_NAME, what="adapter")


def write_strength(model: nn.Module, strength: float) -> None:
    """Scale what the adapters add: 0 is the base model, 1 is as trained."""
    for _, layer in _list_layers(model, ADAPTER_NAME):
        layer.set_scale(ADAPTER_NAME, strength)


def add_assistant(model: nn.Module, modules: Mapping[str, Factors], *, strength: float) -> None:
    """Put the assistant on a model, frozen, beside an adapter or before it. Raises AdapterError where it does not fit the model."""
    _put(model, modules, name=ASSISTANT_NAME, what="assistant")
    write_assistant_strength(model, strength)


def write_assistant_strength(model: nn.Module, strength: float) -> None:
    """Scale what the assistant adds: with 0 the outputs are those without it, bit for bit."""
    for _, layer in _list_layers(model, ASSISTANT_NAME):
        layer.set_scale(ASSISTANT_NAME, strength)


def _list_layers(model: nn.Module, name: str) -> Iterator[tuple[str, LoraLayer]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, LoraLayer) and name in module.lora_A)


def _build_factors(layer: LoraLayer, name: str) -> Factors:
    """The adapter's own tensors, detached."""
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    assert isinstance(down, Tensor) and isinstance(up, Tensor)
    return Factors(down.detach(), up.detach(), float(layer.lora_alpha[name]))


def _describe(factors: Factors) -> str:
    return f"inputs {factors.down.shape[1]}, outputs {factors.up.shape[0]}, rank {factors.rank}, alpha {factors.alpha:g}" + (
        "" if factors.magnitude is None else ", DoRA"
    )


def _list_exactly(modules: Iterable[str]) -> str:
    """PEFT's pattern for whole names: a list of names would match the ends of others."""
    return "|".join(re.escape(module) for module in modules)


def _inject(model: nn.Module, lora: LoraConfig, *, name: str) -> None:
    """Add adapters; whatever is on the model already stays active, and only ADAPTER_NAME learns."""
    lora._register_custom_module({nn.Linear: LowRank})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # the other adapter's
        inject_adapter_in_model(lora, model, adapter_name=name)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([ADAPTER_NAME, ASSISTANT_NAME])
            module.set_requires_grad(ASSISTANT_NAME, requires_grad=False)


def _put(model: nn.Module, modules: Mapping[str, Factors], *, name: str, what: str) -> None:
    """Add the adapters of a file, with their ranks and alphas: fp32, but the assistant in the model's precision."""
    layers = {path: module.get_base_layer() if isinstance(module, LoraLayer) else module for path, module in model.named_modules()}
    shapes = {path: (layer.out_features, layer.in_features) for path, layer in layers.items() if isinstance(layer, nn.Linear)}
    strange = [path for path, one in modules.items() if shapes.get(path) != (one.up.shape[0], one.down.shape[1])]
    if strange or not modules:
        raise AdapterError(
            f"The {what} is not for this model.",
            got=", ".join(f"{path} ({_describe(modules[path])})" for path in strange[:_NUM_SHOWN]) or "no layers",
            expected=", ".join(f"{path} {shapes.get(path, 'is no linear layer of it')}" for path in strange[:_NUM_SHOWN]),
            fix=f"choose another {what}",
        )
    if any(one.magnitude is not None for one in modules.values()):
        raise AdapterError(f"The {what} is a DoRA.", got="magnitudes", expected="a LoRA", fix="merge it into the model with `weber merge`")
    ranks = {path: one.rank for path, one in modules.items()}
    alphas = {path: one.alpha for path, one in modules.items()}
    rank, alpha = find_most_common(ranks.values()), find_most_common(alphas.values())
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=_list_exactly(modules),
        rank_pattern={f"^{re.escape(path)}": one for path, one in ranks.items() if one != rank},
        alpha_pattern={f"^{re.escape(path)}": one for path, one in alphas.items() if one != alpha},
    )
    with torch.random.fork_rng():
        _inject(model, lora, name=name)
    for path, layer in _list_layers(model, name):
        if name == ADAPTER_NAME:
            layer.lora_A[name].float()
            layer.lora_B[name].float()
        _copy(modules[path], _build_factors(layer, name))


def _copy(source: Factors, target: Factors) -> None:
    target.down.copy_(source.down)
    target.up.copy_(source.up)


def _write_start(model: nn.Module, modules: Mapping[str, Factors]) -> None:
    """Write a file's factors into fresh adapters of the same rank or a larger one, so that the change is the file's.

    The rows of A beyond the file's rank stay as drawn, and the columns of B zero, as in a fresh adapter. B has the file's scale.
    """
    for path, fresh in list_factors(model).items():
        if path in modules:
            come = modules[path]
            fresh.down[: come.rank] = come.down
            fresh.up[:, : come.rank] = build_scaled(come.up, come.scale / fresh.scale)
