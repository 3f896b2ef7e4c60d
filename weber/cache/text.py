"""Captions to text embeddings in the cache: each distinct caption once per text part, one text encoder in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from weber.cache.encode import Encoders, Task, encode_batches
from weber.cache.key import build_text_key, pack_keys
from weber.cache.share import WHOLE, Pace, Share, keep_own_pace
from weber.cache.store import Store
from weber.progress import Progress, ignore_progress


def encode_texts(
    store: Store,
    captions: Iterable[str],
    *,
    encoders: Encoders,
    batch_size: int,
    share: Share = WHOLE,
    pace: Pace = keep_own_pace,
    progress: Progress = ignore_progress,
) -> int:
    """Encode what the cache lacks of a `share`; the number of (caption, part) encoded. A part that lacks nothing is not loaded. `pace`: of
    encoders that several processes have between them.

    Sample `build_text_key(caption, encoder=encoders.identify(part), dtype=encoders.dtype)` then holds what `encode_prompts` of the family
    returns for that part, without the first dimension and in the form in which texts are kept.
    """
    family, dtype = encoders.family, encoders.dtype
    distinct = list(dict.fromkeys(captions))
    num_encoded = 0
    for part in family.text_parts:
        identity = encoders.identify(part)
        keys = [build_text_key(caption, encoder=identity, dtype=dtype) for caption in distinct]
        missing = {keys[place]: distinct[place] for place in store.find_lacking(pack_keys(keys)).tolist() if share.has(keys[place])}
        names, prompts = list(missing), list(missing.values())
        size = min(batch_size, family.prompts_per_batch or batch_size)
        batches = [(names[start : start + size], prompts[start : start + size]) for start in range(0, len(names), size)]
        num_batches = pace(part, len(batches))
        if num_batches:
            encode_batches(
                store,
                [*batches, *[(list[str](), [""])] * (num_batches - len(batches))],
                load=partial(encoders.load, part),
                encode=partial(encoders.encode_prompts, part),
                dtype=dtype,
                task=Task(f"encoding captions ({part})", len(missing), progress),
                form=encoders.find_form(part),
                is_shared=pace is not keep_own_pace,
            )
        num_encoded += len(missing)
    return num_encoded
