"""LoRA on the linear layers of a frozen model, by PEFT: the one that learns, in fp32 whatever the model's precision, and frozen ones.

Frozen adapters are in the model's own precision, on layers of their own choice. They take part in the forward pass and in nothing else:
they are not among the parameters, not in the factors, and each has a strength of its own.

An adapter that does not start at zero has a twin, TAKEN, in fp32 and frozen: what it started with, with strength -1, so that the model
starts as it was whatever its weights are made of. The factors hold both: their change is that of the original model. Where the start
stands for what quantization took from the model, it is not taken away but given back: the twin's strength is 1 less than the adapter's,
so that the network without what was learned is what training started with, near to the original, which lacks nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from weber.adapters.factors import Factors, build_unscaled, is_power_of_two
from weber.adapters.files import AdapterFile
from weber.adapters.lowrank import Lengths, LowRank
from weber.adapters.metadata import find_most_common
from weber.adapters.rules import Setting, build_settings
from weber.config.adapter import SHIFTED_STARTS, AdapterConfig
from weber.errors import AdapterError

ADAPTER_NAME = "default"
TAKEN_NAME = "taken"
_NUM_SHOWN = 3

Read = Callable[[str, nn.Linear], Tensor]
"""Gives the weight of a layer, as the layer has it, from where the model was read."""


def build_lora(
    model: nn.Module,
    config: AdapterConfig,
    *,
    modules: Sequence[str],
    seed: int,
    start: AdapterFile | None = None,
    settings: Mapping[str, Setting] | None = None,
    read: Read | None = None,
) -> list[tuple[str, nn.Parameter]]:
    """Put adapters on `modules` of `model`, in place; returns the named parameters that learn, all fp32.

    A is drawn with `seed`, by default from a Kaiming uniform distribution as PEFT does it; B is zero, so the model starts as it was, or as
    `start` left it: `start.py` has checked that this fits. Starts that depend on weights or pictures are written later (`starts.py`). bf16
    weights would not learn at usual rates (ecosystem.md 0.3), and PEFT does not upcast by itself. `settings`: of each module, if they
    are not those of `config`. `read`: for weights that are not in memory.
    """
    settings = build_settings(config, modules) if settings is None else settings
    lora = _build_config(settings, dropout=config.dropout, is_gaussian=config.init == "gaussian")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _inject(model, lora, name=ADAPTER_NAME)
        for _, parameter in list_parameters(model):
            parameter.data = parameter.data.float()
        if config.init == "orthogonal":
            for _, layer in _list_layers(model, ADAPTER_NAME):
                _write_orthogonal(_build_factors(layer, ADAPTER_NAME))
    if start is not None:
        _write_start(model, start.modules)
    if config.dora:
        _add_lengths(model, {} if start is None else start.modules, read=read)
    _write_exact(model, is_exact=config.compute == "fp32" or config.init in SHIFTED_STARTS)
    if config.init in SHIFTED_STARTS:
        _put(model, list_factors(model), name=TAKEN_NAME, what="start")
        _take(model, config.init)
    return list_parameters(model)


def list_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, in the model's order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def list_factors(model: nn.Module) -> dict[str, Factors]:
    """What the adapter changes in the original model, by module; the tensors are the adapter's own, detached.

    Where something is taken away beside it, they are copies that hold that too: [A; A0] and [B, -B0], of twice the rank.
    """
    return {path: _join(layer) for path, layer in _list_layers(model, ADAPTER_NAME)}


def load_factors(model: nn.Module, modules: Mapping[str, Factors]) -> None:
    """Write weights into adapters that `build_lora` made. Raises AdapterError where layers, ranks or alphas differ.

    What a file has with its scale in B gets the adapter's own scale again; see `list_exact` for the bits.
    """
    have = list_factors(model)
    come = {name: _give_scale(one, have[name]) if name in have else one for name, one in modules.items()}
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
    for name, layer in _list_layers(model, ADAPTER_NAME):
        if TAKEN_NAME in layer.lora_A:
            own, taken = _split(come[name])
            _copy(own, _build_factors(layer, ADAPTER_NAME))
            _copy(taken, _build_factors(layer, TAKEN_NAME))
        else:
            _copy(come[name], _build_factors(layer, ADAPTER_NAME))


def list_exact(model: nn.Module) -> dict[str, Tensor]:
    """The parameters whose numbers a file rounds, since it has their scale in them; a scale that is a power of two changes no bit."""
    return {
        f"{path}.lora_B.{name}.weight": _build_factors(layer, name).up
        for path, layer in _list_layers(model, ADAPTER_NAME)
        for name in (ADAPTER_NAME, TAKEN_NAME)
        if name in layer.lora_A and not is_power_of_two(_build_factors(layer, name).scale)
    }


def load_adapter_onto(model: nn.Module, adapter: AdapterFile, *, init: str = "default", is_exact: bool = False) -> None:
    """Put an adapter from a file on a model, to paint with: fp32, each layer with its own rank. Raises AdapterError if it does not fit.

    `is_exact`: it was trained with `adapter.compute = "fp32"`. With an `init` that does not start at zero, what learned and what is taken
    away are put on it apart, as `build_lora` does it.
    """
    if init not in SHIFTED_STARTS:
        _put(model, adapter.modules, name=ADAPTER_NAME, what="adapter")
        _write_exact(model, is_exact=is_exact)
        return
    parts = {path: _split(one) for path, one in adapter.modules.items()}
    _put(model, {path: own for path, (own, _) in parts.items()}, name=ADAPTER_NAME, what="adapter")
    _write_exact(model, is_exact=True)
    _put(model, {path: taken for path, (_, taken) in parts.items()}, name=TAKEN_NAME, what="adapter")
    _take(model, init)


def _write_exact(model: nn.Module, *, is_exact: bool) -> None:
    """Whether adapters compute in their own precision everywhere; starts that are not zero have to.

    There, what is trained and what is taken away are nearly equal at first: rounded each for itself, their difference would be noise.
    """
    for _, layer in _list_layers(model, ADAPTER_NAME):
        layer.is_exact = is_exact


def write_strength(model: nn.Module, strength: float) -> None:
    """Scale what the adapters add: 0 is the model without them, 1 is as trained."""
    for _, layer in _list_layers(model, ADAPTER_NAME):
        layer.set_scale(ADAPTER_NAME, strength)
        layer.set_scale(TAKEN_NAME, layer.given_back - strength)  # nothing happens where nothing is taken away


def list_starts(model: nn.Module) -> dict[str, tuple[Factors, Factors | None]]:
    """Each layer's adapter and what is taken away beside it, to be written to before training."""
    return {
        path: (_build_factors(layer, ADAPTER_NAME), _build_factors(layer, TAKEN_NAME) if TAKEN_NAME in layer.lora_A else None)
        for path, layer in _list_layers(model, ADAPTER_NAME)
    }


