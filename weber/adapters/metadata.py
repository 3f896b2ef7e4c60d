"""The text in an adapter's header: what readers compute with, what they show, and our own facts.

Three kinds of entries: `lora_adapter_metadata`, PEFT's settings, without which a reader of the library's layout takes alpha = rank;
`ss_*` and `modelspec.*`, which ComfyUI, Forge and kohya's tools show; `weber`, the facts of the training.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from weber.adapters.factors import Factors
from weber.adapters.text import ROOT, TEXT_PREFIX, split_modules
from weber.errors import AdapterError

SETTINGS_KEY = "lora_adapter_metadata"
FACTS_KEY = "weber"
VERSION_KEY = "modelspec.sai_model_spec"
HASH_KEY = "modelspec.hash_sha256"
PREFIX = "transformer."

Number = TypeVar("Number", int, float)

_SHOWN = {
    "steps": "ss_steps",
    "num_pictures": "ss_num_train_images",
    "lr": "ss_learning_rate",
    "text_encoder_lr": "ss_text_encoder_lr",
    "optimizer": "ss_optimizer",
    "seed": "ss_seed",
    "batch_size": "ss_total_batch_size",
    "guidance": "ss_guidance_scale",
    "timesteps": "ss_timestep_sampling",
    "model": "ss_sd_model_name",
}
"""Fact -> the name under which kohya's tools show it."""


def build_metadata(
    modules: Mapping[str, Factors],
    *,
    architecture: str,
    title: str,
    facts: Mapping[str, object],
    tags: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """What other programs show of an adapter: `ss_*` as kohya's trainers write it, and `modelspec.*` 1.0.1.

    `architecture` is `Family.architecture`; where it is none, nothing is said of the model. `tags` counts words for each folder of
    pictures. Nothing is said of the day, so that the same adapter gives the same bytes.
    """
    family = re.fullmatch(r"([a-z]+)-(\d+)(-.+)?", architecture)
    resolutions = re.findall(r"\b\d+x\d+\b", str(facts.get("resolutions")))
    shown = {
        "ss_base_model_version": family and family[1] + family[2],
        "ss_network_module": family and f"networks.lora_{family[1]}" + ("" if family[2] == "1" else f"_{family[2]}"),
        "ss_network_dim": find_most_common(factors.rank for factors in modules.values()),
        "ss_network_alpha": find_most_common(factors.alpha for factors in modules.values()),
        "ss_output_name": title,
        "ss_tag_frequency": None if tags is None else json.dumps(tags, sort_keys=True),
        **{key: facts.get(fact) for fact, key in _SHOWN.items()},
        "ss_resolution": max(resolutions, key=_count_pixels, default=None),
    }
    shown |= {
        VERSION_KEY: "1.0.1",
        "modelspec.architecture": family and f"{architecture}/lora",
        "modelspec.title": title,
        "modelspec.resolution": shown["ss_resolution"],
    }
    return {key: str(value) for key, value in shown.items() if value is not None}


def build_settings(modules: Mapping[str, Factors]) -> str:
    """PEFT's settings of an adapter, as the library's loader reads them: the most common rank and alpha, and exceptions by module.

    A pattern is matched to the end of a module's name (`peft/utils/other.py:get_pattern_key`); `^` makes it the whole name. CLIP has
    settings of its own, with the ends of its modules' names, whose start depends on the library's release.
    """
    changed, text = split_modules(modules)
    ends = {name.removeprefix(TEXT_PREFIX + ROOT): factors for name, factors in text.items()}
    settings = {PREFIX + key: value for key, value in _list_settings(changed, start="^").items()} if changed else {}
    settings |= {TEXT_PREFIX + key: value for key, value in _list_settings(ends, start="").items()} if ends else {}
    return json.dumps(settings, sort_keys=True)


def _list_settings(modules: Mapping[str, Factors], *, start: str) -> dict[str, object]:
    rank = find_most_common(factors.rank for factors in modules.values())
    alpha = find_most_common(factors.alpha for factors in modules.values())
    settings: dict[str, object] = {
        "r": rank,
        "lora_alpha": _build_number(alpha),
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "peft_type": "LORA",
    }
    ranks = {f"{start}{name}": factors.rank for name, factors in modules.items() if factors.rank != rank}
    alphas = {f"{start}{name}": _build_number(factors.alpha) for name, factors in modules.items() if factors.alpha != alpha}
    settings |= {"rank_pattern": ranks} if ranks else {}
    settings |= {"alpha_pattern": alphas} if alphas else {}
    settings |= {"use_dora": True} if any(factors.magnitude is not None for factors in modules.values()) else {}
    return settings


@dataclass(frozen=True)
class Alphas:
    """Alpha of each module, by PEFT's settings; and of each pattern of these whether it means one of the modules."""

    by_module: dict[str, float]
    patterns: dict[str, bool]


def read_alphas(text: str, ranks: Mapping[str, int], *, prefix: str = PREFIX) -> Alphas:
    """Alpha of each module, from PEFT's settings: of the transformer, or of CLIP by its prefix. Raises AdapterError where they do not say
    it."""
    if not ranks:
        return Alphas({}, {})
    try:
        settings = {key.removeprefix(prefix): value for key, value in json.loads(text).items()}
        common, patterns = float(settings["lora_alpha"]), dict(settings.get("alpha_pattern") or {})
        alphas = {name: _find_alpha(name, patterns, common) for name in ranks}
        if not all(map(math.isfinite, alphas.values())):
            raise ValueError("an alpha that is not finite")
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise AdapterError(
            "The adapter file does not say its alpha.",
            got=f"{SETTINGS_KEY} in its header: {error!r}",
            expected="PEFT's settings with lora_alpha, as JSON, whose patterns are regular expressions",
            fix="save the adapter again with the program that made it",
        ) from error
    if settings.get("use_rslora"):
        alphas = {name: alpha * math.sqrt(ranks[name]) for name, alpha in alphas.items()}
    return Alphas(alphas, {one: any(_is_meant(one, name) for name in ranks) for one in patterns})


def _find_alpha(name: str, patterns: Mapping[str, Any], common: float) -> float:
    """That of the first pattern which means the module."""
    return next((float(alpha) for key, alpha in patterns.items() if _is_meant(key, name)), common)


def _is_meant(pattern: str, name: str) -> bool:
    """Whether the end of a module's name matches a pattern, as `peft/utils/other.py:get_pattern_key` sees it."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def read_facts(metadata: Mapping[str, str]) -> dict[str, object]:
    """Our facts of the training, where the file has them."""
    try:
        facts = json.loads(metadata.get(FACTS_KEY, "{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def find_most_common(values: Iterable[Number]) -> Number:
    """The value that occurs most; of several the largest."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value))


def _build_number(alpha: float) -> float:
    return int(alpha) if alpha.is_integer() else alpha


def _count_pixels(resolution: str) -> int:
    return math.prod(int(side) for side in resolution.split("x"))
