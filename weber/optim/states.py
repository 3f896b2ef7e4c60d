"""An optimizer's state as named tensors, so that a checkpoint holds no pickles and needs no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from weber.errors import CheckpointError
from weber.optim.stepper import Stepper

Named = Sequence[tuple[str, nn.Parameter]]


def list_states(optimizer: torch.optim.Optimizer, parameters: Named) -> dict[str, Tensor]:
    """`<parameter>/<state>` to tensor."""
    if isinstance(optimizer, Stepper):
        optimizer.wait()
    return {
        f"{name}/{key}": value.detach() for name, parameter in parameters for key, value in optimizer.state[parameter].items()
    }


def load_states(optimizer: torch.optim.Optimizer, parameters: Named, *, tensors: Mapping[str, Tensor]) -> None:
    """Write what `list_states` gave back into a fresh optimizer. Raises CheckpointError where it does not fit the parameters."""
    by_name = dict(parameters)
    for key, tensor in tensors.items():
        name, state = key.rsplit("/", 1)
        if name not in by_name:
            raise _not_ours(name)
        parameter = by_name[name]
        if not isinstance(optimizer, Stepper):
            device = torch.device("cpu") if tensor.ndim == 0 and optimizer.defaults.get("fused") is None else parameter.device
            optimizer.state[parameter][state] = tensor.to(device)
        elif not optimizer.write_state(parameter, state, tensor=tensor):
            raise _not_ours(f"{key} of shape {tuple(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}")


def _not_ours(got: str) -> CheckpointError:
    return CheckpointError(
        "The checkpoint's optimizer state is of another adapter or optimizer.", got=got, fix="resume with the settings of the run"
    )
