"""How libraries are imported: each where it is used, quickly, and in silence.

Rooms import PyTorch at their top, and everything else that is large (diffusers, transformers, LyCORIS, the hub) in the functions that use
it. What is here arranges the process of a command, which is ours alone; a program that imports weber is only spared the libraries' notes.

| what | saves | why it may be done |
|---|---|---|
| no garbage collection while libraries are imported | a fifth of all | imports make a million objects and hardly any garbage |
| bitsandbytes and torchao are hidden until we use them | 0.8 s | others import them wherever they are, and have no use for them here |
| boto3 is hidden | 0.15 s | accelerate imports it where it is, for a service that we do not use; S3 is read without it |
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import warnings
from types import ModuleType

_HIDDEN = ("bitsandbytes", "boto3", "torchao")
_NOTED = ("bitsandbytes", "torchao", "torch.utils._pytree", "diffusers.quantizers", "transformers.quantizers")
"""Loggers that note, while libraries are imported, that kernels are missing which nothing here uses."""


def quiet_libraries() -> None:
    """Keep what libraries note while they are imported from the terminal."""
    for name in _NOTED:
        logging.getLogger(name).setLevel(logging.ERROR)


def start_command() -> None:
    """Arrange the process of a command for a quick start: nothing large is imported yet. Elsewhere nothing is done.

    A module that is None in `sys.modules` counts as not installed, for `import` and for `find_spec` (Python's reference, 5.3.1).
    """
    if "torch" in sys.modules:
        return
    gc.disable()
    for name in _HIDDEN:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def begin_work() -> None:
    """Collect garbage again, after most imports: what is there by now lives as long as the command, and is not looked at any more."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def load_module(name: str) -> ModuleType:
    """Import a module by its name, be it of a library that is hidden. Raises ModuleNotFoundError where it is not installed."""
    for hidden in _HIDDEN:
        if sys.modules.get(hidden, hidden) is None:
            del sys.modules[hidden]
    return importlib.import_module(name)
