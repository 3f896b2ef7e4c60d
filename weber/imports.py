"""How libraries are imported: each where it is used, quickly, and in silence.

Rooms import PyTorch at their top, and everything else that is large (diffusers, transformers, LyCORIS, the hub) in the functions that use
it. What is here arranges the process of a command, which is ours alone; a program that imports weber is only spared the libraries' notes.

| what | saves | why it may be done |
|---|---|---|
| no garbage collection while libraries are imported | a fifth of all | imports make a million objects and hardly any garbage |
| bitsandbytes and torchao are hidden until we use them | 0.8 s | others import them wherever they are, and have no use for them here |
| PyTorch's compiler sleeps until it is used, in `weber plan` | 0.8 s | it is imported to be told that it has nothing to do |
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import logging
import sys
import warnings
from functools import partial, wraps
from types import FunctionType, ModuleType
from typing import Any

_HIDDEN = ("bitsandbytes", "torchao")
_COMPILER = "torch._dynamo"
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


def put_compiler_to_sleep() -> None:
    """Import PyTorch's compiler when something is compiled, in a command that hardly will. Nothing is done where PyTorch is there already.

    PyTorch, diffusers and transformers import it to mark functions that it is to leave alone. While it sleeps it answers that as if
    awake; whatever else is asked of it wakes it. `importlib.util.LazyLoader` does the same, but wakes at once.
    """
    if "torch" in sys.modules:
        return
    spec = importlib.util.find_spec(_COMPILER)  # which imports PyTorch
    if spec is not None and _COMPILER not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Sleeping
        vars(module).update(disable=_disable, allow_in_graph=_return, assume_constant_result=_return)
        sys.modules[_COMPILER] = module


class _Sleeping(ModuleType):
    """A module whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _disable(function: Any = None, recursive: bool = True, **settings: Any) -> Any:
    """What is not compiled need not be left alone; once the compiler is awake it is asked."""
    compiler: Any = sys.modules[_COMPILER]
    if not isinstance(function, FunctionType):
        return partial(_disable, recursive=recursive, **settings) if function is None else function

    @wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        called = function if isinstance(compiler, _Sleeping) else compiler.disable(function, recursive, **settings)
        return called(*arguments, **named)

    return run


def _return(marked: Any) -> Any:
    return marked
