"""Runs with the forms of LyCORIS: from the settings to a file that LyCORIS puts on the library's model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from lycoris.wrapper import create_lycoris_from_weights
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.runs import BuildRun, build_watcher
from weber.adapters.inspect import inspect_file
from weber.checkpoint.resume import load_latest
from weber.config.run import RunConfig
from weber.errors import AdapterError, CheckpointError, ConfigError
from weber.families.flux1.variants import POCKET
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.progress import ignore_progress
from weber.results.export import export
from weber.results.merge import merge
from weber.training.assemble import train
from weber.training.paint import Wish, sample

FORMS: dict[str, dict[str, Any]] = {
    "lokr": {"algo": "lokr", "linear_dim": 4, "factor": 8},
    "loha": {"algo": "loha", "linear_dim": 2},
    "locon": {"algo": "locon", "linear_dim": 2},
    "full": {"algo": "full"},
    "diag-oft": {"algo": "diag-oft", "linear_dim": 8},
    "boft": {"algo": "boft", "linear_dim": 16},
    "glora": {"algo": "glora", "linear_dim": 2},
    "dora": {"algo": "lokr", "linear_dim": 4, "factor": 8, "dora_wd": True},
}
FEW = ["attn.to_q", "ff.net.0.proj"]
BuildLycoris = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """LyCORIS says what it does on the terminal."""
    logger = logging.getLogger("LyCORIS")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the encoders have made for all tests here."""
    return tmp_path_factory.mktemp("lycoris")


@pytest.fixture
def build_lycoris(place: Path, build_run: BuildRun) -> BuildLycoris:
    """Settings of a small run: (form or table, name="run", **sections)."""

    def build(form: str | dict[str, Any], name: str = "run", **sections: Any) -> RunConfig:
        table = FORMS[form] if isinstance(form, str) else form
        targets = {} if "apply_preset" in table else {"targets": FEW}
        adapter = {"kind": "lycoris", "rank": 16, "lycoris": table, **targets} | sections.pop("adapter", {})
        output = {"cache": str(place / "cache"), "save_every": 2} | sections.pop("output", {})
        sections.setdefault("optim", {"lr": 1e-2})
        return build_run(name, **{"train": {"steps": 2}, **sections}, adapter=adapter, output=output)

    return build


def run_whole(config: RunConfig, *, resume: bool = False) -> tuple[Path, str]:
    watcher, buffer = build_watcher()
    train(config, resume=resume, watcher=watcher)
    return config.output.folder, buffer.getvalue()


def paint(place: Path, **wish: Any) -> np.ndarray[Any, Any]:
    [picture] = sample(place, Wish(["red apple"], seed=3, steps=2, **wish), watcher=build_watcher()[0])
    return np.asarray(picture).astype(int)


def read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def predict(network: nn.Module) -> Tensor:
    """On one fixed input, in fp32."""
    generator = torch.Generator().manual_seed(7)
    config = network.config
    with torch.no_grad():
        output: Tensor = network(
            hidden_states=torch.randn(1, 6, config["in_channels"], generator=generator),
            encoder_hidden_states=torch.randn(1, 5, config["joint_attention_dim"], generator=generator),
            pooled_projections=torch.randn(1, config["pooled_projection_dim"], generator=generator),
            img_ids=torch.randint(4, (6, 3), generator=generator).float(),
            txt_ids=torch.zeros(5, 3),
            timestep=torch.tensor([0.4]),
            guidance=torch.tensor([2.0]) if config["guidance_embeds"] else None,
            return_dict=False,
        )[0]
    return output


def load_base(folder: Path = POCKET) -> nn.Module:
    network: nn.Module = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32)
    return network.requires_grad_(False)


@pytest.mark.parametrize("form", FORMS)
def test_it_learns_is_saved_goes_on_and_lycoris_reads_it(form: str, build_lycoris: BuildLycoris) -> None:
    """Two and one steps are three to the last bit; LyCORIS with the file and the merged model predict the same."""
    optim = {"lr": 1e-2, "ema_decay": 0.5}
    output = {"formats": ["diffusers", "merged-diffusers"], "save_every": 3}
    whole, _ = run_whole(build_lycoris(form, "whole/run", train={"steps": 3}, optim=optim, output=output))
    run_whole(build_lycoris(form, "parts/run", train={"steps": 2}, optim=optim))
    parts, said = run_whole(build_lycoris(form, "parts/run", train={"steps": 3}, optim=optim), resume=True)
    assert "Resuming checkpoint-000002: 1 of 3 steps are left." in said
    assert read_losses(whole) == read_losses(parts)
    checkpoint = "checkpoint-000003"
    for file in ("adapter", "adapter-ema", *(f"{checkpoint}/{name}" for name in ("adapter", "optimizer", "ema"))):
        assert (whole / f"{file}.safetensors").read_bytes() == (parts / f"{file}.safetensors").read_bytes(), file
    theirs, merged = load_base(), load_base(whole / "adapter-merged")
    base = predict(theirs)
    changes, _ = create_lycoris_from_weights(1.0, str(whole / "adapter.safetensors"), theirs)
    changes.apply_to()
    assert (predict(theirs) - base).abs().max() > 1e-3
    torch.testing.assert_close(predict(merged), predict(theirs), atol=0.05, rtol=0.05)  # the merged weights have 16 bits


