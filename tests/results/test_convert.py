"""Files from files: what a run leaves in other formats, and the verbs that convert, merge and extract."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.runs import BuildRun, build_watcher
from weber.adapters.files import load_adapter
from weber.errors import AdapterError, ConfigError, WeberError
from weber.families.flux1.variants import POCKET
from weber.families.tensors import open_weights, read_metadata
from weber.planning.plan import build_plan
from weber.pocket.random_flux2 import build_random_flux2
from weber.progress import ignore_progress
from weber.results.bases import read_base
from weber.results.export import export
from weber.results.extract import extract
from weber.results.merge import merge, read_weighted
from weber.training.assemble import train
from weber.training.paint import Wish, sample
from weber.training.subject import find_subject

ALL = ["diffusers", "kohya", "comfyui", "merged-diffusers", "merged-bfl"]
FILES = {
    "adapter.safetensors",
    "adapter-kohya.safetensors",
    "adapter-comfyui.safetensors",
    "adapter-merged",
    "adapter-merged.safetensors",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the one run of this module."""
    return tmp_path_factory.mktemp("convert")


@pytest.fixture
def run(place: Path, build_run: BuildRun) -> Path:
    """The folder of a short run that wrote every format; made once."""
    config = build_run(
        adapter={"rank": 4, "alpha": 6.0},
        optim={"lr": 1e-2},
        train={"steps": 4, "batch_size": 2},
        output={"folder": str(place / "run"), "cache": str(place / "cache"), "formats": ALL},
    )
    if not config.output.folder.exists():
        train(config, resume=False, watcher=build_watcher()[0])
    return config.output.folder


def _paint(config: Any) -> np.ndarray[Any, Any]:
    return np.asarray(config).astype(int)


def _delta(path: Path) -> dict[str, torch.Tensor]:
    return {name: factors.build_delta() for name, factors in load_adapter(path).modules.items()}


def test_a_run_writes_every_format(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= FILES
    expected = _delta(run / "adapter.safetensors")
    for name in ("adapter-kohya.safetensors", "adapter-comfyui.safetensors"):
        got = _delta(run / name)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[module], delta) for module, delta in expected.items())
        assert read_metadata(run / name)["ss_network_dim"]


def test_a_merged_model_is_base_and_adapter(run: Path) -> None:
    base = FluxTransformer2DModel.from_pretrained(POCKET / "transformer", torch_dtype=torch.bfloat16).state_dict()
    merged = FluxTransformer2DModel.from_pretrained(run / "adapter-merged" / "transformer", torch_dtype=torch.bfloat16).state_dict()
    deltas = _delta(run / "adapter.safetensors")
    for name, weight in base.items():
        delta = deltas.get(name.removesuffix(".weight"))
        expected = weight if delta is None else (weight.float() + delta).bfloat16()
        assert torch.equal(merged[name], expected), name


