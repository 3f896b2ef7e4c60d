"""Adding samples to a store: they are gathered in memory and written as shards, so that a kill loses at most one shard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from torch import Tensor

from weber.cache.shard import Sample
from weber.cache.store import MAX_SHARD_BYTES, Store
from weber.errors import CacheError

MAX_AGE_SECONDS = 60.0
_FIRST_AGE_SECONDS, _AGE_SHARE = 2.0, 0.1
"""A shard waits for no more than a tenth of the time that the writer has worked: so a kill costs little at any time, and a long job has
few shards."""


class Writer:
    """`with Writer(store) as writer: writer.add(key, tensors)`; what is added can be read once its shard is written.

    A shard is written when more than `max_shard_bytes` wait, when the oldest has waited for a tenth of the time since the writer began (at
    most `max_age_seconds`), and at the end of the `with` block, after an exception too. CacheError if the folder cannot be written or the
    disk is full.
    """

    def __init__(self, store: Store, *, max_shard_bytes: int = MAX_SHARD_BYTES, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._store = store
        self._max_shard_bytes, self._max_age_seconds = max_shard_bytes, max_age_seconds
        self._pending: dict[str, Sample] = {}
        self._pending_bytes = 0
        self._opened = self._started = time.monotonic()
        store.check_writable()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, CacheError):  # what just failed would fail again
            self.flush()

    def add(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Add a sample, unless the store has that key. The tensors must not be changed afterwards: they are not copied until written."""
        self.add_batch({key: tensors})

    def add_batch(self, samples: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Add samples that get into the same shard: after a kill either all of them are there or none."""
        fresh = {key: sample for key, sample in samples.items() if key not in self._store and key not in self._pending}
        assert all(key and "/" not in key and sample for key, sample in fresh.items()), "a key has no slash, a sample has a tensor"
        ready = {key: {name: tensor.detach().cpu().contiguous() for name, tensor in sample.items()} for key, sample in fresh.items()}
        if not self._pending:
            self._started = time.monotonic()
        self._pending.update(ready)
        self._pending_bytes += sum(tensor.nbytes for sample in ready.values() for tensor in sample.values())
        now = time.monotonic()
        age_seconds = min(self._max_age_seconds, max(_FIRST_AGE_SECONDS, _AGE_SHARE * (now - self._opened)))
        if self._pending_bytes > self._max_shard_bytes or now - self._started > age_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one shard."""
        if self._pending:
            self._store.publish(self._pending)
            self._pending = {}
            self._pending_bytes = 0
