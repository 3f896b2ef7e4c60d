"""The assistant: a LoRA that takes part while training, so that a distilled model can be trained, and is left out of pictures."""

from __future__ import annotations

from torch import nn

from weber.adapters.files import AdapterFile, load_adapter
from weber.config.model import ModelConfig
from weber.errors import AdapterError
from weber.families.family import Family
from weber.families.places import find_file
from weber.training.checks import NO_ASSISTANT


def load_assistant(config: ModelConfig, family: Family) -> AdapterFile | None:
    """The assistant of a run, from a file or the hub, checked against the model; None where it has none.

    Raises ModelError or AdapterError in words, before the model is read.
    """
    place = family.assistant if config.assistant is None else config.assistant
    if place is None or place == NO_ASSISTANT:
        return None
    adapter = load_adapter(find_file("model.assistant", place))
    skeleton = family.load_skeleton()
    shapes = {name: (one.in_features, one.out_features) for name, one in skeleton.named_modules() if isinstance(one, nn.Linear)}
    for name, factors in adapter.modules.items():
        if shapes.get(name) != (factors.down.shape[1], factors.up.shape[0]) or factors.magnitude is not None:
            raise AdapterError(
                "The assistant is not for this model." if factors.magnitude is None else "The assistant is a DoRA, which cannot take part.",
                got=f"{name} with {factors.down.shape[1]} inputs and {factors.up.shape[0]} outputs in {place}",
                expected=f"{name} with {shapes[name][0]} inputs and {shapes[name][1]} outputs" if name in shapes else f"no {name}",
                fix='set model.assistant to a LoRA for this model, or to "off"',
            )
    return adapter