def test_training_goes_on_from_a_merged_model_in_either_layout(run: Path, build_run: BuildRun) -> None:
    losses = []
    for name, path in (("folder", run / "adapter-merged"), ("file", run / "adapter-merged.safetensors")):
        config = build_run(name, model={"variant": "pocket", "transformer": str(path)}, train={"steps": 2}, output={"save_every": 2})
        train(config, resume=False, watcher=build_watcher()[0])
        losses.append([json.loads(line)["loss"] for line in (config.output.folder / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == losses[1]
    plain = build_run("plain", model={"variant": "pocket"}, train={"steps": 2})
    train(plain, resume=False, watcher=build_watcher()[0])
    assert json.loads((plain.output.folder / "metrics.jsonl").read_text().splitlines()[0])["loss"] != losses[0][0]


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
def test_training_starts_from_a_file_of_any_layout(run: Path, build_run: BuildRun, layout: str) -> None:
    """Step 1 of a run that starts from a file has the loss that the donor's weights have there."""
    path = run / ("adapter.safetensors" if layout == "diffusers" else f"adapter-{layout}.safetensors")
    start = build_run("start", adapter={"rank": 6, "start_from": str(path)}, train={"steps": 1})
    train(start, resume=False, watcher=build_watcher()[0])
    same = build_run("same", adapter={"rank": 4, "alpha": 6.0, "start_from": str(run / "adapter.safetensors")}, train={"steps": 1})
    train(same, resume=False, watcher=build_watcher()[0])
    fresh = build_run("fresh", train={"steps": 1})
    train(fresh, resume=False, watcher=build_watcher()[0])
    losses = [json.loads((one.output.folder / "metrics.jsonl").read_text())["loss"] for one in (start, same, fresh)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0] - losses[2]) > 1e-3


def test_export_of_a_run_and_of_its_checkpoint(run: Path, tmp_path: Path) -> None:
    checkpoint = next(run.glob("checkpoint-*"))
    for source in (run, checkpoint, run / "adapter-comfyui.safetensors"):
        [path] = export(source, ["kohya"], base=None, out=tmp_path / source.name, progress=ignore_progress)
        got, expected = _delta(path), _delta(run / "adapter.safetensors")
        assert all(torch.equal(got[module], delta) for module, delta in expected.items())


def test_the_export_paints_as_the_run(run: Path, tmp_path: Path) -> None:
    """kohya -> diffusers, put in place of the run's own file: the picture stays."""
    [ours] = sample(run, Wish(["red apple"], seed=3, steps=3), watcher=build_watcher()[0])
    [path] = export(run / "adapter-kohya.safetensors", ["diffusers"], base=None, out=tmp_path, progress=ignore_progress)
    for name in ("config.toml",):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    [theirs] = sample(path, Wish(["red apple"], seed=3, steps=3), watcher=build_watcher()[0])
    assert np.abs(_paint(ours) - _paint(theirs)).max() <= 1


def test_merging_adapters_adds_their_changes(run: Path, tmp_path: Path) -> None:
    file = run / "adapter.safetensors"
    merge([(file, 0.5), (file, 0.25)], base=None, out=tmp_path / "sum.safetensors", layout="kohya", rank=None, progress=ignore_progress)
    got, expected = _delta(tmp_path / "sum.safetensors"), _delta(file)
    assert all(torch.allclose(got[module], 0.75 * delta, rtol=0, atol=1e-6) for module, delta in expected.items())


def test_a_merged_model_gives_its_adapter_back(run: Path, tmp_path: Path) -> None:
    """The pocket weights are bf16, so what comes back is the change as bf16 could hold it."""
    out = tmp_path / "back.safetensors"
    found = extract(
        str(run / "adapter-merged.safetensors"),
        base="pocket",
        targets="blocks",
        rank=None,
        energy=1.0,
        out=out,
        layout="comfyui",
        progress=ignore_progress,
    )
    assert not found.left_out
    merge([(out, 1.0)], base="pocket", out=tmp_path / "again.safetensors", layout=None, rank=None, progress=ignore_progress)
    again, merged = (open_weights([path]) for path in (tmp_path / "again.safetensors", run / "adapter-merged.safetensors"))
    assert again.keys() == merged.keys()
    assert all(torch.allclose(again[name].read().float(), merged[name].read().float(), rtol=8e-3, atol=1e-6) for name in merged)


def test_wishes_that_cannot_be(run: Path, tmp_path: Path) -> None:
    file = run / "adapter.safetensors"
    alone, new = tmp_path / "alone.safetensors", tmp_path / "new.safetensors"
    alone.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="model to merge into is not known"):
        export(alone, ["merged-bfl"], base=None, out=None, progress=ignore_progress)
    with pytest.raises(ConfigError, match="no such format"):
        export(file, ["webui"], base=None, out=tmp_path / "out", progress=ignore_progress)
    with pytest.raises(ConfigError, match="no rank and no adapter layout"):
        merge([(file, 1.0)], base="pocket", out=tmp_path / "a", layout="kohya", rank=None, progress=ignore_progress)
    with pytest.raises(ConfigError, match="An adapter is one file"):
        merge([(file, 1.0)], base=None, out=tmp_path / "folder", layout=None, rank=None, progress=ignore_progress)
    with pytest.raises(ConfigError, match="targets mean no layer"):
        extract("pocket", base="pocket", targets="nothing", rank=4, energy=None, out=new, layout="kohya", progress=ignore_progress)
    with pytest.raises(AdapterError, match="nothing to extract"):
        extract("pocket", base="pocket", targets="all", rank=4, energy=None, out=new, layout="kohya", progress=ignore_progress)
    with pytest.raises(ConfigError, match="no such adapter file"):
        read_weighted(str(tmp_path / "absent.safetensors:0.5"))
    assert not (tmp_path / "out").exists()
    assert alone.read_bytes() == file.read_bytes()


def test_weights_of_adapters_are_read_from_their_names(run: Path, tmp_path: Path) -> None:
    file = run / "adapter.safetensors"
    assert read_weighted(str(file)) == (file, 1.0)
    assert read_weighted(f"{file}:0.5") == (file, 0.5)
    assert read_weighted(f"{file}:-1") == (file, -1.0)


def _list_bytes(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_result_never_replaces_what_it_is_made_from_or_what_weber_did_not_write(run: Path, tmp_path: Path) -> None:
    file, base = tmp_path / "a.safetensors", tmp_path / "base"
    file.write_bytes((run / "adapter.safetensors").read_bytes())
    shutil.copytree(POCKET / "transformer", base / "transformer")
    other = tmp_path / "other"
    shutil.copytree(POCKET / "transformer", other / "transformer")
    picture = tmp_path / "picture.safetensors"
    picture.write_bytes(b"no adapter")
    trained = tmp_path / "trained.safetensors"
    trained.write_bytes(file.read_bytes())
    before = _list_bytes(tmp_path)
    cases = ((file, None), (trained, None), (base, str(base)), (base / "transformer", str(base)), (other, str(base)), (picture, None))
    for out, of in cases:
        with pytest.raises(ConfigError, match="would replace"):
            merge([(file, 1.0)], base=of, out=out, layout=None, rank=None, progress=ignore_progress)
    weights = base / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ConfigError, match="would replace"):
        extract(str(base), base="pocket", targets="all", rank=4, energy=None, out=weights, layout="kohya", progress=ignore_progress)
    with pytest.raises(ConfigError, match="file or a folder"):
        merge([(file, 1.0)], base=str(base), out=tmp_path / "x.ckpt", layout=None, rank=None, progress=ignore_progress)
    assert _list_bytes(tmp_path) == before


def test_a_result_of_weber_may_be_made_again(run: Path, tmp_path: Path) -> None:
    file = run / "adapter.safetensors"
    for out, base in ((tmp_path / "sum.safetensors", None), (tmp_path / "whole.safetensors", "pocket"), (tmp_path / "folder", "pocket")):
        for weight in (1.0, 0.5):
            merge([(file, weight)], base=base, out=out, layout=None, rank=None, progress=ignore_progress)


@pytest.mark.parametrize("weight", ["nan", "inf", "abc", ""])
def test_weights_that_are_no_numbers(run: Path, weight: str) -> None:
    with pytest.raises(ConfigError, match="weight of an adapter is no number"):
        read_weighted(f"{run / 'adapter.safetensors'}:{weight}")


def test_models_in_one_word() -> None:
    assert read_base("pocket").variant == "pocket"
    assert read_base("owner/name").path == "owner/name"
    with pytest.raises(ConfigError, match="did you mean 'flux1-dev'"):
        read_base("flux1-devv")


def test_errors_of_a_model_speak_of_what_was_typed(run: Path, tmp_path: Path) -> None:
    """Nobody has written model.path where a model is named on the command line."""
    file, out = run / "adapter.safetensors", tmp_path / "out.safetensors"
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"PK\x03\x04")

    def put(base: str) -> None:
        merge([(file, 1.0)], base=base, out=out, layout=None, rank=None, progress=ignore_progress)

    def take(tuned: str, base: str) -> None:
        extract(tuned, base=base, targets="blocks", rank=4, energy=None, out=out, layout="kohya", progress=ignore_progress)

    cases = (
        (lambda: put(str(file)), f"--base '{file}' with a LoRA", "correct --base"),
        (lambda: put("./none"), "--base './none'", "correct --base"),
        (lambda: put("pockett"), "--base 'pockett'", "'pocket'"),
        (lambda: put(str(pickle)), "a pickle", "use the file as *.safetensors"),
        (lambda: export(file, ["merged-bfl"], base="./none", out=tmp_path, progress=ignore_progress), "--base './none'", "correct --base"),
        (lambda: take("pocket", "./none"), "--base './none'", "correct --base"),
        (lambda: take(str(file), "pocket"), f"TUNED '{file}'", "correct TUNED"),
        (lambda: find_subject(file, base="./none", memory={}), "--base './none'", "correct --base"),
        (lambda: find_subject("pockett", memory={}), "PLACE 'pockett'", "'pocket'"),
    )
    for ask, got, fix in cases:
        with pytest.raises(WeberError) as caught:
            ask()
        assert got in caught.value.got and fix in caught.value.fix, str(caught.value)
        assert "model.path" not in str(caught.value) and "model.v" not in str(caught.value)


