"""What verbs share: what they say, and how they show that they are at work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weber.imports import begin_work

if TYPE_CHECKING:
    from weber.config.importers.outcome import Imported
    from weber.config.run import RunConfig
    from weber.parallel.place import Place
    from weber.track.progress import Watcher

Texts = Annotated[list[str], Parameter(negative="")]
"""A flag that may be given several times."""


def say(text: str) -> None:
    """Write a result to standard output."""
    print(text)


def end(code: int) -> None:
    """Leave with an exit code that tells a script what was found."""
    raise SystemExit(code)


def say_error(text: str) -> None:
    """Write to standard error what somebody else has put in words."""
    print(text, file=sys.stderr)


def check_plot(plot: Path | None) -> None:
    """Refuse a file that a picture cannot be written to."""
    from weber.errors import ConfigError

    if plot is not None and (plot.is_dir() or plot.suffix.lower() != ".png"):
        raise ConfigError("The picture is a PNG file.", got=f"--plot {plot}", expected="a file name", fix="write --plot levels.png")


def read_settings(config: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a run. Called before anything heavy is imported, so that a mistake in them is told at once."""
    return read_run(config, overrides)[0]


def read_run(config: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, Imported | None]:
    """The settings of a run, of whatever trainer; with what became of them, if they were not weber's own."""
    from weber.config.load import is_own, load_config

    if is_own(config):
        return load_config(config, overrides), None
    from weber.config.importers.load import load_any

    return load_any(config, overrides)


def read_memory(overrides: Sequence[str]) -> dict[str, object]:
    """Settings of [memory], for a verb that takes no others. Raises ConfigError."""
    from weber.config.load import write_overrides
    from weber.errors import ConfigError

    tree: dict[str, object] = {}
    write_overrides(tree, overrides)
    memory = tree.pop("memory", {})
    if tree or not isinstance(memory, dict):
        raise ConfigError(
            "Only settings of [memory] can be changed here.",
            got=", ".join(overrides),
            expected="memory.key=value, such as memory.quantize=nf4",
            fix="remove the others; what is painted and how is said by --prompt, --steps, --guidance and the like (--help lists them)",
        )
    return memory


def build_watcher() -> Watcher:
    """Progress on standard error. Called when all that a verb needs is imported, and its work begins."""
    from weber.track.progress import Watcher, build_console

    begin_work()
    return Watcher(build_console(sys.stderr))


def confirm(text: str) -> bool:
    """Whether a person at the terminal says yes; nobody there has said no."""
    if not sys.stdin.isatty():
        return False
    return input(f"{text} Go on? [y/N] ").strip().lower() in ("y", "yes")


def read_environment() -> dict[str, str]:
    """The variables that this process was started with."""
    return dict(os.environ)


def read_words() -> tuple[list[str], int]:
    """The words of the command line, and the number of this process."""
    return sys.argv[1:], os.getpid()


def leave(code: int) -> None:
    """End with an exit code, in silence."""
    sys.exit(code)


def find_own_place() -> Place | None:
    """Which of several processes this is. Called before PyTorch is imported: from then on one of several sees its own GPU alone."""
    from weber.parallel.place import find_place

    place = find_place(os.environ)
    if place is None:
        return None
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not shown and place.local_size > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place.local_rank)
    elif len(shown) >= place.local_size > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = shown[place.local_rank]
    return place


def prepare_launch(devices: Sequence[int | None]) -> None:
    """Let processes that are started from here see these GPUs, each its own, and meet anew each time that they are started: else they find
    the addresses of those before (as of PyTorch 2.13, where they share the store in which torchrun's machinery meets)."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = [shown[number] if number < len(shown) else str(number) for number in devices if number is not None]
    if names:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)


def follow_parent(parent: int) -> None:
    """Stop as after Ctrl-C when the process that watches this one is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True, name="weber-parent").start()
