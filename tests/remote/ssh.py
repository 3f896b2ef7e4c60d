"""A real sshd on this machine: a port of its own, a host key, one authorized key, and a home folder for who logs in."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_VARIABLES = "OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PIP_NO_INDEX=1"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


def check_programs() -> None:
    """Skip where the machine has no sshd or rsync."""
    lacking = [name for name in ("ssh", "ssh-keygen", "ssh-keyscan", "rsync") if shutil.which(name) is None]
    lacking += [] if SSHD else ["sshd"]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}: apt-get install openssh-server openssh-client rsync")


@dataclass
class Server:
    """`home`: the home folder there; `identity`: the key that is let in; `fingerprint`: that of the host."""

    folder: Path
    port: int
    home: Path
    identity: Path
    fingerprint: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    def start(self) -> None:
        """Listen, and wait until it does."""
        assert SSHD is not None
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "config")], stderr=(self.folder / "log").open("ab"))
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def cut(self) -> None:
        """No longer listen, and end every connection at once; what was started in them stays."""
        assert self.process is not None
        sessions = [one for one in psutil.Process(self.process.pid).children(recursive=True) if "sshd" in one.name()]
        for one in (psutil.Process(self.process.pid), *sessions):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None


@contextmanager
def serving(folder: Path, *, path: str | None = None) -> Iterator[Server]:
    """A server while the context lasts. `path`: where programs are found there; left out: this Python, and the system's."""
    check_programs()
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized")
    shown = subprocess.run(["ssh-keygen", "-lf", str(folder / "host.pub")], capture_output=True, text=True, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with suppress(PermissionError):  # who is not root needs none
        Path("/run/sshd").mkdir(exist_ok=True)
    path = path or f"{Path(sys.executable).parent}:/usr/bin:/bin"
    lines = (
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        f"PidFile {folder / 'pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        f'ForceCommand cd "{home}" && HOME="{home}" PATH="{path}" {_VARIABLES} exec sh -c "$SSH_ORIGINAL_COMMAND"',
    )
    (folder / "config").write_text("\n".join(lines) + "\n")
    server = Server(folder, port, home, folder / "key", shown.stdout.split()[1])
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.cut()
