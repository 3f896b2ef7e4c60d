"""Sending a folder, again and again where that may help, and never longer than it may take."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from pathlib import Path

from weber.config.publish import PublishConfig
from weber.errors import PublishError, WeberError
from weber.sharing.folder import Folder
from weber.sharing.hub import send_to_hub
from weber.sharing.store import send_to_store

PAUSES_SECONDS = (5.0, 30.0, 120.0)
"""Before each further try."""
PATIENCE_SECONDS = 120.0
SLOWEST_BYTES_PER_SECOND = 2**17
"""A try may take so long: the patience, and the files at the slowest rate."""

Wait = Callable[[float], bool]
"""Waits some seconds; says whether it is to go on."""


def send(folder: Folder, config: PublishConfig, *, message: str, wait: Wait) -> str:
    """Send a folder; returns the address of what others see. Raises PublishError after the last try, or where `wait` says no."""
    pauses = list(PAUSES_SECONDS)
    while True:
        try:
            return _try(folder, config, message)
        except PublishError as error:
            if not error.is_passing or not pauses or not wait(pauses.pop(0)):
                raise


def build_message(folder: Folder) -> str:
    """What the commit is called."""
    return "weber: a result" if folder.step is None else f"weber: step {folder.step}"


def build_command(place: Path, config: PublishConfig, *, is_set: bool) -> str:
    """What sends it again. `is_set`: the settings of the run say where and how."""
    words = ["weber", "publish", str(place)]
    if not is_set:
        words += [str(config.to), *(word for name in config.formats for word in ("--format", name) if config.formats != ["diffusers"])]
        words += ["--public", "--consent"] if config.visibility == "public" else []
        words += [] if config.trigger_words is None else ["--trigger", config.trigger_words]
    return shlex.join(words)


def _try(folder: Folder, config: PublishConfig, message: str) -> str:
    """One try, in a thread of its own that is left where nothing answers: the hub's client waits for ever."""
    seconds = PATIENCE_SECONDS + sum(file.stat().st_size for file in folder.files) / SLOWEST_BYTES_PER_SECOND
    sent: list[str] = []
    failed: list[WeberError] = []

    def work() -> None:
        try:
            sent.append(send_to_hub(folder, config, message=message) if config.is_to_hub else send_to_store(folder, config))
        except WeberError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="weber upload", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not sent:
        told = PublishError(f"Not all was sent to {config.to}.", got=f"no answer within {seconds:.0f} s", fix="check the connection")
        told.is_passing = thread.is_alive()
        raise told
    return sent[0]
