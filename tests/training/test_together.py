"""Several processes are one, bit for bit: losses and files, whatever is trained, by any number of them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_together, start_together, watch
from tests.runs import build_watcher
from tests.training.test_masks import write_masks
from tests.training.test_resume import read_losses
from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.checkpoint.save import list_checkpoints
from weber.config.load import build_config, load_config, save_config
from weber.config.run import RunConfig
from weber.errors import CacheError
from weber.planning import limits
from weber.pocket.random_flux2 import build_random_flux2
from weber.track.jsonl import read_readings
from weber.training.assemble import train
from weber.training.serve import Server

SIZE: dict[str, Any] = {"resolution": 64, "bucket_step": 16}
CASES: dict[str, dict[str, Any]] = {
    "lora": {
        "adapter": {"rank": 4, "dropout": 0.1},
        "optim": {"lr": 1e-3, "ema_decay": 0.9},
        "objective": {"stratified": True},
        "train": {"steps": 4, "batch_size": 1, "accumulation": 4},
    },
    "lokr": {
        "adapter": {"kind": "lycoris", "lycoris": {"algo": "lokr"}},
        "memory": {"device": "cpu", "quantize_text_encoder_2": "int8", "encode_batch_size": 1, "gradient_checkpointing": "none"},
        "train": {"steps": 2, "batch_size": 1, "accumulation": 2},
    },
    "full": {
        "adapter": {"kind": "full", "targets": ["single_transformer_blocks", "norm_out"]},
        "memory": {"device": "cpu", "dtype": "bf16", "gradient_checkpointing": "none"},
        "optim": {"name": "adamw_bf16", "lr": 1e-4, "ema_decay": 0.9},
        "train": {"steps": 4, "batch_size": 1, "accumulation": 4},
        "sampling": {"prompts": ["a dog"], "steps": 1, "width": 64, "height": 64, "every": 2},
    },
    "packed": {
        "memory": {"device": "cpu", "quantize": "nf4", "dtype": "bf16", "gradient_checkpointing": "none"},
        "train": {"steps": 3, "batch_size": 1, "accumulation": 4},
        "sampling": {"prompts": ["a dog"], "steps": 2, "width": 64, "height": 64, "every": 2},
        "evaluation": {"every": 2, "pictures": 1, "levels": [0.5]},
    },
    "mixed": {"train": {"steps": 4, "batch_size": 3, "accumulation": 3}, "optim": {"lr": 1e-3}},
    "references": {
        "memory": {"device": "cpu", "gradient_checkpointing": "none", "encode_batch_size": 1},
        "train": {"steps": 2, "batch_size": 2, "accumulation": 2},
    },
}
WORLDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "two": (2, ("lora", "lokr", "full", "mixed", "references")),
    "three": (3, ("lora", "mixed")),
    "two sharded": (2, ("lora", "lokr", "packed", "full", "mixed", "references")),
    "four sharded": (4, ("packed", "full")),
}
ENCODED = ("lokr", "references")
"""What encodes its pictures and texts itself, the latter by encoders that are sharded where blocks are."""
"""How many processes do what, and whether each holds a part of the blocks; of four each two hold all of them, and
what is trained stays whole in a step."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def masks(place: Path, pictures: Path) -> Path:
    return write_masks(place / "masks", pictures, names=slice(0, 12, 2))


