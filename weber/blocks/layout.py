"""Two lists of recorded calls, forward and backward, as lists that can be run again, over memory that stays where it is.

What the second list reads of what the first one made lies in memory of its own; what only one of them needs lies where all such lists have
it. Gradients of what learns lie behind each other in memory that nothing else is in.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from weber.blocks.arena import Life, line_up, move, place
from weber.blocks.record import Call, Step, UnrecordableError, build_steps, find_made, find_memory, swap_tensors
from weber.blocks.trim import trim

_SCRATCH: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
"""Memory for what is needed only while a list runs, by its size."""


class Layout:
    """Where everything is, and the lists: `ahead` and `back`, to be called one after the other.

    `outputs` last until the first list has run, `input_grads` until the second one has; `own_grads` are in the memory `grads`.
    `most_bytes`: what is larger is made again rather than kept.
    """

    def __init__(
        self,
        ahead: Sequence[Call],
        back: Sequence[Call],
        *,
        most_bytes: int,
        outputs: Sequence[Tensor],
        input_grads: Sequence[Tensor],
        own_grads: Sequence[Tensor],
    ) -> None:
        """Raises UnrecordableError."""
        self._moved = dict[int, tuple[Tensor, Tensor]]()
        self._places = dict[int, tuple[Tensor, int]]()
        fixed = [find_memory(one) for one in (*outputs, *input_grads, *own_grads)]
        left, self._same = trim([*ahead, *back], fixed=fixed, most_bytes=most_bytes)
        kept = set(map(id, left))
        first, second = (build_steps([call for call in calls if id(call) in kept]) for calls in (ahead, back))
        border, end = len(first), len(first) + len(second)
        made = find_made([*ahead, *back])
        if any(find_memory(one) not in made for call in left for one in call.written):
            raise UnrecordableError("something that was there before is written")
        lives = self._find_lives([*first, *second], made)
        for tensors, last in ((outputs, border - 1), (input_grads, end)):
            for memory in map(find_memory, tensors):
                if memory in lives:
                    lives[memory].last = max(lives[memory].last, last)
        own = {memory: lives.pop(memory) for memory in dict.fromkeys(map(find_memory, own_grads)) if memory in lives}
        if any(find_memory(one) not in own for one in own_grads) or any(life.first < border for life in own.values()):
            raise UnrecordableError("a gradient that was there before")

        self.grads = self._put(*line_up(own))
        self._put(*line_up({memory: life for memory, life in lives.items() if life.first < border <= life.last}))
        places = [
            place({memory: life for memory, life in lives.items() if life.last < border}),
            place({memory: life for memory, life in lives.items() if life.first >= border}),
        ]
        size = max(num_bytes for _, num_bytes in places)
        self.scratch = _SCRATCH.setdefault(size, _build_memory(size))
        for starts, _ in places:
            self._put(starts, size, self.scratch)
        self.ahead, self.back = [self._build_call(step) for step in first], [self._build_call(step) for step in second]

    def move(self, tensor: Tensor) -> Tensor:
        """A tensor of the recorded calls, as those of the lists have it."""
        if id(tensor) not in self._moved:
            found = self._places.get(self._find(tensor))
            self._moved[id(tensor)] = tensor, tensor.detach() if found is None else move(tensor, found[0], start=found[1])
        return self._moved[id(tensor)][1]

    def _find(self, tensor: Tensor) -> int:
        memory = find_memory(tensor)
        return self._same.get(memory, memory)

    def _find_lives(self, steps: Iterable[Step], made: set[int]) -> dict[int, Life]:
        """Of the memory that was made."""
        lives = dict[int, Life]()
        for number, step in enumerate(steps):
            for tensor in step.list_tensors():
                memory = self._find(tensor)
                if memory in lives:
                    lives[memory].last = number
                elif memory in made:
                    lives[memory] = Life(tensor.untyped_storage().nbytes(), number, number)
        return lives

    def _put(self, starts: dict[int, int], num_bytes: int, memory: Tensor | None = None) -> Tensor:
        memory = _build_memory(num_bytes) if memory is None else memory
        self._places |= {key: (memory, start) for key, start in starts.items()}
        return memory

    def _build_call(self, step: Step) -> Callable[[], object]:
        args, kwargs, copies = swap_tensors((step.args, step.kwargs, step.copies), self.move)
        return partial(_copy_from, copies, step.function, *args, **kwargs) if copies else partial(step.function, *args, **kwargs)


def _copy_from(copies: Sequence[Tensor], function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    found = function(*args, **kwargs)
    found = [found] if isinstance(found, Tensor) else [one for one in found if isinstance(one, Tensor)]
    for own, one in zip(copies, found, strict=True):
        own.copy_(one)


def _build_memory(num_bytes: int) -> Tensor:
    return torch.empty(num_bytes, dtype=torch.uint8)
