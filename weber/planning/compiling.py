"""Whether blocks can be compiled here, and with these settings: known before anything is loaded."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

from weber.config.run import RunConfig
from weber.errors import ConfigError

_KEY = "memory.compile = true"
_LEAST_CAPABILITY = (7, 0)  # of Triton


def check_compile(config: RunConfig, *, device: torch.device) -> None:
    """Refuse to compile where nothing does, or what would then be something else."""
    if not config.memory.compile:
        return
    _check_run(config)
    if device.type == "cpu":
        _check_processor()
    elif device.type == "cuda":
        _check_gpu(device)
    else:
        raise ConfigError(
            "PyTorch's compiler is not used on this device.",
            got=f"{_KEY} on {device}",
            expected="a CUDA device, or the CPU",
            fix="remove memory.compile",
        )


def _check_run(config: RunConfig) -> None:
    if config.adapter.kind == "lycoris":
        raise ConfigError(
            "Layers of LyCORIS take gradients themselves, inside of the block, which PyTorch's compiler does not follow.",
            got=f'{_KEY} with adapter.kind = "lycoris"',
            fix='remove memory.compile, or set adapter.kind = "lora"',
        )
    if config.adapter.has_dropout:
        raise ConfigError(
            "Compiled blocks draw dropout by numbers of their own, and draw it anew where they are computed again.",
            got=f"{_KEY} with dropout in [adapter]",
            fix="remove memory.compile, or the dropout",
        )
    if config.optim.fused_backward:
        raise ConfigError(
            "A compiled block gives the gradients of all its weights at once, so that none is free before the others are there.",
            got=f"{_KEY} with optim.fused_backward = true",
            fix="remove memory.compile, or optim.fused_backward",
        )


def _check_processor() -> None:
    """Code for a CPU is compiled by a C++ compiler, which wants Python's headers."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ConfigError(
            "Compiling for the CPU needs a C++ compiler, and there is none.",
            got=f"{_KEY}; {error}",
            fix="install g++ (on Debian and Ubuntu: apt install g++), or remove memory.compile",
        ) from error
    _check_headers()


def _check_gpu(device: torch.device) -> None:
    if not torch.cuda.is_available():
        return  # it is planned for a machine that is not here
    if find_spec("triton") is None:
        raise ConfigError(
            "Compiling for a GPU needs Triton, which is not installed.",
            got=_KEY,
            fix='pip install "weber[kernels]" (Linux), or remove memory.compile',
        )
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _LEAST_CAPABILITY:
        raise ConfigError(
            "Triton has no code for this GPU.",
            got=f"{_KEY} on {torch.cuda.get_device_name(device)}, compute capability {capability[0]}.{capability[1]}",
            expected="compute capability 7.0 or more",
            fix="remove memory.compile",
        )
    _check_headers()


def _check_headers() -> None:
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").exists():
        raise ConfigError(
            "What is compiled is built against Python's headers, and they are not installed.",
            got=f"{_KEY}; no Python.h in {folder}",
            fix="install them (on Debian and Ubuntu: apt install python3-dev), or remove memory.compile",
        )