def test_pictures_are_those_of_the_run(build_lycoris: BuildLycoris) -> None:
    """At strength 0 those of the base; the mean has its own; a checkpoint has those of the run."""
    sampling = {"prompts": ["red apple"], "steps": 2, "seed": 3, "every": 2}
    folder, _ = run_whole(build_lycoris("lokr", train={"steps": 4}, sampling=sampling, optim={"lr": 1e-2, "ema_decay": 0.9}))
    first, last = (np.asarray(Image.open(folder / "pictures" / f"step-{step:06d}" / "00.png")).astype(int) for step in (0, 4))
    assert np.array_equal(paint(folder), last) and np.array_equal(paint(folder, strength=0.0), first)
    assert np.array_equal(paint(folder / "checkpoint-000004"), last)
    mean = paint(folder / "adapter-ema.safetensors")
    assert np.array_equal(paint(folder / "checkpoint-000004" / "ema.safetensors"), mean) and not np.array_equal(mean, last)


def test_the_stock_file_of_other_trainers(tmp_path: Path, build_lycoris: BuildLycoris) -> None:
    """As it is: its classes are found by the ends of their names. The plan says what learns, before anything is read."""
    maps = {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}}
    preset = {"target_module": ["Attention", "FeedForward"], "module_algo_map": maps}
    stock = {"algo": "lokr", "multiplier": 1.0, "linear_dim": 10000, "linear_alpha": 1, "factor": 16, "apply_preset": preset}
    file = tmp_path / "lycoris_config.json"
    file.write_text(json.dumps(stock))
    config = build_lycoris({"apply_preset": preset}, adapter={"lycoris": str(file)}, optim={"lr": None})
    plan = build_plan(config)
    assert plan.resolved.optim.lr == 1e-3
    report = build_report(plan)
    assert "LyCORIS (lokr)" in str(report) and "lokr_w2 up to" in str(report)
    folder, _ = run_whole(config)
    tensors = load_file(folder / "adapter.safetensors")
    assert tensors["lycoris_transformer_blocks_0_attn_to_q.lokr_w1"].shape == (12, 12)
    assert tensors["lycoris_transformer_blocks_0_ff_net_0_proj.lokr_w1"].shape == (8, 8)
    assert sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith("alpha")) == plan.num_parameters
    assert paint(folder).std() > 1


def test_start_from_a_file(build_lycoris: BuildLycoris) -> None:
    """A run of the same form and sizes goes on from it; others are refused before anything is read."""
    folder, _ = run_whole(build_lycoris("lokr", "first"))
    started, _ = run_whole(build_lycoris("lokr", "second", adapter={"start_from": str(folder)}, optim={"lr": 1e-12}))
    ours, theirs = (load_file(one / "adapter.safetensors") for one in (folder, started))
    assert all(torch.allclose(tensor, theirs[name], atol=1e-9) for name, tensor in ours.items())
    cases = {
        "is a LoKr, and the run trains a LoHa": {"algo": "loha", "linear_dim": 4},
        "or other sizes": {**FORMS["lokr"], "linear_dim": 2},
        "another scale": {**FORMS["lokr"], "linear_alpha": 2},
    }
    for message, table in cases.items():
        with pytest.raises(AdapterError, match=message):
            build_plan(build_lycoris(table, "third", adapter={"start_from": str(folder)}))


def test_told_merged_and_exported(tmp_path: Path, build_lycoris: BuildLycoris) -> None:
    folder, _ = run_whole(build_lycoris("lokr", output={"formats": ["diffusers", "merged-bfl"]}))
    file = folder / "adapter.safetensors"
    text = str(inspect_file(file))
    for word in ("LoKr", "layout         lycoris", "form           lokr", "rank           4", "FluxTransformer2DModel", "'factor': 8"):
        assert word in text, text
    merge([(file, 1.0)], base="pocket", out=tmp_path / "whole.safetensors", layout=None, rank=None, progress=ignore_progress)
    [exported] = export(folder, ["merged-bfl"], base=None, out=tmp_path, progress=ignore_progress)
    written = load_file(folder / "adapter-merged.safetensors")
    for path in (tmp_path / "whole.safetensors", exported):
        assert all(torch.equal(tensor, written[name]) for name, tensor in load_file(path).items())
    with pytest.raises(ConfigError, match="no other layout"):
        export(folder, ["kohya"], base=None, out=tmp_path, progress=ignore_progress)
    with pytest.raises(ConfigError, match="alone"):
        merge([(file, 1.0)], base=None, out=tmp_path / "both.safetensors", layout=None, rank=None, progress=ignore_progress)


def test_refused(build_lycoris: BuildLycoris) -> None:
    cases: dict[str, tuple[dict[str, Any], type[Exception]]] = {
        "layouts are for LoRAs": ({"output": {"formats": ["diffusers", "comfyui"]}}, ConfigError),
        "linear_dim of": ({"adapter": {"lycoris": {"algo": "boft", "linear_dim": 2}}}, AdapterError),
    }
    for message, (sections, error) in cases.items():
        with pytest.raises(error, match=message):
            build_plan(build_lycoris("lokr", **sections))


def test_settings_that_the_numbers_depend_on_cannot_change(build_lycoris: BuildLycoris) -> None:
    folder, _ = run_whole(build_lycoris("lokr"))
    assert load_latest(folder).step == 2
    with pytest.raises(CheckpointError, match="adapter.lycoris"):
        run_whole(build_lycoris({**FORMS["lokr"], "factor": 4}, train={"steps": 3}), resume=True)
