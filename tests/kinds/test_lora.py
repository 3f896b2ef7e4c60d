"""Every kind of low-rank adapter, from its start to its file in other hands."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders import FluxLoraLoaderMixin
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.runs import BuildRun, build_watcher, write_pocket_lora
from weber.adapters.files import load_adapter
from weber.adapters.lora import load_adapter_onto
from weber.config.run import RunConfig
from weber.errors import WeberError
from weber.families.flux1.variants import POCKET
from weber.families.tensors import read_metadata
from weber.planning.budget import build_estimate
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.training.assemble import train
from weber.training.paint import Wish, sample

INT8 = {"memory": {"quantize": "int8"}}
RULES = [{"match": "transformer_blocks.*.attn.*", "rank": 6, "lr": 2e-3}, {"match": "attn.to_q", "alpha": 3.0}]
RUNS: dict[str, dict[str, Any]] = {
    "gaussian": {"adapter": {"init": "gaussian"}},
    "orthogonal": {"adapter": {"init": "orthogonal"}},
    "pissa": {"adapter": {"init": "pissa", "alpha": 7.0}},
    "pissa of packed layers, with rules": {"adapter": {"init": "pissa", "rules": RULES}, **INT8},
    "olora": {"adapter": {"init": "olora"}},
    "loftq": {"adapter": {"init": "loftq", "alpha": 2.0}, "memory": {"quantize": "int4"}},
    "eva": {"adapter": {"init": "eva"}},
    "rslora with rules": {"adapter": {"rslora": True, "rules": RULES}},
    "dora": {"adapter": {"dora": True, "rules": RULES}},
    "dora of packed layers, with dropout": {"adapter": {"dora": True, "dropout": 0.2}, **INT8},
}


def _train(config: RunConfig, *, resume: bool = False) -> Path:
    train(config, resume=resume, watcher=build_watcher()[0])
    return config.output.folder


def _read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _predict(network: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    config = network.config
    with torch.no_grad():
        output: Tensor = network(
            hidden_states=torch.randn(1, 6, config.in_channels, generator=generator),
            encoder_hidden_states=torch.randn(1, 5, config.joint_attention_dim, generator=generator),
            pooled_projections=torch.randn(1, config.pooled_projection_dim, generator=generator),
            img_ids=torch.randint(4, (6, 3), generator=generator).float(),
            txt_ids=torch.zeros(5, 3),
            timestep=torch.tensor([0.4]),
            guidance=torch.tensor([2.0]),
            return_dict=False,
        )[0]
    return output


@cache
def _read_network() -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(POCKET / "transformer").requires_grad_(False)


def _load_network() -> FluxTransformer2DModel:
    return copy.deepcopy(_read_network())


def _predict_by_library(path: Path) -> Tensor:
    """The finished file on the original model, in the library's hands."""
    network = _load_network()
    tensors, alphas, settings = FluxLoraLoaderMixin.lora_state_dict(
        str(path.parent), weight_name=path.name, return_alphas=True, return_lora_metadata=True, local_files_only=True
    )
    FluxLoraLoaderMixin.load_lora_into_transformer(tensors, network_alphas=alphas, transformer=network, metadata=settings)
    return _predict(network.eval())


def _read_plain(build_small: BuildRun, sections: Mapping[str, Any], known: dict[str, float]) -> float:
    """The first loss of a plain adapter with the same other settings."""
    adapter = {key: value for key, value in sections["adapter"].items() if key == "dropout"}
    same = {"adapter": adapter, "memory": sections.get("memory", {})}
    if str(same) not in known:
        folder = _train(build_small(f"plain-{len(known)}", **same, train={"steps": 1, "batch_size": 1}))
        known[str(same)] = _read_losses(folder)[0]
    return known[str(same)]


@pytest.fixture(scope="module")
def known() -> dict[str, float]:
    """First losses by settings."""
    return {}


