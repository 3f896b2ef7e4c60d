"""`weber serve`: pages for a browser."""

from __future__ import annotations

from pathlib import Path

from weber.commands.terminal import read_environment, say

_PORT = 8001


def serve(*folders: Path, host: str = "127.0.0.1", port: int = _PORT, home: Path | None = None) -> None:
    """Show runs, pictures and settings in a browser, start runs there, and queue them. Runs go on when this ends.

    Parameters
    ----------
    folders
        What the pages may show and change: folders with runs, pictures and settings; this folder if left out.
    host
        Address to listen at; 0.0.0.0 for other machines, which need the link with its token too.
    port
        Port to listen at.
    home
        Where the queue, logs and thumbnails are kept; `.weber` in the first folder if left out.
    """
    from weber.errors import ConfigError, MissingExtraError
    from weber.imports import begin_work, load_module

    if not 0 <= port <= 65535:
        raise ConfigError("There is no such port.", got=f"--port {port}", expected="1 to 65535, or 0 for any", fix=f"write --port {_PORT}")
    try:
        for name in ("python_multipart", "starlette", "uvicorn"):
            load_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed.", got="weber serve", fix="pip install 'weber[web]'") from error
    from weber.serve.server import serve as run
    from weber.serve.site import build_site, list_slots

    environment = read_environment()
    site = build_site(folders or [Path()], home=home, slots=list_slots(environment), environment=environment)
    begin_work()
    run(site, host=host, port=port, say=say)