def add_frozen(model: nn.Module, modules: Mapping[str, Factors], *, name: str, strength: float) -> None:
    """Put a frozen adapter on a model, beside others or before them. Raises AdapterError where it does not fit the model."""
    _put(model, modules, name=name, what=name.replace("_", " "))
    write_frozen_strength(model, strength, name=name)


def write_frozen_strength(model: nn.Module, strength: float, *, name: str) -> None:
    """Scale what a frozen adapter adds: with 0 the outputs are those without it, bit for bit."""
    for _, layer in _list_layers(model, name):
        layer.set_scale(name, strength)


def _list_layers(model: nn.Module, name: str) -> Iterator[tuple[str, LowRank]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, LowRank) and name in module.lora_A)


def _build_factors(layer: LowRank, name: str) -> Factors:
    """The adapter's own tensors, detached."""
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    assert isinstance(down, Tensor) and isinstance(up, Tensor)
    lengths = layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None
    assert lengths is None or isinstance(lengths, Tensor)
    return Factors(down.detach(), up.detach(), float(layer.lora_alpha[name]), None if lengths is None else lengths.detach())


def _join(layer: LowRank) -> Factors:
    own = _build_factors(layer, ADAPTER_NAME)
    if TAKEN_NAME not in layer.lora_A:
        return own
    taken = _build_factors(layer, TAKEN_NAME)
    return Factors(torch.cat([own.down, taken.down]), torch.cat([own.up, -taken.up], dim=1), 2 * own.alpha)


def _split(joined: Factors) -> tuple[Factors, Factors]:
    """What `_join` has put together."""
    rank = joined.rank // 2
    own = Factors(joined.down[:rank], joined.up[:, :rank], joined.alpha / 2)
    return own, Factors(joined.down[rank:], -joined.up[:, rank:], joined.alpha / 2)


def _give_scale(come: Factors, have: Factors) -> Factors:
    """A change whose scale is in B, with the scale of an adapter of the same rank."""
    if come.rank != have.rank or come.scale != 1:
        return come
    return Factors(come.down, build_unscaled(come.up, have.scale), have.alpha, come.magnitude)


def _take(model: nn.Module, init: str) -> None:
    """Take away what the adapters start with; but not what gives back to a quantized model what it has lost."""
    for _, layer in _list_layers(model, TAKEN_NAME):
        layer.given_back = 1.0 if init == "loftq" else 0.0
    write_strength(model, 1.0)


def _describe(factors: Factors) -> str:
    return f"inputs {factors.down.shape[1]}, outputs {factors.up.shape[0]}, rank {factors.rank}, alpha {factors.alpha:g}" + (
        "" if factors.magnitude is None else ", DoRA"
    )


