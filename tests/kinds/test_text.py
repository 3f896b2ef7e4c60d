"""Adapters on CLIP: trained with the transformer's, from the first step to pictures and files, here and in the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors.torch import load_file

import weber
from tests.runs import BuildRun, build_watcher
from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter
from weber.adapters.lora import list_factors
from weber.adapters.text import is_text, split_modules
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.checkpoint.save import list_checkpoints
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.errors import AdapterError, CheckpointError, ConfigError, WeberError
from weber.families.flux1.variants import POCKET
from weber.planning import limits
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2
from weber.training.assemble import assemble, encode_cache, train
from weber.training.batch import Reader
from weber.training.bench import Case, measure_case
from weber.training.prepared import Training
from weber.training.step import train_step

TEXT = {"rank": 4, "text_encoder": True, "text_encoder_rank": 2}
PAINTED: dict[str, Any] = {"seed": 7, "steps": 3, "guidance": 3.5, "size": (64, 64)}
NUM_LAYERS = 12  # of the pocket's CLIP: attention and feed-forward of two


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps are slower with more."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def _train(config: RunConfig, *, resume: bool = False) -> Path:
    watcher, _ = build_watcher()
    train(config, resume=resume, watcher=watcher)
    return config.output.folder


def _assemble(config: RunConfig) -> Training:
    """A run before its first step."""
    watcher, _ = build_watcher()
    plan = build_plan(config)
    store = Store(plan.resolved.output.cache)
    encode_cache(plan, store, watcher=watcher)
    return assemble(plan, store, start=Found(0, None, {}), watcher=watcher)


def _read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _read_parts(path: Path) -> tuple[dict[str, Factors], dict[str, Factors]]:
    return split_modules(load_adapter(path).modules)


def _find_largest(modules: dict[str, Factors]) -> float:
    return max(float(one.up.abs().max()) for one in modules.values())


def _paint(folder: Path, **changes: Any) -> np.ndarray:
    [picture] = weber.sample(folder, ["a red apple"], **(PAINTED | changes))
    return np.asarray(picture).astype(int)


def test_both_parts_learn_each_at_its_rate(build_run: BuildRun) -> None:
    """The first update of AdamW moves every number by the rate, where there is a gradient."""
    config = build_run(adapter=TEXT, optim={"lr": 1e-3, "text_encoder_lr": 2e-4, "weight_decay": 0.0}, train={"steps": 1})
    path = _train(config) / "adapter.safetensors"
    assert load_adapter(path).facts["text_encoder_lr"] == 2e-4 and load_adapter(path).metadata["ss_text_encoder_lr"] == "0.0002"
    changed, text = _read_parts(path)
    assert len(text) == NUM_LAYERS and {one.rank for one in text.values()} == {2} and {one.rank for one in changed.values()} == {4}
    assert _find_largest(changed) == pytest.approx(1e-3, rel=1e-3)
    assert _find_largest(text) == pytest.approx(2e-4, rel=1e-3)
    assert all(float(one.up.abs().max()) > 0 for one in text.values())


def test_the_start_is_the_cached_reading_and_moves_only_with_the_adapters(build_run: BuildRun) -> None:
    """Bit for bit in a batch of the size that the cache was filled with; else as near as rounding."""
    training = _assemble(build_run(adapter=TEXT))
    learner, plan = training.learner, training.plan
    assert learner.text is not None
    learning = [name for name, parameter in learner.text.encoder.named_parameters() if parameter.requires_grad]
    assert len(learning) == 2 * NUM_LAYERS and all(".lora_" in name for name in learning)
    assert {name for name, _ in learner.parameters} == set(plan.trained.shapes)
    captions = [example.captions[0] for example in plan.dataset.examples][:4]
    reader = Reader(Store(plan.resolved.output.cache), plan.encoders)
    cached = torch.stack([reader.read_text(caption)["pooled"] for caption in captions])
    with torch.no_grad():
        assert torch.equal(learner.text.encode(captions)["pooled"], cached)
        alone = torch.cat([learner.text.encode([caption])["pooled"] for caption in captions])
    torch.testing.assert_close(alone, cached, atol=2e-6, rtol=1e-5)
    train_step(learner, training.loader.load(0), step=0)
    assert not torch.allclose(learner.text.encode(captions)["pooled"], cached, atol=1e-4)
    plan.kind.write_strength(learner.predictor.transformer, 0.0)
    assert torch.equal(learner.text.encode(captions)["pooled"], cached)


def test_the_loss_falls_with_clip_alone(build_run: BuildRun) -> None:
    """Where the transformer's adapters do not move, what falls is due to CLIP's."""
    settings: dict[str, Any] = {"adapter": TEXT, "train": {"steps": 16}, "output": {"save_every": 16}}
    ends = []
    for name, lr in (("still", 1e-12), ("moving", 2e-2)):
        folder = _train(build_run(name, optim={"lr": 1e-12, "text_encoder_lr": lr}, **settings))
        ends.append(np.mean(_read_losses(folder)[-10:]))
    assert ends[1] < 0.98 * ends[0]


def test_the_library_paints_the_same_picture_and_strength_0_is_the_base(build_run: BuildRun) -> None:
    adapter = TEXT | {"alpha": 8.0}  # strengths of 2 and 4, which a file can take into B without rounding
    settings = {"adapter": adapter, "optim": {"lr": 4e-3}, "train": {"steps": 10}, "output": {"save_every": 10}}
    folder = _train(build_run(sampling={"prompts": ["a red apple"], "seed": 7, "steps": 3, "guidance": 3.5, "every": 10}, **settings))
    pipeline = FluxPipeline.from_pretrained(POCKET)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.5, "max_sequence_length": 24, "output_type": "np"}
    base = pipeline("a red apple", generator=torch.Generator().manual_seed(7), **arguments).images[0]
    pipeline.load_lora_weights(folder / "adapter.safetensors")
    theirs = pipeline("a red apple", generator=torch.Generator().manual_seed(7), **arguments).images[0]
    lora = [name for name, _ in pipeline.text_encoder.named_modules() if name.endswith("lora_A")]
    without = [module for module in pipeline.text_encoder.modules() if hasattr(module, "set_scale")]
    for module in without:
        module.set_scale(module.active_adapters[0], 0.0)
    half = pipeline("a red apple", generator=torch.Generator().manual_seed(7), **arguments).images[0]

    assert len(lora) == NUM_LAYERS
    ours, off = _paint(folder), _paint(folder, strength=0.0)
    assert np.abs(ours - 255 * theirs).max() <= 1.01
    assert np.abs(off - 255 * base).max() <= 1.01
    assert np.abs(half - theirs).max() > 0.02, "CLIP's part is seen"
    before, while_training = (np.asarray(Image.open(folder / "pictures" / f"step-{step:06d}" / "00.png")) for step in (0, 10))
    assert np.array_equal(while_training, ours)
    assert np.array_equal(before, off)


def test_two_and_two_are_four(build_run: BuildRun) -> None:
    sections: dict[str, Any] = {
        "adapter": TEXT | {"dropout": 0.1},
        "optim": {"name": "adamw_bf16", "text_encoder_lr": 5e-4, "ema_decay": 0.9},
        "train": {"accumulation": 2, "steps": 4},
        "data": [{"caption_dropout": 0.3}],
        "output": {"save_every": 2},
    }
    whole = _train(build_run("whole/run", **sections))
    parts = build_run("parts/run", **sections)
    _train(parts.model_copy(update={"train": parts.train.model_copy(update={"steps": 2})}))
    _train(parts, resume=True)
    assert _read_losses(whole) == _read_losses(parts.output.folder)
    last = "checkpoint-000004"
    assert [path.name for _, path in list_checkpoints(whole)][-1] == last
    for name in ("adapter.safetensors", f"{last}/optimizer.safetensors", f"{last}/ema.safetensors"):
        assert (whole / name).read_bytes() == (parts.output.folder / name).read_bytes(), name
    means, state = load_file(whole / last / "ema.safetensors"), load_file(whole / last / "optimizer.safetensors")
    assert sum(is_text(name) for name in means) == 2 * NUM_LAYERS
    assert any("text_encoder.text_model.encoder.layers.1.mlp.fc2.lora_B" in name for name in state)
    with pytest.raises(CheckpointError, match="adapter.text_encoder_rank: 2 -> 3"):
        _train(build_run("parts/run", **(sections | {"adapter": TEXT | {"dropout": 0.1, "text_encoder_rank": 3}})), resume=True)


def test_batch_two_is_batch_one_with_accumulation_two(build_run: BuildRun) -> None:
    one = _train(build_run("one", adapter=TEXT, train={"batch_size": 1, "accumulation": 2, "steps": 2}))
    two = _train(build_run("two", adapter=TEXT, train={"batch_size": 2, "accumulation": 1, "steps": 2}))
    assert _read_losses(one) == pytest.approx(_read_losses(two), rel=1e-5)


def test_fused_backward_moves_the_same(build_run: BuildRun) -> None:
    optim = {"name": "adamw_bf16", "clip_norm": "off"}
    plain = _train(build_run("plain", adapter=TEXT, optim=optim, train={"steps": 2}))
    fused = _train(build_run("fused", adapter=TEXT, optim=optim | {"fused_backward": True}, train={"steps": 2}))
    for name, tensor in load_file(plain / "adapter.safetensors").items():
        assert torch.equal(tensor, load_file(fused / "adapter.safetensors")[name]), name


def test_ways_of_keeping_less_change_nothing(build_run: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit where the gradient of the pooled vector, which goes to every block, is summed in the same order; else up to rounding."""
    monkeypatch.setattr(limits, "_check_device", lambda config, device: None)  # on a CPU bytes would only be copied
    modes: dict[str, dict[str, Any]] = {
        "none": {"gradient_checkpointing": "none"},
        "lean": {"gradient_checkpointing": "lean"},
        "swap": {"swap_blocks": "all"},
        "host": {"modulation": "host", "gradient_checkpointing": "all"},
    }
    runs = {name: _train(build_run(name, adapter=TEXT, train={"steps": 2}, memory=memory)) for name, memory in modes.items()}
    files = {name: load_file(folder / "adapter.safetensors") for name, folder in runs.items()}
    assert _read_losses(runs["none"]) == _read_losses(runs["lean"])
    assert all(torch.equal(tensor, files["lean"][name]) for name, tensor in files["none"].items())
    for name in ("swap", "host"):
        assert _read_losses(runs[name]) == pytest.approx(_read_losses(runs["none"]), rel=1e-5)


