"""Every kind of low-rank adapter, from its start to its file in other hands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
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

from tests.training.conftest import BuildRun, build_watcher
from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.lora import load_adapter_onto
from weber.config.run import RunConfig
from weber.errors import WeberError
from weber.families.flux1.keys import PAIRINGS
from weber.families.flux1.variants import POCKET
from weber.families.tensors import read_metadata
from weber.training.assemble import train
from weber.training.paint import Wish, sample
from weber.training.plan import build_plan
from weber.training.report import build_report

INT8 = {"memory": {"quantize": "int8"}}
RULES = [{"match": "transformer_blocks.*.attn.*", "rank": 6, "lr": 2e-3}, {"match": "attn.to_q", "alpha": 3.0}]
RUNS: dict[str, dict[str, Any]] = {
    "gaussian": {"adapter": {"init": "gaussian"}},
    "orthogonal": {"adapter": {"init": "orthogonal"}},
    "pissa": {"adapter": {"init": "pissa", "alpha": 8.0}},
    "pissa of packed layers, with rules": {"adapter": {"init": "pissa", "rules": RULES}, **INT8},
    "olora": {"adapter": {"init": "olora"}},
    "loftq": {"adapter": {"init": "loftq", "alpha": 2.0}, "memory": {"quantize": "int4"}},
    "eva": {"adapter": {"init": "eva"}},
    "rslora with rules": {"adapter": {"rslora": True, "rules": RULES}},
    "dora": {"adapter": {"dora": True, "rules": RULES}},
    "dora of packed layers, with dropout": {"adapter": {"dora": True, "dropout": 0.2}, **INT8},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is encoded once for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def build(build_run: BuildRun, cache: Path) -> BuildRun:
    """Settings of a run of four small steps."""

    def build_small(name: str, **sections: Any) -> RunConfig:
        own = {"train": {"steps": 4, "batch_size": 1}, "data": [{"resolution": 64}]} | sections
        return build_run(name, **own, output={"save_every": 2, "cache": str(cache)})

    return build_small


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


def _load_network() -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(POCKET / "transformer").requires_grad_(False)


def _predict_by_library(path: Path) -> Tensor:
    """The finished file on the original model, in the library's hands."""
    network = _load_network()
    tensors, alphas, settings = FluxLoraLoaderMixin.lora_state_dict(
        str(path.parent), weight_name=path.name, return_alphas=True, return_lora_metadata=True, local_files_only=True
    )
    FluxLoraLoaderMixin.load_lora_into_transformer(tensors, network_alphas=alphas, transformer=network, metadata=settings)
    return _predict(network.eval())


def _read_plain(build: BuildRun, sections: Mapping[str, Any], known: dict[str, float]) -> float:
    """The first loss of a plain adapter with the same other settings."""
    adapter = {key: value for key, value in sections["adapter"].items() if key == "dropout"}
    same = {"adapter": adapter, "memory": sections.get("memory", {})}
    if str(same) not in known:
        folder = _train(build(f"plain-{len(known)}", **same, train={"steps": 1, "batch_size": 1}))
        known[str(same)] = _read_losses(folder)[0]
    return known[str(same)]


@pytest.fixture(scope="module")
def known() -> dict[str, float]:
    """First losses by settings."""
    return {}


@pytest.mark.parametrize("name", RUNS)
def test_trains_resumes_and_is_the_same_elsewhere(name: str, build: BuildRun, tmp_path: Path, known: dict[str, float]) -> None:
    sections = RUNS[name]
    painting = {"sampling": {"prompts": ["red apple"], "steps": 1, "every": 4}}
    whole = _train(build("whole/run", **sections, **painting))
    if name != "loftq":
        assert _read_losses(whole)[0] == pytest.approx(_read_plain(build, sections, known), rel=1e-5), "the model starts as it was"
    parts = tmp_path / "parts" / "run"
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoint-000004")
    (parts / "adapter.safetensors").unlink()
    _train(build("parts/run", **sections), resume=True)
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


def test_the_running_mean_of_a_start_that_is_not_zero(build: BuildRun) -> None:
    """What learned is apart from what is taken away: in the checkpoint's mean is the first alone."""
    painting = {"sampling": {"prompts": ["red apple"], "steps": 1, "every": 2, "weights": "ema"}}
    folder = _train(build("run", adapter={"init": "pissa"}, optim={"ema_decay": 0.9}, train={"steps": 2, "batch_size": 1}, **painting))
    painted = np.asarray(Image.open(folder / "pictures" / "step-000002" / "00.png")).astype(int)
    for place in (folder, folder / "checkpoint-000002"):
        [again] = sample(place, Wish(["red apple"]), watcher=build_watcher()[0])
        assert np.abs(np.asarray(again).astype(int) - painted).max() <= 1


