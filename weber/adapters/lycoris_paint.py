"""Changes in forms of LyCORIS from a file on a network, to paint with them at any strength."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from weber.adapters.lycoris import Change, add_change
from weber.adapters.lycoris_files import LycorisFile
from weber.adapters.lycoris_forms import LENGTHS, find_scale
from weber.adapters.lycoris_layers import LayerChange
from weber.adapters.lycoris_names import BIAS
from weber.config.lycoris import LycorisConfig, LycorisLayer
from weber.errors import AdapterError


def load_lycoris_onto(model: nn.Module, file: LycorisFile) -> None:
    """Put the changes of a file on a model: fp32. Raises AdapterError where they do not fit, or where only the merged weights can have
    them."""
    whole = [*file.fused, *(name for name, one in file.changes.items() if set(one.tensors) == {BIAS})]
    if whole:
        raise AdapterError(
            "The adapter changes layers in a way that only merged weights can have.",
            got=f"{whole[0]}, which is several layers here or has a change of its bias alone",
            fix="merge it into the model (`weber merge FILE --base MODEL --out merged.safetensors`), and paint with that",
        )
    layers = dict(model.named_modules())
    for name, one in file.changes.items():
        layer = layers.get(name)
        if not isinstance(layer, nn.Linear) or not _fits(one, layer):
            raise AdapterError(
                "The adapter is not for this model.",
                got=f"a change of {name} with {one.num_outputs} outputs and {one.num_inputs or 'any'} inputs",
                expected="no change of it" if not isinstance(layer, nn.Linear) else f"{layer.out_features} and {layer.in_features}",
                fix="choose the model that the adapter was trained on",
            )
        add_change(layer, _build_change(name, one))


def _fits(change: LayerChange, layer: nn.Linear) -> bool:
    return change.num_outputs == layer.out_features and change.num_inputs in (None, layer.in_features)


def _build_change(name: str, one: LayerChange) -> Change:
    tensors = one.read()
    lengths = tensors.get(LENGTHS)
    is_on_out = lengths is None or lengths.shape[-1] == 1
    settings = LycorisLayer(algo=cast(Any, one.algo), weight_decompose=lengths is not None, wd_on_out=is_on_out)
    change = Change(name, settings, tensors=tensors, config=LycorisConfig())
    change.alpha, change.scale = one.alpha, find_scale(one.alpha, tensors)
    return change.requires_grad_(False)
