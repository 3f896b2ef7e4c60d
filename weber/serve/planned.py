"""Plans that a `weber plan` of its own has made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from weber.serve.errands import Errand, State, find_errand, start_errand
from weber.serve.files import find_root
from weber.serve.site import Site


@dataclass(frozen=True)
class Planned:
    """What is known of a plan. `message`: where it is, or why there is none; `pictures`: the file with what becomes of each;
    `moment`: when it was made, in seconds since 1970."""

    state: State
    message: str = ""
    facts: Mapping[str, Any] | None = None
    pictures: Path | None = None
    moment: float = 0.0


def find_planned(site: Site, path: Path, *, card: str = "") -> Planned:
    """What is known of the plan of a file of settings as it is now, for this machine or for one with that card."""
    errand = _find(site, path, card)
    state, message, moment = errand.read_state()
    if state != "ready":
        return Planned(state, message, moment=moment)
    facts = _load_facts(errand.out, errand.out.stat().st_mtime_ns)
    return Planned(state, "", facts, errand.found if errand.found.is_file() else None, moment)


def start_planning(site: Site, path: Path, *, card: str = "") -> None:
    """Make the plan, in a process of its own; of this machine with what becomes of each picture."""
    errand = _find(site, path, card)
    words = ["--card", card] if card else ["--pictures", str(errand.found)]
    start_errand(site, errand, words=["plan", str(path), "--json", *words], folder=find_root(site, path))


def _find(site: Site, path: Path, card: str) -> Errand:
    """The plan of these very settings."""
    return find_errand(site, "plan", str(path), card, path.read_bytes() if path.is_file() else b"")


@lru_cache(maxsize=8)
def _load_facts(path: Path, changed_ns: int) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
