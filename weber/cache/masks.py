"""Masks for the loss in the cache, at the latents' size, so that a step reads no picture file."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from weber.cache.key import build_mask_key
from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.data.backends.backend import Backend
from weber.data.backends.sources import LOCAL
from weber.data.loss_masks import LossWindow
from weber.data.views import read_loss_mask
from weber.families.family import Family
from weber.progress import Progress, ignore_progress

MASK_NAME = "loss_mask"
_NUM_PER_PORTION = 64  # what waits in memory, read and not yet stored
_WHAT = "reading the loss masks"


def find_shape(window: LossWindow, family: Family) -> tuple[int, int]:
    """(H, W) of the latents of the window's picture."""
    _, height, width = family.latent_shape(window.crop.height, window.crop.width)
    return height, width


def encode_loss_masks(
    store: Store, windows: Iterable[LossWindow], *, family: Family, files: Backend = LOCAL, progress: Progress = ignore_progress
) -> int:
    """Store the masks that the cache lacks; their number.

    Sample `build_mask_key(window, shape=...)` then holds `loss_mask` (1, H, W) fp32, 0..1. DataError names a file that can no longer be
    read or was changed since the windows were made; what was stored before it is kept.
    """
    keyed = {build_mask_key(window, shape=find_shape(window, family)): window for window in windows}
    missing = {key: window for key, window in keyed.items() if key not in store}
    if not missing:
        return 0
    done = 0
    progress(_WHAT, done, len(missing))
    with Writer(store) as writer, ThreadPoolExecutor() as pool:
        items = iter(missing.items())
        while portion := list(islice(items, _NUM_PER_PORTION)):
            masks = pool.map(partial(_read, family, files), (window for _, window in portion))
            for (key, _), mask in zip(portion, masks, strict=True):
                writer.add(key, {MASK_NAME: mask})
                done += 1
                progress(_WHAT, done, len(missing))
    return len(missing)


def _read(family: Family, files: Backend, window: LossWindow) -> Tensor:
    return torch.from_numpy(read_loss_mask(window, files, shape=find_shape(window, family))).unsqueeze(0)
