"""`weber remote` for somebody who is new: a machine in a network of its own, a user who owns nothing there, and a small disk that fills."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import psutil
import pytest

from tests.remote.stranger import NUMBER, visiting
from tests.remote.test_away import advance
from tests.runs import BuildRun
from weber.checkpoint.resume import check_checkpoint
from weber.checkpoint.save import list_checkpoints
from weber.config.load import save_config
from weber.remote import there

PARTS: dict[str, Any] = {"train": {"steps": 12, "batch_size": 1}, "data": [{"resolution": 64}]}
PARTS["output"] = {"save_every": 4, "keep_last": "all"}


def fill(file: Path) -> None:
    """Take all that is free on a disk."""
    with pytest.raises(OSError, match="No space left"), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(2**16))


def test_a_stranger_whose_disk_fills_in_the_middle(
    weber: Callable[..., tuple[int, str, str]], build_run: BuildRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is begun and left; what it fails with is told, what it has saved is whole and here, and nothing of it is left there."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    config = build_run("lora", **PARTS)
    file, folder = tmp_path / "run.toml", config.output.folder
    save_config(config, file)
    with visiting(tmp_path / "machine", disk_mib=160) as machine:
        way = (machine.address, "-p", machine.port, "--identity", machine.identity, "--python", sys.executable)
        way += ("--host-key", machine.fingerprint, "--hub-token")
        code, _, err = weber("remote", "train", file, *way, "--detach")
        assert code == 0 and "The run has begun there" in err and not (folder / "metrics.jsonl").exists(), err
        root = machine.home / "weber-remote" / "lora"
        token = (root / there.TOKEN).stat()
        assert token.st_mode & 0o777 == 0o600 and token.st_uid == NUMBER and (root / there.TOKEN).read_text() == "hf_secret"
        pid = advance(root, root / there.OUT / "lora" / "checkpoint-000004")
        ours = [one for one in psutil.process_iter() if one.uids().real == NUMBER]
        assert not any("hf_secret" in word for one in ours for word in one.cmdline())
        assert psutil.Process(pid).environ()["HF_TOKEN_PATH"] == f"/home/stranger/weber-remote/lora/{there.TOKEN}"
        fill(machine.home / "filler")
        os.killpg(pid, signal.SIGCONT)
        code, _, err = weber("remote", "attach", folder)
        assert code == 2 and "disk" in err and "full" in err and "Traceback" not in err, err
        assert (root / there.ENDED).is_file(), err
        print(err)
        saved = list_checkpoints(folder)
        assert saved and saved[-1][0] < 12 and all(check_checkpoint(one) is None for _, one in saved)
        code, out, err = weber("remote", "down", folder, "--yes")
        assert code == 0 and not root.exists() and "weber-remote/lora" in out and list_checkpoints(folder) == saved, err
