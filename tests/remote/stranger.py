"""A machine beside this one, for root: a network of its own with a cable, a user of its own who owns nothing but a small disk, a real sshd.

It is a namespace of mounts and one of networks; the user stands in copies of /etc/passwd and its like, which only processes in there
see, so that nothing is left of it. Folders of Python that only root may enter are shown there to all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.remote.ssh import SSHD, check_programs

USER, NUMBER, HOME = "stranger", 4242, "/home/stranger"
_PORT = 22022


@dataclass
class Stranger:
    """`home`: the home folder there, as it is seen from here."""

    address: str
    port: int
    home: Path
    identity: Path
    fingerprint: str


@contextmanager
def visiting(folder: Path, *, disk_mib: int) -> Iterator[Stranger]:
    """The machine while the context lasts; skips where it cannot be made. `disk_mib`: of the home folder."""
    check_programs()
    folder.mkdir()
    for key in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", str(folder / "host.pub")], capture_output=True, text=True, check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    lines = ("PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "SetEnv OMP_NUM_THREADS=1")
    lines += (f"Port {_PORT}", f"HostKey {folder / 'host'}", f"PidFile {folder / 'pid'}")
    (folder / "config").write_text("\n".join(lines) + "\n")
    (folder / "begin").write_text(_build_script(folder, disk_mib))
    with joined() as cable, (folder / "log").open("ab") as log:
        process = subprocess.Popen(["ip", "netns", "exec", cable.name, "bash", "-e", str(folder / "begin")], stderr=log, stdout=log)
        try:
            while not (folder / "pid").exists():
                if process.poll() is not None:
                    pytest.skip(f"no machine can be made here: {(folder / 'log').read_text()[-300:]}")
                time.sleep(0.02)
            home = Path(f"/proc/{process.pid}/root{HOME}")
            yield Stranger(f"{USER}@{cable.there}", _PORT, home, folder / "key", shown.stdout.split()[1])
        finally:
            for one in psutil.process_iter(["uids"]):
                if one.info["uids"] is not None and one.info["uids"].real == NUMBER:
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGKILL)
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Cable:
    """From this network to another one, with the address of its end there."""

    name: str
    here: str
    there: str

    def cut(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "there", "down"], check=True)


@contextmanager
def joined() -> Iterator[Cable]:
    """A network of its own, and a cable to it; skips where there can be none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of its own needs root and iproute2")
    number = os.getpid() % 250
    cable = Cable(f"weber-{os.getpid()}", f"10.78.{number}.1", f"10.78.{number}.2")
    commands = (
        f"netns add {cable.name}",
        f"link add wb{number} type veth peer name there netns {cable.name}",
        f"address add {cable.here}/24 dev wb{number}",
        f"link set wb{number} up",
        f"-n {cable.name} address add {cable.there}/24 dev there",
        f"-n {cable.name} link set there up",
        f"-n {cable.name} link set lo up",
    )
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network of its own can be made here: ip {command}: {done.stderr.strip()}")
        yield cable
    finally:
        subprocess.run(["ip", "netns", "del", cable.name], capture_output=True, check=False)


def _build_script(folder: Path, disk_mib: int) -> str:
    """What makes the machine, and ends as its sshd."""
    users = {"passwd": f"{USER}:x:{NUMBER}:{NUMBER}::{HOME}:/bin/sh", "group": f"{USER}:x:{NUMBER}:", "shadow": f"{USER}:*:19000::::::"}
    lines = ["mount --make-rprivate /"]
    for file, line in users.items():
        (folder / file).write_text(Path("/etc", file).read_text().rstrip("\n") + f"\n{line}\n")
        (folder / file).chmod(0o644 if file != "shadow" else 0o600)
        lines.append(f"mount --bind {folder / file} /etc/{file}")
    places = sorted({Path(sys.base_prefix), Path(sys.prefix)})
    closed = {next((up for up in reversed(one.parents) if up.stat().st_mode & 0o001 == 0), None) for one in places} - {None}
    lines += ["mkdir -p /mnt", "mount -t tmpfs -o mode=755 none /mnt"]
    lines += [f"mkdir /mnt/{at} ; mount --bind {one} /mnt/{at}" for at, one in enumerate(places)]
    lines += [f"mount -t tmpfs -o mode=755 none {one}" for one in sorted(map(str, closed))]
    lines += [f"mkdir -p {one} ; mount --bind /mnt/{at} {one}" for at, one in enumerate(places) if closed & {*one.parents}]
    lines += ["mkdir -p /home", "mount -t tmpfs -o mode=755 none /home", f"mkdir -p {HOME}"]
    lines += [f"mount -t tmpfs -o size={disk_mib}m,mode=700,uid={NUMBER},gid={NUMBER} none {HOME}"]
    lines += [f"install -d -m 700 -o {NUMBER} -g {NUMBER} {HOME}/.ssh"]
    lines += [f"install -m 600 -o {NUMBER} -g {NUMBER} {folder / 'key.pub'} {HOME}/.ssh/authorized_keys"]
    return "\n".join([*lines, f"exec {SSHD} -D -e -f {folder / 'config'}"]) + "\n"
