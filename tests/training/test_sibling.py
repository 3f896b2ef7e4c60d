"""A run whose pictures another model paints: the numbers that are learned, on the other one's weights, and nothing of it in the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import weber
from tests.runs import BuildRun
from tests.training.test_pictures import check_undisturbed, run
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.planning.budget import build_estimate
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2

EDGE = 32
QUIET: dict[str, Any] = {"progress": lambda *_: None}
Build = Callable[..., RunConfig]


@pytest.fixture
def build(build_run: BuildRun, tmp_path: Path) -> Build:
    """A run of two steps on a tiny base; beside it there are a distilled model of the same layers, and one of others."""
    build_random_flux2(tmp_path / "base", "klein-base")
    build_random_flux2(tmp_path / "klein", "klein", seed=1)
    for part in ("vae", "text_encoder"):
        shutil.copytree(tmp_path / "base" / part, tmp_path / "klein" / part, dirs_exist_ok=True)
    build_random_flux2(tmp_path / "larger", "klein", num_blocks=(1, 3))

    def make(name: str = "run", **sections: Any) -> RunConfig:
        tree: dict[str, Any] = {"train": {"steps": 2, "batch_size": 1}, "optim": {"lr": 1e-1}} | sections
        model = {"path": str(tmp_path / "base"), "variant": "flux2-klein-base-4b"}
        return build_run(name, model=model, data=[{"resolution": EDGE, "bucket_step": 16, "limit": 2}], **tree)

    return make


def read(path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    with Image.open(path) as picture:
        return np.asarray(picture), json.loads(picture.info["weber"])


def test_the_other_model_paints_with_what_is_learned(build: Build, tmp_path: Path) -> None:
    klein = tmp_path / "klein"
    sampling = {"prompts": ["a dog"], "model": str(klein), "every": 1, "strengths": [0.5, 1.0]}
    kept = {"adapter": {"rank": 4, "dropout": 0.1}, "optim": {"lr": 1e-1, "ema_decay": 0.5}}
    folder = run(build(sampling=sampling | {"weights": "ema"}, **kept))
    check_undisturbed(run(build("plain", **kept)), folder)
    base, made = read(folder / "pictures" / "step-000000" / "00-strength1.png")
    assert made["variant"] == "flux2-klein-4b" and made["steps"] == 4 and made["cfg"] == 1
    paint = partial(weber.sample, memory={"fused_blocks": False}, **QUIET)  # as the run does: where there is dropout, the library's blocks
    [alone] = paint(klein, "a dog", size=(EDGE, EDGE), seed=42)
    assert np.array_equal(base, np.asarray(alone))
    for strength in (0.5, 1.0):
        last, _ = read(folder / "pictures" / "step-000002" / f"00-strength{strength:g}.png")
        [same] = paint(folder / "adapter-ema.safetensors", "a dog", strength=strength, seed=42)
        [on_klein] = paint(folder / "adapter-ema.safetensors", "a dog", base=str(klein), size=(EDGE, EDGE), strength=strength, seed=42)
        assert np.array_equal(last, np.asarray(same)) and np.array_equal(last, np.asarray(on_klein))
        assert not np.array_equal(last, base)


@pytest.mark.parametrize("memory", [{"swap_blocks": 2, "swap_to": "disk"}, {"quantize": "int8"}])
def test_it_paints_under_the_memory_of_the_run(build: Build, tmp_path: Path, memory: dict[str, Any]) -> None:
    """Blocks that lie elsewhere change no picture, weights of few bits hardly any; and the run is the one that paints nothing."""
    sampling = {"prompts": ["a dog"], "model": str(tmp_path / "klein"), "every": 2}
    folder = run(build(sampling=sampling, memory=memory))
    check_undisturbed(run(build("plain", memory=memory)), folder)
    whole = run(build("whole", sampling=sampling))
    first, last = (
        [read(one / "pictures" / f"step-{step:06d}" / "00.png")[0].astype(int) for one in (folder, whole)] for step in (0, 2)
    )
    assert not np.array_equal(*(one[0] for one in (first, last)))
    assert all(np.abs(mine - theirs).mean() < (3 if "quantize" in memory else 1e-9) for mine, theirs in (first, last))


def test_the_plan_knows_of_both(build: Build, tmp_path: Path) -> None:
    sampling = {"prompts": ["a dog"], "steps": 2}
    plain, plan = (build_plan(build(sampling=sampling | more)) for more in ({}, {"model": str(tmp_path / "klein")}))
    assert "painted by flux2-klein-4b" in build_report(plan) and "painted by" not in build_report(plain)
    alone, both = (
        {phase.name: phase for phase in build_estimate(one.config, one.workload).phases if phase.has_network} for one in (plain, plan)
    )
    assert alone.keys() == both.keys()
    weights = 4 * sum(one.numel() for one in plain.family.load_skeleton().parameters())
    for name, phase in both.items():
        more = phase.num_bytes - alone[name].num_bytes
        assert (more >= weights) is name.startswith(("painting", "decoding")), name
        assert more == 0 or name.startswith(("painting", "decoding"))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"sampling": {"model": "larger"}}, ["other layers", "single_transformer_blocks.2"]),
        ({"sampling": {"model": "nowhere"}}, ["no such model", "sampling.model"]),
        ({"adapter": {"kind": "full", "rank": 16}}, ["the model itself is trained"]),
        ({"adapter": {"init": "pissa"}}, ["starts from the weights"]),
        ({"output": {"text_cache": "projected"}}, ["kept behind a layer"]),
    ],
)
def test_where_no_other_model_can_paint(build: Build, tmp_path: Path, sections: dict[str, Any], words: list[str]) -> None:
    sampling = {"prompts": ["a dog"], "model": "klein"} | sections.get("sampling", {})
    sampling["model"] = str(tmp_path / sampling["model"]) if sampling["model"] != "nowhere" else "nowhere"
    with pytest.raises(ConfigError) as error:
        build_plan(build(**sections | {"sampling": sampling}))
    for word in words:
        assert word in str(error.value), str(error.value)
