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

from weber.cache.key import build_latent_key, build_text_key
from weber.cache.store import Store
from weber.data.batches import Draw
from weber.families.family import Family
from weber.training.plan import Plan


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `latents_BCHW` fp32 and `condition` are on the device; `places` are the samples' places in the step."""

    latents_BCHW: Tensor
    condition: dict[str, Tensor]
    places: tuple[int, ...]
    names: tuple[str, ...]


class TextReader:
    """Reads what the text parts made of a caption."""

    def __init__(self, store: Store, family: Family, *, dtype: torch.dtype) -> None:
        self._store, self._dtype = store, dtype
        self._encoders = [family.identify(part) for part in family.text_parts]

    def read(self, caption: str) -> dict[str, Tensor]:
        """The tensors of one caption, without a batch dimension."""
        tensors: dict[str, Tensor] = {}
        for encoder in self._encoders:
            tensors |= self._store.read(build_text_key(caption, encoder=encoder, dtype=self._dtype))
        return tensors


class Loader:
    """Reads the batches of a step; the next step is read in a thread while this one is trained on. Enter it as a context."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._texts = TextReader(store, plan.family, dtype=plan.dtype)
        self._image_encoder = plan.family.identify(plan.family.image_part)
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
        return [self._load_batch(draws) for draws in self._plan.batches.draw_step(step)]

    def _load_batch(self, draws: Sequence[Draw]) -> Batch:
        latents, texts, names = [], [], []
        for draw in draws:
            example = self._plan.dataset.examples[draw.example]
            key = build_latent_key(example, example.crops[draw.crop], encoder=self._image_encoder, dtype=self._plan.dtype)
            latents.append(self._store.read(key)["latents"])
            texts.append(self._texts.read(example.captions[draw.caption]))
            names.append(str(example.path))
        device = self._plan.device
        condition = {name: torch.stack([text[name] for text in texts]).to(device) for name in texts[0]}
        return Batch(torch.stack(latents).to(device).float(), condition, tuple(draw.place for draw in draws), tuple(names))

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
