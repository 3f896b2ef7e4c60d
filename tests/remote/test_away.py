"""Runs on another machine: a real sshd on this one, real rsync, real processes, which outlive the connection."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.remote.ssh import Server, serving
from tests.runs import BuildRun, build_watcher
from weber.checkpoint.resume import check_checkpoint
from weber.checkpoint.save import list_checkpoints
from weber.config.load import load_config, save_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError, ConfigError, RemoteError, WeberError
from weber.planning.plan import build_plan
from weber.remote import there
from weber.remote.attend import attach, look_down, stop, take, take_down
from weber.remote.away import Asked, install_packages, send
from weber.remote.link import Host, Link
from weber.remote.parcel import build_parcel
from weber.remote.rented import Rented, find_rented, read_rented
from weber.track.progress import Watcher

PARTS: dict[str, Any] = {
    "train": {"steps": 20, "batch_size": 1},
    "data": [{"resolution": 64}],
    "sampling": {"prompts": ["a dog"], "steps": 1, "at_start": False},
    "output": {"save_every": 5, "keep_last": "all"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("machine") / "sshd") as found:
        yield found


def build_host(server: Server) -> Host:
    return Host(server.address, server.port, str(server.identity))


def build_asked(server: Server, **given: Any) -> Asked:
    return Asked(**{"python": sys.executable, "key": server.fingerprint} | given)


def advance(root: Path, what: Path) -> int:
    """Let a run work in short pieces until a file is there, and stand still then: it cannot end too early, however fast it is."""
    pid = int(json.loads((root / there.STARTED).read_text())["pid"])
    while not what.exists():
        assert not (root / there.ENDED).exists()
        os.killpg(pid, signal.SIGCONT)
        time.sleep(0.02)
        os.killpg(pid, signal.SIGSTOP)
    return pid


def await_wish(pid: int) -> None:
    """Wait until a process that stands still has been asked to end: others wait with it, as SIGSTOP itself until it stands."""
    while not int(re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.05)


def watch(rented: Rented, watcher: Watcher, ends: list[bool]) -> Thread:
    """`attach` in a thread, which tells how the run has ended."""
    waits = [0.5] * 60
    thread = Thread(target=lambda: ends.append(attach(rented, watcher=watcher, is_new=True, every=2.0, waits=waits)))
    thread.start()
    return thread


def train_alone(config: RunConfig, file: Path) -> None:
    """A run in a process of its own with one thread, as the other machine has it: with more, sums are formed in another order."""
    save_config(config, file)
    call = "from weber.cli import main; main()"
    command, variables = [sys.executable, "-c", call, "train", str(file)], os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=variables, check=True, capture_output=True)


def test_a_run_there_has_the_bytes_of_one_here(server: Server, build_run: BuildRun, tmp_path: Path) -> None:
    """It is watched, stopped and taken up again, then the connection is cut; all comes here, and nothing of it is left there."""
    own = PARTS | {"output": PARTS["output"] | {"cache": str(tmp_path / "own cache")}}  # encoded by as many threads too
    train_alone(build_run("here/lora", **own), tmp_path / "here.toml")
    config, (watcher, said), ends = build_run("there/lora", **PARTS), build_watcher(), list[bool]()
    rented = send(config, build_host(server), asked=build_asked(server), watcher=watcher)
    here, folder, root = tmp_path / "here" / "lora", tmp_path / "there" / "lora", Path(rented.root)
    assert root == server.home / "weber-remote" / "lora" and root.stat().st_mode & 0o777 == 0o700
    assert (root / there.SETTINGS).stat().st_mode & 0o777 == 0o600
    thread = watch(rented, watcher, ends)
    with pytest.raises(CheckpointError, match="on another machine already"):
        send(config, build_host(server), asked=build_asked(server), watcher=watcher)
    with pytest.raises(RemoteError, match="The run is at work"):
        look_down(rented)
    pid = advance(root, root / there.OUT / "lora" / "checkpoint-000005")
    stopping = Thread(target=lambda: stop(rented, watcher=watcher))
    stopping.start()
    await_wish(pid)
    os.kill(pid, signal.SIGCONT)  # who watches the run passes it on before the run works again, and could end
    await_wish(psutil.Process(pid).children()[0].pid)
    os.killpg(pid, signal.SIGCONT)
    stopping.join()
    thread.join()
    last = list_checkpoints(folder)[-1]
    assert ends.pop() is False and 5 <= last[0] < 20 and check_checkpoint(last[1]) is None

    assert "weber-remote/lora" in look_down(rented) and str(root) in take_down(rented)
    assert not root.exists() and find_rented(folder) is None  # the machine is gone, and another one goes on
    rented = send(config, build_host(server), asked=build_asked(server, resume=True), watcher=watcher)
    thread = watch(rented, watcher, ends)
    pid = advance(root, root / there.OUT / "lora" / "checkpoint-000015")
    server.cut()
    time.sleep(0.6)
    server.start()
    os.killpg(pid, signal.SIGCONT)
    thread.join()
    assert ends == [True] and "is lost; the run there goes on" in said.getvalue() and f"The result is {folder}" in said.getvalue()
    for name in ("adapter.safetensors", "checkpoint-000020/adapter.safetensors", "pictures/step-000020.png"):
        assert (here / name).read_bytes() == (folder / name).read_bytes(), name
    assert {5, last[0], 10, 15, 20} == {step for step, _ in list_checkpoints(folder)}
    assert all(check_checkpoint(one) is None for _, one in list_checkpoints(folder))
    assert load_config(folder / "config.toml").output.folder == folder
    again, heard = build_watcher()
    assert attach(read_rented(folder), watcher=again) and "The result is" in heard.getvalue()


def test_a_machine_that_cannot_be_used_is_refused(server: Server, tmp_path: Path) -> None:
    """Each with one sentence, before anything is sent; a key that is not known is told, and never taken unasked."""
    known = Link(build_host(server), folder=tmp_path, python=sys.executable)
    with pytest.raises(RemoteError, match="The key of this host is not known") as caught:
        known.look("runs", "one", packages=[])
    assert f"--host-key {server.fingerprint}" in caught.value.fix and not (server.home / "runs").exists()
    with pytest.raises(RemoteError, match="another key than the one that was named"):
        known.accept("SHA256:" + "A" * 43)
    known.accept(server.fingerprint)
    [line] = known.host.keys
    facts = known.look("runs", "one", packages=["numpy==0.1", "no-such-package==1"])
    assert facts["state"] == "none" and facts["root"] == str(server.home / "runs" / "one") and len(facts["lacking"]) == 2  # type: ignore[arg-type]

    host = server.folder / "host"
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2\nexit 1\n")
    old.chmod(0o755)
    other = " ".join([line.split()[0], *(server.folder / "key.pub").read_text().split()[:2]])
    cases: Mapping[str, tuple[Host, str | None]] = {
        "The host cannot be reached.*Connection refused": (replace(known.host, port=1), None),
        "The host cannot be reached.*no-such-host": (Host("me@no-such-host.invalid"), None),
        "lets nobody in with this key": (replace(known.host, identity=str(host)), None),
        "cannot be read|lets nobody in": (replace(known.host, identity=str(tmp_path / "none")), None),
        "another key than the one that is known": (replace(known.host, keys=(other,)), None),
        "no Python there that weber runs in.*none of /no/python": (known.host, "/no/python"),
        "no Python there that weber runs in.*Python 3.9.2": (known.host, str(old)),
    }
    for number, (words, (address, python)) in enumerate(cases.items()):
        with pytest.raises(RemoteError, match=f"(?s){words}"):
            Link(address, folder=tmp_path / str(number), python=python).look("runs", "one", packages=[])
    for words in ("-oProxyCommand=touch", "me@", "a b"):
        with pytest.raises(ConfigError, match="no address"):
            Host(words)


def test_a_run_that_cannot_be_there_is_refused(server: Server, build_run: BuildRun, tmp_path: Path) -> None:
    def refuse(words: str, name: str, *, kind: type[WeberError] = RemoteError, **parts: Any) -> None:
        given = {one: parts.pop(one) for one in ("there", "resume") if one in parts}
        with pytest.raises(kind, match=words):
            send(build_run(name, **parts), build_host(server), asked=build_asked(server, **given), watcher=build_watcher()[0])

    refuse("would fill the disk there", "full", train={"steps": 20_000_000}, output={"save_every": 1, "keep_last": "all"})
    refuse("There is no GPU", "gpu", memory={"device": "cuda"})
    refuse("letters that shells read", "shell", kind=ConfigError, there="$(touch x)")
    refuse("nothing to go on from", "fresh", kind=CheckpointError, resume=True)
    for name, files, words in (("foreign", ["diary.txt"], "something else"), ("over", [there.MARK, there.ENDED], "there already")):
        folder = server.home / "weber-remote" / name
        folder.mkdir(parents=True)
        for one in files:
            (folder / one).write_text("{}")
        refuse(words, name)
    with pytest.raises(RemoteError, match="on no other machine"):
        read_rented(tmp_path)
    names = ("full", "gpu", "fresh", "foreign", "over")
    assert not any((server.home / "weber-remote" / name / there.SETTINGS).exists() for name in names)


def test_a_machine_without_rsync_is_refused(build_run: BuildRun, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sh", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    with serving(tmp_path / "sshd", path=str(tmp_path / "bin")) as bare, pytest.raises(RemoteError, match="rsync is not installed there"):
        send(build_run("run"), build_host(bare), asked=build_asked(bare), watcher=build_watcher()[0])


def test_what_a_run_there_fails_with_is_said_here(server: Server, tmp_path: Path) -> None:
    root = server.home / "failing"
    link = Link(build_host(server), folder=tmp_path, python=sys.executable)
    link.accept(server.fingerprint)
    link.ask("prepare", str(root))
    (root / there.CODE).mkdir()
    (root / there.CODE / "weber").symlink_to(Path(there.__file__).parents[1])
    rented = Rented(tmp_path, link.host, str(root), "run", sys.executable, "")
    link.ask("start", str(root), sys.executable, "train", "none.toml")
    with pytest.raises(RemoteError, match="The run has failed there: there is no file none.toml") as caught:
        attach(rented, watcher=build_watcher()[0])
    assert caught.value.expected == "a TOML file" and caught.value.fix
    assert "over" in take(rented)
    stop(rented, watcher=build_watcher()[0])
    link.ask("start", str(root), "/bin/false")
    with pytest.raises(RemoteError, match="its process is gone and has not said why"):
        attach(rented, watcher=build_watcher()[0])


def test_packages_that_cannot_be_installed_there_are_one_sentence(server: Server, tmp_path: Path) -> None:
    """After what pip says as it says it; what was begun is no environment for the next run."""
    root, (watcher, said) = server.home / "lacking" / "run", build_watcher()
    link = Link(build_host(server), folder=tmp_path, python=sys.executable)
    link.accept(server.fingerprint)
    link.ask("prepare", str(root))
    link.ask("write", str(root), {there.PACKAGES: "no-such-package-of-weber==1\n"})
    with pytest.raises(RemoteError, match="The packages could not be installed there") as caught:
        install_packages(link, str(root), key="0123", watcher=watcher)
    assert "No matching distribution found for no-such-package-of-weber==1" in caught.value.got and "--python" in caught.value.fix
    assert "Looking in links" in said.getvalue() or "Could not find a version" in said.getvalue()
    assert link.look("lacking", "run", packages=["no-such-package-of-weber==1"])["environments"] == []


def test_everything_that_settings_name_goes_along(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    """Each below one folder by its whole path, the caches and runs in them left out, secrets in the settings alone."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "color.txt").write_text("red\n")
    first = sorted(pictures.glob("*.[jp]*g"))[0]
    table = tmp_path / "tables" / "set.jsonl"
    table.parent.mkdir()
    shutil.copytree(pictures, tmp_path / "elsewhere")
    table.write_text(json.dumps({"image": f"../elsewhere/{first.name}", "caption": "a thing"}) + "\n")
    hook = {"kind": "raw", "url": "https://hooks.example/secret-word"}
    step = {"kind": "wildcards", "folder": str(tmp_path / "words")}
    sets = [{"path": str(pictures), "loss_masks": None, "caption_steps": [step]}, {"path": None, "metadata": str(table), "name": "table"}]
    config = build_run("run", data=sets, output={"webhooks": [hook]})
    parcel = build_parcel(build_plan(config), "/there/run")
    moved = [f"/there/run/files{one}" for one in (pictures, table, tmp_path / "words")]
    assert all(f'"{one}"' in parcel.settings for one in moved) and "secret-word" in parcel.settings
    assert 'folder = "/there/run/out/run"' in parcel.settings and 'cache = "/there/run/cache"' in parcel.settings
    assert {pictures, table, tmp_path / "words", tmp_path / "elsewhere" / first.name} <= {*parcel.sources}
    assert parcel.num_files >= 4 and parcel.num_bytes > first.stat().st_size
