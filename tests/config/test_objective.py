"""Settings of the objective that cannot act are refused in words, each by its own rule."""

from __future__ import annotations

from typing import Any

import pytest

from weber.config.load import build_config
from weber.errors import ConfigError

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a scale without its law": ({"timesteps": "beta", "sigmoid_scale": 2.0}, "sigmoid_scale has no effect", 'timesteps = "sigmoid"'),
    "an offset without its law": ({"timesteps": "uniform", "sigmoid_offset": 0.5}, "sigmoid_offset has no effect", "remove it"),
    "a mean without its law": ({"logit_mean": 0.5}, "logit_mean has no effect", 'timesteps = "logit_normal"'),
    "a mode without its law": ({"mode_scale": 0.5}, "mode_scale has no effect", 'timesteps = "mode"'),
    "a shape without its law": ({"beta_shape": [1.0, 2.0]}, "beta_shape has no effect", 'timesteps = "beta"'),
    "weights without their law": ({"cubic_weights": [1.0]}, "cubic_weights has no effect", 'timesteps = "cubic"'),
    "an order without a list": ({"timestep_order": "cycle"}, "timestep_order has no effect", 'timesteps = "list"'),
    "a law without its weights": ({"timesteps": "cubic"}, "needs cubic_weights", "cubic_weights = ["),
    "weights of nothing": ({"timesteps": "cubic", "cubic_weights": [0.0, 0.0]}, "needs cubic_weights", "cubic_weights = ["),
    "a law without its list": ({"timesteps": "list"}, "needs timestep_list", "timestep_list = ["),
    "a shift without a number": ({"timesteps": "shift"}, "needs a number for shift", "shift = 3.0"),
    "a shift by tokens without the law": ({"timesteps": "shift", "shift": "tokens"}, "needs a number for shift", '"token_shift"'),
    "two shifts": ({"timesteps": "token_shift", "shift": 3.0}, "shift has no effect", 'timesteps = "sigmoid"'),
    "a shift of four steps": ({"timesteps": "fast", "shift": 3.0}, "shift has no effect", "remove it"),
    "a stratified cycle": (
        {"timesteps": "list", "timestep_list": [1.0, 0.5], "timestep_order": "cycle", "stratified": True},
        "stratified has no effect",
        "remove one",
    ),
    "two guidances": ({"guidance": 1.0, "guidance_range": [1.0, 2.0]}, "both say what guidance is", "remove one"),
    "a range upside down": ({"guidance_range": [2.0, 1.0]}, "is no range", "lower value first"),
    "a threshold of l2": ({"huber_c": 0.2}, "huber_c has no effect", 'loss = "huber"'),
    "a schedule of l1": ({"loss": "l1", "huber_schedule": "exponential"}, "huber_schedule has no effect", "remove it"),
    "a rollout that is never done": ({"rollout": {"probability": 0.0}}, "leaves nothing of the rollout", "remove [objective.rollout]"),
    "a strategy for one step": ({"rollout": {"strategy": "late"}}, "strategy = ", "raise max_steps"),
    "a ramp of no length": ({"rollout": {"ramp": "cosine"}}, "ramp has no effect", "ramp_steps = 500"),
    "a ramp that leads nowhere": (
        {"rollout": {"probability": 0.5, "start_probability": 0.5, "ramp_steps": 9}},
        "ramp_steps has no effect",
        "lower start_probability",
    ),
    "a threshold whose square is zero": ({"loss": "huber", "huber_c": 1e-30}, "objective.huber_c cannot", "at least 1e-06"),
    "a mask in which black is white": ({"mask_minimum": 1.0}, "objective.mask_minimum cannot", "below 1"),
    "a start of no ramp": ({"rollout": {"start_probability": 0.1}}, "start_probability has no effect", "ramp_steps = 500"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_act_is_refused(name: str) -> None:
    settings, what, fix = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        build_config({"data": [{"path": "x"}], "objective": settings, "train": {"batch_size": 2}})
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_whole_number_is_a_shift() -> None:
    config = build_config({"data": [{"path": "x"}], "objective": {"timesteps": "shift", "shift": 3}})
    assert config.objective.shift == 3.0


def test_a_rollout_that_ends_with_a_ramp_down_is_one() -> None:
    rollout = {"probability": 0.0, "start_probability": 0.5, "ramp_steps": 100}
    assert build_config({"data": [{"path": "x"}], "objective": {"rollout": rollout}}).objective.rollout is not None
