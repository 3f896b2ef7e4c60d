"""`weber serve-text`: text encoders for runs on other machines."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, say


def serve_text(
    model: str,
    /,
    *overrides: str,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(name=["--port", "-p"])] = 8002,
    token_file: Path | None = None,
) -> None:
    """Encode texts for runs on other machines, which then need no text encoder: their setting is model.text_encoder_url.

    Parameters
    ----------
    model
        A variant, a folder, a hub id or a file.
    overrides
        Settings of [memory] that say how texts are encoded, such as `memory.device=cuda:1`, `memory.dtype=bf16` or
        `memory.quantize_text_encoder=int8`; model.text_tokens and objective.text_mask as the runs have them.
    host
        Where it listens: 127.0.0.1 is this machine alone, 0.0.0.0 all that can reach it.
    port
        0 takes a free one.
    token_file
        A file with the token that runs have to say; a new one is drawn if it is left out.
    """
    from weber.remote.start import open_site, read_token

    token = secrets.token_urlsafe(24) if token_file is None else read_token(token_file)
    watcher = build_watcher()
    site = open_site(model, overrides, place=(host, port), token=token, write=watcher.write)
    with site:
        name = host if ":" not in host else f"[{host}]"
        say(f'model.text_encoder_url = "http://{name}:{site.server_port}/?token={token}"')
        say("Texts are encoded until Ctrl-C. The address holds the token: who knows it may use this machine.")
        site.serve_forever(poll_interval=0.2)
