"""An optimizer's state as named tensors, so that a checkpoint holds no pickles and needs no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weber.errors import CheckpointError
from weber.optim.libraries import Adopted
from weber.optim.stepper import Stepper
from weber.optim.trees import decode_tree, encode_tree, is_tensor

Named = Sequence[tuple[str, nn.Parameter]]

_OPTIMIZER, _STEPS, _GROUPS, _SHARED, _WEIGHTS = "optimizer", "num_steps:int", "num_groups:int", "shared", "weights"
_GROUP = "group:"
_NO_STATE = {"params", "lr", "rate"}
"""Of a group; everything else in it is state as soon as it differs from the optimizer's defaults."""


def list_states(optimizer: torch.optim.Optimizer, parameters: Named) -> dict[str, Tensor]:
    """`<parameter>/<state>` to tensor, and `group:<number>/<state>` of what all its parameters share.

    Of an optimizer that trains with other numbers than those that it ends with, these too, as `<parameter>/weights`.
    """
    if isinstance(optimizer, Stepper):
        optimizer.wait()
    states: dict[str, Tensor] = {}
    for name, parameter in parameters:
        for key, value in optimizer.state[parameter].items():
            device = None if getattr(value, "is_paged", False) else parameter.device  # paged memory looks as if it were the host's
            states |= encode_tree(f"{name}/{key}", value, device=device)
    if isinstance(optimizer, Adopted) and optimizer.num_steps:
        for number, group in enumerate(optimizer.param_groups):
            for key, value in group.items():
                if key not in _NO_STATE and not _is_default(optimizer, key, value):
                    states |= encode_tree(f"{_GROUP}{number}/{key}", value)
        counts = {_STEPS: optimizer.num_steps, _GROUPS: len(optimizer.param_groups)}
        states |= {f"{_OPTIMIZER}/{key}": torch.tensor(count) for key, count in counts.items()}
        shared = {key: value for key, value in optimizer.state.items() if isinstance(key, str)}
        states |= encode_tree(f"{_OPTIMIZER}/{_SHARED}", shared) if shared else {}
        if optimizer.has_modes:
            states |= {f"{name}/{_WEIGHTS}": parameter.detach() for name, parameter in parameters}
    return states


def load_states(optimizer: torch.optim.Optimizer, parameters: Named, *, tensors: Mapping[str, Tensor]) -> None:
    """Write what `list_states` gave back into a fresh optimizer. Raises CheckpointError where it does not fit the parameters."""
    by_name = dict(parameters)
    owned: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, state = key.partition("/")
        owned.setdefault(name, {})[state] = tensor
    for name, states in sorted(owned.items(), key=lambda one: one[0] != _OPTIMIZER):
        if isinstance(optimizer, Adopted) and name == _OPTIMIZER:
            has_groups = any(other.startswith(_GROUP) for other in owned)
            _check_groups(int(states[_GROUPS]) if has_groups else None, optimizer)
            optimizer.num_steps = int(states[_STEPS])
            optimizer.state.update(_decode(name, states).get(_SHARED, {}))
        elif isinstance(optimizer, Adopted) and name.startswith(_GROUP):
            optimizer.param_groups[int(name.removeprefix(_GROUP))].update(_decode(name, states))
        elif name not in by_name:
            raise _not_ours(name)
        elif isinstance(optimizer, Stepper):
            _load_stepper(optimizer, name, by_name[name], states)
        else:
            optimizer.state[by_name[name]].update(_load_library(optimizer, name, by_name[name], states))


def _is_default(optimizer: Adopted, key: str, value: object) -> bool:
    default = optimizer.defaults.get(key, _NO_STATE)
    is_tensor_like = isinstance(value, Tensor) or isinstance(default, Tensor)  # which may be the default itself, changed in place
    return not is_tensor_like and type(value) is type(default) and value == default


def _check_groups(saved: int | None, optimizer: Adopted) -> None:
    """What groups share can only be put back into as many: learning rates of single layers may not come or go."""
    num_groups = len(optimizer.param_groups)
    if saved not in (None, num_groups):
        raise _not_ours(f"{saved} groups of parameters, where there are {num_groups} now")


def _load_stepper(optimizer: Stepper, name: str, parameter: nn.Parameter, states: Mapping[str, Tensor]) -> None:
    for state, tensor in states.items():
        if not optimizer.write_state(parameter, state, tensor=tensor):
            raise _not_ours(f"{name}/{state} of shape {tuple(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}")


def _load_library(
    optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter, states: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What a library's optimizer keeps for a parameter; where it trained with other numbers, they are put into the parameter."""
    placed: dict[str, Tensor] = {}
    for state, tensor in states.items():
        if state == _WEIGHTS and isinstance(optimizer, Adopted) and optimizer.has_modes:
            with torch.no_grad():
                parameter.copy_(tensor)
        elif is_tensor(state) and isinstance(optimizer, Adopted):
            placed[state] = optimizer.load_tensor(parameter, state, tensor=tensor)
        else:
            placed[state] = tensor.to(parameter.device, copy=True) if is_tensor(state) else tensor
    return _decode(name, placed)


def _decode(name: str, states: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        return decode_tree(states)
    except (ValueError, KeyError, AttributeError) as error:
        raise _not_ours(f"{name}: {error}") from error


def _not_ours(got: str) -> CheckpointError:
    return CheckpointError(
        "The checkpoint's optimizer state is of another adapter or optimizer.", got=got, fix="resume with the settings of the run"
    )
