"""SkyPilot as a program that is called: prices, machines that it rents, and what it fails with as one sentence.

It is no package of weber's: with its 60 packages, for which some that weber has become older, it belongs into an environment of its own.
The words are those of its version 0.14 (`sky launch --help`, `sky gpus list --help`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.errors import RemoteError

_QUIET = {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "NO_COLOR": "1", "TERM": "dumb"}
"""SkyPilot tells its makers what is called, unless it is told not to."""
_HOSTS = ".sky/generated/ssh"
"""Where, below the home folder, it writes how ssh reaches each machine."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_ADVICE = 'python3 -m venv ~/sky && ~/sky/bin/pip install "skypilot[runpod]" && export PATH="$PATH:$HOME/sky/bin" && sky check'


@dataclass(frozen=True)
class Offer:
    """A machine that a cloud has, and what it costs: dollars an hour."""

    cloud: str
    machine: str
    price: float


class Sky:
    """Calls of the program. `variables`: the environment of this process, and what is in it that machines get."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = {**_QUIET, **variables}
        program = shutil.which("sky", path=variables.get("PATH"))
        if program is None:
            raise RemoteError(
                "SkyPilot is not installed here.",
                got="no program `sky` on PATH",
                expected="SkyPilot 0.14 or newer, in an environment of its own",
                fix=f"install it, with your clouds in the brackets: {_ADVICE}",
            )
        self._program = program

    def list_offers(self, gpu: str, count: int, *, cloud: str | None, is_spot: bool) -> list[Offer]:
        """Machines with so many GPUs of that name, the cheapest first: of each cloud the cheapest one. Raises RemoteError."""
        words = ["gpus", "list", f"{gpu}:{count}", "-o", "json", *([] if cloud is None else ["--infra", cloud])]
        found = _read_json(self._call(words), "{")
        price = "spot_price" if is_spot else "price"
        listed = found if isinstance(found, dict) else {}
        rows = [row for name, rows in listed.items() for row in rows if name.lower() == gpu.lower()]  # and not H100-SXM with H100
        fitting = [row for row in rows if row["accelerator_count"] == count and isinstance(row[price], (int, float)) and row[price] > 0]
        offers = [Offer(str(row["cloud"]), str(row["instance_type"]), float(row[price])) for row in fitting]
        best: dict[str, Offer] = {}
        for one in sorted(offers, key=lambda one: one.price):
            best.setdefault(one.cloud, one)
        return list(best.values())

    def launch(self, cluster: str, task: Path, *, idle_minutes: int, secrets: Sequence[str] = (), write: Callable[[str], None]) -> None:
        """Rent a machine, or take the one that is there, bring it what the task names, and begin; it goes when it is idle. `secrets`: names
        of variables here that it gets. Raises RemoteError."""
        named = [word for name in secrets for word in ("--secret", name)]
        self._call(["launch", "-c", cluster, "-y", "-d", "-i", str(idle_minutes), "--down", *named, str(task)], write=write)

    def find_state(self, cluster: str) -> str | None:
        """UP, INIT, STOPPED, as the cloud says now; None where it is no more."""
        rows = _read_json(self._call(["status", "--refresh", "-o", "json", cluster]), "[")
        names = [str(row["status"]) for row in rows if row["name"] == cluster] if isinstance(rows, list) else []
        return names[0] if names else None

    def take_down(self, cluster: str, *, write: Callable[[str], None]) -> None:
        """Give the machine back, with all that is on it. Raises RemoteError."""
        self._call(["down", "-y", cluster], write=write)

    def find_hosts(self, cluster: str) -> str | None:
        """The file that says how ssh reaches a machine; None where only ~/.ssh/config may know it."""
        file = Path(self._variables.get("HOME", "~")).expanduser() / _HOSTS / cluster
        return str(file) if file.is_file() else None

    def _call(self, words: Sequence[str], *, write: Callable[[str], None] | None = None) -> str:
        """What it has written to standard output. `write` hears each line of both outputs instead."""
        errors = subprocess.PIPE if write is None else subprocess.STDOUT
        command = [self._program, *words]
        with subprocess.Popen(
            command, env=self._variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as process:
            if write is None:
                said, failed = process.communicate()
            else:
                said = failed = _listen(process, write)
        if process.returncode:
            lines = [line.strip() for line in _ESCAPES.sub("", f"{said}\n{failed}").splitlines() if line.strip()]
            raise RemoteError(
                "SkyPilot has refused it.",
                got=f"sky {' '.join(words)}: {lines[-1] if lines else f'exit code {process.returncode}'}",
                fix="see what it says; `sky check` says which clouds are set up here",
            )
        return said


def _listen(process: subprocess.Popen[str], write: Callable[[str], None]) -> str:
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        text = _ESCAPES.sub("", line).strip()
        last = text or last
        if text:
            write(text)
    return last


def _read_json(said: str, start: str) -> object:
    """What is JSON of an output: from the first line on that begins as it does, since words may be before it. Raises RemoteError."""
    lines = said.splitlines()
    place = next((at for at, line in enumerate(lines) if line.startswith(start)), None)
    try:
        return json.loads("\n".join(lines[place:])) if place is not None else None
    except ValueError as error:
        raise RemoteError(
            "SkyPilot answers with something else.", got=f"{said.strip()[-200:]!r} ({error})", expected="JSON", fix="install SkyPilot 0.14"
        ) from error
