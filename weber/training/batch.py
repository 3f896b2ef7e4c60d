"""From the plan of a step to tensors: reads the cache, one step ahead of the training.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from weber.cache.encode import Encoders
from weber.cache.key import build_latent_key, build_text_key
from weber.cache.store import Store
from weber.data.batches import Draw
from weber.data.views import View
from weber.families.family import REFERENCE
from weber.training.plan import Plan
from weber.training.prompts import Prompt


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `latents_BCHW` fp32 and `condition` are on the device; `places` are the samples' places in the step."""

    latents_BCHW: Tensor
    condition: dict[str, Tensor]
    places: tuple[int, ...]
    names: tuple[str, ...]


class Reader:
    """Reads from the cache what the encoders made. No tensor has a batch dimension."""

    def __init__(self, store: Store, encoders: Encoders) -> None:
        self._store, self._dtype = store, encoders.dtype
        self._text_encoders = [encoders.identify(part) for part in encoders.family.text_parts]
        self._image_encoder = encoders.identify(encoders.family.image_part)

    def read_text(self, text: str) -> dict[str, Tensor]:
        """What all text parts made of a caption or prompt."""
        tensors: dict[str, Tensor] = {}
        for encoder in self._text_encoders:
            tensors |= self._store.read(build_text_key(text, encoder=encoder, dtype=self._dtype))
        return tensors

    def read_latents(self, view: View) -> Tensor:
        """The latents of a picture."""
        return self._read_view(view)["latents"]

    def read_pictures(self, references: Sequence[View], masked: View | None) -> dict[str, Tensor]:
        """What the network is told of reference pictures, and of a picture that is to be repainted."""
        tensors = {f"{REFERENCE}{number}": self.read_latents(view) for number, view in enumerate(references)}
        return tensors | ({} if masked is None else self._read_view(masked))

    def read_prompt(self, prompt: Prompt) -> dict[str, Tensor]:
        """Everything that the network is told for a prompt."""
        return self.read_text(prompt.text) | self.read_pictures(prompt.references, prompt.masked)

    def _read_view(self, view: View) -> dict[str, Tensor]:
        return self._store.read(build_latent_key(view, encoder=self._image_encoder, dtype=self._dtype))


@dataclass(frozen=True)
class _Sample:
    latents: Tensor
    condition: dict[str, Tensor]
    place: int
    name: str

    @property
    def shapes(self) -> tuple[tuple[str, torch.Size], ...]:
        """Samples of equal shapes can be stacked."""
        return ("", self.latents.shape), *((name, tensor.shape) for name, tensor in sorted(self.condition.items()))


class Loader:
    """Reads the batches of a step; the next step is read in a thread while this one is trained on. Enter it as a context."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._reader = Reader(store, plan.encoders)
        self._ahead: tuple[int, Future[list[Batch]]] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weber-loader")

    def load(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        ahead, self._ahead = self._ahead, None
        batches = ahead[1].result() if ahead is not None and ahead[0] == step else self._load(step)
        if step + 1 < self._plan.num_steps:
            self._ahead = (step + 1, self._thread.submit(self._load, step + 1))
        return batches

    def _load(self, step: int) -> list[Batch]:
        return [batch for draws in self._plan.batches.draw_step(step) for batch in self._load_batches(draws)]

    def _load_batches(self, draws: Sequence[Draw]) -> list[Batch]:
        """One micro-batch, or several where texts or references have different sizes: each sample weighs the same in any case."""
        groups: dict[object, list[_Sample]] = {}
        for draw in draws:
            sample = self._load_sample(draw)
            groups.setdefault(sample.shapes, []).append(sample)
        return [self._stack(samples) for samples in groups.values()]

    def _load_sample(self, draw: Draw) -> _Sample:
        example, reader = self._plan.dataset.examples[draw.example], self._reader
        condition = reader.read_text(example.captions[draw.caption])
        condition |= reader.read_pictures(example.list_references(draw.crop), example.masked(draw.crop, draw.mask))
        return _Sample(reader.read_latents(example.target(draw.crop)), condition, draw.place, str(example.path))

    def _stack(self, samples: Sequence[_Sample]) -> Batch:
        device = self._plan.device
        latents = torch.stack([sample.latents for sample in samples]).to(device).float()
        condition = {name: torch.stack([sample.condition[name] for sample in samples]).to(device) for name in samples[0].condition}
        return Batch(latents, condition, tuple(sample.place for sample in samples), tuple(sample.name for sample in samples))

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
