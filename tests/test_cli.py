"""The command line as a person meets it: verbs, exit codes, one message per mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.runs import write_pocket_lora
from weber import cli
from weber.checkpoint.resume import check_checkpoint
from weber.checkpoint.save import save_checkpoint
from weber.commands.train import place_resume
from weber.config.load import load_config
from weber.data.left_out import SAMPLES_FILE

Run = Callable[..., tuple[int, str, str]]
VERBS = (
    *("bench", "cache", "caption", "check", "cloud", "data", "demo", "diff", "export", "extract", "grid", "import", "inspect", "launch"),
    "merge",
    *("metadata", "new", "plan", "publish", "remote", "report", "resize", "sample", "scale", "schema", "serve", "serve-text", "tag"),
    *("tags", "train", "variants"),
)


def test_verbs_are_as_documented(weber: Run) -> None:
    code, out, _ = weber("--help")
    assert code == 0
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("│ ") and not line.startswith("│  ")}
    assert listed - {"--help", "--version"} == set(VERBS)


def test_help_of_train_lists_the_settings(weber: Run) -> None:
    code, out, _ = weber("train", "--help")
    assert code == 0
    assert "optim.lr" in out and "data.0.resolution" in out


def test_schema_is_json(weber: Run) -> None:
    code, out, _ = weber("schema")
    assert code == 0
    assert "data" in json.loads(out)["properties"]


def test_plan_cache_train_sample_gc(weber: Run, run_toml: Path, tmp_path: Path) -> None:
    code, out, _ = weber("plan", run_toml)
    assert code == 0 and "4 steps of 1 picture" in out
    assert not (tmp_path / "run").exists()

    code, out, _ = weber("cache", run_toml)
    assert code == 0 and "Encoded 12 latents" in out
    assert not (tmp_path / "run").exists()
    code, out, _ = weber("cache", run_toml)
    assert code == 0 and "Encoded 0 latents and 0 texts" in out

    code, out, err = weber("train", run_toml, "train.steps=6")
    assert code == 0 and str(tmp_path / "run" / "adapter.safetensors") in out
    code, _, err = weber("train", run_toml, "train.steps=6")
    assert code == 2 and "--resume" in err

    code, out, _ = weber("sample", tmp_path / "run", "--prompt", "a dog", "--prompt", "a cat", "--steps", 2, "--strength", 0.5)
    assert code == 0
    files = [Path(line) for line in out.splitlines()]
    assert [Image.open(file).size for file in files] == [(64, 64), (64, 64)]
    assert not (tmp_path / "run" / "samples" / SAMPLES_FILE).exists()  # the run above says it
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "run" / "adapter.safetensors", tmp_path / "bare")
    painting = ("--base", "pocket", "--prompt", "a dog", "--steps", 1)
    code, _, _ = weber("sample", tmp_path / "bare" / "adapter.safetensors", *painting)
    assert code == 0 and (tmp_path / "bare" / "samples" / SAMPLES_FILE).is_file()
    library = tmp_path / "prompts.json"
    library.write_text('{"cat": {"prompt": "a cat", "width": 96}}')
    asked = ("--library", library, "--base", "pocket", "--steps", 1, "--out", tmp_path / "class")
    code, out, _ = weber("sample", tmp_path / "bare" / "adapter.safetensors", *asked)
    assert code == 0 and not (tmp_path / "class" / SAMPLES_FILE).exists()  # as pictures of a class to train on
    [file] = [Path(line) for line in out.splitlines()]
    with Image.open(file) as picture:
        assert file.name == "00-cat-strength1.png" and picture.size == (96, 64) and json.loads(picture.info["weber"])["name"] == "cat"

    code, out, _ = weber("cache", "verify", tmp_path / "cache")
    assert code == 0 and "0 damaged now" in out
    num_files = len(list((tmp_path / "cache").iterdir()))
    code, out, _ = weber("cache", "gc", run_toml)
    assert code == 0 and "removed 4" in out  # the two prompts, in two text parts
    code, out, _ = weber("cache", run_toml)
    assert code == 0 and "Encoded 0 latents and 0 texts" in out
    assert len(list((tmp_path / "cache").iterdir())) <= num_files


def test_files_after_training(weber: Run, tmp_path: Path) -> None:
    first, second = write_pocket_lora(tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    code, out, _ = weber("resize", first, "--energy", 0.6, "--out", second)
    assert code == 0 and "relative error of the change: " in out
    code, out, _ = weber("diff", first, second, "--layers", 1)
    assert code == 0 and "2 layers in both, of which 2 differ" in out and "... and 1 more" in out
    code, out, _ = weber("check", second, "--original", first, "--base", "pocket", "--keys")
    assert code == 0
    for words in ("diffusers", "loads all", "2 of 2 layers differ", "of the change survives", "+ diffusion_model.double_blocks.0"):
        assert words in out, out
    for wrong, words in (
        (("resize", first, "--out", tmp_path / "c.safetensors"), "--energy 0.95"),
        (("resize", first, "--rank", 4, "--out", tmp_path / "c.safetensors"), "No layer would get a lower rank"),
        (("diff", first, tmp_path / "none"), "no such adapter file"),
        (("check", first, "--base", "pockett"), "--base 'pockett'"),
    ):
        code, _, err = weber(*wrong)
        assert code == 2 and words in err and "Traceback" not in err


def test_broken_pictures_are_listed_and_do_not_stop_the_run(weber: Run, run_toml: Path, tmp_path: Path, pictures: Path) -> None:
    own = Path(shutil.copytree(pictures, tmp_path / "own"))
    names = sorted(own.glob("*.png"))
    names[0].write_bytes(names[0].read_bytes()[:500])
    names[1].write_text("not a picture")
    names[2].with_suffix(".txt").unlink()
    Image.new("RGB", (8, 8)).save(names[3])
    code, out, _ = weber("plan", run_toml, f"data.0.path={own}")
    assert code == 0
    for name in names[:4]:
        assert str(name) in out
    code, out, err = weber("train", run_toml, f"data.0.path={own}")
    assert code == 0 and "4 pictures set aside" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optim.learning_rate=1"], ["optim.learning_rate", "optim.lr"]),
        (["optim.lr=fast"], ["optim.lr", "fast"]),
        (["optim.lr=-1"], ["optim.lr", "-1"]),
        (["optim.lr"], ["optim.lr", "="]),
        (["optin.lr=1"], ["optin", "optim"]),
        (["optim.name=adamwx"], ["optim.name", "adamw"]),
        (["optim.warmup_steps=100"], ["optim.warmup_steps", "100"]),
        (["train.epochs=2"], ["train", "steps", "epochs"]),
        (["train.batch_size=0"], ["train.batch_size", "0"]),
        (["objective.timestep_list=[1.0]"], ["timestep_list", "timesteps"]),
        (["objective.timesteps=sigmoids"], ["objective.timesteps", "sigmoid"]),
        (["adapter.targets=everything"], ["adapter.targets", "everything"]),
        (['adapter.targets=["to_nothing"]'], ["to_nothing"]),
        (["adapter.rank=1.5"], ["adapter.rank", "1.5"]),
        (["memory.device=cuda:99"], ["memory.device", "cuda:99"]),
        (["adapter.rank=3000000000"], ["adapter.rank", "at most"]),
        (["sampling.seed=99999999999999999999"], ["sampling.seed"]),
        (["memory.dtype=fp8"], ["memory.dtype", "fp8"]),
        (["model.path=/no/such/folder"], ["model.path", "/no/such/folder"]),
        (["model.path=nobody/nothing"], ["nobody/nothing"]),
        (["model.variant=flux9"], ["model.variant", "flux9"]),
        (["model.revision=main"], ["model.revision"]),
        (["data.0.path=/no/such/pictures"], ["data.0.path", "/no/such/pictures"]),
        (["data.0.crop=middle"], ["data.0.crop", "center"]),
        (["data.0.captions=instance"], ["instance_prompt"]),
        (["data.0.resolution=8"], ["data.0.resolution"]),
        (["data.0.bucket_step=10"], ["data.0.bucket_step"]),
        (["data.0.minimum_edge=4000"], ["minimum_edge", "12"]),
        (["sampling.steps=5"], ["sampling", "prompts"]),
        (['sampling.prompts=["x"]', "sampling.width=33"], ["33", "32"]),
        (["output.keep_last=0"], ["output.keep_last", "0"]),
    ],
)
def test_a_wrong_setting_is_one_message(weber: Run, run_toml: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    code, out, err = weber("train", run_toml, *arguments)
    assert code == 2
    assert "Traceback" not in err and err.count("error:") == 1
    message = err[err.index("error:") :]
    for word in words:
        assert word in message, message
    assert "fix:" in message or "to change" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "{tmp}/nowhere", "--prompt", "x"], ["not a run folder"]),
        (["sample", "{tmp}/nowhere"], ["--prompt", "--library"]),
        (["sample", "{tmp}/nowhere", "--library", "{tmp}/none.json"], ["cannot be read", "--library"]),
        (["sample", "{tmp}/finished/checkpoint-000009", "--prompt", "x"], ["not a run folder", "its run has checkpoint-000040"]),
        (["sample", "{tmp}/finished/config.toml", "--prompt", "x"], ["nothing that was learned", "give {tmp}/finished"]),
        (["sample", "{tmp}", "--prompt", "x"], ["neither a run nor a model", "such as {tmp}/finished"]),
        (["train", "{tmp}/run.toml", "--resume", "3"], ["no such checkpoint", "none is in {tmp}/run"]),
        (["train", "{tmp}/run.toml", "--resume", "{tmp}/finished/checkpoint-000009"], ["no such checkpoint", "000040 of {tmp}/fi"]),
        (["train", "{tmp}/run.toml", "--resume", "{tmp}/finished/checkpoint-000040/adapter.safetensors"], ["start_from"]),
        (["train", "{tmp}/run.toml", "output.folder={tmp}"], ["holds other files", "run.toml"]),
        (["train", "{tmp}/run.toml", "output.folder={tmp}/finished/checkpoint-000040"], ["set it to {tmp}/finished and add --resume"]),
        (["plan", "{tmp}/run.toml", "output.cache={tmp}/finished"], ["output.cache", "nothing of a cache"]),
        (["train", "{tmp}/run.toml", "output.folder={tmp}/finished"], ["already holds a run", "add --resume"]),
        (["merge", "{tmp}/nowhere:0.5", "--out", "{tmp}/a.safetensors"], ["no such adapter file", "a run folder"]),
        (["export", "{tmp}", "--format", "kohya"], ["without adapter.safetensors", "run folder"]),
        (["train", "{tmp}/none.toml"], ["none.toml"]),
        (["train"], ["CONFIG"]),
        (["trian", "{tmp}/run.toml"], ["trian", "train"]),
        (["cache", "verify", "{tmp}/nowhere"], ["nowhere"]),
        (["cache", "gc"], ["no config"]),
        (["plan", "{tmp}"], ["folder"]),
    ],
)
def test_a_wrong_command_is_one_message(weber: Run, run_toml: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    finished = tmp_path / "finished"
    save_checkpoint(finished, 40, files={"adapter.safetensors": lambda path: path.write_bytes(b"numbers")})
    shutil.copyfile(run_toml, finished / "config.toml")
    code, _, err = weber(*[argument.replace("{tmp}", str(tmp_path)) for argument in arguments])
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word.replace("{tmp}", str(tmp_path)) in err, err


def test_a_plan_is_drawn_into_a_png_file(weber: Run, run_toml: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "levels.txt"):
        code, _, errors = weber("plan", run_toml, "--plot", wrong)
        assert code == 2 and "PNG" in errors
    assert weber("plan", run_toml, "--plot", tmp_path / "levels.png")[0] == 0
    assert Image.open(tmp_path / "levels.png").width > 400


CHILD = "import sys; from weber.cli import main; main()"
INTERRUPTED_CHILD = """
import signal, sys
from importlib.abc import MetaPathFinder
class Press(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "cyclopts":  # the first library that is imported
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
""" + CHILD


def start(*arguments: object, code: str = CHILD) -> subprocess.Popen[str]:
    """The command as a process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_real_process_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    with start("train", tmp_path / "none.toml") as child:
        _, errors = child.communicate()
    assert child.returncode == 2
    assert errors.startswith("error:") and "Traceback" not in errors


def test_ctrl_c_while_it_starts_is_no_traceback() -> None:
    with start("variants", code=INTERRUPTED_CHILD) as child:
        out, errors = child.communicate()
    assert (child.returncode, out, errors) == (130, "", "Interrupted.\n")


@pytest.mark.skipif(os.name != "posix", reason="Windows says it otherwise")
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """As in `weber schema | head`."""
    with start("schema") as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() == 141


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_loses_nothing(run_toml: Path, tmp_path: Path) -> None:
    """Nobody reads what it says, and SIGHUP comes twice: the run saves its state all the same."""
    with start("train", run_toml, "train.steps=100000") as child:
        assert child.stderr is not None and child.stdout is not None
        child.stderr.close()
        child.stdout.close()
        metrics = tmp_path / "run" / "metrics.jsonl"
        while child.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.05)
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGHUP)
        assert child.wait() == 130
    [checkpoint] = (tmp_path / "run").glob("checkpoint-*")
    assert check_checkpoint(checkpoint) is None
    assert int(checkpoint.name.partition("-")[2]) == metrics.read_text().count("\n")


