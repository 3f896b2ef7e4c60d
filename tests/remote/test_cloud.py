"""Runs on machines that SkyPilot rents: the task file as SkyPilot's own loader reads it, where that is installed, and all verbs against a
program that takes the same words, with a real sshd on this machine as what was rented."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from tests.remote.ssh import Server, serving
from tests.runs import BuildRun
from weber.checkpoint.resume import check_checkpoint
from weber.checkpoint.save import list_checkpoints
from weber.config.load import save_config
from weber.errors import RemoteError
from weber.remote.cloud import await_begin, build_cluster
from weber.remote.parcel import Parcel
from weber.remote.rented import Rented, find_rented, read_rented
from weber.remote.task import Wish, build_stage, build_task
from weber.remote.there import ENDED, STARTED

STAND_IN = Path(__file__).with_name("sky.py")
REAL = "WEBER_SKY_PYTHON"
"""A variable with the Python of an environment that has SkyPilot."""
PARTS: dict[str, Any] = {
    "train": {"steps": 6, "batch_size": 1},
    "memory": {"device": "auto"},
    "output": {"save_every": 2, "keep_last": "all"},
}
Weber = Callable[..., tuple[int, str, str]]


@dataclass
class Desk:
    """The stand-in: its home folder, and the machine that it rents."""

    home: Path
    server: Server

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line)["words"] for line in (self.home / "calls.jsonl").read_text().splitlines()]

    @property
    def clusters(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "clusters.json").read_text())
        return found

    def tell(self, **given: object) -> None:
        """Settings of the stand-in."""
        file = self.home / "stand-in.json"
        file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | given))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    home, programs = tmp_path / "desk", tmp_path / "programs"
    for folder in (home, programs):
        folder.mkdir()
    (programs / "sky").write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    (programs / "sky").chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with serving(tmp_path / "sshd") as server:
        found = Desk(home, server)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        user = server.address.partition("@")[0]
        found.tell(there=str(server.home), user=user, identity=str(server.identity), port=server.port, path=path)
        yield found


def test_a_run_is_rented_trained_fetched_and_given_back(
    desk: Desk, weber: Weber, build_run: BuildRun, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a picture that is a link, in a folder of which .gitignore names all; its price is told before anything is spent."""
    own = Path(shutil.copytree(pictures, tmp_path / "own"))
    (own / ".gitignore").write_text("*\n")
    linked = sorted(own.glob("*.png"))[0]
    linked.rename(tmp_path / "elsewhere.png")
    linked.symlink_to(tmp_path / "elsewhere.png")
    config = build_run("lora", **PARTS, data=[{"resolution": 64, "path": str(own)}])
    file, folder = tmp_path / "run.toml", config.output.folder
    save_config(config, file)
    cluster, root = build_cluster(folder), desk.server.home / "weber-remote" / "lora"

    code, out, err = weber("cloud", "train", file, "--gpu", "H100")
    assert code == 2 and "Nothing was rented" in err and "add --yes" in err
    assert "RunPod 1x_H100_SECURE: $2.39 an hour" in out and "the dearest cloud: AWS, $6.88" in out and "15 minutes after the last" in out
    assert {words[0] for words in desk.calls} == {"gpus"} and not folder.exists()

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    asked = ("--gpu", "H100", "--cloud", "runpod", "--yes")
    code, out, err = weber("cloud", "up", file, *asked, "--idle-minutes", 5, "--hub-token")
    assert code == 0 and "is ready" in out and "dearest" not in out, err
    task = folder / ".cloud" / "task.yaml"
    launched = next(words for words in desk.calls if words[0] == "launch")
    assert launched == ["launch", "-c", cluster, "-y", "-d", "-i", "5", "--down", "--secret", "HF_TOKEN", str(task)]
    assert "hf_secret" not in task.read_text() + json.dumps(desk.calls)
    assert "run" not in yaml.safe_load(task.read_text()) and desk.clusters[cluster]["autostop"] == 5
    there = root / "files" / str(own).lstrip("/") / linked.name
    assert there.read_bytes() == linked.read_bytes() and not there.is_symlink()
    assert (root / "settings.toml").stat().st_mode & 0o777 == 0o600 and not (folder / ".cloud" / "stage").exists()

    for name in (STARTED, ENDED):  # as of a try before, which made nothing
        (root / name).write_text('{"code": 1}')
    code, _, err = weber("cloud", "train", file, *asked)
    assert code == 2 and "A run is there already" in err
    code, out, err = weber("cloud", "train", file, *asked, "--resume")
    assert code == 0 and "The run is finished" in out and f"weber cloud down {folder}" in out, err
    assert "Launching on the machine beside" in err and desk.clusters[cluster]["launches"] == 2
    assert [step for step, _ in list_checkpoints(folder)] == [2, 4, 6]
    assert all(check_checkpoint(one) is None for _, one in list_checkpoints(folder))
    for words, wanted in (
        (("cloud", "logs", folder), "The run is finished"),
        (("cloud", "fetch", folder), "The run is over; new here: no checkpoint"),
    ):
        code, out, err = weber(*words)
        assert code == 0 and wanted in out, err
    for words, wanted in (
        (("remote", "down", folder, "--yes"), f"weber cloud down {folder}"),
        (("cloud", "down", folder), "Nothing was given back"),
        (("cloud", "train", file, *asked), "add --resume to go on with it there"),
        (("remote", "train", file, "me@there"), f"weber cloud down {folder}"),
    ):
        code, _, err = weber(*words)
        assert code == 2 and wanted in err, err
    (folder / "adapter.safetensors").unlink()  # what is not here is fetched before
    code, out, err = weber("cloud", "down", folder, "--yes")
    assert code == 0 and "has been given back" in out and (folder / "adapter.safetensors").is_file(), err
    assert desk.clusters == {} and desk.calls[-1] == ["down", "-y", cluster] and find_rented(folder) is None


