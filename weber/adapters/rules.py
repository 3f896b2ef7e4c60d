"""What each layer's adapter is like: its rank, alpha and learning rate, by the settings and their rules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weber.adapters.target import check_meant
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError
from weber.families.pattern import is_named

_NUM_SHOWN = 4


@dataclass(frozen=True)
class Setting:
    """A layer's adapter. `alpha` is as asked, `rate` the learning rate, None: that of all. `is_rooted`: the scale is alpha / sqrt(rank)."""

    rank: int
    alpha: float
    rate: float | None = None
    is_rooted: bool = False

    @property
    def file_alpha(self) -> float:
        """The alpha that every reader of a file divides by the rank."""
        return self.alpha * math.sqrt(self.rank) if self.is_rooted else self.alpha

    def describe(self) -> str:
        """In a few words."""
        return f"rank {self.rank}, alpha {self.alpha:g}" + ("" if self.rate is None else f", lr {self.rate:g}")


def build_settings(config: AdapterConfig, names: Iterable[str]) -> dict[str, Setting]:
    """The setting of each of these layers; of several rules that match, the last one that sets a value counts."""
    return {name: _build_setting(config, name) for name in names}


def check_rules(config: AdapterConfig, names: Iterable[str]) -> None:
    """Raise AdapterError for rules that mean none of these layers, and for ranks that the start cannot have."""
    targets = list(names)
    for number, rule in enumerate(config.rules):
        check_meant([rule.match], targets, key=f"adapter.rules.{number}.match")
    check_start(config, {name: one.rank for name, one in build_settings(config, targets).items()})


def check_start(config: AdapterConfig, ranks: Mapping[str, int]) -> None:
    """Raise AdapterError for ranks of layers that the start cannot have."""
    odd = [(name, rank) for name, rank in ranks.items() if rank % 2]
    if config.init == "orthogonal" and odd:
        name, rank = odd[0]
        raise AdapterError(
            "An orthogonal start needs an even rank: half of it is in A and half in B.",
            got=f'adapter.init = "orthogonal" with rank {rank} for {name}',
            fix=f"set the rank to {rank + 1}, or choose another adapter.init",
        )


def list_groups(settings: Mapping[str, Setting]) -> list[str]:
    """The settings for a person, a line for all layers that have the same; nothing is said of layers that are all alike."""
    groups: dict[Setting, list[str]] = {}
    for name, one in settings.items():
        groups.setdefault(one, []).append(name)
    if len(groups) == 1:
        return []
    lines = []
    for one, names in groups.items():
        kinds = list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
        shown = ", ".join(kinds[:_NUM_SHOWN]) + (f" and {len(kinds) - _NUM_SHOWN} other kinds" if kinds[_NUM_SHOWN:] else "")
        lines.append(f"{one.describe()}: {len(names)} layers ({shown})")
    return lines


def _build_setting(config: AdapterConfig, name: str) -> Setting:
    rank, alpha, rate = config.rank, config.alpha, None
    for rule in config.rules:
        if is_named(name, rule.match):
            rank, alpha = (rank if rule.rank is None else rule.rank), (alpha if rule.alpha is None else rule.alpha)
            rate = rate if rule.lr is None else rule.lr
    return Setting(rank, float(rank) if alpha is None else alpha, rate, config.rslora)