def test_an_adapter_that_is_a_pickle_is_told_so(tmp_path: Path) -> None:
    for name, content in (("a.ckpt", b""), ("b.bin", b"anything"), ("c.safetensors", b"PK\x03\x04" + b"0" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AdapterError, match="cannot be read") as caught:
            export(tmp_path / name, ["kohya"], base=None, out=tmp_path, progress=ignore_progress)
        assert "a pickle" in caught.value.got and "*.safetensors" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("comfy", "comfyui"),
        ("ComfyUI", "comfyui"),
        ("kohya_ss", "kohya"),
        ("kohia", "kohya"),
        ("peft", "diffusers"),
        ("merged", "merged-diffusers"),
    ],
)
def test_a_format_of_another_name_is_answered_with_ours(name: str, meant: str, run: Path, tmp_path: Path) -> None:
    file = run / "adapter.safetensors"
    with pytest.raises(ConfigError) as caught:
        export(file, [name], base=None, out=tmp_path, progress=ignore_progress)
    assert caught.value.fix == f"write --format {meant}"
    with pytest.raises(ConfigError) as caught:
        merge([(file, 1.0)], base=None, out=tmp_path / "a.safetensors", layout=name, rank=None, progress=ignore_progress)
    assert caught.value.fix == ("choose of these" if meant.startswith("merged") else f"write --layout {meant}")


