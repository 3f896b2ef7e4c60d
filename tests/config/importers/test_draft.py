"""Keys are answered by a table, one by one, and none is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from weber.config.importers.answers import Table, ignored, refused, translated, used
from weber.config.importers.apply import apply
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.outcome import Given
from weber.errors import ConfigError


def _shift(draft: Draft, keys: Keys, value: Any) -> str:
    if keys["law"] != "shift":
        return NO_EFFECT + "the law does not read it"
    if value == "nan":
        return REFUSED + "it is no number; write one"
    return draft.set("objective.shift", value, origin=keys.find("flow_shift"))


TABLE: Table = {
    "lr learning_rate": used("optim.lr"),
    "rank": used("adapter.rank"),
    "dora": used("adapter.dora"),
    "size": used(".resolution"),
    "batch": used("train.batch_size"),
    "flow_shift": translated(_shift, "the shift, where the law reads it"),
    "law": ignored("it is read with the shift"),
    "controlnet": refused("weber trains none"),
    "wandb_*": ignored("weber sends nothing anywhere"),
}


def _keys(values: dict[str, Any], **options: Any) -> Keys:
    return Keys([Given(name, value, f"--{name}", "file") for name, value in values.items()], **options)


def test_each_key_has_an_answer() -> None:
    draft = Draft()
    values = {"lr": "1e-4", "rank": "16", "dora": "true", "flow_shift": 3, "law": "shift", "controlnet": False, "wandb_name": "x"}
    apply(draft, _keys(values), table=TABLE)
    assert draft.tree == {"optim": {"lr": 1e-4}, "adapter": {"rank": 16, "dora": True}, "objective": {"shift": 3.0}}
    assert [(one.given.name, one.kind) for one in draft.outcomes] == [
        ("lr", "used"),
        ("rank", "used"),
        ("dora", "used"),
        ("flow_shift", "translated"),
        ("law", "no effect"),
        ("controlnet", "no effect"),
        ("wandb_name", "no effect"),
    ]
    assert draft.origins["optim.lr"] == "--lr = 1e-4 (file)"


def test_others_may_take_the_effect_away_and_values_may_be_refused() -> None:
    draft = Draft()
    apply(draft, _keys({"flow_shift": 3, "law": "uniform"}), table=TABLE)
    assert draft.outcomes[0].kind == "no effect" and draft.outcomes[0].line == "the law does not read it"
    apply(draft, _keys({"flow_shift": "nan", "law": "shift", "controlnet": "true"}), table=TABLE)
    assert [(one.kind, one.line) for one in draft.outcomes if one.kind == "refused"] == [
        ("refused", "it is no number; write one"), ("refused", "weber trains none")
    ]
    assert draft.tree == {}


def test_defaults_of_the_other_trainer_hold_where_a_key_is_left_out_or_empty() -> None:
    defaults = {"lr": 4e-7, "rank": 4}
    draft = Draft()
    apply(draft, _keys({"rank": "", "batch": None}, defaults=defaults), table=TABLE)
    assert draft.tree == {"optim": {"lr": 4e-7}, "adapter": {"rank": 4}}
    assert [(one.given.name, one.given.is_default, one.kind) for one in draft.outcomes] == [
        ("rank", False, "no effect"), ("batch", False, "no effect"), ("lr", True, "used"), ("rank", True, "used")
    ]
    ours = Draft(weber_defaults=True)
    apply(ours, _keys({"rank": 8}, defaults=defaults), table=TABLE)
    assert ours.tree == {"adapter": {"rank": 8}}


def test_sets_of_pictures_have_numbers_and_examples_are_marked() -> None:
    draft = Draft()
    for number, size in enumerate((512, 768)):
        apply(draft, _keys({"size": size}, set_number=number), table=TABLE, example={"size": "512.0"})
    assert draft.tree == {"data": [{"resolution": 512}, {"resolution": 768}]}
    assert [one.is_example for one in draft.outcomes] == [True, False]


def test_unknown_keys_are_errors_or_told_with_their_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--learning_rat \(did you mean learning_rate\?\)"):
        apply(Draft(), _keys({"learning_rat": 1}), table=TABLE)
    draft = Draft()
    apply(draft, _keys({"learning_rat": 1}), table=TABLE, is_strict=False)
    assert draft.outcomes[0].kind == "no effect" and "learning_rate" in draft.outcomes[0].line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("lr", "fast", "--lr is no number"), ("rank", "3.5", "no whole number"), ("dora", "maybe", "neither true nor false")],
)
def test_values_that_cannot_be(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(Draft(), _keys({name: value}), table=TABLE)
