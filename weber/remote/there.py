"""What runs on the other machine, where nothing but Python is: a program of the standard library alone, sent through ssh.

Each word does one thing and answers with one line of JSON; `watch` writes what the run says, and `install` what pip says. `settle` and
`hold` are for machines that somebody else rents and brings the files to (`task.py`). Below a folder lie runs, each in one of its own:
`code` (this package), `files` (what the settings name, by their paths of the other machine), `settings.toml`, `out`, `cache`, `log.txt`;
and beside them an environment for each list of packages.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARK, STARTED, ENDED = "weber-remote.json", "started.json", "ended.json"
MANIFEST = "manifest.json"
SETTINGS, TOKEN, PACKAGES, LOG, CODE, OUT = "settings.toml", "hub-token", "packages.txt", "log.txt", "code", "out"
TEMPLATE, PYTHON, PLACE = "settings.template", "python", "/@weber-remote@"
"""Settings in which a word stands for the run's folder, until it is known; and the program that runs Python with the packages."""
_ENVIRONMENT, _READY = "environment-", "ready"
_CALL = "from weber.cli import main; main()"
_SECONDS = 0.3
_RESERVE, _RESERVE_BYTES = ".reserve", 2**17
"""Room for how a run has ended, where it ends because the disk is full."""
_CHUNK_BYTES = 65536
_SMI = "nvidia-smi"


def look(place: str, name: str, *packages: str) -> dict[str, object]:
    """The machine, which of these packages its Python lacks, and what has become of a run of that name."""
    parent = Path.home() / Path(place).expanduser()
    root = parent / name
    near = next(one for one in (root, *root.parents) if one.is_dir())
    return {
        "version": list(sys.version_info[:3]),
        "python": sys.executable,
        "root": str(root),
        "rsync": shutil.which("rsync") or "",
        "free_bytes": shutil.disk_usage(near).free,
        "gpus": _list_gpus(),
        "state": _judge(root),
        "num_bytes": _weigh(root),
        "lacking": [one for one in packages if not _has(*one.split("=="))],
        "environments": [one.name.removeprefix(_ENVIRONMENT) for one in parent.glob(f"{_ENVIRONMENT}*") if (one / _READY).is_file()],
    }


def prepare(root: str) -> dict[str, object]:
    """A folder for the run, which its owner alone may look into."""
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / OUT).mkdir(exist_ok=True)
    _write(folder / MARK, json.dumps({"time": time.time()}))
    return {}


def write(root: str, texts: dict[str, str]) -> dict[str, object]:
    """Small files that their owner alone may read."""
    for name, text in texts.items():
        _write(Path(root) / name, text)
    return {}