def build(place: Path, name: str, case: str, *, cache: Path, pictures: Path, masks: Path) -> RunConfig:
    data: list[dict[str, Any]] = [{"path": str(pictures), **SIZE} | ({"evaluation": 0.2} if case == "packed" else {})]
    if case == "mixed":
        kept = {"path": str(pictures), "name": "kept", "regularization": True, "loss_weight": 0.5, **SIZE}
        data = [data[0] | {"loss_masks": str(masks)}, kept]
    if case == "references":
        before = shutil.copytree(pictures, place / "before", dirs_exist_ok=True)
        data = [data[0] | {"conditioning": [str(before)], "conditioning_type": "reference_loose"}]
    tree: dict[str, Any] = {
        "model": _choose_model(place, case),
        "data": data,
        "adapter": {"rank": 4},
        "memory": {"device": "cpu", "gradient_checkpointing": "none"},
        "output": {"folder": str(place / name / case), "cache": str(_choose_cache(place, name, case) or cache), "save_every": 2},
    } | CASES[case]
    if "sharded" in name:
        encoders = {"text_encoders": "sharded"} if case in ENCODED else {}
        parallel: dict[str, Any] = {"devices": 2, "strategy": "fsdp"} | encoders
        parallel |= {"offload": True} if case == "mixed" else {}
        parallel |= {"devices": 4, "group": 2, "reshard": case != "full"} if "four" in name else {}
        tree |= {"parallel": parallel, "memory": tree["memory"] | {"gradient_checkpointing": "all"}}
    return build_config(tree)


def _choose_cache(place: Path, name: str, case: str) -> Path | None:
    return place / name / f"cache-{case}" if case in ENCODED else None


def _choose_model(place: Path, case: str) -> dict[str, Any]:
    """One that takes references, for those; its folder is made once."""
    folder = place / "klein"
    if case != "references":
        return {"variant": "pocket"}
    if not folder.exists():
        build_random_flux2(folder, "klein-base")
    return {"path": str(folder), "variant": "flux2-klein-base-4b"}


def allow_offload() -> None:
    """Parts in the memory of the host, where that is the device's own: refused, as it gains nothing, and done like on a GPU."""
    limits._check_device = lambda config, device: None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def runs(place: Path, small_cache: Path, pictures: Path, masks: Path) -> dict[str, Path]:
    """The folders of the runs of one process, and of several."""
    own: dict[str, Any] = {"cache": small_cache, "pictures": pictures, "masks": masks}
    for case in CASES:
        train(build(place, "one", case, **own), resume=False, watcher=build_watcher()[0])
    for world, (size, cases) in WORLDS.items():
        files = [place / f"{world}-{case}.toml" for case in cases]
        for file, case in zip(files, cases, strict=True):
            save_config(build(place, world, case, **own), file)
        codes = run_together(files, size, said=place / f"said-{world}", prepare=allow_offload if "sharded" in world else None)
        assert codes == [0] * size, [file.read_text() for file in sorted((place / f"said-{world}").iterdir())]
    return {world: place / world for world in ("one", *WORLDS)}


def list_files(folder: Path) -> dict[str, bytes]:
    names = ("*.safetensors", "checkpoint-*/*.safetensors", "transformer/*.safetensors")
    return {str(file.relative_to(folder)): file.read_bytes() for name in names for file in sorted(folder.glob(name))}


@pytest.mark.parametrize(("world", "case"), [(world, case) for world, (_, cases) in WORLDS.items() for case in cases])
def test_many_processes_are_one_bit_for_bit(runs: dict[str, Path], world: str, case: str) -> None:
    one, many = runs["one"] / case, runs[world] / case
    assert read_losses(one) == read_losses(many)
    files = list_files(one)
    assert len(files) > 2
    assert files == list_files(many)
    if case != "full":  # of which the first process sees a part
        assert read_readings(one) == read_readings(many)
    pictures = {file.name: file.read_bytes() for file in (one / "pictures").rglob("*.png")}
    assert pictures == {file.name: file.read_bytes() for file in (many / "pictures").rglob("*.png")}
    assert bool(pictures) == (case in ("packed", "full"))


@pytest.mark.parametrize(("world", "case"), [(world, case) for world, (_, cases) in WORLDS.items() for case in cases if case in ENCODED])
def test_many_processes_encode_what_one_does(runs: dict[str, Path], place: Path, world: str, case: str) -> None:
    """Each its part, and of text encoders with parts of their layers: nothing twice, and the same bits."""
    one, many = (Store(place / name / f"cache-{case}") for name in ("one", world))
    keys = set(one.catalog.read_all())
    assert keys == set(many.catalog.read_all()) and len(keys) > 12
    for key in sorted(keys):
        mine, yours = one.read(key), many.read(key)
        assert mine.keys() == yours.keys() and all(mine[name].equal(yours[name]) for name in mine), key


