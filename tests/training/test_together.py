"""Several processes are one, bit for bit: losses and files, whatever is trained, by any number of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_together
from tests.runs import build_watcher
from tests.training.test_masks import write_masks
from tests.training.test_resume import read_losses
from weber.config.load import build_config, load_config, save_config
from weber.config.run import RunConfig
from weber.training.assemble import train

SIZE: dict[str, Any] = {"resolution": 64, "bucket_step": 16}
CASES: dict[str, dict[str, Any]] = {
    "lora": {
        "adapter": {"rank": 4, "dropout": 0.1},
        "optim": {"lr": 1e-3, "ema_decay": 0.9},
        "objective": {"stratified": True},
        "train": {"steps": 4, "batch_size": 1, "accumulation": 4},
    },
    "lokr": {"adapter": {"kind": "lycoris", "lycoris": {"algo": "lokr"}}, "train": {"steps": 2, "batch_size": 1, "accumulation": 2}},
    "full": {
        "adapter": {"kind": "full", "targets": ["single_transformer_blocks", "norm_out"]},
        "memory": {"device": "cpu", "dtype": "bf16", "gradient_checkpointing": "none"},
        "optim": {"name": "adamw_bf16", "lr": 1e-4, "ema_decay": 0.9},
        "train": {"steps": 2, "batch_size": 1, "accumulation": 3},
    },
    "mixed": {"train": {"steps": 4, "batch_size": 3, "accumulation": 3}, "optim": {"lr": 1e-3}},
}
WORLDS = {2: ("lora", "lokr", "full", "mixed"), 3: ("lora", "mixed")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def masks(place: Path, pictures: Path) -> Path:
    return write_masks(place / "masks", pictures, names=slice(0, 12, 2))


def build(place: Path, name: str, case: str, *, cache: Path, pictures: Path, masks: Path) -> RunConfig:
    data: list[dict[str, Any]] = [{"path": str(pictures), **SIZE}]
    if case == "mixed":
        kept = {"path": str(pictures), "name": "kept", "regularization": True, "loss_weight": 0.5, **SIZE}
        data = [data[0] | {"loss_masks": str(masks)}, kept]
    tree = {
        "model": {"variant": "pocket"},
        "data": data,
        "adapter": {"rank": 4},
        "memory": {"device": "cpu", "gradient_checkpointing": "none"},
        "output": {"folder": str(place / name / case), "cache": str(cache), "save_every": 2},
    } | CASES[case]
    return build_config(tree)


@pytest.fixture(scope="module")
def runs(place: Path, small_cache: Path, pictures: Path, masks: Path) -> dict[int, Path]:
    """The folders of the runs of one process, two and three."""
    own: dict[str, Any] = {"cache": small_cache, "pictures": pictures, "masks": masks}
    for case in CASES:
        train(build(place, "1", case, **own), resume=False, watcher=build_watcher()[0])
    for size, cases in WORLDS.items():
        files = [place / f"{size}-{case}.toml" for case in cases]
        for file, case in zip(files, cases, strict=True):
            save_config(build(place, str(size), case, **own), file)
        codes = run_together(files, size, said=place / f"said-{size}")
        assert codes == [0] * size, [file.read_text() for file in sorted((place / f"said-{size}").iterdir())]
    return {size: place / str(size) for size in (1, *WORLDS)}


def list_files(folder: Path) -> dict[str, bytes]:
    names = ("*.safetensors", "checkpoint-*/*.safetensors", "transformer/*.safetensors")
    return {str(file.relative_to(folder)): file.read_bytes() for name in names for file in sorted(folder.glob(name))}


@pytest.mark.parametrize(("size", "case"), [(size, case) for size, cases in WORLDS.items() for case in cases])
def test_many_processes_are_one_bit_for_bit(runs: dict[int, Path], size: int, case: str) -> None:
    one, many = runs[1] / case, runs[size] / case
    assert read_losses(one) == read_losses(many)
    files = list_files(one)
    assert len(files) > 2
    assert files == list_files(many)


def test_a_run_goes_on_in_any_number_of_processes(runs: dict[int, Path], place: Path) -> None:
    """From a checkpoint of three in two, and from one of two in one."""
    for size, left in ((2, "3"), (1, "2")):
        before, folder = runs[int(left)] / "lora", place / f"{left}-to-{size}" / "lora"
        shutil.copytree(before / "checkpoint-000002", folder / "checkpoint-000002")
        config = load_config(before / "config.toml", [f"output.folder={folder}"])
        file = save_config(config, place / f"{left}-to-{size}.toml") or place / f"{left}-to-{size}.toml"
        if size == 1:
            train(config, resume=True, watcher=build_watcher()[0])
        else:
            assert run_together([file], size, said=place / "resumed", resume=True) == [0] * size
            said = (place / "resumed" / f"{file.stem}-0.txt").read_text()
            assert "Resuming checkpoint-000002: 2 of 4 steps are left" in said and "Changed since" not in said
        for name in ("adapter.safetensors", "checkpoint-000004/optimizer.safetensors", "checkpoint-000004/ema.safetensors"):
            assert (folder / name).read_bytes() == (runs[1] / "lora" / name).read_bytes(), (size, name)