@pytest.mark.parametrize("memory", [{"quantize_text_encoder": "int8"}, {"quantize_text_encoder": "nf4", "dtype": "bf16"}])
def test_a_quantized_clip_learns(build_run: BuildRun, memory: dict[str, Any]) -> None:
    folder = _train(build_run(adapter=TEXT, train={"steps": 1}, memory=memory))
    _, text = _read_parts(folder / "adapter.safetensors")
    assert _find_largest(text) > 1e-4 and {one.down.dtype for one in text.values()} == {torch.float32}


def test_a_regularization_set_is_held_to_the_base_reading(build_run: BuildRun, pictures: Path) -> None:
    sets = [{}, {"path": str(pictures), "name": "others", "regularization": True}]
    training = _assemble(build_run(adapter=TEXT, data=sets, train={"batch_size": 2}))
    learner, steps = training.learner, [training.loader.load(step) for step in range(4)]
    kept = next(batches for batches in steps if all(batch.is_regularization for batch in batches))
    assert train_step(learner, kept, step=0)["loss_regularization"] < 1e-9
    learned = next(batches for batches in steps if not any(batch.is_regularization for batch in batches))
    for step in range(1, 4):
        train_step(learner, learned, step=step)
    [one] = kept
    assert learner.teacher is not None
    asked = learner.teacher.ask(one.latents_BCHW, torch.tensor([0.5, 0.7]), condition=_told(training, one.condition))
    fresh = _assemble(build_run("fresh")).learner.predictor
    with torch.no_grad():
        assert torch.equal(asked, fresh(one.latents_BCHW, torch.tensor([0.5, 0.7]), _told(training, one.condition)).float())