def _list_exactly(modules: Iterable[str]) -> str:
    """PEFT's pattern for whole names: a list of names would match the ends of others."""
    return "|".join(re.escape(module) for module in modules)


def _build_config(settings: Mapping[str, Setting], *, dropout: float = 0.0, is_gaussian: bool = False) -> LoraConfig:
    """PEFT's settings: the most common rank and alpha, and exceptions by the whole name of the module."""
    ranks = {path: one.rank for path, one in settings.items()}
    alphas = {path: one.file_alpha for path, one in settings.items()}
    rank, alpha = find_most_common(ranks.values()), find_most_common(alphas.values())
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=_list_exactly(settings),
        init_lora_weights="gaussian" if is_gaussian else True,
        rank_pattern={f"^{re.escape(path)}": one for path, one in ranks.items() if one != rank},
        alpha_pattern={f"^{re.escape(path)}": one for path, one in alphas.items() if one != alpha},
    )


def _inject(model: nn.Module, lora: LoraConfig, *, name: str) -> None:
    """Add adapters; whatever is on the model already stays active, and only ADAPTER_NAME learns."""
    lora._register_custom_module({nn.Linear: LowRank})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # the other adapter's
        inject_adapter_in_model(lora, model, adapter_name=name)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            frozen = [one for one in module.lora_A if one != ADAPTER_NAME]
            module.set_adapter([ADAPTER_NAME, *frozen])
            for one in frozen:
                module.set_requires_grad(one, requires_grad=False)


def _put(model: nn.Module, modules: Mapping[str, Factors], *, name: str, what: str) -> None:
    """Add the adapters of a file, with their ranks and alphas: fp32, but what others have made in the model's precision."""
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
    if name != ADAPTER_NAME and any(one.magnitude is not None for one in modules.values()):
        raise AdapterError(f"The {what} is a DoRA.", got="magnitudes", expected="a LoRA", fix="merge it into the model with `weber merge`")
    with torch.random.fork_rng():
        _inject(model, _build_config({path: Setting(one.rank, one.alpha) for path, one in modules.items()}), name=name)
    for path, layer in _list_layers(model, name):
        if any(one.is_meta for one in (*layer.inner.parameters(), *layer.inner.buffers())):
            # PEFT leaves all adapters of such a layer but the first on the host.
            layer.lora_A[name].to("meta")
            layer.lora_B[name].to("meta")
        if name in (ADAPTER_NAME, TAKEN_NAME):
            layer.lora_A[name].float()
            layer.lora_B[name].float()
        magnitude = modules[path].magnitude
        if magnitude is not None:
            layer.lora_magnitude_vector[name] = Lengths(magnitude.to(_build_factors(layer, name).up))
        _copy(modules[path], _build_factors(layer, name))


def _add_lengths(model: nn.Module, start: Mapping[str, Factors], *, read: Read | None) -> None:
    """Make DoRAs of the adapters, with the lengths that the file to start from has, else with those that there are."""
    for path, layer in _list_layers(model, ADAPTER_NAME):
        given = start[path].magnitude if path in start else None
        weight = None if read is None else read(path, layer.inner)
        lengths = layer.measure_lengths(ADAPTER_NAME, weight=weight)
        layer.lora_magnitude_vector[ADAPTER_NAME] = Lengths(lengths if given is None else given.to(lengths))


def _write_orthogonal(fresh: Factors) -> None:
    """A and B of random directions that have nothing in common, so that B A is zero but for rounding; of PEFT's size.

    From https://datta0.github.io/posts/rethink-lora-init, as PEFT's `orthogonal_init`, but in fp32 whatever the model's precision.
    """
    half = fresh.rank // 2
    basis = torch.linalg.qr(torch.randn(fresh.rank, fresh.rank))[0]
    fresh.down.copy_(basis[0::2].T @ torch.randn(half, fresh.down.shape[1]) / 10)
    fresh.up.copy_(torch.randn(fresh.up.shape[0], half) @ basis[1::2] / 10)


def _copy(source: Factors, target: Factors) -> None:
    target.down.copy_(source.down)
    target.up.copy_(source.up)
    if source.magnitude is not None and target.magnitude is not None:
        target.magnitude.copy_(source.magnitude)


def _write_start(model: nn.Module, modules: Mapping[str, Factors]) -> None:
    """Write a file's factors into fresh adapters of the same rank or a larger one, so that the change is the file's.

    The rows of A beyond the file's rank stay as drawn, and the columns of B zero, as in a fresh adapter. B has the file's scale. Saved
    again, they give the file's bits.
    """
    for path, fresh in list_factors(model).items():
        if path in modules:
            come = modules[path]
            fresh.down[: come.rank] = come.down
            fresh.up[:, : come.rank] = come.up if come.scale == fresh.scale else build_unscaled(come.build_baked().up, fresh.scale)
