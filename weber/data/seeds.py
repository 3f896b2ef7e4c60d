"""Everything random is drawn from seeds made of names and numbers, never from a global state."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def build_seed(*parts: int | str) -> int:
    """A 63-bit seed made of the parts; stable for ever and on every machine.

    Each part is written with its kind and length, so that ("ab", "c"), ("a", "bc"), (1, "2") and (12,) all differ.
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        kind, text = ("i", str(int(part))) if isinstance(part, int) else ("s", part)
        encoded = text.encode()
        digest.update(f"{kind}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def draw_choice(num: int, *parts: int | str) -> int:
    """One of 0 .. num - 1, each equally likely (to one part in 2**63 / num)."""
    assert num >= 1
    return build_seed(*parts) % num


def draw_weighted(weights: Sequence[float], *parts: int | str) -> int:
    """One of 0 .. the number of weights - 1, each as likely as its share of their sum says."""
    wanted, passed = draw_uniform(*parts) * sum(weights), 0.0
    for number, weight in enumerate(weights):
        passed += weight
        if wanted < passed:
            return number
    return len(weights) - 1


def draw_uniform(*parts: int | str) -> float:
    """A number in 0..1, both ends left out; one of 2**52 equally likely ones."""
    return ((build_seed(*parts) >> 11) + 0.5) / 2**52


def draw_order(num: int, *parts: int | str) -> NDArray[np.int64]:
    """A permutation of 0 .. num - 1.

    Made of the raw stream, which numpy keeps equal between its versions; it does not promise that of its own shuffles.
    """
    order: NDArray[np.int64] = np.argsort(np.random.PCG64(build_seed(*parts)).random_raw(num), kind="stable")
    return order
