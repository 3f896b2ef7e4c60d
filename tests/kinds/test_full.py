"""The weights of the model themselves are trained: from the settings to a model that the library, and weber, take as any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file, save_file

import weber
from tests.runs import BuildRun, build_watcher, write_lora
from weber.adapters.inspect import inspect_file
from weber.checkpoint.save import list_checkpoints
from weber.config.run import RunConfig
from weber.errors import AdapterError, CheckpointError, ConfigError, WeberError
from weber.families.flux1.variants import POCKET
from weber.families.tensors import open_weights, read_metadata
from weber.planning import limits
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.progress import ignore_progress
from weber.results.export import export
from weber.results.extract import extract
from weber.training.assemble import train
from weber.training.paint import Wish, sample

WEIGHTS = "diffusion_pytorch_model.safetensors"
BASE = POCKET / "transformer" / WEIGHTS


def run_whole(config: RunConfig, *, resume: bool = False) -> tuple[Path, str]:
    watcher, buffer = build_watcher()
    train(config, resume=resume, watcher=watcher)
    return config.output.folder, buffer.getvalue()


def paint(place: Path, **wish: Any) -> np.ndarray[Any, Any]:
    [picture] = sample(place, Wish(["red apple"], seed=3, steps=3, **wish), watcher=build_watcher()[0])
    return np.asarray(picture).astype(int)


def read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


BuildFull = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the one run that many tests look at, and for what the encoders have made for all of them."""
    return tmp_path_factory.mktemp("full")


@pytest.fixture
def build_full(place: Path, build_run: BuildRun) -> BuildFull:
    """Settings of a small run of all weights of the model, with the cache of all tests here."""

    def build(name: str = "run", **sections: Any) -> RunConfig:
        adapter, output = ({"kind": "full", "rank": 16} | sections.get("adapter", {})), {"cache": str(place / "cache")}
        return build_run(name, **sections | {"adapter": adapter, "output": output | sections.get("output", {})})

    return build


@pytest.fixture
def run(place: Path, build_full: BuildFull) -> Path:
    """The folder of a run with a running mean, in both formats; made once."""
    config = build_full(
        optim={"lr": 1e-3, "ema_decay": 0.8},
        train={"steps": 12, "batch_size": 2},
        sampling={"prompts": ["red apple"], "steps": 3, "seed": 3, "every": 6},
        output={
            "folder": str(place / "run"),
            "formats": ["merged-diffusers", "merged-bfl"],
            "save_every": 12,
        },
    )
    if not config.output.folder.exists():
        run_whole(config)
    return config.output.folder


def test_what_a_run_leaves_behind(run: Path) -> None:
    assert {"transformer", "transformer-ema", "model.safetensors", "model-ema.safetensors"} <= {path.name for path in run.iterdir()}
    checkpoint = run / "checkpoint-000012"
    assert {"trained.safetensors", "ema.safetensors", "optimizer.safetensors"} <= {path.name for path in checkpoint.iterdir()}
    trained, base = load_file(checkpoint / "trained.safetensors"), load_file(BASE)
    assert trained.keys() == base.keys()
    assert all(tensor.dtype == torch.float32 and not torch.equal(tensor, base[name].float()) for name, tensor in trained.items())
    for folder, tensors in (("transformer", trained), ("transformer-ema", load_file(checkpoint / "ema.safetensors"))):
        saved = load_file(run / folder / WEIGHTS)
        assert saved.keys() == base.keys()
        for name, tensor in saved.items():
            assert tensor.dtype == base[name].dtype == torch.bfloat16, "in the precision of the base's files"
            assert torch.equal(tensor, tensors[name].bfloat16()), name
    facts = json.loads(read_metadata(run / "model.safetensors")["weber"])
    assert (facts["kind"], facts["steps"], facts["variant"], facts["num_pictures"]) == ("full", 12, "pocket", 12)
    assert json.loads(read_metadata(run / "model.safetensors")["weber_config"])["_class_name"] == "FluxTransformer2DModel"
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]


def test_the_library_loads_it_and_paints_the_same(run: Path) -> None:
    transformer, report = FluxTransformer2DModel.from_pretrained(run, subfolder="transformer", output_loading_info=True)
    assert not any(report.values())
    pipeline = FluxPipeline.from_pretrained(POCKET, transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 2.0, "max_sequence_length": 24}
    theirs = np.asarray(pipeline("red apple", generator=generator, **arguments).images[0]).astype(int)
    assert np.abs(paint(run, guidance=2.0) - theirs).max() <= 1