@pytest.mark.parametrize("name", RUNS)
def test_trains_resumes_and_is_the_same_elsewhere(name: str, build_small: BuildRun, tmp_path: Path, known: dict[str, float]) -> None:
    sections = RUNS[name]
    painting = {"sampling": {"prompts": ["red apple"], "steps": 1, "every": 4}}
    whole = _train(build_small("whole/run", **sections, **painting))
    if name != "loftq":
        assert _read_losses(whole)[0] == pytest.approx(_read_plain(build_small, sections, known), rel=1e-5), "the model starts as it was"
    parts = tmp_path / "parts" / "run"
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoint-000004")
    (parts / "adapter.safetensors").unlink()
    _train(build_small("parts/run", **sections), resume=True)
    for file in ("adapter.safetensors", "checkpoint-000004/adapter.safetensors", "checkpoint-000004/optimizer.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file

    path = whole / "adapter.safetensors"
    network, base = _load_network(), _predict(_load_network())
    load_adapter_onto(network, load_adapter(path))
    ours, theirs = _predict(network), _predict_by_library(path)
    assert torch.allclose(ours, theirs, atol=1e-5 * float(base.abs().max()))
    assert (ours - base).abs().max() > 1e-3 * base.abs().max()
    painted = np.asarray(Image.open(whole / "pictures" / "step-000004" / "00.png")).astype(int)
    [again] = sample(whole, Wish(["red apple"]), watcher=build_watcher()[0])
    assert np.abs(np.asarray(again).astype(int) - painted).max() <= 1, "the file is what was trained"


def test_the_running_mean_of_a_start_that_is_not_zero(build_small: BuildRun) -> None:
    """What learned is apart from what is taken away: in the checkpoint's mean is the first alone."""
    painting = {"sampling": {"prompts": ["red apple"], "steps": 1, "every": 2, "weights": "ema"}}
    few = {"train": {"steps": 2, "batch_size": 1}, "optim": {"ema_decay": 0.9}}
    folder = _train(build_small("run", adapter={"init": "pissa"}, **few, **painting))
    painted = np.asarray(Image.open(folder / "pictures" / "step-000002" / "00.png")).astype(int)
    for place in (folder, folder / "checkpoint-000002"):
        [again] = sample(place, Wish(["red apple"]), watcher=build_watcher()[0])
        assert np.abs(np.asarray(again).astype(int) - painted).max() <= 1


@pytest.mark.parametrize("name", ["start_from", "loftq"])
def test_the_base_model_is_shown_without_what_training_starts_with(name: str, build_small: BuildRun, tmp_path: Path) -> None:
    """The first picture is what `weber sample --strength 0` paints."""
    start = {"start_from": str(write_pocket_lora(tmp_path / "start.safetensors"))}
    sections = {"adapter": start} if name == "start_from" else RUNS[name]
    painting = {"sampling": {"prompts": ["red apple"], "steps": 1, "every": 1}}
    folder = _train(build_small("run", **sections, **painting, train={"steps": 1, "batch_size": 1}))
    first = np.asarray(Image.open(folder / "pictures" / "step-000000" / "00.png")).astype(int)
    [base] = sample(folder, Wish(["red apple"], strength=0.0), watcher=build_watcher()[0])
    assert np.abs(np.asarray(base).astype(int) - first).max() <= 1


@pytest.mark.parametrize("init", ["pissa", "default"])
def test_checkpointing_changes_no_bit(init: str, build_small: BuildRun) -> None:
    """Also where the layers are DoRAs."""
    adapter = {"dora": True} if init == "default" else {"init": init}
    train_of = {"steps": 2, "batch_size": 1}
    files = []
    for mode in ("none", "all", "lean"):
        folder = _train(build_small(f"{mode}/run", adapter=adapter, train=train_of, memory={"gradient_checkpointing": mode}))
        files.append((folder / "adapter.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("adapter", [{"dora": True}, {"init": "olora"}])
def test_blocks_that_lie_on_the_disk(adapter: dict[str, Any], build_small: BuildRun) -> None:
    """Where weights are not in memory when the adapters are made."""
    memory = {"swap_blocks": 2, "swap_to": "disk"}
    losses = [
        _read_losses(_train(build_small(name, adapter=adapter, memory=one)))
        for name, one in (("plain", {"gradient_checkpointing": "all"}), ("swapped", memory | {"gradient_checkpointing": "all"}))
    ]
    assert losses[0] == losses[1]


def test_starts_from_a_dora(build_small: BuildRun, tmp_path: Path) -> None:
    """With a rate of almost nothing the result is the file, whatever rank it has."""
    path = write_pocket_lora(tmp_path / "start.safetensors", dora=True)
    adapter = {"dora": True, "start_from": str(path), "rank": 6}
    folder = _train(build_small("run", adapter=adapter, train={"steps": 1, "batch_size": 1}, optim={"lr": 1e-12}))
    predictions = []
    for file in (path, folder / "adapter.safetensors"):
        network = _load_network()
        load_adapter_onto(network, load_adapter(file))
        predictions.append(_predict(network))
    assert torch.allclose(*predictions, atol=1e-4)
    with pytest.raises(WeberError, match=r"set adapter\.dora = true"):
        build_plan(build_small("other", adapter={"start_from": str(path), "rank": 6}))


def test_a_start_of_a_higher_rank_is_cut_if_asked(build_small: BuildRun, tmp_path: Path) -> None:
    path = write_pocket_lora(tmp_path / "start.safetensors", rank=8)
    rules = [{"match": "to_q", "rank": 3}]
    plan = build_plan(build_small("run", adapter={"start_from": str(path), "resize_start": True, "rules": rules}))
    assert plan.start is not None
    whole = load_adapter(path).modules
    for name, rank in (("transformer_blocks.0.attn.to_q", 3), ("single_transformer_blocks.0.proj_mlp", 4)):
        left, values, right = torch.linalg.svd(whole[name].build_delta())
        nearest = left[:, :rank] * values[:rank] @ right[:rank]
        assert plan.start.modules[name].rank == rank
        assert torch.allclose(plan.start.modules[name].build_delta(), nearest, atol=1e-4)
    with pytest.raises(WeberError, match=r"adapter\.resize_start = true"):
        build_plan(build_small("run", adapter={"start_from": str(path)}))
    with pytest.raises(WeberError, match="nothing is cut"):
        build_plan(build_small("run", adapter={"start_from": str(path), "resize_start": True, "rank": 8}))


def test_the_plan_shows_every_setting(build_small: BuildRun, tmp_path: Path) -> None:
    path = write_pocket_lora(tmp_path / "a.safetensors")
    adapter = {"rank": 8, "rules": RULES, "init": "pissa", "rslora": True}
    model = {"variant": "pocket", "adapters": [{"path": str(path), "strength": 0.7}]}
    text = build_report(build_plan(build_small("run", adapter=adapter, model=model)))
    assert "  rank 6, alpha 6, lr 0.002: " in text
    assert "layers (transformer_blocks.*.attn.to_k" in text
    assert "scaled by alpha / sqrt(rank), starts as pissa, twice the rank in the file, without its start" in text
    assert f"adapter 0 {path}: strength 0.7 in training, 0.7 in pictures" in text
    plan = build_plan(build_small("run", adapter=adapter))
    assert f"adapter.safetensors, {2 * plan.trained.num_bytes / 2**20:.1f} MiB: the finished adapter" in text
    assert plan.trained.shapes["transformer_blocks.0.attn.to_q.lora_A.default.weight"][0] == 6
    assert plan.trained.rates["transformer_blocks.0.attn.to_q.lora_A.default.weight"] == pytest.approx(2.0)
    assert "single_transformer_blocks.0.attn.to_q.lora_A.default.weight" not in plan.trained.rates


@pytest.mark.parametrize("name", ["pissa of packed layers, with rules", "dora of packed layers, with dropout", "eva"])
def test_the_estimate_sees_what_is_put_on_the_network(name: str, build_small: BuildRun, tmp_path: Path) -> None:
    stack = {"model": {"variant": "pocket", "adapters": [{"path": str(write_pocket_lora(tmp_path / "a.safetensors"))}]}}
    plain, own = (build_plan(build_small("run", **sections)) for sections in (RUNS[name] | {"adapter": {}}, RUNS[name] | stack))
    parts = [build_estimate(plan.config, plan.workload).phases[0].parts for plan in (plain, own)]
    assert parts[1]["frozen adapters"] > 0
    held = [sum(size for part, size in one.items() if "adapters" in part) for one in parts]
    assert held[1] > held[0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rule for nothing": ({"adapter": {"rules": [{"match": "attn.to_z", "rank": 2}]}}, r"adapter\.rules\.0\.match means no layer"),
    "nothing excluded": ({"adapter": {"exclude": ["norm_out.linear"]}}, r"adapter\.exclude means no layer"),
    "no such block": ({"adapter": {"blocks": ["transformer_blocks.0-99"]}}, r"some of transformer_blocks\.0-"),
    "an odd rank": ({"adapter": {"init": "orthogonal", "rank": 3}}, "needs an even rank"),
    "a rank that no layer has": ({"adapter": {"rules": [{"match": "to_q", "rank": 4096}]}}, "The rank is higher"),
    "loftq of plain weights": ({"adapter": {"init": "loftq"}}, r"set memory\.quantize"),
    "loftq with kept answers": (
        {
            "adapter": {"init": "loftq"},
            "memory": {"quantize": "int4"},
            "data": [{}, {"path": "others", "regularization": True}],
            "objective": {"teacher_draws": 2},
        },
        r"remove objective\.teacher_draws",
    ),
    "dora in other layouts": ({"adapter": {"dora": True}, "output": {"formats": ["diffusers", "kohya"]}}, "cannot carry a DoRA"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_act_is_refused_before_training(name: str, build_run: BuildRun) -> None:
    sections, message = REFUSED[name]
    with pytest.raises(WeberError, match=message) as caught:
        build_plan(build_run(**sections))
    assert "fix: " in str(caught.value)


@pytest.mark.parametrize("adapter", [{"alpha": 7.0}, {"alpha": 6.0, "rslora": True}, {"alpha": 8.0}])
def test_the_scale_is_in_the_numbers_of_the_file(adapter: dict[str, Any], build_small: BuildRun, tmp_path: Path) -> None:
    """What was asked for stays in the facts. A start from the file gives the file; a checkpoint keeps what the file has to round."""
    few = {"train": {"steps": 1, "batch_size": 1}}
    folder = _train(build_small("run", adapter={"rank": 4, **adapter}, **few))
    metadata = read_metadata(folder / "adapter.safetensors")
    assert json.loads(metadata["lora_adapter_metadata"])["transformer.lora_alpha"] == 4
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4.0")
    assert json.loads(metadata["weber"])["adapter"] == {"rank": 4, **adapter}
    assert (folder / "checkpoint-000001" / "exact.safetensors").is_file() == (adapter["alpha"] != 8.0)
    start = {"rank": 4, **adapter, "start_from": str(folder)}
    again = _train(build_small("again", adapter=start, optim={"lr": 1e-30}, **few))
    before, after = (load_file(place / "adapter.safetensors") for place in (folder, again))
    assert any(tensor.any() for name, tensor in before.items() if "lora_B" in name)
    # Where a gradient was nothing, so is the number, and the next step moves it by its rate.
    assert all(torch.allclose(tensor, before[name], rtol=0, atol=1e-29) for name, tensor in after.items())