@pytest.mark.parametrize(
    ("words", "placed"),
    [
        ("train --resume run.toml", "train run.toml --resume"),
        ("train run.toml --resume optim.lr=1", "train run.toml optim.lr=1 --resume"),
        ("train run.toml --resume", "train run.toml --resume"),
        ("train run.toml --resume 40 optim.lr=1", "train run.toml --resume 40 optim.lr=1"),
        ("train run.toml --resume runs/lr=1/checkpoint-000040", "train run.toml --resume runs/lr=1/checkpoint-000040"),
        ("train run.toml optim.lr=1", "train run.toml optim.lr=1"),
    ],
)
def test_what_stands_behind_resume(words: str, placed: str) -> None:
    assert place_resume(words.split()) == placed.split()


def test_import_says_what_becomes_of_a_job_and_writes_it(weber: Run, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "job.json").write_text(
        json.dumps(
            {
                "job": "extension",
                "config": {
                    "name": "x",
                    "process": [
                        {
                            "type": "sd_trainer",
                            "training_folder": str(tmp_path / "out"),
                            "network": {"type": "lora", "linear": 4, "linear_alpha": 4},
                            "datasets": [{"folder_path": str(pictures), "resolution": 64}],
                            "train": {"batch_size": 2, "steps": 9, "lr": "1e-4", "optimizer": "adamw8bit"},
                            "model": {"name_or_path": "black-forest-labs/FLUX.1-dev", "is_flux": True},
                        }
                    ],
                },
            }
        )
    )
    small = ("model.path=null", "model.variant=pocket", "memory.device=cpu", "memory.dtype=fp32")
    toml, plot = tmp_path / "run.toml", tmp_path / "levels.png"
    code, out, _ = weber("import", tmp_path / "job.json", *small, "-o", toml, "--plot", plot)
    assert code == 0 and plot.is_file()
    assert "train.steps = 9" in out and "What the old run really did:" in out and f"weber train {toml}" in out
    assert load_config(toml).train.steps == 9
    code, _, err = weber("import", tmp_path / "job.json", "-o", toml)
    assert code == 2 and "a file that is there" in err and "Traceback" not in err
    code, out, _ = weber("import", tmp_path / "job.json", "data.0.path=/gone")
    assert code == 0 and "not measured, because the run cannot be planned here yet" in out


def test_a_job_of_slurm_is_told_how_to_go_on(weber: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weber.commands.train._train", stop)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert weber("train", "run.toml") == (130, "", "")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    code, _, err = weber("train", "run.toml")
    assert code == 130 and "scontrol requeue 77" in err and "--resume" in err
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert "requeue" not in weber("train", "run.toml")[2], "one task says it"


def test_machines_that_cannot_meet(weber: Run, run_toml: Path) -> None:
    launch = ("launch", run_toml, "train.batch_size=2", "memory.device=cpu", "parallel.devices=2")
    for words, message in (
        (("--nodes", "none"), "That is no number of machines."),
        (("--nodes", "3:2"), "That is no number of machines."),
        (("--nodes", "2"), "Several machines have to know where they meet."),
        (("--nodes", "2", "--at", "gpu1"), "That is no place to meet."),
    ):
        code, _, err = weber(*launch, *words)
        assert code == 2 and message in err and "fix:" in err