@pytest.mark.parametrize("init", ["pissa", "default"])
def test_checkpointing_changes_no_bit(init: str, build: BuildRun) -> None:
    """Also where the layers are DoRAs."""
    adapter = {"dora": True} if init == "default" else {"init": init}
    train_of = {"steps": 2, "batch_size": 1}
    files = [
        (_train(build(f"{mode}/run", adapter=adapter, train=train_of, memory={"gradient_checkpointing": mode})) / "adapter.safetensors").read_bytes()
        for mode in ("none", "all", "lean")
    ]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("adapter", [{"dora": True}, {"init": "olora"}])
def test_blocks_that_lie_on_the_disk(adapter: dict[str, Any], build: BuildRun) -> None:
    """Where weights are not in memory when the adapters are made."""
    memory = {"swap_blocks": 2, "swap_to": "disk"}
    losses = [
        _read_losses(_train(build(name, adapter=adapter, memory=one)))
        for name, one in (("plain", {"gradient_checkpointing": "all"}), ("swapped", memory | {"gradient_checkpointing": "all"}))
    ]
    assert losses[0] == losses[1]


def _write_adapter(path: Path, *, rank: int = 4, dora: bool = False, scale: float = 0.3) -> Path:
    """A file that changes what the pocket model says."""
    generator = torch.Generator().manual_seed(rank)
    network, modules = _load_network(), {}
    for name in ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp"):
        rows, columns = network.get_submodule(name).weight.shape
        down, up = (scale * torch.randn(*shape, generator=generator) for shape in ((rank, columns), (rows, rank)))
        modules[name] = Factors(down, up, 2.0, 1 + torch.rand(rows, generator=generator) if dora else None)
    save_adapter(path, modules, layout="diffusers" if dora else "comfyui", facts={}, metadata={}, pairings=PAIRINGS)
    return path


def test_starts_from_a_dora(build: BuildRun, tmp_path: Path) -> None:
    """With a rate of almost nothing the result is the file, whatever rank it has."""
    path = _write_adapter(tmp_path / "start.safetensors", dora=True)
    adapter = {"dora": True, "start_from": str(path), "rank": 6}
    folder = _train(build("run", adapter=adapter, train={"steps": 1, "batch_size": 1}, optim={"lr": 1e-12}))
    predictions = []
    for file in (path, folder / "adapter.safetensors"):
        network = _load_network()
        load_adapter_onto(network, load_adapter(file))
        predictions.append(_predict(network))
    assert torch.allclose(*predictions, atol=1e-4)
    with pytest.raises(WeberError, match=r"set adapter\.dora = true"):
        build_plan(build("other", adapter={"start_from": str(path), "rank": 6}))


def test_a_start_of_a_higher_rank_is_cut_if_asked(build: BuildRun, tmp_path: Path) -> None:
    path = _write_adapter(tmp_path / "start.safetensors", rank=8)
    rules = [{"match": "to_q", "rank": 3}]
    plan = build_plan(build("run", adapter={"start_from": str(path), "resize_start": True, "rules": rules}))
    assert plan.start is not None
    whole = load_adapter(path).modules
    for name, rank in (("transformer_blocks.0.attn.to_q", 3), ("single_transformer_blocks.0.proj_mlp", 4)):
        left, values, right = torch.linalg.svd(whole[name].build_delta())
        nearest = left[:, :rank] * values[:rank] @ right[:rank]
        assert plan.start.modules[name].rank == rank
        assert torch.allclose(plan.start.modules[name].build_delta(), nearest, atol=1e-4)
    with pytest.raises(WeberError, match=r"adapter\.resize_start = true"):
        build_plan(build("run", adapter={"start_from": str(path)}))
    with pytest.raises(WeberError, match="nothing is cut"):
        build_plan(build("run", adapter={"start_from": str(path), "resize_start": True, "rank": 8}))


def _stack(*places: Path, **strengths: float) -> dict[str, Any]:
    return {"model": {"variant": "pocket", "adapters": [{"path": str(place), **strengths} for place in places]}}


def test_frozen_adapters_take_part_and_are_not_in_the_file(build: BuildRun, tmp_path: Path) -> None:
    first, second = (_write_adapter(tmp_path / f"{rank}.safetensors", rank=rank) for rank in (2, 3))
    stacks = {
        "none": {},
        "both": _stack(first, second),
        "weak": _stack(first, second, strength=0.5),
        "unseen": _stack(first, second, sample_strength=0.0),
    }
    one_step = {"train": {"steps": 1, "batch_size": 1}, "optim": {"lr": 1e-12}, "sampling": {"prompts": ["red apple"], "steps": 1}}
    folders = {name: _train(build(name, **one_step, **stack)) for name, stack in stacks.items()}
    losses = {name: _read_losses(folder)[0] for name, folder in folders.items()}
    assert losses["both"] == losses["unseen"] and len(set(losses.values())) == 3
    pictures = {name: np.asarray(Image.open(folder / "pictures" / "step-000001" / "00.png")) for name, folder in folders.items()}
    assert np.array_equal(pictures["none"], pictures["unseen"])
    assert not np.array_equal(pictures["none"], pictures["both"])
    files = [load_file(folder / "adapter.safetensors") for folder in folders.values()]
    assert files[0].keys() == files[1].keys() and all(torch.allclose(one, files[1][name]) for name, one in files[0].items())
    [again] = sample(folders["both"], Wish(["red apple"]), watcher=build_watcher()[0])
    assert np.abs(np.asarray(again).astype(int) - pictures["both"]).max() <= 1


