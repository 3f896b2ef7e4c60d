"""How far a step moves the weights, and how large their gradients are, by groups of blocks. Made for one step now and then: it copies a
part of the weights, and computes on the device what the host then waits for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from weber.track.signals import GRADIENT, UPDATE

_MOST = 1 << 12
"""Of the numbers of a tensor that are looked at."""
_TINY = 1e-30
_NUMBER = re.compile(r"\.\d+\.")


class Probe:
    """Made before a step, and read after it."""

    def __init__(self, parameters: Sequence[tuple[str, nn.Parameter]], *, sums: list[Callable[[], None]] | None = None) -> None:
        """`sums`: what is called when gradients are complete, where they are those of several processes."""
        self._parameters = [(_find_group(name), parameter) for name, parameter in parameters]
        self._before = [_sample(parameter).clone() for _, parameter in self._parameters]
        self._norms: list[Tensor | None] = [None] * len(parameters)
        if sums is not None:
            sums.append(self._look_at_all)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._look, place))  # type: ignore[no-untyped-call]
            for place, (_, parameter) in enumerate(self._parameters)
            if sums is None
        ]

    def read(self) -> dict[str, float]:
        """Numbers by their names; waits for the device. Where gradients are used as they arrive there are none of them."""
        for hook in self._hooks:
            hook.remove()
        gradients: dict[str, list[Tensor]] = {}
        for (group, _), norm in zip(self._parameters, self._norms, strict=True):
            if norm is not None:
                gradients.setdefault(group, []).append(norm)
        moved: dict[str, list[Tensor]] = {}
        sizes: dict[str, list[Tensor]] = {}
        for (group, parameter), before in zip(self._parameters, self._before, strict=True):
            moved.setdefault(group, []).append((_sample(parameter).to(before.device) - before).norm().float())
            sizes.setdefault(group, []).append(before.norm().float())
        ways, lengths, norms = _add(moved), _add(sizes), _add(gradients)
        updates = {f"{UPDATE}{group}": way / max(lengths[group], _TINY) for group, way in ways.items() if lengths[group] > 0}
        return updates | {f"{GRADIENT}{group}": norm for group, norm in norms.items()}

    def _look_at_all(self) -> None:
        for place, (_, parameter) in enumerate(self._parameters):
            self._look(place, parameter)

    def _look(self, place: int, parameter: Tensor) -> None:
        """After each backward pass of the step: the gradients of all until then."""
        if parameter.grad is not None:
            self._norms[place] = parameter.grad.norm().float()


def _find_group(name: str) -> str:
    """The blocks that a parameter is in; of what is in none, the name of its layer."""
    return _NUMBER.split(name, maxsplit=1)[0] if _NUMBER.search(name) else name.partition(".")[0]


@torch.no_grad()
def _sample(parameter: nn.Parameter) -> Tensor:
    """Some of its numbers, always the same ones, on its own device."""
    flat = parameter.detach().reshape(-1)
    return flat[:: -(-len(flat) // _MOST)].float()


def _add(found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """The norm of all parts of each group."""
    return {group: float(torch.stack([part.cpu() for part in parts]).norm()) for group, parts in found.items()}
