"""A whole run, from a folder of pictures to an adapter that another tool paints with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import weber
from tests.runs import BuildRun, build_watcher
from weber.checkpoint.save import list_checkpoints
from weber.config.load import load_config
from weber.config.run import RunConfig
from weber.data.buckets import Bucket
from weber.errors import CacheError, ModelError
from weber.families.flux1.variants import POCKET
from weber.training.assemble import train

PROMPTS = ["a red apple", "a dog"]
PINNED_LOSSES = [0.807775, 0.478734, 1.458899, 0.826872, 0.820052]


def run_whole(config: RunConfig) -> tuple[Path, str]:
    watcher, buffer = build_watcher()
    train(config, resume=False, watcher=watcher)
    return config.output.folder, buffer.getvalue()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves_behind(build_run: BuildRun) -> None:
    config = build_run(sampling={"prompts": PROMPTS, "every": 5, "steps": 2}, output={"trackers": ["tensorboard"], "keep_last": 2})
    folder, said = run_whole(config)

    resolved = load_config(folder / "config.toml")
    assert resolved == weber.plan(config).resolved == weber.plan(resolved).resolved
    assert (resolved.model.variant, resolved.objective.guidance, resolved.sampling.guidance) == ("pocket", 1.0, 2.0)
    assert [step for step, _ in list_checkpoints(folder)] == [9, 10]
    metrics = read_metrics(folder)
    assert [line["step"] for line in metrics] == list(range(1, 11))
    assert {"loss", "grad_norm", "lr", "seconds", "epoch"} <= metrics[0].keys()
    assert list((folder / "tensorboard").iterdir())
    for step in (0, 5, 10):
        assert Image.open(folder / "pictures" / f"step-{step:06d}.png").width > 0
        assert [Image.open(folder / "pictures" / f"step-{step:06d}" / f"{n:02d}.png").size for n in range(2)] == [(64, 64)] * 2
    before, after = (np.asarray(Image.open(folder / "pictures" / f"step-{step:06d}" / "00.png"), dtype=int) for step in (0, 10))
    assert np.abs(before - after).max() > 0
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert "12 pictures in 1 bucket" in said and "training: 10/10" in said

    with safe_open(folder / "adapter.safetensors", framework="pt") as file:
        metadata = file.metadata()
        names = sorted(file.keys())
    facts = json.loads(metadata["weber"])
    assert facts["steps"] == 10 and facts["num_pictures"] == 12 and facts["variant"] == "pocket"
    assert json.loads(metadata["lora_adapter_metadata"])["transformer.lora_alpha"] == 4
    assert "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight" in names
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "adapter.safetensors").values())


def test_other_prompts_do_not_share_a_sheet(build_run: BuildRun) -> None:
    folder, _ = run_whole(build_run(train={"steps": 2}, sampling={"prompts": ["a dog"], "steps": 2}))
    base = (folder / "pictures" / "step-000000" / "00.png").read_bytes()
    watcher, _ = build_watcher()
    train(build_run(train={"steps": 3}, sampling={"prompts": ["a blue car"], "steps": 2}), resume=True, watcher=watcher)
    assert (folder / "pictures-1" / "step-000000" / "00.png").read_bytes() == base
    assert (folder / "pictures" / "step-000000" / "00.png").read_bytes() != base
    assert (folder / "pictures" / "step-000003.png").is_file()


def read_gain(build_run: BuildRun, dtype: str) -> tuple[float, Path, str]:
    """How much lower the last ten losses of a run are than those of a run that does not learn: both draw the same pictures and noise."""
    ends = []
    for name, lr in (("frozen", 1e-12), ("learning", 5e-3)):
        settings = {"optim": {"lr": lr}, "memory": {"dtype": dtype}, "train": {"steps": 20}, "output": {"save_every": 20}}
        folder, said = run_whole(build_run(name, **settings))
        ends.append(np.mean([line["loss"] for line in read_metrics(folder)[-10:]]))
    return float(1 - ends[1] / ends[0]), folder, said


def test_the_loss_falls(build_run: BuildRun) -> None:
    gain, _, _ = read_gain(build_run, "fp32")
    assert gain > 0.05


def test_a_bf16_base_learns_in_fp32_adapters(build_run: BuildRun) -> None:
    gain, folder, said = read_gain(build_run, "bf16")
    assert gain > 0.05
    assert "in bf16" in said
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "adapter.safetensors").values())


def test_the_library_paints_the_same_picture_with_the_saved_file(build_run: BuildRun) -> None:
    folder, _ = run_whole(build_run(adapter={"alpha": 7.0}, optim={"lr": 4e-3}, train={"steps": 6}, output={"save_every": 6}))
    pipeline = FluxPipeline.from_pretrained(POCKET)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.5, "max_sequence_length": 24, "output_type": "np"}
    base = pipeline("a red apple", generator=torch.Generator().manual_seed(7), **arguments).images[0]
    pipeline.load_lora_weights(folder / "adapter.safetensors")
    theirs = pipeline("a red apple", generator=torch.Generator().manual_seed(7), **arguments).images[0]
    [ours] = weber.sample(folder, ["a red apple"], seed=7, steps=3, guidance=3.5, size=(64, 64))
    [off] = weber.sample(folder, ["a red apple"], seed=7, steps=3, guidance=3.5, size=(64, 64), strength=0.0)

    assert np.abs(np.asarray(ours) - 255 * theirs).max() <= 1.01
    assert np.abs(np.asarray(off) - 255 * base).max() <= 1.01
    assert np.abs(base - theirs).max() > 0.05


def test_a_base_that_is_not_finite_is_named(build_run: BuildRun, tmp_path: Path) -> None:
    """Pictures and the learning rate are not to blame, and there is nothing to be saved."""
    model = Path(shutil.copytree(POCKET, tmp_path / "model"))
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.bias"][:] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    config = build_run(model={"path": str(model)})
    with pytest.raises(ModelError) as caught:
        run_whole(config)
    assert caught.value.got == f"proj_out.bias in {model}"
    assert list_checkpoints(config.output.folder) == []


def test_an_encoder_that_is_not_finite_is_named(build_run: BuildRun, tmp_path: Path) -> None:
    model = Path(shutil.copytree(POCKET, tmp_path / "model"))
    weights = next((model / "vae").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors["encoder.conv_in.bias"][0] = float("inf")
    save_file(tensors, weights, metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "cache")  # so that the encoder is run
    with pytest.raises(ModelError, match=r"(?s)encoding pictures.*encoder\.conv_in\.bias"):
        run_whole(build_run(model={"path": str(model)}))


def test_a_damaged_cache_is_encoded_again(build_run: BuildRun) -> None:
    whole, _ = run_whole(build_run("whole", train={"steps": 4}))
    shards = sorted((whole.parent / "cache").glob("*.safetensors"))
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(data)
    config = build_run("again", train={"steps": 4})
    with pytest.raises(CacheError, match="start again"):
        run_whole(config)
    watcher, buffer = build_watcher()
    train(config, resume=True, watcher=watcher)
    assert "Encoded" in buffer.getvalue()
    expected = load_file(whole / "adapter.safetensors")
    for name, tensor in load_file(config.output.folder / "adapter.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


def test_first_losses_are_pinned(build_run: BuildRun) -> None:
    folder, _ = run_whole(build_run(train={"steps": 5}))
    assert [line["loss"] for line in read_metrics(folder)] == pytest.approx(PINNED_LOSSES, rel=1e-4)


def test_python_surface_trains_and_plans(build_run: BuildRun) -> None:
    config = build_run(train={"steps": 2})
    assert weber.plan(config).num_steps == 2
    assert weber.train(config).is_file()
    assert weber.train(config, resume=True).is_file()


def test_sizes_of_ones_own_reach_the_cache_and_the_next_start(build_run: BuildRun) -> None:
    config = build_run(data=[{"buckets": [[64, 32], [48, 48], [32, 32]]}], train={"steps": 2})
    train(config, resume=False, watcher=build_watcher()[0])
    kept = load_config(config.output.folder / "config.toml")
    assert kept.data[0].buckets == [[64, 32], [48, 48], [32, 32]] and kept.data[0].aspect == "listed"
    plan = weber.plan(kept)
    assert {example.bucket for example in plan.dataset.examples} == {Bucket(48, 48)}  # square pictures of 96 pixels
    shorter = build_run("shorter", data=[{"buckets": [[64, 32]], "crop": "off"}], train={"steps": 1})
    train(shorter, resume=False, watcher=build_watcher()[0])
