"""Pictures to latents in the cache, in batches of one bucket, while the next pictures are being read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weber.cache.encode import encode_batches
from weber.cache.key import build_latent_key
from weber.cache.store import Store
from weber.data.crops import Crop
from weber.data.examples import Example, read_pixels
from weber.families.family import Family
from weber.progress import Progress, ignore_progress

_NUM_READERS = 4
_NUM_BATCHES_AHEAD = 2

_Item = tuple[str, Example, Crop]
_Pixels = NDArray[np.uint8]


def encode_latents(
    store: Store,
    examples: Iterable[Example],
    *,
    family: Family,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    progress: Progress = ignore_progress,
) -> int:
    """Encode the crops that the cache lacks; their number. If it lacks none the encoder is not loaded.

    Sample `build_latent_key(example, crop, encoder=family.identify(family.image_part), dtype=dtype)` then holds what
    `family.encode_images` returns, without the first dimension. DataError names a picture that can no longer be
    read or was changed since the examples were made; what was encoded before it is kept.
    """
    batches = _list_batches(store, examples, identity=family.identify(family.image_part), dtype=dtype, batch_size=batch_size)
    total = sum(len(batch) for batch in batches)
    if not total:
        return 0
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        encode_batches(
            store,
            _read_ahead(batches, pool, device),
            load=partial(family.load, family.image_part, device=device, dtype=dtype),
            encode=family.encode_images,
            dtype=dtype,
            progress=progress,
            what="encoding pictures",
            total=total,
        )
    return total


def _list_batches(store: Store, examples: Iterable[Example], *, identity: str, dtype: torch.dtype, batch_size: int) -> list[list[_Item]]:
    missing: dict[str, _Item] = {}
    for example in examples:
        for crop in example.crops:
            key = build_latent_key(example, crop, encoder=identity, dtype=dtype)
            if key not in store:
                missing.setdefault(key, (key, example, crop))
    buckets: dict[object, list[_Item]] = {}
    for item in missing.values():
        buckets.setdefault(item[1].bucket, []).append(item)
    return [items[start : start + batch_size] for items in buckets.values() for start in range(0, len(items), batch_size)]


def _read_ahead(batches: Sequence[Sequence[_Item]], pool: ThreadPoolExecutor, device: torch.device) -> Iterator[tuple[list[str], Tensor]]:
    waiting: deque[tuple[list[str], list[Future[_Pixels]]]] = deque()
    for batch in batches:
        waiting.append(([key for key, _, _ in batch], [pool.submit(read_pixels, example, crop) for _, example, crop in batch]))
        if len(waiting) > _NUM_BATCHES_AHEAD:
            yield _build_inputs(*waiting.popleft(), device)
    while waiting:
        yield _build_inputs(*waiting.popleft(), device)


def _build_inputs(keys: list[str], pictures: list[Future[_Pixels]], device: torch.device) -> tuple[list[str], Tensor]:
    pixels = torch.from_numpy(np.stack([picture.result() for picture in pictures])).to(device)
    return keys, pixels.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)