def _told(training: Training, condition: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return condition | {"guidance": torch.ones(2)}


def test_the_running_mean_paints_with_its_own_clip(build_run: BuildRun) -> None:
    folder = _train(build_run(adapter=TEXT, optim={"lr": 3e-3, "ema_decay": 0.99}, train={"steps": 4}))
    means = split_modules(load_adapter(folder / "adapter-ema.safetensors").modules)[1]
    assert 0 < _find_largest(means) < _find_largest(_read_parts(folder / "adapter.safetensors")[1])
    assert np.abs(_paint(folder / "adapter-ema.safetensors") - _paint(folder)).max() > 0


def test_every_layout_carries_both_parts_and_can_be_started_from(build_run: BuildRun) -> None:
    layouts = ["diffusers", "kohya", "comfyui"]
    first = _train(build_run("first", adapter=TEXT | {"alpha": 6.0}, train={"steps": 2}, output={"formats": layouts}))
    expected = load_adapter(first / "adapter.safetensors").modules
    for layout in layouts:
        path = first / ("adapter.safetensors" if layout == "diffusers" else f"adapter-{layout}.safetensors")
        training = _assemble(build_run("second", adapter=TEXT | {"text_encoder_rank": 3, "start_from": str(path)}))
        for modules in (load_adapter(path).modules, list_factors(training.learner.predictor.transformer)):
            assert set(modules) == set(expected)
            for name, factors in expected.items():
                torch.testing.assert_close(modules[name].build_delta(), factors.build_delta(), atol=1e-7, rtol=1e-5)


def test_the_plan_says_what_clip_takes(build_run: BuildRun) -> None:
    report = build_report(build_plan(build_run(adapter=TEXT, optim={"text_encoder_lr": 5e-5})))
    numbers = 2 * sum(2 * (inputs + outputs) for inputs, outputs in [(128, 128)] * 4 + [(128, 256), (256, 128)])
    assert f"CLIP learns too: rank 2, {numbers:,} of these numbers on 12 of its layers, lr 5e-05" in report
    assert "text encoder" in report.partition("Memory and time")[2].partition("encoding")[0]
    assert " linear layers and 12 of CLIP, " in report
    assert "CLIP" not in build_report(build_plan(build_run()))


def test_the_estimate_is_what_a_real_step_takes() -> None:
    """With CLIP-L at its full size, in 8 bits; within a fiftieth of what PyTorch's allocator held."""
    small = {"num_layers": 1, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 64, "axes_dims_rope": [16, 24, 24]}
    settings = {"adapter": {"text_encoder": True}, "memory": {"gradient_checkpointing": "none", "quantize_text_encoder": "int8"}}
    found = measure_case(Case("flux1-dev", 256, settings, small), device="cpu", num_steps=1)
    assert found.estimated_bytes == pytest.approx(found.peak_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("adapter", "optim", "words"),
    [
        ({"text_encoder": True, "dora": True}, {}, "dora cannot act with text_encoder"),
        ({"text_encoder": True, "init": "pissa"}, {}, 'init = "pissa" is known for the transformer alone'),
        ({"text_encoder": True, "init": "eva"}, {}, 'init = "eva" is known for the transformer alone'),
        ({"text_encoder_rank": 4}, {}, "text_encoder_rank has no effect"),
        ({}, {"text_encoder_lr": 1e-5}, "text_encoder_lr has no effect"),
        ({"kind": "full", "text_encoder": True}, {}, "text_encoder"),
        ({"kind": "lycoris", "lycoris": {"algo": "lokr"}, "text_encoder": True}, {}, "text_encoder"),
    ],
)
def test_what_cannot_act_is_refused(adapter: dict[str, Any], optim: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({"data": [{"path": "pictures"}], "adapter": adapter, "optim": optim})


@pytest.mark.parametrize("start", ["default", "gaussian", "orthogonal"])
def test_starts_that_clip_can_have_leave_it_as_it_was(build_run: BuildRun, start: str) -> None:
    training = _assemble(build_run(adapter=TEXT | {"init": start, "rslora": True, "alpha": 3.0}))
    text = {name: one for name, one in list_factors(training.learner.predictor.transformer).items() if is_text(name)}
    assert len(text) == NUM_LAYERS
    for one in text.values():
        assert one.scale == pytest.approx(3.0 / 2**0.5)
        assert float(one.build_delta().abs().max()) < 1e-6


def test_models_and_files_that_cannot_are_refused(build_run: BuildRun, tmp_path: Path) -> None:
    other = build_random_flux2(tmp_path / "other", "klein")
    refused: list[tuple[dict[str, Any], type[WeberError], str]] = [
        ({"model": {"path": str(other), "variant": None}}, ConfigError, "has no CLIP"),
        ({"output": {"formats": ["diffusers", "merged-bfl"]}}, AdapterError, "a merged model is the transformer alone"),
        ({"adapter": TEXT | {"text_encoder_rank": 200}}, ConfigError, "The rank is higher than any layer of CLIP has"),
        ({"adapter": TEXT | {"text_encoder_rank": 3, "init": "orthogonal"}}, AdapterError, "rank 3 for text_encoder"),
    ]
    for sections, kind, words in refused:
        with pytest.raises(kind, match=words):
            build_plan(build_run(**({"adapter": TEXT} | sections)))
