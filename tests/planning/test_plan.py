"""What is known, and refused, before weights are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.config.load import build_config, load_config, save_config
from weber.errors import ConfigError, WeberError
from weber.families import tensors
from weber.families.flux1.variants import POCKET
from weber.planning.plan import build_plan, list_keys
from weber.planning.report import build_report
from weber.training.assemble import encode_cache


def test_no_weights_are_read(build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Path(shutil.copytree(POCKET, tmp_path / "model"))
    for weights in model.rglob("*.safetensors"):
        if weights.parent.name != "transformer":  # whose names and shapes are compared with its configuration
            weights.write_bytes(b"\x08\0\0\0\0\0\0\0not weights at all")
    monkeypatch.setattr(tensors, "_read_tensor", lambda *arguments: pytest.fail(f"read {arguments}"))
    plan = build_plan(build_run(model={"path": str(model)}))
    assert len(plan.modules) == 2 * 12 + 6 * 5 and plan.num_steps == 10
    assert "to be encoded now: 12 latents" in build_report(plan)


def test_the_arithmetic_is_written_out(build_run: BuildRun, pictures: Path) -> None:
    config = build_run(
        data=[{"repeats": 3}, {"path": str(pictures), "name": "again", "resolution": 32, "bucket_step": 16, "captions": "none"}],
        train={"steps": None, "epochs": 4, "batch_size": 5, "accumulation": 2},
        sampling={"prompts": ["a dog"]},
    )
    report = build_report(build_plan(config))
    assert "pictures per epoch, with repeats: 48" in report
    assert "batch_size 5 x accumulation 2 = 10" in report
    assert "ceil(36 / 10) + ceil(12 / 10) = 6" in report
    assert "4 epochs x 6 steps = 24" in report
    assert "train.epochs = 4" in report and "data.0.repeats = 3" in report
    assert "24 latents" in report
    assert "pictures/: 2 times 1 picture of 64 x 64" in report


def test_only_what_somebody_set_is_listed_as_set(build_run: BuildRun) -> None:
    report = build_report(build_plan(build_run(data=[{"repeats": 3}])))
    listed = report.partition("Settings that differ from the default\n")[2]
    keys = {line.split(" = ")[0].strip() for line in listed.splitlines()}
    output = {"output.folder", "output.cache", "output.save_every"}
    train, memory = {"train.steps", "train.batch_size"}, {"memory.device", "memory.gradient_checkpointing"}
    assert keys == {"model.variant", "data.0.path", "data.0.repeats", "adapter.rank", "optim.lr"} | memory | train | output


def test_the_plan_knows_what_is_cached(build_run: BuildRun) -> None:
    config = build_run()
    watcher, _ = build_watcher()
    encode_cache(build_plan(config), Store(config.output.cache), watcher=watcher)
    assert "to be encoded now: 0 latents and 0 texts" in build_report(build_plan(config))


def test_predicted_cache_size_is_the_real_one(build_run: BuildRun) -> None:
    config = build_run()
    plan = build_plan(config)
    watcher, _ = build_watcher()
    encode_cache(plan, Store(config.output.cache), watcher=watcher)
    store = Store(config.output.cache)
    real_bytes = sum(tensor.nbytes for key in list_keys(plan) if key in store for tensor in store.read(key).values())
    captions = {caption for one in plan.dataset.examples for caption in one.captions}
    assert real_bytes == 4 * (12 * 16 * 8 * 8 + len(captions) * (128 + 24 * 128))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"targets": "nano"}}, "is not for this model"),
        ({"adapter": {"targets": ["to_quack"]}}, "to_quack"),
        ({"adapter": {"targets": "al"}}, "did you mean 'all'"),
        ({"model": {"variant": "schnel"}}, "flux1-schnell"),
        ({"model": {"path": str(POCKET), "variant": "flux1-schnell"}}, "guidance_embeds"),
        ({"memory": {"device": "cuda:7"}}, "cuda:7"),
        ({"optim": {"warmup_steps": 10}}, "warm-up"),
        ({"data": [{"bucket_step": 24}]}, r"data\.0\.bucket_step"),
        ({"sampling": {"prompts": ["x"], "width": 100}}, "multiples of 16"),
    ],
)
def test_what_cannot_be_is_refused_before_loading(build_run: BuildRun, sections: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(WeberError, match=message):
        build_plan(build_run(**sections))


def test_guidance_and_token_shift_are_refused_where_they_cannot_act(build_run: BuildRun, tiny_schnell: Path) -> None:
    model = {"path": str(tiny_schnell), "variant": "flux1-schnell", "assistant": "off"}
    data = [{"resolution": 64, "bucket_step": 16}]
    assert build_plan(build_run(model=model, data=data)).training_guidance is None
    with pytest.raises(ConfigError, match=r"objective\.guidance"):
        build_plan(build_run(model=model, objective={"guidance": 1.0}))
    with pytest.raises(ConfigError, match="token_shift"):
        build_plan(build_run(model=model, objective={"timesteps": "token_shift"}))
    with pytest.raises(ConfigError, match=r"sampling\.guidance"):
        build_plan(build_run(model=model, sampling={"prompts": ["x"], "guidance": 3.5}))


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        ({"variant": "pocket"}, {}, (64, 16)),
        ({"variant": "pocket"}, {"resolution_type": "shorter_edge"}, (64, 16)),
        ({"variant": "pocket"}, {"resolution": 96, "bucket_step": 32}, (96, 32)),
        ({"path": str(POCKET)}, {}, (64, 16)),
        ({"path": str(POCKET), "variant": "flux1-dev"}, {"minimum_edge": 16, "bucket_step": 16}, (1024, 16)),
    ],
)
def test_sizes_that_are_left_out_fit_the_model(
    tmp_path: Path, pictures: Path, model: dict[str, str], data: dict[str, object], expected: tuple[int, int]
) -> None:
    output = {"folder": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    config = build_config({"model": model, "data": [{"path": str(pictures)} | data], "memory": {"device": "cpu"}, "output": output})
    save_config(config, tmp_path / "again.toml")
    for one in (config, load_config(tmp_path / "again.toml")):
        plan = build_plan(one)
        assert (plan.config.data[0].resolution, plan.config.data[0].bucket_step) == expected
        assert plan.resolved == build_plan(plan.resolved).resolved
