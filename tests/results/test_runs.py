"""Where what a run has learned lies, and where what is made from it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.runs import BuildRun, write_pocket_lora
from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter, save_adapter
from weber.checkpoint.save import save_checkpoint
from weber.commands import sample as sample_command
from weber.config.load import save_config
from weber.config.run import RunConfig
from weber.errors import AdapterError, CheckpointError
from weber.families.flux1.keys import PAIRINGS
from weber.families.tensors import open_weights
from weber.progress import ignore_progress
from weber.results.export import export
from weber.results.finished import clear_staged, publish, put_aside
from weber.results.formats import list_finished
from weber.results.runs import choose_target, find_home, find_run
from weber.training.paint import Sampler
from weber.training.subject import find_subject


@pytest.fixture
def run(build_run: BuildRun, tmp_path: Path) -> RunConfig:
    """A run that was stopped after 40 steps, as files."""
    config = build_run("a")
    save_checkpoint(config.output.folder, 40, files={"adapter.safetensors": lambda path: write_pocket_lora(path)})
    save_config(config, config.output.folder / "config.toml")
    return config


def write_result(path: Path, *, steps: int) -> None:
    factors = {"single_transformer_blocks.0.attn.to_q": Factors(torch.ones(2, 192), torch.ones(192, 2), 2.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, factors, layout="diffusers", facts={"steps": steps}, metadata={}, pairings=PAIRINGS)


def test_what_is_made_from_a_checkpoint_lies_beside_the_run(run: RunConfig) -> None:
    """A checkpoint is pruned with all that is in it."""
    folder, checkpoint = run.output.folder, run.output.folder / "checkpoint-000040"
    before = sorted(checkpoint.iterdir())
    for source in (folder, checkpoint, checkpoint / "adapter.safetensors"):
        written = export(source, ["kohya"], base=None, out=None, progress=ignore_progress)
        assert written == [folder / "adapter-step-000040-kohya.safetensors"]
    assert sorted(checkpoint.iterdir()) == before
    write_result(folder / "adapter.safetensors", steps=41)
    assert export(folder, ["kohya"], base=None, out=None, progress=ignore_progress) == [folder / "adapter-kohya.safetensors"]


def test_what_is_painted_from_a_checkpoint_lies_beside_the_run(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.output.folder
    monkeypatch.setattr(Sampler, "paint", lambda sampler, wish: [Image.new("RGB", (8, 8))])
    for place in (folder, folder / "checkpoint-000040"):
        sample_command.sample(str(place), prompt=["a dog"])
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert names == {"samples/00-a-dog-strength1-step-000040.png", "samples/00-a-dog-strength1-step-000040-2.png"}


def test_it_is_said_which_files_paint(run: RunConfig) -> None:
    folder = run.output.folder
    checkpoint = folder / "checkpoint-000040" / "adapter.safetensors"
    assert find_subject(folder, memory={}).name == f"{checkpoint} of step 40"
    write_result(folder / "adapter.safetensors", steps=50)
    assert find_subject(folder, memory={}).name == f"{folder / 'adapter.safetensors'} of step 50"


def test_the_home_of_a_file(run: RunConfig, tmp_path: Path) -> None:
    folder = run.output.folder
    for place, step in (("", None), ("adapter.safetensors", None), ("checkpoint-000040", 40), ("result-000007/transformer", 7)):
        home = find_home(folder / place)
        assert home is not None and (home.folder, home.step) == (folder, step), place
    for place in ("checkpoint-000040-not-finite", "checkpoint-000040-left/adapter.safetensors"):
        home = find_home(folder / place)
        assert home is not None and (home.folder, home.step) == (folder, 40), place
    assert find_home(tmp_path / "elsewhere" / "adapter.safetensors") is None
    assert choose_target(tmp_path / "elsewhere" / "style.safetensors") == (tmp_path / "elsewhere", "style")
    with pytest.raises(CheckpointError, match="no such run"):
        find_run(tmp_path / "elsewhere")


def test_older_results_are_kept_until_new_ones_are_whole(run: RunConfig) -> None:
    """Of all formats; those that have no newer one stay where they are kept."""
    folder = run.output.folder
    for name in ("adapter.safetensors", "adapter-kohya.safetensors", "adapter-ema.safetensors", "adapter-merged/transformer/x.safetensors"):
        write_result(folder / name, steps=3)
    write_result(folder / "adapter-comfyui.safetensors", steps=40)
    write_result(folder / "adapter-step-000003-kohya.safetensors", steps=3)
    (folder / "style.safetensors").write_bytes(b"of somebody else")

    moved = put_aside(folder, [run], step=40)
    older = folder / "result-000003"
    assert {path.name for path in moved} == {path.name for path in older.iterdir()}
    assert {path.name for path in moved} == {
        "adapter.safetensors",
        "adapter-kohya.safetensors",
        "adapter-ema.safetensors",
        "adapter-merged",
    }
    staged = clear_staged(folder)
    for name in ("adapter.safetensors", "adapter-kohya.safetensors", "adapter-merged/transformer/x.safetensors"):
        write_result(staged / name, steps=50)
    assert publish(folder, [run], written=[staged / "adapter.safetensors"]) == [folder / "adapter.safetensors"]
    assert load_adapter(folder / "adapter.safetensors").facts["steps"] == 50
    assert [path.name for path in older.iterdir()] == ["adapter-ema.safetensors"]
    for name in ("adapter-comfyui.safetensors", "adapter-step-000003-kohya.safetensors", "style.safetensors"):
        assert (folder / name).is_file()
    assert not list(folder.glob(".*"))


def test_results_are_found_under_the_name_that_was_wished(run: RunConfig) -> None:
    named = run.model_copy(update={"output": run.output.model_copy(update={"name": "zorb.v2"})})
    assert {path.name for path in list_finished(named, Path())} >= {"zorb.v2.safetensors", "zorb.v2-kohya.safetensors", "zorb.v2-merged"}
    full = named.model_copy(update={"adapter": named.adapter.model_copy(update={"kind": "full"})})
    expected = {"zorb.v2", "zorb.v2.safetensors", "zorb.v2-ema", "zorb.v2-ema.safetensors"}
    assert {path.name for path in list_finished(full, Path())} == expected
    save_config(named, run.output.folder / "config.toml")
    write_result(run.output.folder / "zorb.v2.safetensors", steps=50)
    assert find_run(run.output.folder).path.name == "zorb.v2.safetensors"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_files_have_the_precision_that_was_wished(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    factors = {"single_transformer_blocks.0.attn.to_q": Factors(torch.full((2, 192), 0.1), torch.ones(192, 2), 0.3)}
    path = tmp_path / "a.safetensors"
    save_adapter(path, factors, layout="kohya", facts={}, metadata={}, pairings=PAIRINGS, precision=precision)
    [read] = load_adapter(path).modules.values()
    assert torch.allclose(read.build_delta(), factors["single_transformer_blocks.0.attn.to_q"].build_delta(), rtol=1e-2)
    assert {entry.dtype for name, entry in open_weights([path]).items() if not name.endswith(".alpha")} == {dtype}


def test_numbers_that_fp16_cannot_hold_are_named(tmp_path: Path) -> None:
    factors = {"single_transformer_blocks.0.attn.to_q": Factors(torch.full((2, 192), 1e6), torch.ones(192, 2), 2.0)}
    with pytest.raises(AdapterError, match=r"(?s)cannot hold.*to_q.*1e\+06.*bf16"):
        save_adapter(tmp_path / "a", factors, layout="diffusers", facts={}, metadata={}, pairings=PAIRINGS, precision="fp16")
    assert not list(tmp_path.iterdir())