def install(root: str, key: str) -> dict[str, object]:
    """A Python with the listed packages: this one if it has them all, else that of an environment, which is made where it is not there.
    What pip says goes to standard error."""
    packages = (Path(root) / PACKAGES).read_text(encoding="utf-8").split()
    if all(_has(*one.split("==")) for one in packages):
        return {"python": sys.executable}
    place = Path(root).parent / (_ENVIRONMENT + key)
    python = place / "bin" / "python"
    if not (place / _READY).is_file():
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(place)],
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(Path(root) / PACKAGES)],
        )
        for step in steps:
            done = subprocess.Popen(step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert done.stdout is not None
            last = ""
            for line in done.stdout:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()
                last = line.decode(errors="replace").strip() or last
            if done.wait():
                return {"problem": last or f"{step[2]} ended with {done.returncode}", "step": step[2]}
        _write(place / _READY, "")
    return {"python": str(python)}


def settle(root: str, key: str) -> None:
    """Make a folder ready whose files somebody else has brought: settings with the places of here, and `python`, with the packages; if that
    is not there afterwards, why has been said."""
    folder = Path(root)
    folder.chmod(0o700)
    (folder / OUT).mkdir(exist_ok=True)
    for name in (STARTED, ENDED, PYTHON):
        (folder / name).unlink(missing_ok=True)
    _write(folder / SETTINGS, (folder / TEMPLATE).read_text(encoding="utf-8").replace(PLACE, root))
    found = install(root, key)
    if "problem" not in found:
        _write(folder / MARK, json.dumps({"time": time.time()}))
        _write(folder / PYTHON, f'#!/bin/sh\nexec {shlex.quote(str(found["python"]))} "$@"\n')
        (folder / PYTHON).chmod(0o700)


def hold(root: str, *words: str) -> None:
    """Train, say what the run says, and stay until it has ended: for a queue to which a machine without a process is idle."""
    signal.signal(signal.SIGTERM, lambda number, frame: stop(root) and None)
    sys.stderr.write(str(start(root, sys.executable, *words).get("problem", "")))
    watch(root, 0)


def start(root: str, python: str, *words: str) -> dict[str, object]:
    """Train in a process of its own, which nobody who leaves takes along."""
    folder = Path(root)
    if _judge(folder) == "running":
        return {"problem": "it is running already"}
    (folder / ENDED).unlink(missing_ok=True)
    (folder / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
    token = [f"HF_TOKEN_PATH={folder / TOKEN}"] if (folder / TOKEN).is_file() else []
    command = ["env", f"PYTHONPATH={folder / CODE}", *token, python, "-P", str(Path(root, CODE, "weber", "remote", "there.py"))]
    with (folder / LOG).open("wb") as log:
        child = subprocess.Popen(
            [*command, "supervise", root, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _write(folder / STARTED, json.dumps({"pid": child.pid, "process": _identify(child.pid)}))
    return {}


def supervise(root: str, words: list[str]) -> None:
    """Call weber, wait for it, and write down how it ended. What asks to stop is passed on."""
    children: list[subprocess.Popen[bytes]] = []

    def stop_all(number: int, frame: object) -> None:
        for one in children:
            one.send_signal(number)

    signal.signal(signal.SIGTERM, stop_all)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)  # and not SIG_IGN, which the other one would have too
    children.append(subprocess.Popen([sys.executable, "-P", "-c", _CALL, *words]))
    code = children[0].wait()
    (Path(root) / _RESERVE).unlink(missing_ok=True)
    _write(Path(root) / ENDED, json.dumps({"code": code, "ended": time.time()}))


def watch(root: str, offset: int) -> dict[str, object]:
    """Write what the run says, from a byte of its log on, until it has ended or nobody listens."""
    folder, parent = Path(root), os.getppid()
    with (folder / LOG).open("rb") as log:
        log.seek(offset)
        while True:
            is_over = _judge(folder) != "running"
            for data in iter(lambda: log.read(_CHUNK_BYTES), b""):
                sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if is_over or os.getppid() != parent:
                return {}
            time.sleep(_SECONDS)


def tell(root: str) -> dict[str, object]:
    """What has become of the run, the end of what it said, and which checkpoints there are, each with the hash of its manifest."""
    folder = Path(root)
    ended = _read(folder / ENDED)
    out = next((one for one in (folder / OUT).glob("*") if one.is_dir()), None)
    said, size = "", 0
    with suppress(OSError), (folder / LOG).open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _CHUNK_BYTES))
        said = log.read().decode("utf-8", errors="replace")
    steps: dict[str, str] = {}
    for one in [] if out is None else sorted(out.glob("checkpoint-*")):
        with suppress(OSError):
            steps[one.name] = hashlib.blake2b((one / MANIFEST).read_bytes(), digest_size=16).hexdigest()
    return {
        "state": _judge(folder),
        "code": ended.get("code"),
        "said": said,
        "log_bytes": size,
        "has_begun": out is not None,
        "checkpoints": steps,
        "num_bytes": _weigh(folder),
        "free_bytes": shutil.disk_usage(folder).free if folder.is_dir() else 0,
    }


def stop(root: str) -> dict[str, object]:
    """Ask the run to save and stop."""
    started = _read(Path(root) / STARTED)
    pid = started.get("pid")
    if _judge(Path(root)) != "running" or not isinstance(pid, int):
        return {"state": _judge(Path(root))}
    os.kill(pid, signal.SIGTERM)
    return {"state": "running"}


def delete(root: str) -> dict[str, object]:
    """The run's folder, and where no other run is left the environments too."""
    folder = Path(root)
    state = _judge(folder)
    if state in ("running", "foreign"):
        return {"problem": "it is running" if state == "running" else "it is no folder of a run of weber"}
    if folder.is_dir():
        shutil.rmtree(folder)
    gone = [str(folder)]
    if not any((one / MARK).is_file() for one in folder.parent.glob("*")):
        for one in folder.parent.glob(f"{_ENVIRONMENT}*"):
            shutil.rmtree(one)
            gone.append(str(one))
    return {"gone": gone}


def _judge(root: Path) -> str:
    """none, foreign (something else is there), prepared, running, ended, or gone (its process is, and has not said why)."""
    if not root.exists():
        return "none"
    if not (root / MARK).is_file():
        return "foreign" if not root.is_dir() or any(root.iterdir()) else "none"
    if (root / ENDED).is_file():
        return "ended"
    started = _read(root / STARTED)
    if not started:
        return "prepared"
    pid = started.get("pid")
    identity = _identify(pid) if isinstance(pid, int) else ""
    return "running" if identity and identity == started.get("process") else "gone"


def _identify(pid: int) -> str:
    """What tells a process from every other that has its number at another time; empty where it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else f"{boot} {fields[19]}"


def _has(name: str, version: str) -> bool:
    """Whether this Python has a package in that version, built for whatever machine."""
    try:
        return importlib.metadata.version(name).partition("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _list_gpus() -> list[list[str]]:
    """Name and MiB of each."""
    program = shutil.which(_SMI) or shutil.which(_SMI, path="/usr/local/nvidia/bin:/usr/local/bin:/usr/bin:/opt/bin")
    if program is None:
        return []
    done = subprocess.run([program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"], capture_output=True, check=False)
    rows = done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []
    return [[part.strip() for part in row.rsplit(",", 1)] for row in rows if "," in row]


def _weigh(root: Path) -> int:
    num_bytes = 0
    for place, _, files in os.walk(root):
        for file in files:
            with suppress(OSError):  # it may be gone by now
                num_bytes += Path(place, file).lstat().st_size
    return num_bytes


def _read(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, text: str) -> None:
    unfinished = file.with_name(f".{file.name}.tmp")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def answer(word: str, *given: object) -> None:
    """Do what a word means; the answer is the last line of standard output."""
    known: dict[str, Callable[..., dict[str, object]]] = {
        "look": look,
        "prepare": prepare,
        "write": write,
        "install": install,
        "start": start,
        "watch": watch,
        "tell": tell,
        "stop": stop,
        "delete": delete,
    }
    try:
        found = known[word](*given)
    except OSError as error:
        found = {"problem": f"{error.strerror or error}: {error.filename}" if error.filename else str(error)}
    if word != "watch":
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__" and sys.argv[1:2] == ["supervise"]:
    supervise(sys.argv[2], sys.argv[3:])
if __name__ == "__main__" and sys.argv[1:2] == ["settle"]:
    settle(*sys.argv[2:4])
if __name__ == "__main__" and sys.argv[1:2] == ["hold"]:
    hold(*sys.argv[2:])