def test_pictures_of_a_run_its_checkpoint_and_its_mean(run: Path, tmp_path: Path) -> None:
    """The run painted with fp32 weights, as does its checkpoint; the finished files have the 16 bits of the base's."""
    pictures = run / "pictures"
    assert [path.name for path in sorted(pictures.glob("*.png"))] == [f"step-{step:06d}.png" for step in (0, 6, 12)]
    last, first = (np.asarray(Image.open(pictures / f"step-{step:06d}" / "00.png")).astype(int) for step in (12, 0))
    assert np.array_equal(paint(run / "checkpoint-000012"), last)
    assert np.abs(last - first).max() > 10
    finished = paint(run)
    assert np.abs(finished - last).mean() < 3
    assert np.array_equal(paint(run / "model.safetensors"), finished)
    mean = paint(run / "transformer-ema")
    assert np.abs(paint(run / "checkpoint-000012" / "ema.safetensors") - mean).mean() < 3
    assert np.abs(mean - finished).max() > 3


def test_training_goes_on_from_it_and_the_loss_is_lower(run: Path, build_full: BuildFull) -> None:
    """The same pictures and noise before and after. What comes of a single file is a folder that says what it is."""
    losses = []
    for name, model in (("before", {}), ("after", {"transformer": str(run / "model.safetensors")})):
        config = build_full(name, model={"variant": "pocket", **model}, optim={"lr": 1e-12}, train={"steps": 4, "batch_size": 2})
        folder, _ = run_whole(config)
        losses.append(read_losses(folder))
    assert np.mean(losses[1]) < 0.7 * np.mean(losses[0])
    assert np.array_equal(paint(folder), paint(run))


