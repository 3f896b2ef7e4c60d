"""weber fine-tunes image models. From Python: build a config, look at its plan, train, sample. docs/python.md shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weber.api import (
    check,
    diff,
    export,
    extract,
    grid,
    import_run,
    inspect,
    merge,
    open_run,
    plan,
    publish,
    report,
    resize,
    sample,
    scale,
    train,
    write_report,
)
from weber.errors import WeberError
from weber.imports import quiet_libraries
from weber.version import VERSION as __version__

if TYPE_CHECKING:
    from weber.config.load import load_config
    from weber.config.run import RunConfig

quiet_libraries()

__all__ = [
    "RunConfig",
    "WeberError",
    "__version__",
    "check",
    "diff",
    "export",
    "extract",
    "grid",
    "import_run",
    "inspect",
    "load_config",
    "merge",
    "open_run",
    "plan",
    "publish",
    "report",
    "resize",
    "sample",
    "scale",
    "train",
    "write_report",
]


def __getattr__(name: str) -> object:
    """The settings are read when they are first asked for, so that `weber --help` need not."""
    if name not in ("RunConfig", "load_config"):
        raise AttributeError(f"module 'weber' has no attribute {name!r}")
    from weber.config import load, run

    return load.load_config if name == "load_config" else run.RunConfig
