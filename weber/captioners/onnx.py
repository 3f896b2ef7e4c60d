"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weber.errors import MissingExtraError, ModelError

Array = NDArray[np.float32]
_GPUS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider")
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Network:
    """An open file. `shape`: of its input; None where it takes any number."""

    session: Any
    name: str
    shape: tuple[int | None, ...]

    @property
    def batch_size(self) -> int | None:
        """How many pictures it takes at once, if that is fixed."""
        return self.shape[0]

    def run(self, pictures: Array) -> Array:
        """The first output, for any number of pictures."""
        size = self.batch_size or len(pictures)
        parts = []
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)]) if len(part) < size else part
            parts.append(np.asarray(self.session.run(None, {self.name: filled})[0], dtype=np.float32)[: len(part)])
        return np.concatenate(parts)


def open_network(file: Path, *, device: str = "auto") -> Network:
    """Open a file on a GPU that onnxruntime knows, or with `device` "cpu" on processors. Raises MissingExtraError, ModelError."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "ONNX files cannot be run, because onnxruntime is not installed.", got=str(file), fix="pip install 'weber[onnx]'"
        )
    onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.set_default_logger_severity(3)
    there = onnxruntime.get_available_providers()
    providers = [one for one in _GPUS if one in there and device != "cpu"] + [_CPU]
    if device not in ("auto", "cpu") and len(providers) == 1:
        raise ModelError(
            "onnxruntime has no GPU here.",
            got=f"--device {device}",
            expected="auto or cpu",
            fix="pip install onnxruntime-gpu, or remove --device",
        )
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    damage = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile, state.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(str(file), providers=providers)
    except damage as error:
        got = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError("This ONNX file cannot be read.", got=f"{file}: {got}", fix="download it again") from error
    [first, *_] = session.get_inputs()
    return Network(session, first.name, tuple(one if isinstance(one, int) and one > 0 else None for one in first.shape))
