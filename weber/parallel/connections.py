"""Connections to processes of other machines: a process that ends closes them, a machine that is cut off does not.

Whoever waits for it would wait for ever, since PyTorch's own limit of time is no help: processes wait for hours while one encodes or
paints. So the system is told to ask for a sign of life, which it gives itself, however busy the process is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

SECONDS = 60
"""After which a connection without a sign of life is one that is broken."""
_FILES = Path("/proc/self/fd")
_NUM_ASKED = 4


def list_sockets() -> frozenset[int]:
    """The numbers of all sockets of this process; none where the system does not tell."""
    found: set[int] = set()
    with suppress(OSError):
        for file in _FILES.iterdir():
            with suppress(OSError):  # the folder is among its own files, and closed by now
                if str(file.readlink()).startswith("socket:"):
                    found.add(int(file.name))
    return frozenset(found)


def watch_connections(known: Set[int], *, seconds: int = SECONDS) -> int:
    """Let all connections but the `known` ones break when nothing comes from their other end for so long; how many these are.

    Linux (tcp(7): TCP_KEEPIDLE, TCP_USER_TIMEOUT); elsewhere nothing is done.
    """
    wanted = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", seconds // 2),
        ("TCP_KEEPINTVL", max(1, seconds // (2 * _NUM_ASKED))),
        ("TCP_KEEPCNT", _NUM_ASKED),
        ("TCP_USER_TIMEOUT", 1000 * seconds),
    ):
        if name in vars(socket):
            wanted.append((socket.IPPROTO_TCP, vars(socket)[name], value))
    num_watched = 0
    for number in list_sockets() - known:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
            if one.type != socket.SOCK_STREAM or one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            one.getpeername()  # one that only listens has none
            for level, option, value in wanted:
                one.setsockopt(level, option, value)
            num_watched += 1
    return num_watched


@contextmanager
def watching_connections(*, every: float = 5.0) -> Iterator[None]:
    """The same for all connections that are made in the context, whoever makes them."""
    known, is_over = list_sockets(), Event()

    def look() -> None:
        while not is_over.wait(every):
            watch_connections(known)

    thread = Thread(target=look, daemon=True, name="weber-connections")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
