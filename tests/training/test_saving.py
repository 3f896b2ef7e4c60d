"""What a person has is not lost: by a run that goes on, fails, is stopped, or fills the disk."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import BuildRun, build_watcher
from weber.checkpoint.save import list_checkpoints
from weber.config.run import RunConfig
from weber.errors import CheckpointError, TrainingError
from weber.families.tensors import read_metadata
from weber.results.files import read_model_facts
from weber.results.merge import read_weighted
from weber.results.runs import find_run
from weber.track.progress import Watcher
from weber.training import loop, pictures
from weber.training.assemble import train
from weber.training.outcome import Outcome
from weber.training.resume import Resume
from weber.training.stop import Stopped

TrainStep = Callable[..., dict[str, float]]


class Presser(Watcher):
    """Presses Ctrl-C at one report, and counts the reports of that work that come after it."""

    def __init__(self, watcher: Watcher, what: str, *, at: int) -> None:
        super().__init__(watcher.console)
        self.what, self.at, self.later, self.is_pressed = what, at, 0, False

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        super().report(what, done, total, note)
        self.later += self.is_pressed and what == self.what
        if what == self.what and done == self.at and not self.is_pressed:
            self.is_pressed = True
            signal.raise_signal(signal.SIGINT)


def run(config: RunConfig, *, resume: Resume = False, stop_at: tuple[str, int] | None = None) -> str:
    """Train; returns what was said."""
    watcher, buffer = build_watcher()
    if stop_at is None:
        train(config, resume=resume, watcher=watcher)
    else:
        with pytest.raises(Stopped):
            train(config, resume=resume, watcher=Presser(watcher, stop_at[0], at=stop_at[1]))
    return buffer.getvalue()


def list_steps(folder: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(folder)]


def ruin_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The step of that number leaves finite weights with which the next loss is not finite."""
    take = loop.start_step

    def ruin(learner: Any, batches: Any, *, step: int, **beside: Any) -> Outcome:
        outcome = take(learner, batches, step=step, **beside)
        if step + 1 == number:
            for _, parameter in learner.parameters:
                parameter.data.add_(1e30)
        return outcome

    monkeypatch.setattr(loop, "start_step", ruin)


def test_results_stay_until_new_ones_are_whole(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"adapter": {"rank": 2}}

    def build(num_steps: int) -> RunConfig:
        config = build_small("kept", **settings, train={"steps": num_steps, "batch_size": 1})
        output = config.output.model_copy(update={"formats": ["diffusers", "kohya", "merged-diffusers"]})
        return config.model_copy(update={"output": output})

    folder = build(2).output.folder
    run(build(2))
    names = ("adapter.safetensors", "adapter-kohya.safetensors", "adapter-merged/transformer/diffusion_pytorch_model.safetensors")
    before = {name: (folder / name).read_bytes() for name in names}

    with monkeypatch.context() as patch:
        ruin_at(patch, 3)
        with pytest.raises(TrainingError):
            run(build(6), resume=True)  # fails in its second step, before it has saved anything to go on from
    assert {name: (folder / name).read_bytes() for name in names} == before

    said = run(build(6), resume=True, stop_at=("training", 3))
    assert {name: (folder / "result-000002" / name).read_bytes() for name in names} == before
    assert not (folder / "adapter.safetensors").exists() and not (folder / "adapter-merged").exists()
    assert f"The earlier results are kept in {folder / 'result-000002'}" in said
    assert find_run(folder).path == folder / "checkpoint-000003" / "adapter.safetensors"

    run(build(6), resume=True)
    assert not (folder / "result-000002").exists()
    assert {read_model_facts((folder / name).parent if "merged" in name else folder / name)["steps"] for name in names} == {6}
    assert not list(folder.glob(".*"))


