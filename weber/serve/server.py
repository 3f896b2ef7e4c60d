"""The process that serves the pages, until somebody ends it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from filelock import FileLock, Timeout

from weber.errors import ConfigError
from weber.serve.app import build_app
from weber.serve.site import Site

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CLOSING_SECONDS = 2
_LOCK_NAME = "serve.lock"


def serve(site: Site, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; the runs that were started go on. Raises ConfigError for an address that cannot be had."""
    is_local = host in _LOOPBACK
    with _held(site), open_socket(host, port) as listening:
        shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "localhost" else host
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else shown
        say(f"Open http://{shown}:{listening.getsockname()[1]}/?token={site.token}")
        say(f"The pages show {', '.join(map(str, site.roots))}. Ctrl-C ends them; runs go on.")
        app = build_app(site, is_local=is_local)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_CLOSING_SECONDS, lifespan="on"
        )
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _held(site: Site) -> Iterator[None]:
    """One server alone starts what is in the queue."""
    lock = FileLock(site.home / _LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            "Another `weber serve` shows this folder already.",
            got=str(site.home),
            fix="open its link, end it, or give this one a queue of its own: --home /another/folder",
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_socket(host: str, port: int) -> socket.socket:
    """Where browsers are listened to; port 0: any that is free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        raise ConfigError(
            "The pages cannot be served there.",
            got=f"--host {host} --port {port}: {error.strerror or error}",
            expected="an address of this machine, and a port that nobody has",
            fix=f"end the other `weber serve`, or write --port {port + 1}",
        ) from error
    return found
