"""Which process is which, beyond its number: numbers are given anew, by a system that has started again too."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def read_identity(pid: int) -> str | None:
    """What tells a process from every other that has its number at another time; None where it is not there, or has ended already."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else f"{_BOOT.read_text(encoding='utf-8').strip()} {fields[19]}"
    except OSError:
        pass
    try:
        return f"{psutil.boot_time():.0f} {psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def is_alive(pid: int, identity: str) -> bool:
    """Whether that very process is there."""
    return read_identity(pid) == identity


def is_locked(file: Path) -> bool:
    """Whether a process of this machine holds a lock on a file, as the system's table says it, without touching the lock itself."""
    try:
        found = file.stat()
        rows = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(place in row.split() and "->" not in row for row in rows)
