"""Rank, alpha and learning rate of single layers."""

from __future__ import annotations

import pytest

from weber.adapters.rules import Setting, build_settings, check_rules, list_groups
from weber.config.adapter import AdapterConfig, RuleConfig
from weber.errors import AdapterError

NAMES = ["blocks.0.to_q", "blocks.0.to_k", "blocks.1.to_q", "singles.0.proj"]


def _build(*rules: dict[str, object], **settings: object) -> AdapterConfig:
    return AdapterConfig.model_validate({"rank": 8, **settings, "rules": [RuleConfig.model_validate(rule) for rule in rules]})


def test_without_rules_all_are_alike() -> None:
    settings = build_settings(_build(alpha=3.0), NAMES)
    assert set(settings.values()) == {Setting(8, 3.0)}
    assert list_groups(settings) == []


def test_the_last_rule_that_sets_a_value_counts() -> None:
    rules = [{"match": "to_q", "rank": 2, "lr": 1e-3}, {"match": "blocks.0.*", "rank": 4}, {"match": "blocks.1.to_q", "alpha": 1.5}]
    assert build_settings(_build(*rules), NAMES) == {
        "blocks.0.to_q": Setting(4, 4.0, 1e-3),
        "blocks.0.to_k": Setting(4, 4.0),
        "blocks.1.to_q": Setting(2, 1.5, 1e-3),
        "singles.0.proj": Setting(8, 8.0),
    }
    assert build_settings(_build({"match": "to_q", "rank": 2}, alpha=6.0), NAMES)["blocks.0.to_q"] == Setting(2, 6.0)


def test_the_root_is_in_the_alpha_of_files() -> None:
    setting = build_settings(_build(rank=16, alpha=3.0, rslora=True), NAMES)["blocks.0.to_q"]
    assert setting.file_alpha / setting.rank == 3.0 / 4
    assert setting.describe() == "rank 16, alpha 3"


def test_groups_for_a_person() -> None:
    lines = list_groups(build_settings(_build({"match": "to_q", "rank": 2, "lr": 1e-3}), NAMES))
    assert lines == [
        "rank 2, alpha 2, lr 0.001: 2 layers (blocks.*.to_q)",
        "rank 8, alpha 8: 2 layers (blocks.*.to_k, singles.*.proj)",
    ]


def test_a_rule_for_no_target_is_refused() -> None:
    with pytest.raises(AdapterError, match=r"adapter\.rules\.1\.match means no layer.*\n.*with to_v\n  expected: .*such as blocks"):
        check_rules(_build({"match": "to_q", "rank": 2}, {"match": "to_v", "rank": 2}), NAMES)


def test_an_orthogonal_start_needs_even_ranks_everywhere() -> None:
    check_rules(_build(init="orthogonal"), NAMES)
    with pytest.raises(AdapterError, match=r"rank 3 for singles\.0\.proj\n  fix: set the rank to 4"):
        check_rules(_build({"match": "proj", "rank": 3}, init="orthogonal"), NAMES)
