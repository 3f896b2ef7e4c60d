"""Settings of evaluation that cannot act are refused, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from weber.config.load import build_config
from weber.errors import ConfigError

HELD = {"path": "a", "evaluation": 0.05}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"data": [{"path": "a", "evaluation": 1}]}, "all sets have evaluation = 1, so nothing is learned"),
        ({"data": [{"path": "a"}], "evaluation": {"pictures": 4}}, "evaluation.pictures cannot take effect while no picture is held out"),
        ({"data": [HELD], "evaluation": {"weights": "ema"}}, "needs a running mean of the weights"),
        ({"data": [HELD], "evaluation": {"levels": [0.5, 0.5]}}, "0.5 is there twice"),
        ({"data": [{"path": "a"}, {"path": "b", "evaluation": 1, "repeats": 3}]}, "repeats has no effect with evaluation = 1"),
        (
            {"data": [{"path": "a"}, {"path": "b", "evaluation": 0.5, "regularization": True}]},
            "evaluation has no effect with regularization",
        ),
        ({"data": [{"path": "a"}, {"path": "b", "evaluation": 1}], "train": {"balance": "sets"}}, "has no effect with one set"),
        (
            {"data": [{"path": "a", "regularization": True}, {"path": "b", "evaluation": 1}]},
            "all sets have regularization = true, so nothing is learned",
        ),
    ],
)
def test_what_cannot_act_is_refused(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(tree)
    assert said in str(caught.value)


def test_how_often_the_run_is_read_acts_without_pictures_that_are_held_out() -> None:
    assert build_config({"data": [{"path": "a"}], "evaluation": {"every": 10}}).evaluation.every == 10
    assert [one.set_name for one in build_config({"data": [{"path": "a"}, {"path": "b", "evaluation": 1}]}).learned_sets] == ["a"]