def test_a_state_after_which_all_is_nan_is_never_gone_on_from(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 4 ruins the weights and is saved; the next step tells. With one checkpoint to keep, the last good one is still there."""
    config = build_small("ruined", train={"steps": 8, "batch_size": 1})
    config = config.model_copy(update={"output": config.output.model_copy(update={"keep_last": 1})})
    folder = config.output.folder
    with monkeypatch.context() as patch:
        ruin_at(patch, 4)
        with pytest.raises(TrainingError) as caught:
            run(config)
    assert "step 5 is not finite" in caught.value.what and ".png" in caught.value.got
    assert "go on from checkpoint-000002" in caught.value.fix
    assert f"weber train {folder / 'config.toml'} --resume optim.lr=0.0001" in caught.value.fix
    assert list_steps(folder) == [2]
    assert (folder / "checkpoint-000004-not-finite" / "manifest.json").is_file()
    said = run(config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e-4})}), resume=True)
    assert "Resuming checkpoint-000002" in said
    assert list_steps(folder) == [8]
    assert find_run(folder).path == folder / "adapter.safetensors"
    assert find_run(folder / "checkpoint-000004-not-finite").home.step == 4


def test_weights_that_are_no_longer_finite_are_not_saved(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    take = loop.start_step

    def overflow(learner: Any, batches: Any, *, step: int, **beside: Any) -> Outcome:
        outcome = take(learner, batches, step=step, **beside)
        if step == 3:
            learner.parameters[0][1].data[0] = float("inf")
        return outcome

    monkeypatch.setattr(loop, "start_step", overflow)
    config = build_small("overflow")
    with pytest.raises(TrainingError, match=r"(?s)no longer finite after step 4.*go on from checkpoint-000002"):
        run(config)
    assert list_steps(config.output.folder) == [2]
    assert not (config.output.folder / "adapter.safetensors").exists()


def test_a_run_goes_on_from_the_checkpoint_that_was_chosen(build_small: BuildRun) -> None:
    """What lies after it is kept aside, and pictures and numbers are not mixed."""
    settings: dict[str, Any] = {"train": {"steps": 6, "batch_size": 1}, "sampling": {"prompts": ["a dog"], "steps": 1, "every": 2}}
    config = build_small("chosen", **settings)
    config = config.model_copy(update={"output": config.output.model_copy(update={"keep_last": "all"})})
    folder = config.output.folder
    run(config)
    sheet = (folder / "pictures" / "step-000006.png").read_bytes()
    adapter = (folder / "adapter.safetensors").read_bytes()
    other = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e-2})})
    said = run(other, resume=2)
    assert "Resuming checkpoint-000002: 4 of 6 steps are left." in said
    assert "kept as checkpoint-000004-left, checkpoint-000006-left" in said
    assert list_steps(folder) == [2, 4, 6]
    left = folder / "checkpoint-000006-left" / "adapter.safetensors"
    assert load_file(left).keys() == load_file(folder / "adapter.safetensors").keys()
    assert (folder / "adapter.safetensors").read_bytes() != adapter
    assert (folder / "pictures-1" / "step-000006.png").read_bytes() == sheet != (folder / "pictures" / "step-000006.png").read_bytes()
    assert (folder / "metrics-000006.jsonl").read_text().count("\n") == 6
    for chosen in ("checkpoint-000004-left", str(folder / "checkpoint-000006-left")):
        assert find_run(folder / chosen).home.step in (4, 6)
    for wrong, words in ((99, "checkpoint-000002, checkpoint-000004"), (str(folder / "nothing"), "checkpoint-000002")):
        with pytest.raises(CheckpointError, match=f"(?s)no such checkpoint.*{words}"):
            run(other, resume=wrong)
    elsewhere = build_small("elsewhere", **settings)
    assert "Resuming checkpoint-000004-left" in run(elsewhere, resume=folder / "checkpoint-000004-left")
    assert list_steps(elsewhere.output.folder) == [6]
    again = load_file(elsewhere.output.folder / "adapter.safetensors")  # whose header has the name of another run
    assert all(torch.equal(again[name], one) for name, one in load_file(left).items())
    with pytest.raises(CheckpointError, match="one of another run"):
        run(elsewhere, resume=folder / "checkpoint-000002")


def test_ctrl_c_while_painting_stops_within_a_step_of_the_sampler(build_small: BuildRun) -> None:
    config = build_small("painting", sampling={"prompts": ["a dog", "a cat"], "steps": 3, "every": 1}, train={"steps": 3, "batch_size": 1})
    folder = config.output.folder
    watcher, buffer = build_watcher()
    presser = Presser(watcher, "painting", at=1)
    with pytest.raises(Stopped):
        train(config, resume=False, watcher=presser)
    assert presser.later == 0
    assert "there is nothing to be saved yet" in buffer.getvalue() and "--resume" in buffer.getvalue()
    said = run(config, resume=True, stop_at=("painting", 5))
    assert list_steps(folder) == []  # it was the base model's picture
    run(config, resume=True, stop_at=("training", 1))
    assert list_steps(folder) == [1]
    said = run(config, resume=True, stop_at=("painting", 2))
    assert "the pictures of step 1 are left out" in said and "everything is saved" in said
    run(config, resume=True)
    assert {path.name for path in (folder / "pictures").glob("*.png")} == {f"step-{step:06d}.png" for step in range(4)}


def test_ctrl_c_while_encoding_keeps_what_was_encoded(build_run: BuildRun, tmp_path: Path) -> None:
    output = {"cache": str(tmp_path / "own")}
    config = build_run(memory={"device": "cpu", "encode_batch_size": 1}, train={"steps": 1, "batch_size": 1}, output=output)
    said = run(config, stop_at=("encoding pictures", 5))
    assert f"what was encoded is in {config.output.cache}" in said
    assert f"weber train {config.output.folder / 'config.toml'} --resume" in said
    said = run(config, resume=True)
    assert "Encoded 7 latents" in said and "starting at step 0" in said


def test_pictures_that_cannot_be_written_do_not_end_a_run(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(picture: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "save_picture", refuse)
    config = build_small("unpainted", sampling={"prompts": ["a dog"], "steps": 1, "every": 2})
    said = run(config)
    assert "The pictures of step 2 could not be written (No space left on device); the run goes on without them." in said
    assert list_steps(config.output.folder) == [2, 4] and (config.output.folder / "adapter.safetensors").is_file()


def test_results_that_cannot_be_written_leave_the_checkpoint(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    config = build_small("full")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "publish", refuse)
        with pytest.raises(CheckpointError, match=r"(?s)checkpoint of step 4 is whole.*--resume"):
            run(config)
    run(config, resume=True)
    assert (config.output.folder / "adapter.safetensors").is_file()


def test_a_collapse_that_stays_finite_is_said(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Outcome.read
    monkeypatch.setattr(Outcome, "read", lambda outcome: read(outcome) | {"loss": 1.0 if outcome.step == 0 else 30.0})
    said = run(build_small("collapse", train={"steps": 10, "batch_size": 1}))
    assert "Warning: the loss has become 30 times what it was (1 at the start, 30 at the end)" in said


def test_names_precisions_and_checkpoints_as_people_want_them(build_small: BuildRun) -> None:
    """12 pictures in steps of 4: an epoch has 3 steps."""
    config = build_small("style", train={"steps": 7, "batch_size": 4}, sampling={"prompts": ["a dog"], "steps": 1, "every": "2 epochs"})
    wished = {"name": "zorb", "precision": "bf16", "formats": ["kohya"], "save_every": "1 epoch", "keep_last": 1, "keep_every": 2}
    config = config.model_copy(update={"output": config.output.model_copy(update=wished)})
    folder = config.output.folder
    said = run(config)
    assert list_steps(folder) == [2, 4, 6, 7]
    assert {path.name for path in (folder / "pictures").glob("*.png")} == {f"step-{step:06d}.png" for step in (0, 6, 7)}
    assert f"The pictures are in {folder / 'pictures'}; the last sheet is {folder / 'pictures' / 'step-000007.png'}" in said
    for name in ("zorb.safetensors", "zorb-kohya.safetensors"):
        tensors = load_file(folder / name)
        assert {one.dtype for key, one in tensors.items() if not key.endswith(".alpha")} == {torch.bfloat16}
        assert read_model_facts(folder / name)["precision"] == "bf16"
        assert read_metadata(folder / name)["ss_output_name"] == "zorb"
    exact = load_file(folder / "checkpoint-000007" / "adapter.safetensors")
    assert all(torch.equal(load_file(folder / "zorb.safetensors")[name], one.bfloat16()) for name, one in exact.items())
    assert find_run(folder).path == folder / "zorb.safetensors"
    assert read_weighted(f"{folder}:0.5") == (folder / "zorb.safetensors", 0.5)
    assert read_weighted(str(folder / "checkpoint-000004")) == (folder / "checkpoint-000004" / "adapter.safetensors", 1.0)