def break_writing() -> None:
    """In each process but the first nothing of a text can be written."""
    encode, write = Server._encode, Writer.add_batch

    def fail(self: Writer, samples: Any) -> None:
        if any("latents" not in one for one in samples.values()):
            raise CacheError("Nothing can be written.", got="a full disk", fix="make room")
        write(self, samples)

    def encode_badly(self: Server, parts: Any) -> None:
        Writer.add_batch = fail  # type: ignore[method-assign]
        encode(self, parts)

    Server._encode = encode_badly  # type: ignore[method-assign]


def test_what_goes_wrong_with_a_part_of_an_encoder_is_told_once(place: Path, small_cache: Path, pictures: Path, masks: Path) -> None:
    """The other one goes on with that encoder until both are through with it, and hears of it before the next."""
    config = build(place, "broken sharded", "lokr", cache=small_cache, pictures=pictures, masks=masks)
    save_config(config, place / "broken.toml")
    assert run_together([place / "broken.toml"], 2, said=place / "broken", prepare=break_writing) == [2, 0]
    said = (place / "broken" / "broken-0.txt").read_text()
    assert said.count("Nothing can be written. (in process 1, on ") == 1 and "make room" in said
    assert "encoding captions (clip)" in said and "encoding captions (t5)" not in said


@pytest.mark.parametrize(
    ("case", "left", "size", "sections"),
    [
        ("lora", "three", 2, []),
        ("lora", "two", 1, []),
        ("full", "two sharded", 1, ["parallel.strategy=auto", "parallel.devices=auto"]),
        ("full", "two", 3, ["parallel.strategy=fsdp", "parallel.devices=3", "parallel.reshard=false", "memory.gradient_checkpointing=all"]),
    ],
)
def test_a_run_goes_on_in_any_number_of_processes(
    runs: dict[str, Path], place: Path, case: str, left: str, size: int, sections: list[str]
) -> None:
    """As many as it was, or others; with whole blocks, or parts of them."""
    step, steps = 2, 4
    before, name = runs[left] / case, f"{left} to {size}"
    folder = place / name / case
    shutil.copytree(before / f"checkpoint-{step:06d}", folder / f"checkpoint-{step:06d}")
    config = load_config(before / "config.toml", [f"output.folder={folder}", *sections])
    file = place / f"{name}-{case}.toml"
    save_config(config, file)
    if size == 1:
        train(config, resume=True, watcher=build_watcher()[0])
    else:
        assert run_together([file], size, said=place / "resumed", resume=True) == [0] * size
        said = (place / "resumed" / f"{file.stem}-0.txt").read_text()
        assert f"Resuming checkpoint-{step:06d}: 2 of {steps} steps are left" in said
    files = [one for one in list_files(runs["one"] / case) if f"{steps:06d}" in one or "/" not in one]
    assert len(files) > 2
    for one in files:
        assert (folder / one).read_bytes() == (runs["one"] / case / one).read_bytes(), one


def test_a_wish_to_stop_may_come_to_any_process(place: Path, small_cache: Path, pictures: Path, masks: Path) -> None:
    """As Slurm sends it to all tasks before their time is over; here to one that does not lead."""
    config = build(place, "stopped", "lora", cache=small_cache, pictures=pictures, masks=masks)
    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 500})})
    save_config(longer, place / "stopped.toml")
    processes, metrics = start_together([place / "stopped.toml"], 2, said=place / "stopped"), config.output.folder / "metrics.jsonl"
    while not metrics.is_file() or len(read_losses(config.output.folder)) < 2:
        assert all(one.is_alive() for one in processes)
        time.sleep(0.02)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert watch(processes) == [130, 0]
    (step, _) = list_checkpoints(config.output.folder)[-1]
    assert step == len(read_losses(config.output.folder)) < 500
    said = (place / "stopped" / "stopped-0.txt").read_text()
    assert f"Stopped after step {step} of 500; everything is saved." in said