@pytest.mark.parametrize(("optimizer", "dtype"), [("adamw", "fp32"), ("adamw_bf16", "bf16")])
def test_two_and_two_are_four(optimizer: str, dtype: str, build_full: BuildFull) -> None:
    sections: dict[str, Any] = {
        "memory": {"dtype": dtype},
        "optim": {"name": optimizer, "lr": 1e-3, "ema_decay": 0.9},
        "output": {"save_every": 2},
    }
    whole, _ = run_whole(build_full("whole/run", **sections, train={"steps": 4}))
    run_whole(build_full("parts/run", **sections, train={"steps": 2}))
    parts, said = run_whole(build_full("parts/run", **sections, train={"steps": 4}), resume=True)
    assert "Resuming checkpoint-000002: 2 of 4 steps are left." in said
    assert read_losses(whole) == read_losses(parts)
    checkpoint = "checkpoint-000004"
    for file in (*(f"{checkpoint}/{name}.safetensors" for name in ("trained", "optimizer", "ema")), f"transformer/{WEIGHTS}"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert {tensor.dtype for tensor in load_file(whole / checkpoint / "trained.safetensors").values()} == {expected}
    other = {"memory": {"dtype": "bf16"}, "adapter": {"precision": "fp32"}} if dtype == "bf16" else {"optim": {"name": "lion"}}
    with pytest.raises(CheckpointError, match=r"bfloat16 -> float32|optim\.name"):
        run_whole(build_full("parts/run", **sections | other, train={"steps": 5}), resume=True)


def test_pictures_in_training_are_those_of_the_saved_weights(build_full: BuildFull) -> None:
    """fp32 weights in a bf16 model are rounded for each use, so nothing changes when they are saved in bf16."""
    config = build_full(
        adapter={"precision": "fp32"},
        memory={"dtype": "bf16"},
        train={"steps": 2},
        sampling={"prompts": ["red apple"], "steps": 3, "seed": 3},
    )
    folder, _ = run_whole(config)
    last = np.asarray(Image.open(folder / "pictures" / "step-000002" / "00.png")).astype(int)
    assert np.array_equal(paint(folder), last) and np.array_equal(paint(folder / "checkpoint-000002"), last)


def test_swapped_blocks_learn_and_are_painted_with_their_mean(build_full: BuildFull, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit as without; on a CPU swapping is refused, because there it would only copy."""
    monkeypatch.setattr(limits, "_check_device", lambda config, device: None)
    folders = []
    for name, memory in (("plain", {}), ("swapped", {"swap_blocks": 3})):
        config = build_full(
            name,
            adapter={"targets": ["transformer_blocks.*", "single_transformer_blocks.*"]},
            memory=memory,
            optim={"lr": 1e-3, "fused_backward": True, "ema_decay": 0.8},
            train={"steps": 2},
            sampling={"prompts": ["red apple"], "steps": 2, "every": 1, "weights": "ema"},
        )
        folders.append(run_whole(config)[0])
    plain, swapped = folders
    assert read_losses(plain) == read_losses(swapped)
    files = [f"checkpoint-000002/{name}.safetensors" for name in ("trained", "optimizer", "ema")]
    files += [f"pictures/step-{step:06d}/00.png" for step in range(3)] + [f"transformer{ending}/{WEIGHTS}" for ending in ("", "-ema")]
    for file in files:
        assert (plain / file).read_bytes() == (swapped / file).read_bytes(), file


def test_what_is_not_named_stays_as_it_was(build_full: BuildFull) -> None:
    """Bit for bit, also where it is quantized while others are trained."""
    targets = ["single_transformer_blocks.*", "proj_out"]
    for memory in ({}, {"quantize": "int8", "keep_quantized": False}):
        config = build_full(f"run{len(memory)}", adapter={"targets": targets}, memory=memory, train={"steps": 2})
        folder, _ = run_whole(config)
        base, saved = load_file(BASE), load_file(folder / "transformer" / WEIGHTS)
        trained = load_file(folder / "checkpoint-000002" / "trained.safetensors")
        expected = {name for name in base if name.startswith(("single_transformer_blocks.", "proj_out."))}
        assert set(trained) == expected
        changed = {name for name in base if not torch.equal(base[name], saved[name])}
        assert changed <= expected and len(changed) > 0.8 * len(expected), "the norms are near 1, where bf16 has few numbers"
        assert paint(folder).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["second", "third"])
def test_other_families(name: str, tmp_path: Path, build_full: BuildFull) -> None:
    build: Callable[[Path], Path] = {"second": lambda folder: build_random_flux2(folder, "dev"), "third": build_random_flux3}[name]
    model = build(tmp_path / "model")
    variant = {"second": "flux2-dev", "third": "flux3-klein-base"}[name]
    config = build_full(
        model={"path": str(model), "variant": variant},
        data=[{"resolution": 64, "bucket_step": 16}],
        optim={"name": "adamw_bf16", "lr": 1e-2},
        memory={"dtype": "bf16"},
        train={"steps": 2},
        output={"formats": ["diffusers", "merged-bfl"]},
    )
    folder, _ = run_whole(config)
    kind = getattr(diffusers, json.loads((model / "transformer" / "config.json").read_text())["_class_name"])
    theirs, report = kind.from_pretrained(folder, subfolder="transformer", output_loading_info=True)
    assert not any(report.values())
    trained = load_file(folder / "checkpoint-000002" / "trained.safetensors")
    base = kind.from_pretrained(model, subfolder="transformer").state_dict()
    assert all(torch.equal(tensor.to(trained[key].dtype), trained[key]) for key, tensor in theirs.state_dict().items())
    changed = [key for key in base if not torch.equal(base[key], theirs.state_dict()[key])]
    assert len(changed) > 0.6 * len(base), "what takes part only with references stays"
    assert np.array_equal(paint(folder), paint(folder / "model.safetensors"))


def test_an_assistant_takes_part_and_is_not_in_the_result(tiny_schnell: Path, tmp_path: Path, build_full: BuildFull) -> None:
    losses = {}
    for name, assistant in (("without", "off"), ("with", str(write_lora(tmp_path / "assistant.safetensors")))):
        config = build_full(
            name,
            model={"path": str(tiny_schnell), "variant": "flux1-schnell", "assistant": assistant},
            data=[{"resolution": 64, "bucket_step": 16}],
            adapter={"precision": "fp32"},
            memory={"dtype": "bf16"},
            train={"steps": 1},
        )
        folder, _ = run_whole(config)
        losses[name] = read_losses(folder)
        base = FluxTransformer2DModel.from_pretrained(tiny_schnell / "transformer").state_dict()
        saved = load_file(folder / "transformer" / WEIGHTS)
        assert saved.keys() == base.keys()
        trained = load_file(folder / "checkpoint-000001" / "trained.safetensors")
        assert all(0 < (trained[key] - base[key]).abs().max() < 1e-2 for key in base)
    assert losses["with"] != losses["without"]


def test_a_mean_of_an_adapter(build_run: BuildRun, place: Path) -> None:
    config = build_run(
        optim={"lr": 1e-2, "ema_decay": 0.8},
        train={"steps": 4},
        sampling={"prompts": ["red apple"], "steps": 3, "seed": 3, "weights": "ema"},
        output={"cache": str(place / "cache"), "formats": ["diffusers", "kohya"], "save_every": 2},
    )
    folder, _ = run_whole(config)
    means = load_file(folder / "checkpoint-000004" / "ema.safetensors")
    plan = build_plan(config)
    assert {name: tuple(tensor.shape) for name, tensor in means.items()} == plan.trained.shapes
    assert plan.num_parameters == sum(tensor.numel() for tensor in means.values())
    trained, mean = (load_file(folder / f"adapter{ending}.safetensors") for ending in ("", "-ema"))
    for name, tensor in means.items():
        assert torch.equal(mean["transformer." + name.replace(".default", "")], tensor)
    assert mean.keys() == trained.keys() and not all(torch.equal(mean[name], trained[name]) for name in mean)
    assert (folder / "adapter-ema-kohya.safetensors").is_file()
    painted = np.asarray(Image.open(folder / "pictures" / "step-000004" / "00.png")).astype(int)
    assert np.array_equal(paint(folder), painted), "the settings say that the mean paints"
    assert np.array_equal(paint(folder / "adapter-ema.safetensors"), painted)
    assert np.array_equal(paint(folder / "checkpoint-000004"), painted)
    assert not np.array_equal(paint(folder / "adapter.safetensors"), painted)


def test_without_the_base_models_pictures_sheets_have_a_column_less(build_full: BuildFull) -> None:
    sections = {"sampling": {"prompts": ["red apple"], "steps": 2, "every": 2}}
    folder, said = run_whole(build_full(train={"steps": 2}, **sections))
    whole = Image.open(folder / "pictures" / "step-000002.png").copy()
    shutil.rmtree(folder / "pictures")
    _, said_later = run_whole(build_full(train={"steps": 3}, **sections), resume=True)
    assert Image.open(folder / "pictures" / "step-000002.png").width < whole.width
    assert not (folder / "pictures" / "step-000000").exists()
    words = "will lack the base model's pictures"
    assert words in said_later and words not in said


def test_inspect_export_and_extract(run: Path, tmp_path: Path) -> None:
    assert "run folder of weber" in str(inspect_file(run))
    checkpoint = run / "checkpoint-000012"
    assert "checkpoint of weber" in str(inspect_file(checkpoint))
    assert "trained weights of a checkpoint" in str(inspect_file(checkpoint / "trained.safetensors"))
    told = str(inspect_file(run / "model.safetensors"))
    assert "transformer" in told and "the makers' names" in told and "steps" in told and "full" in told

    for source in (run, checkpoint, run / "transformer", checkpoint / "trained.safetensors"):
        out = tmp_path / source.name
        [path] = export(source, ["merged-bfl"], base=None, out=out, progress=ignore_progress)
        assert path == out / "model.safetensors"
        assert path.read_bytes() == (run / "model.safetensors").read_bytes()
    [path] = export(run / "model.safetensors", ["merged-diffusers"], base=None, out=tmp_path / "back", progress=ignore_progress)
    assert open_weights([path / WEIGHTS]).keys() == open_weights([run / "transformer" / WEIGHTS]).keys()
    [path] = export(checkpoint / "ema.safetensors", ["merged-bfl"], base=None, out=tmp_path / "mean", progress=ignore_progress)
    mean = load_file(path)
    assert all(torch.equal(mean[name], tensor) for name, tensor in load_file(run / "model-ema.safetensors").items())
    for formats, base, message in (
        (["kohya"], None, "A whole model has no adapter layout"),
        (["webui"], None, "no such format"),
        (["diffusers"], "pocket", "needs no base"),
        (["merged-diffusers"], None, "would replace what it is made from"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(run, formats, base=base, out=None, progress=ignore_progress)

    settings: dict[str, Any] = {"targets": "single_transformer_blocks.0.proj_mlp", "rank": 4, "energy": None, "layout": "comfyui"}
    found = extract(str(run), base="pocket", out=tmp_path / "lora.safetensors", progress=ignore_progress, **settings)
    assert found.modules and found.left_out
    with pytest.raises(CheckpointError, match="trained the model itself, so it has no adapter"):
        build_plan(weber.load_config(run / "config.toml", [f"adapter.start_from={run}", "adapter.kind=lora"]))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"output": {"formats": ["kohya"]}}, "no adapter layout(.|\n)*merged-bfl"),
        ({"output": {"formats": ["diffusers", "comfyui"]}}, r"output\.formats = comfyui"),
        ({"memory": {"dtype": "bf16"}}, r"adamw_bf16(.|\n)*adapter\.precision"),
        ({"adapter": {"precision": "bf16"}}, "nothing gained"),
        ({"adapter": {"targets": ["double_blocks.0"]}}, r"such as .*transformer_blocks\.0"),
        ({"adapter": {"targets": "al"}}, "did you mean 'all'"),
        ({"memory": {"quantize": "int8"}}, r"memory\.quantize = 'int8'(.|\n)*train fewer layers"),
    ],
)
def test_what_cannot_be_is_refused_before_loading(build_full: BuildFull, sections: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(WeberError, match=message):
        build_plan(build_full(**sections))


def test_a_result_never_replaces_its_base_or_anything_else(build_full: BuildFull, tmp_path: Path) -> None:
    model = Path(shutil.copytree(POCKET, tmp_path / "model"))
    for asked in ({"path": str(model)}, {"transformer": str(model / "transformer"), "variant": "pocket"}):
        with pytest.raises(ConfigError, match="would replace the one that it is made from"):
            build_plan(build_full(model=asked, output={"folder": str(model)}))
    with pytest.raises(ConfigError, match="would replace something"):
        build_plan(build_full(output={"folder": str(model)}))


def test_strength_is_refused_and_a_run_without_weights_is_said(run: Path, build_full: BuildFull) -> None:
    with pytest.raises(ConfigError, match="no adapter that could be weaker or stronger"):
        paint(run, strength=0.5)
    config = build_full(train={"steps": 1})
    config.output.folder.mkdir()
    (config.output.folder / "config.toml").write_bytes((run / "config.toml").read_bytes())
    with pytest.raises(CheckpointError, match="no trained weights yet"):
        paint(config.output.folder)
    tensors = load_file(run / "checkpoint-000012" / "trained.safetensors")
    tensors.pop("proj_out.bias")
    save_file(tensors, config.output.folder / "trained.safetensors")
    with pytest.raises(AdapterError, match=r"not those that the settings train(.|\n)*no proj_out\.bias"):
        paint(config.output.folder / "trained.safetensors")


def test_a_run_that_goes_on_has_no_old_result(build_full: BuildFull) -> None:
    folder, _ = run_whole(build_full(train={"steps": 1}))
    before = (folder / "transformer" / WEIGHTS).read_bytes()
    (folder / "transformer" / "notes.txt").write_text("mine")
    with pytest.raises(AdapterError, match=r"would replace other files(.|\n)*notes\.txt"):
        run_whole(build_full(train={"steps": 2}), resume=True)
    (folder / "transformer" / "notes.txt").unlink()
    run_whole(build_full(train={"steps": 2}), resume=True)
    assert (folder / "transformer" / WEIGHTS).read_bytes() != before
    assert [step for step, _ in list_checkpoints(folder)] == [1, 2]


def test_the_plan_says_what_is_trained_and_how_large_it_gets(build_full: BuildFull) -> None:
    config = build_full(adapter={"targets": ["proj_out"]}, optim={"ema_decay": 0.9}, output={"formats": ["diffusers", "merged-bfl"]})
    plan = build_plan(config)
    base = open_weights([BASE])
    numbers = sum(torch.Size(entry.shape).numel() for name, entry in base.items() if name.endswith(("proj_out.weight", "proj_out.bias")))
    assert plan.num_parameters == numbers and plan.trained.num_bytes == 4 * numbers
    report = build_report(plan)
    assert f"full training of {numbers:,} numbers" in report
    assert "targets proj_out:" in report and "in fp32" in report
    size = f"{sum(entry.num_bytes for entry in base.values()) / 2**20:.1f} MiB"
    for name in ("transformer", "model.safetensors"):
        assert f"{config.output.folder / name}, {size}: the finished model" in report
    assert "-ema" in report
