"""A cable that is cut is noticed by whoever waits at its end, though nobody has closed anything."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.remote.stranger import joined
from weber.parallel.connections import list_sockets, watch_connections, watching_connections

LISTEN = """
import socket, sys, time
one = socket.create_server((sys.argv[1], 29401))
print("up", flush=True)
kept = one.accept()
time.sleep(99)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other options")


def test_only_new_connections_are_watched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as old:
        known = list_sockets()
        with socket.create_connection(server.getsockname()) as new:
            assert {server.fileno(), old.fileno()} <= known and new.fileno() not in known
            assert watch_connections(known, seconds=8) == 1
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
            assert [new.getsockopt(socket.IPPROTO_TCP, one) for one in names] == [4, 1, 8000]
            assert new.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not old.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        with watching_connections(every=0.01), socket.create_connection(server.getsockname()) as late:
            while not late.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                pass
        assert not old.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_who_waits_at_a_cut_cable_is_told() -> None:
    with joined() as cable:
        command = ["ip", "netns", "exec", cable.name, sys.executable, "-S", "-c", LISTEN, cable.there]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as there:
            try:
                assert there.stdout is not None and there.stdout.readline() == b"up\n"
                known = list_sockets()
                with socket.create_connection((cable.there, 29401), timeout=30) as one:
                    one.settimeout(None)
                    assert watch_connections(known, seconds=2) == 1
                    cable.cut()
                    with pytest.raises(OSError, match="timed out|No route to host|unreachable"):
                        one.recv(1)
            finally:
                there.kill()