def test_export_tells_what_it_leaves_out(run: Path, tmp_path: Path) -> None:
    file, notes = tmp_path / "more.safetensors", list[str]()
    save_file(load_file(run / "adapter.safetensors") | {"bundle_emb.word": torch.ones(2)}, file)
    [path] = export(file, ["kohya"], base=None, out=tmp_path, progress=ignore_progress, note=notes.append)
    assert path.is_file()
    assert any("left out: bundle_emb.word" in note and str(file) in note for note in notes)


@pytest.mark.parametrize(("rank", "energy"), [(None, None), (0, None), (None, 1.5)])
def test_how_much_is_extracted_must_be_said(rank: int | None, energy: float | None, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    with pytest.raises(ConfigError, match="not said how much of the change"):
        extract("pocket", base="pocket", targets="all", rank=rank, energy=energy, out=out, layout="kohya", progress=ignore_progress)


def test_training_starts_from_a_run_folder(run: Path, build_run: BuildRun) -> None:
    plan = build_plan(build_run(adapter={"rank": 4, "start_from": str(run)}))
    assert plan.start is not None
    assert plan.start.modules.keys() == load_adapter(run / "adapter.safetensors").modules.keys()


def test_an_unfinished_run_is_exported_from_its_checkpoint(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "adapter.safetensors").unlink()
    [path] = export(copy, ["kohya"], base=None, out=tmp_path / "out", progress=ignore_progress)
    expected = _delta(run / "adapter.safetensors")
    assert all(torch.equal(delta, expected[module]) for module, delta in _delta(path).items())


def test_an_adapter_that_has_failed_or_is_for_another_model_is_refused(run: Path, tmp_path: Path, build_run: BuildRun) -> None:
    broken = tmp_path / "broken.safetensors"
    tensors = load_file(run / "adapter.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    with safe_open(run / "adapter.safetensors", framework="pt") as file:
        save_file(tensors, broken, metadata=file.metadata())
    with pytest.raises(AdapterError, match="not finite"):
        merge([(broken, 1.0)], base=None, out=tmp_path / "sum.safetensors", layout=None, rank=None, progress=ignore_progress)
    other = build_random_flux2(tmp_path / "klein", "klein-base")
    config = build_run(
        model={"path": str(other), "variant": "flux2-klein-base-4b"},
        data=[{"resolution": 64, "bucket_step": 16}],
        adapter={"rank": 4, "start_from": str(run / "adapter.safetensors")},
    )
    with pytest.raises(AdapterError, match="is for another model") as caught:
        build_plan(config)
    assert "192 inputs and 192 outputs in transformer_blocks.0" in caught.value.expected and ": 32 inputs" in caught.value.expected


def test_a_folder_for_results_that_is_a_file(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="The results go into a folder"):
        export(run, ["kohya"], base=None, out=file, progress=ignore_progress)
