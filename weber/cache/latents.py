"""Pictures to latents in the cache, in batches of one size, while the next pictures are being read."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weber.cache.encode import Encoders, Task, encode_batches
from weber.cache.key import build_latent_key
from weber.cache.share import WHOLE, Share
from weber.cache.store import Store
from weber.data.backends.backend import Backend
from weber.data.backends.sources import LOCAL
from weber.data.views import View, read_mask, read_pixels
from weber.families.family import Family
from weber.progress import Progress, ignore_progress

_NUM_READERS = max(4, os.cpu_count() or 1)
_NUM_BATCHES_AHEAD = 2
_MASKED_NAMES = ("masked", "mask")

_Item = tuple[str, View]
_Pixels = NDArray[np.uint8]
_Inputs = tuple[Tensor, Tensor | None]
"""Pixels, and masks of views that have them."""


def encode_latents(
    store: Store,
    views: Iterable[View],
    *,
    encoders: Encoders,
    batch_size: int,
    files: Backend = LOCAL,
    share: Share = WHOLE,
    progress: Progress = ignore_progress,
) -> int:
    """Encode the views of a `share` that the cache lacks; their number. If it lacks none the encoder is not loaded.

    Sample `build_latent_key(view, encoder=encoders.identify(image_part), dtype=encoders.dtype)` then holds what `encode_images` of the
    family returns, without the first dimension; of a view with a mask, `masked` and `mask` alone. DataError names a picture that can no
    longer be read or was changed since the views were made; what was encoded before it is kept.
    """
    part, dtype = encoders.family.image_part, encoders.dtype
    keyed = {build_latent_key(view, encoder=encoders.identify(part), dtype=dtype): view for view in views}
    missing = {key: view for key, view in keyed.items() if share.has(key) and key not in store}
    batches = _list_batches(missing, batch_size=batch_size)
    total = sum(len(batch) for batch in batches)
    if not total:
        return 0
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        encode_batches(
            store,
            _read_ahead(batches, pool, files, encoders.device),
            load=partial(encoders.load, part),
            encode=partial(_encode, encoders.family),
            dtype=dtype,
            task=Task("encoding pictures", total, progress),
        )
    return total


def _list_batches(missing: Mapping[str, View], *, batch_size: int) -> list[list[_Item]]:
    groups: dict[object, list[_Item]] = {}
    for key, view in missing.items():
        groups.setdefault((view.crop.width, view.crop.height, view.mask is None), []).append((key, view))
    return [items[start : start + batch_size] for items in groups.values() for start in range(0, len(items), batch_size)]


def _read_ahead(
    batches: Sequence[Sequence[_Item]], pool: ThreadPoolExecutor, files: Backend, device: torch.device
) -> Iterator[tuple[list[str], _Inputs]]:
    waiting: deque[tuple[list[str], Callable[[], _Inputs]]] = deque()
    for batch in batches:
        views = [view for _, view in batch]
        pictures = [pool.submit(read_pixels, view, files) for view in views]
        masks = [pool.submit(read_mask, view, files) for view in views if view.mask is not None]
        waiting.append(([key for key, _ in batch], partial(_build_inputs, pictures, masks, device)))
        if len(waiting) > _NUM_BATCHES_AHEAD:
            keys, build = waiting.popleft()
            yield keys, build()
    while waiting:
        keys, build = waiting.popleft()
        yield keys, build()


def _build_inputs(pictures: Sequence[Future[_Pixels]], masks: Sequence[Future[_Pixels]], device: torch.device) -> _Inputs:
    pixels = torch.from_numpy(np.stack([picture.result() for picture in pictures])).to(device)
    pixels = pixels.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)
    if not masks:
        return pixels, None
    return pixels, torch.from_numpy(np.stack([mask.result() for mask in masks])).to(device).unsqueeze(1).float().div_(255.0)


def _encode(family: Family, encoder: nn.Module, inputs: _Inputs) -> dict[str, Tensor]:
    pixels, masks = inputs
    if masks is None:
        return family.encode_images(encoder, pixels)
    encoded = family.encode_images(encoder, pixels, masks=masks)
    return {name: encoded[name] for name in _MASKED_NAMES}
