"""Frozen adapters beside what is trained: they take part, with strengths of their own, and are in no file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.runs import BuildRun, build_watcher, write_pocket_lora
from weber.adapters.files import load_adapter
from weber.config.run import RunConfig
from weber.errors import WeberError
from weber.planning.plan import build_plan
from weber.training.assemble import train
from weber.training.paint import Wish, sample


def _train(config: RunConfig) -> Path:
    train(config, resume=False, watcher=build_watcher()[0])
    return config.output.folder


def _read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _stack(*places: Path, **strengths: float) -> dict[str, Any]:
    return {"model": {"variant": "pocket", "adapters": [{"path": str(place), **strengths} for place in places]}}


def test_frozen_adapters_take_part_and_are_not_in_the_file(build_small: BuildRun, tmp_path: Path) -> None:
    first, second = (write_pocket_lora(tmp_path / f"{rank}.safetensors", rank=rank) for rank in (2, 3))
    stacks = {
        "none": {},
        "both": _stack(first, second),
        "weak": _stack(first, second, strength=0.5),
        "unseen": _stack(first, second, sample_strength=0.0),
    }
    one_step = {"train": {"steps": 1, "batch_size": 1}, "optim": {"lr": 1e-12}, "sampling": {"prompts": ["red apple"], "steps": 1}}
    folders = {name: _train(build_small(name, **one_step, **stack)) for name, stack in stacks.items()}
    losses = {name: _read_losses(folder)[0] for name, folder in folders.items()}
    assert losses["both"] == losses["unseen"] and len(set(losses.values())) == 3
    pictures = {name: np.asarray(Image.open(folder / "pictures" / "step-000001" / "00.png")) for name, folder in folders.items()}
    assert np.array_equal(pictures["none"], pictures["unseen"])
    assert not np.array_equal(pictures["none"], pictures["both"])
    files = [load_file(folder / "adapter.safetensors") for folder in folders.values()]
    assert files[0].keys() == files[1].keys() and all(torch.allclose(one, files[1][name]) for name, one in files[0].items())
    [again] = sample(folders["both"], Wish(["red apple"]), watcher=build_watcher()[0])
    assert np.abs(np.asarray(again).astype(int) - pictures["both"]).max() <= 1


def test_another_frozen_adapter_is_noticed_on_resume(build_small: BuildRun, tmp_path: Path) -> None:
    path = write_pocket_lora(tmp_path / "a.safetensors")
    few = {"train": {"steps": 2, "batch_size": 1}}
    _train(build_small("run", **_stack(path), **few))
    shutil.copyfile(write_pocket_lora(tmp_path / "b.safetensors", rank=5), path)
    watcher, said = build_watcher()
    train(build_small("run", **_stack(path), train={"steps": 3, "batch_size": 1}), resume=True, watcher=watcher)
    assert "the adapter_0 of the model" in said.getvalue()
    assert "The adapter 0" in said.getvalue()


def test_a_run_and_its_checkpoint_are_frozen_adapters(build_small: BuildRun) -> None:
    """The trained adapter is meant, whatever other files of weights lie there."""
    run = _train(build_small("before", train={"steps": 1, "batch_size": 1}))
    write_pocket_lora(run / "adapter-kohya.safetensors")
    for place in (run, run / "checkpoint-000001"):
        [frozen] = build_plan(build_small("after", **_stack(place))).frozen
        modules = load_adapter(run / "adapter.safetensors").modules
        assert set(frozen.modules) == set(modules)
        assert all(torch.equal(one.up, modules[name].up) for name, one in frozen.modules.items())


def test_frozen_adapters_beside_trained_weights(build_small: BuildRun, tmp_path: Path) -> None:
    path = write_pocket_lora(tmp_path / "a.safetensors")
    full = {"adapter": {"kind": "full", "targets": ["transformer_blocks.0.attn.to_q"], "rank": 16}, "optim": {"lr": 1e-5}}
    few = {"train": {"steps": 1, "batch_size": 1}}
    folders = [_train(build_small(name, **full, **few, **stack)) for name, stack in (("without", {}), ("with", _stack(path)))]
    assert _read_losses(folders[0]) != _read_losses(folders[1])


def test_frozen_adapters_that_cannot_act_are_refused(build_small: BuildRun, build_run: BuildRun, tmp_path: Path) -> None:
    plain, dora = write_pocket_lora(tmp_path / "a.safetensors"), write_pocket_lora(tmp_path / "b.safetensors", dora=True)
    with pytest.raises(WeberError, match="has no effect"):
        build_plan(build_small("run", **_stack(plain, strength=0.0)))
    with pytest.raises(WeberError, match=r"model\.adapters\.1 is a DoRA.*\n  got: magnitudes of .*\n  expected: a LoRA"):
        build_plan(build_small("run", **_stack(plain, dora)))
    with pytest.raises(WeberError, match="weber merge"):
        build_plan(build_run(output={"formats": ["diffusers", "merged-bfl"]}, **_stack(plain)))
