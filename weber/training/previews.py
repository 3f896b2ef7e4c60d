"""Previews of the picture that is being painted, for whoever looks into the run folder or is told by webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from weber.data.views import read_pixels
from weber.families.tiny import load_tiny
from weber.planning.plan import Plan
from weber.sampling.euler import Painting
from weber.sampling.preview import NAME, Decode, build_preview, fit_projection, save_preview, spread
from weber.track.events import build_preview as build_event
from weber.track.webhooks import Messages
from weber.training.batch import Reader

_NUM_FITTED = 16


class Previews:
    """Made by a tiny decoder, else by colors that are fitted to the first training pictures, as `sampling.preview_model` says."""

    def __init__(self, plan: Plan, *, reader: Reader, messages: Messages) -> None:
        self._plan, self._reader, self._messages = plan, reader, messages
        self._every = plan.resolved.sampling.preview_every
        self._file = plan.resolved.output.folder / NAME
        self._decode: Decode | None = None

    def watch(self, painting: Painting, prompt: str, *, step: int) -> Painting:
        """The same, of which previews are shown, where they are wanted; it is painted after `step` steps of the run."""
        return painting if self._every is None else replace(painting, watch=partial(self._watch, prompt, step, self._every))

    def _watch(self, prompt: str, step: int, every: int, done: int, total: int, latents_1CHW: Tensor) -> None:
        if done % every != 0 or done == total:
            return
        if self._decode is None:
            self._decode = self._open(latents_1CHW)
        save_preview(build_preview(self._decode, spread(latents_1CHW, self._plan.family.latent_patch)), self._file)
        self._messages.tell(build_event(self._file, prompt, step=step, done=done, total=total))

    def _open(self, latents_1CHW: Tensor) -> Decode:
        place = self._plan.resolved.sampling.preview_model
        return fit_projection(self._list_pairs()) if place is None else load_tiny(place).to(latents_1CHW.device)

    def _list_pairs(self) -> Iterator[tuple[Tensor, NDArray[np.uint8]]]:
        """Latents and pixels of a few pictures that are learned."""
        examples = self._plan.dataset.examples
        for number in range(min(_NUM_FITTED, len(examples))):
            view = examples[number].target(0)
            latents = self._reader.read_latents(view).float()
            yield spread(latents[None], self._plan.family.latent_patch)[0], read_pixels(view, self._plan.dataset.files)
