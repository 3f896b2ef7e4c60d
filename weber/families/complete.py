"""Whether all of a model is there: names and shapes in the headers of its files beside those of the library's class."""

from __future__ import annotations

from torch import nn

from weber.errors import ModelError
from weber.families.tensors import Weights

_NUM_SHOWN = 3


def check_complete(weights: Weights, skeleton: nn.Module, *, where: str, exactly: bool) -> None:
    """Raise ModelError where tensors are missing or have other shapes; with `exactly` also where there are more than the model has."""
    wanted = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    missing = [name for name in wanted if name not in weights]
    misshaped = [name for name, shape in wanted.items() if name in weights and weights[name].shape != shape]
    unknown = [name for name in weights if name not in wanted] if exactly else []
    for names, what in ((missing, "missing"), (misshaped, "of another shape"), (unknown, "not of the model")):
        if names:
            raise ModelError(
                "The weights of the transformer are not those of its configuration.",
                got=f"{where}: {len(names)} tensors are {what}: {', '.join(names[:_NUM_SHOWN])}" + (", ..." if names[_NUM_SHOWN:] else ""),
                expected=f"the {len(wanted)} tensors of a {type(skeleton).__name__}",
                fix="download the model again; if you made it yourself, save it with the library's save_pretrained",
            )
