"""The picture of the noise levels, and what the plan says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import BuildRun
from weber.commands.plan import plan as plan_command
from weber.config.load import save_config
from weber.errors import ConfigError
from weber.planning.plan import build_plan
from weber.planning.plot import NUM_BINS, WIDTH, build_plot, list_curves
from weber.planning.report import build_report


def test_a_density_holds_all_draws_and_is_that_of_its_law(build_run: BuildRun) -> None:
    [curve] = list_curves(build_plan(build_run(objective={"timesteps": "beta", "beta_shape": [2.0, 1.0]})))
    assert np.mean(curve.densities) == pytest.approx(1)
    assert curve.densities == pytest.approx([2 * (number + 0.5) / NUM_BINS for number in range(NUM_BINS)], abs=0.01)
    assert (curve.shares, curve.sigmas[0], curve.sigmas[-1]) == ({}, 1.0, 0.0)


def test_a_law_of_few_levels_is_drawn_as_shares(build_run: BuildRun) -> None:
    [curve] = list_curves(build_plan(build_run(objective={"timesteps": "list", "timestep_list": [1.0, 0.5, 0.5, 0.25]})))
    assert curve.densities == ()
    assert curve.shares == pytest.approx({0.25: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=1e-4)


def test_sizes_have_curves_of_their_own_where_tokens_shift_them(build_run: BuildRun, pictures: Path) -> None:
    sets = [{"path": str(pictures), "upscale": True, "resolution": 64}, {"path": str(pictures), "upscale": True, "name": "large"}]
    sets[1] |= {"resolution": 1024, "minimum_edge": 64}
    shifted, alone = (build_plan(build_run(data=sets, objective={"timesteps": law})) for law in ("token_shift", "sigmoid"))
    small, large = list_curves(shifted)
    assert np.argmax(large.densities) > np.argmax(small.densities)
    assert "shift" in small.title and "1024 x 1024" in large.title
    assert len(list_curves(alone)) == 1


LAWS = [{"timesteps": "token_shift"}, {"timesteps": "fast"}, {"timesteps": "beta", "beta_shape": [0.3, 0.3]}]


@pytest.mark.parametrize("objective", LAWS)
def test_the_picture_shows_its_curves(build_run: BuildRun, objective: dict[str, object]) -> None:
    plan = build_plan(build_run(objective=objective))
    picture = build_plot(plan)
    color = tuple(int(list_curves(plan)[0].color[place : place + 2], 16) for place in (1, 3, 5))
    drawn = (np.abs(np.asarray(picture).astype(int) - color).max(axis=2) < 8).sum()
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"
    assert drawn > 300


def test_the_plan_says_what_is_asked(build_run: BuildRun) -> None:
    objective = {
        "timesteps": "mode",
        "shift": "tokens",
        "stratified": True,
        "guidance_range": [1.0, 4.0],
        "rollout": {"max_steps": 3, "ramp_steps": 5},
    }
    plan = build_plan(build_run(objective=objective))
    report = build_report(plan)
    assert "timesteps mode, shift tokens, stratified true, guidance 1 to 4 in training" in report
    assert "own steps as input: 1 to 3 further forward passes for 50% of the samples at the end of the ramp" in report
    assert plan.resolved.objective.guidance is None


def test_what_the_model_cannot_take_is_refused(build_run: BuildRun, tiny_schnell: Path) -> None:
    model = {"path": str(tiny_schnell), "variant": None}
    for objective, what in (
        ({"guidance_range": [1.0, 2.0], "timesteps": "uniform"}, "no guidance input"),
        ({"shift": "tokens", "timesteps": "uniform"}, "does not shift timesteps"),
        ({"sigmoid_offset": 0.5}, "sigmoid_offset has no effect"),
        ({"shift": 3.0}, "shift has no effect"),
    ):
        with pytest.raises(ConfigError, match=what):
            build_plan(build_run(model=model, objective=objective))


def test_the_command_writes_the_picture(build_run: BuildRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_config(build_run(), tmp_path / "run.toml")
    plan_command(tmp_path / "run.toml", plot=tmp_path / "levels.png")
    assert "levels.png" in capsys.readouterr().out
    assert Image.open(tmp_path / "levels.png").width == WIDTH