def test_another_frozen_adapter_is_noticed_on_resume(build: BuildRun, tmp_path: Path) -> None:
    path = _write_adapter(tmp_path / "a.safetensors")
    few = {"train": {"steps": 2, "batch_size": 1}}
    _train(build("run", **_stack(path), **few))
    shutil.copyfile(_write_adapter(tmp_path / "b.safetensors", rank=5), path)
    watcher, said = build_watcher()
    train(build("run", **_stack(path), train={"steps": 3, "batch_size": 1}), resume=True, watcher=watcher)
    assert "the adapter_0 of the model" in said.getvalue()
    assert "The adapter 0" in said.getvalue()


def test_frozen_adapters_beside_trained_weights(build: BuildRun, tmp_path: Path) -> None:
    path = _write_adapter(tmp_path / "a.safetensors")
    full = {"adapter": {"kind": "full", "targets": ["transformer_blocks.0.attn.to_q"], "rank": 16}, "optim": {"lr": 1e-5}}
    few = {"train": {"steps": 1, "batch_size": 1}}
    losses = [_read_losses(_train(build(name, **full, **few, **stack)))[0] for name, stack in (("without", {}), ("with", _stack(path)))]
    assert losses[0] != losses[1]


def test_the_plan_shows_every_setting(build: BuildRun, tmp_path: Path) -> None:
    path = _write_adapter(tmp_path / "a.safetensors")
    adapter = {"rank": 8, "rules": RULES, "init": "pissa", "rslora": True}
    text = build_report(build_plan(build("run", adapter=adapter, **_stack(path, strength=0.7))))
    assert "  rank 6, alpha 6, lr 0.002: " in text
    assert "layers (transformer_blocks.*.attn.to_k" in text
    assert "scaled by alpha / sqrt(rank), starts as pissa, twice the rank in the file, without its start" in text
    assert f"adapter 0 {path}: strength 0.7 in training, 0.7 in pictures" in text
    plan = build_plan(build("run", adapter=adapter))
    assert plan.trained.shapes["transformer_blocks.0.attn.to_q.lora_A.default.weight"][0] == 6
    assert plan.trained.rates["transformer_blocks.0.attn.to_q.lora_A.default.weight"] == pytest.approx(2.0)
    assert "single_transformer_blocks.0.attn.to_q.lora_A.default.weight" not in plan.trained.rates


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rule for nothing": ({"adapter": {"rules": [{"match": "attn.to_z", "rank": 2}]}}, r"adapter\.rules\.0\.match means no layer"),
    "nothing excluded": ({"adapter": {"exclude": ["norm_out.linear"]}}, r"adapter\.exclude means no layer"),
    "no such block": ({"adapter": {"blocks": ["transformer_blocks.0-99"]}}, r"some of transformer_blocks\.0-"),
    "an odd rank": ({"adapter": {"init": "orthogonal", "rank": 3}}, "needs an even rank"),
    "a rank that no layer has": ({"adapter": {"rules": [{"match": "to_q", "rank": 4096}]}}, "The rank is higher"),
    "loftq of plain weights": ({"adapter": {"init": "loftq"}}, r"set memory\.quantize"),
    "dora in other layouts": ({"adapter": {"dora": True}, "output": {"formats": ["diffusers", "kohya"]}}, "cannot carry a DoRA"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_act_is_refused_before_training(name: str, build_run: BuildRun) -> None:
    sections, message = REFUSED[name]
    with pytest.raises(WeberError, match=message) as caught:
        build_plan(build_run(**sections))
    assert "fix: " in str(caught.value)


def test_frozen_adapters_that_cannot_act_are_refused(build: BuildRun, build_run: BuildRun, tmp_path: Path) -> None:
    plain, dora = _write_adapter(tmp_path / "a.safetensors"), _write_adapter(tmp_path / "b.safetensors", dora=True)
    with pytest.raises(WeberError, match="has no effect"):
        build_plan(build("run", **_stack(plain, strength=0.0)))
    with pytest.raises(WeberError, match=r"model\.adapters\.1 is a DoRA"):
        build_plan(build("run", **_stack(plain, dora)))
    with pytest.raises(WeberError, match="weber merge"):
        build_plan(build_run(output={"formats": ["diffusers", "merged-bfl"]}, **_stack(plain)))


def test_the_scale_is_in_the_file(build: BuildRun) -> None:
    """For readers who do not know of the root."""
    folder = _train(build("run", adapter={"rank": 4, "alpha": 6.0, "rslora": True}, train={"steps": 1, "batch_size": 1}))
    assert json.loads(read_metadata(folder / "adapter.safetensors")["lora_adapter_metadata"])["transformer.lora_alpha"] == 12