def test_what_cannot_be_rented_costs_nothing(
    desk: Desk, weber: Weber, build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a machine that could not be made ready is given back at once: SkyPilot counts no idle minutes of it."""
    config = build_run("lora", **PARTS, data=[{"resolution": 64}])
    file, folder = tmp_path / "run.toml", config.output.folder
    save_config(config, file)
    h100 = ("--gpu", "H100")
    for words, wanted in (
        (("--gpu", "H1000"), "--gpu = 'H1000'"),
        (("--gpu", "L4"), "SkyPilot knows no price"),
        ((*h100, "--cloud", "runpod", "--spot"), "as spot"),
        ((*h100, "--idle-minutes", "0"), "--idle-minutes 0"),
        ((*h100, "memory.device=cpu"), "A GPU would be rented, and not be used"),
        ((*h100, "--resume"), "There is nothing to go on from"),
        ((*h100, "--disk", "1"), "The disk would be too small"),
    ):
        code, _, err = weber("cloud", "train", file, *words, "--yes")
        assert code == 2 and wanted in err, err
    assert not folder.exists()
    desk.tell(fails="setup")
    code, _, err = weber("cloud", "train", file, *h100, "--yes", "--price", 3)
    assert code == 2 and "SkyPilot has refused it" in err and "Failed to setup" in err and "Giving the machine back" in err, err
    assert [words[0] for words in desk.calls[-2:]] == ["launch", "down"] and desk.clusters == {} and find_rented(folder) is None
    desk.tell(fails=None)
    code, out, err = weber("cloud", "train", file, *h100, "--count", 2, "--spot", "--price", 3, "--yes", "--detach")
    assert code == 0 and "2 x H100 (spot" in out and "ONLY 1 OF 2 GPUS WOULD WORK" in out and "weber cloud logs" in out, err
    with pytest.raises(RemoteError, match="The run has not begun there") as caught:
        await_begin(Rented(folder, read_rented(folder).host, str(tmp_path), "lora", sys.executable, "", cluster="weber-lora"), tries=0)
    assert "sky logs weber-lora" in caught.value.fix
    desk.server.cut()
    code, _, err = weber("cloud", "down", folder, "--yes")
    assert code == 2 and "cannot be reached" in err and f"weber cloud down {folder} --lose" in err and desk.clusters, err
    code, out, err = weber("cloud", "down", folder, "--yes", "--lose")
    assert code == 0 and desk.clusters == {} and not (folder / "adapter.safetensors").exists(), err
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, _, err = weber("cloud", "train", file, *h100, "--yes")
    assert code == 2 and "SkyPilot is not installed here" in err and "pip install" in err


def build(folder: Path, wish: Wish, *, is_trained: bool = True) -> str:
    return build_task(wish, cluster="weber-lora", stage=folder, root="weber-remote/lora", key="0123", disk_gb=120, is_trained=is_trained)


def test_the_task_file(tmp_path: Path) -> None:
    """What SkyPilot is told: never without an end, secrets by their names, scripts as they are read."""
    wish = Wish("A100-80GB", 2, "aws/us-east-1", is_spot=True, idle_minutes=7, token="hf_secret")
    text = build(tmp_path, wish)
    tree = yaml.safe_load(text)
    assert tree["resources"] == {
        "accelerators": "A100-80GB:2",
        "disk_size": 120,
        "use_spot": True,
        "infra": "aws/us-east-1",
        "autostop": {"idle_minutes": 7, "down": True},
    }
    assert tree["file_mounts"] == {"~/weber-remote/lora": str(tmp_path)} and "hf_secret" not in text
    assert tree["secrets"] == {"HF_TOKEN": None}
    assert "setup: |\n" in text and "run: |\n" in text and "train settings.toml --resume" in tree["run"]
    for script in (tree["setup"], tree["run"]):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=True, capture_output=True).stderr == ""
    plain = yaml.safe_load(build(tmp_path, Wish("H100"), is_trained=False))
    assert "run" not in plain and "secrets" not in plain and "infra" not in plain["resources"]


def test_a_run_that_goes_on_brings_what_it_has_made(tmp_path: Path) -> None:
    """But not its settings of here, nor what belongs to this machine alone; no byte is copied on one disk."""
    past, stage = tmp_path / "lora", tmp_path / "stage"
    brought = ("checkpoint-000002/adapter.safetensors", "metrics.jsonl")
    for name in (*brought, "config.toml", ".remote.json", "status.json", ".cloud/task.yaml"):
        (past / name).parent.mkdir(parents=True, exist_ok=True)
        (past / name).write_text(name)
    build_stage(stage, Parcel("", (past / "config.toml",), (), 1, 1), packages=("numpy==2",), past=past)
    made = {file.relative_to(stage).as_posix() for file in stage.rglob("*") if file.is_file() and "code" not in file.parts}
    own = {f"out/lora/{name}" for name in brought}
    assert made - own == {"settings.template", "packages.txt", ".skyignore", f"files{past}/config.toml"} and own < made
    assert (stage / "out/lora/metrics.jsonl").stat().st_ino == (past / "metrics.jsonl").stat().st_ino
    assert (stage / "code/weber/remote/there.py").is_file() and not list(stage.rglob("__pycache__"))


def test_the_task_file_is_one_of_skypilot(tmp_path: Path) -> None:
    python = os.environ.get(REAL)
    if python is None:
        pytest.skip(f"needs SkyPilot: {REAL}=/path/to/python of an environment with it")
    for number, wish in enumerate((Wish("H100", cloud="runpod"), Wish("H100", 8, "lambda", is_spot=True, token="hf_secret"))):
        file = tmp_path / f"{number}.yaml"
        file.write_text(build(tmp_path, wish))
        program = (
            "import json, sys, sky\n"
            "task = sky.Task.from_yaml(sys.argv[1])\n"
            "[one] = task.resources\n"
            "stop = one.autostop_config\n"
            "print(json.dumps([one.accelerators, one.disk_size, one.use_spot, stop.idle_minutes, stop.down, task.file_mounts]))"
        )
        given = os.environ | {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
        done = subprocess.run([python, "-c", program, str(file)], env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found == [{wish.gpu: wish.count}, 120, wish.is_spot, 15, True, {"~/weber-remote/lora": str(tmp_path)}]
