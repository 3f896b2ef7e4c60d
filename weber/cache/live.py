"""Texts that are kept in no cache: their encoders stay in memory and encode when they are asked."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import torch
from torch import Tensor, nn

from weber.cache.encode import Encoders

MOST_BYTES = 2**30
"""Of what is remembered on the host."""


class LiveTexts:
    """The text encoders of a model, loaded when the first text is asked for. Any thread may ask.

    A text is encoded by itself, so that it has the same bits whatever is asked beside it; the last ones are remembered.
    """

    def __init__(self, encoders: Encoders, *, most_bytes: int = MOST_BYTES) -> None:
        self._encoders, self._most_bytes, self._num_bytes = encoders, most_bytes, 0
        self._modules: dict[str, nn.Module] = {}
        self._known: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._lock = Lock()
        self.num_encoded = 0
        """How many texts had to be encoded so far."""

    def read(self, text: str) -> dict[str, Tensor]:
        """What all text parts make of a text, without a batch dimension, on the host."""
        with self._lock:
            if text not in self._known:
                self._remember(text, self._encode(text))
            self._known.move_to_end(text)
            return dict(self._known[text])

    def _encode(self, text: str) -> dict[str, Tensor]:
        encoders, tensors = self._encoders, dict[str, Tensor]()
        self.num_encoded += 1
        with torch.no_grad():
            for part in encoders.family.text_parts:
                if part not in self._modules:
                    self._modules[part] = encoders.load(part)
                tensors |= encoders.encode_prompts(part, self._modules[part], [text])
        kept = {name: tensor[0].to(encoders.dtype) if tensor.is_floating_point() else tensor[0] for name, tensor in tensors.items()}
        return {name: tensor.cpu() for name, tensor in kept.items()}

    def _remember(self, text: str, tensors: dict[str, Tensor]) -> None:
        self._known[text] = tensors
        self._num_bytes += _count_bytes(tensors)
        while self._num_bytes > self._most_bytes and len(self._known) > 1:
            self._num_bytes -= _count_bytes(self._known.popitem(last=False)[1])


def _count_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
