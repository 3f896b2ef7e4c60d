"""Ten steps in one go are six, a stop, and four more: bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.runs import BuildRun, build_watcher
from weber.checkpoint.save import list_checkpoints
from weber.config.run import RunConfig
from weber.errors import CheckpointError
from weber.families.flux1.variants import POCKET
from weber.track.progress import Watcher
from weber.training.assemble import train
from weber.training.stop import Stop


class Interrupter(Watcher):
    """Asks for a stop during one step, as Ctrl-C does."""

    def __init__(self, watcher: Watcher, step: int) -> None:
        super().__init__(watcher.console)
        self.step, self.stop = step, Stop()

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        super().report(what, done, total, note)
        if what == "training" and done == self.step:
            self.stop.say()


def run_whole(config: RunConfig) -> Path:
    watcher, _ = build_watcher()
    train(config, resume=False, watcher=watcher)
    return config.output.folder


def run_interrupted(config: RunConfig, step: int, *, resume: bool = False) -> tuple[Path, str]:
    watcher, buffer = build_watcher()
    interrupter = Interrupter(watcher, step)
    with pytest.raises(KeyboardInterrupt):
        train(config, resume=resume, watcher=interrupter, stop=interrupter.stop)
    return config.output.folder, buffer.getvalue()


def read_losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["lr"]) for line in lines]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_bf16"])
def test_six_and_four_are_ten(build_run: BuildRun, optimizer: str) -> None:
    sections = {
        "data": [{"crop": "random", "aspect": "square"}],
        "adapter": {"dropout": 0.1},
        "optim": {"name": optimizer, "schedule": "cosine", "warmup_steps": 2},
        "train": {"batch_size": 1, "accumulation": 2},
    }
    whole = run_whole(build_run("whole/run", **sections))
    config = build_run("parts/run", **sections)
    parts, said = run_interrupted(config, 6)
    assert [step for step, _ in list_checkpoints(parts)] == [3, 6]
    assert f"weber train {parts / 'config.toml'} --resume" in said
    watcher, _ = build_watcher()
    train(config, resume=True, watcher=watcher)

    assert read_losses(whole) == read_losses(parts)
    assert len(read_losses(parts)) == 10
    for name in ("adapter.safetensors", "checkpoint-000010/adapter.safetensors", "checkpoint-000010/optimizer.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_batch_two_is_batch_one_with_accumulation_two(build_run: BuildRun) -> None:
    one = run_whole(build_run("one", train={"batch_size": 1, "accumulation": 2, "steps": 4}))
    two = run_whole(build_run("two", train={"batch_size": 2, "accumulation": 1, "steps": 4}))
    for (_, loss_one, _), (_, loss_two, _) in zip(read_losses(one), read_losses(two), strict=True):
        assert loss_one == pytest.approx(loss_two, rel=1e-5)


def test_a_damaged_checkpoint_is_named_and_skipped(build_run: BuildRun) -> None:
    config = build_run()
    folder, _ = run_interrupted(config, 6)
    (folder / "checkpoint-000006" / "optimizer.safetensors").write_bytes(b"half")
    watcher, buffer = build_watcher()
    train(config, resume=True, watcher=watcher)
    assert "Skipped the damaged checkpoint checkpoint-000006: optimizer.safetensors" in buffer.getvalue()
    assert "Resuming checkpoint-000003: 7 of 10 steps are left." in buffer.getvalue()
    assert [step for step, _, _ in read_losses(folder)] == list(range(1, 11))


def test_resume_without_checkpoint_starts_at_the_beginning(build_run: BuildRun) -> None:
    config = build_run(train={"steps": 2})
    watcher, buffer = build_watcher()
    train(config, resume=True, watcher=watcher)
    assert "starting at step 0" in buffer.getvalue()


def test_a_folder_with_a_run_is_not_overwritten(build_run: BuildRun) -> None:
    config = build_run(train={"steps": 2})
    before = run_whole(config) / "adapter.safetensors"
    content = before.read_bytes()
    with pytest.raises(CheckpointError, match="already holds a run"):
        run_whole(config)
    assert before.read_bytes() == content


def test_targets_may_be_said_in_other_words(build_run: BuildRun) -> None:
    """As where the name of a set means something else in a later version."""
    run_whole(build_run(adapter={"targets": "context"}, train={"steps": 1}))
    same = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    train(build_run(adapter={"targets": same}, train={"steps": 2}), resume=True, watcher=build_watcher()[0])
    with pytest.raises(CheckpointError, match="adapter.targets"):
        train(build_run(adapter={"targets": same[:3]}, train={"steps": 3}), resume=True, watcher=build_watcher()[0])


def test_settings_that_tensors_depend_on_cannot_change(build_run: BuildRun) -> None:
    run_whole(build_run(train={"steps": 2}))
    watcher, _ = build_watcher()
    with pytest.raises(CheckpointError, match=r"adapter\.rank: 4 -> 8"):
        train(build_run(train={"steps": 4}, adapter={"rank": 8}), resume=True, watcher=watcher)


def test_a_refused_resume_leaves_the_run_as_it_was(build_run: BuildRun) -> None:
    folder = run_whole(build_run(train={"steps": 2}))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    watcher, _ = build_watcher()
    with pytest.raises(CheckpointError):
        train(build_run(train={"steps": 4}, adapter={"rank": 8}), resume=True, watcher=watcher)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_weights_of_the_model_are_refused_and_a_moved_model_is_not(build_run: BuildRun, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(POCKET, tmp_path / "moved"))
    run_whole(build_run(train={"steps": 2}))
    watcher, buffer = build_watcher()
    train(build_run(train={"steps": 3}, model={"path": str(moved)}), resume=True, watcher=watcher)
    assert "model.path" not in buffer.getvalue()
    weights = moved / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="the weights of the model"):
        train(build_run(train={"steps": 4}, model={"path": str(moved)}), resume=True, watcher=watcher)


def test_a_run_that_goes_on_has_no_old_adapter(build_run: BuildRun) -> None:
    folder = run_whole(build_run(train={"steps": 3}))
    run_interrupted(build_run(train={"steps": 9}), 5, resume=True)
    assert not (folder / "adapter.safetensors").exists()
    assert list_checkpoints(folder)[-1][0] == 5


def test_more_steps_and_another_rate_are_allowed_and_said(build_run: BuildRun) -> None:
    run_whole(build_run(train={"steps": 2}))
    watcher, buffer = build_watcher()
    train(build_run(train={"steps": 4}, optim={"lr": 0.5e-3}), resume=True, watcher=watcher)
    assert "optim.lr: 0.001 -> 0.0005" in buffer.getvalue()
    assert "train.steps: 2 -> 4" in buffer.getvalue()


def test_fewer_steps_than_done_is_refused(build_run: BuildRun) -> None:
    run_whole(build_run(train={"steps": 4}))
    watcher, _ = build_watcher()
    with pytest.raises(CheckpointError, match=r"set train\.steps to 4 or more"):
        train(build_run(train={"steps": 3}), resume=True, watcher=watcher)
