"""Named tensors that stay on the disk until they are read, and files of them that are written one tensor at a time.

So a checkpoint of 24 GB is renamed, merged or converted in the memory of its largest tensor.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from weber.errors import ModelError
from weber.progress import Progress, ignore_progress

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of the safetensors format."""

LENGTH_BYTES = 8
"""At the start of a file: how long its header is, which comes next."""

_NAMES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor: what is known of it, and how to read it. `is_quantized`: its file has it in fewer bits than `dtype`, with scales.

    `file`: where it lies, if it is of one file.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    is_quantized: bool = False
    file: Path | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes in a file."""
        return math.prod(self.shape) * self.dtype.itemsize


Weights = Mapping[str, Entry]

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Endings of files that are not read."""

ABANDONED_SECONDS = 3600.0

_OTHER_FORMATS = (
    (
        PICKLES,
        (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04"),
        "a pickle: reading it runs the code that is in it",
        "use the file as *.safetensors, which most makers publish beside it",
    ),
    ((".gguf",), (b"GGUF",), "a GGUF file: its weights are quantized for inference", "use the model in bf16, fp16 or fp8 as *.safetensors"),
    ((".html", ".htm"), (b"<!DOCTYPE", b"<!doctype", b"<html"), "a web page", "download the file itself, with the button of that page"),
    ((), (b"version https://git-lfs",), "a pointer of git-lfs to the file", "run `git lfs pull` there, or download the file itself"),
)
"""Endings, first bytes, what that is, and what to do."""
_NUM_START_BYTES = 32


def open_weights(files: Sequence[Path]) -> dict[str, Entry]:
    """The tensors of one or several *.safetensors files; only headers are read. Raises ModelError for a file that is damaged."""
    return {name: entry for file in files for name, entry in _open_file(file).items()}


def read_metadata(file: Path) -> dict[str, str]:
    """The text entries of a file's header. Raises ModelError for a file that is damaged."""
    metadata = _parse_header(file)[0].get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(file, ValueError("its metadata are not text entries"))
    return {str(key): str(value) for key, value in metadata.items()}


def read_header(file: Path) -> tuple[bytes | None, int]:
    """The header of a *.safetensors file as it is written there, None where the file ends before it, and the file's bytes. OSError as it
    comes."""
    with file.open("rb") as stream:
        file_bytes = os.fstat(stream.fileno()).st_size
        num_bytes = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        return stream.read(num_bytes) if LENGTH_BYTES + num_bytes <= file_bytes else None, file_bytes


def build_entry(tensor: Tensor) -> Entry:
    """A tensor that is in memory already."""
    return Entry(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def save_weights(path: Path, weights: Weights, *, metadata: Mapping[str, str], progress: Progress = ignore_progress) -> None:
    """Write a *.safetensors file, whole or not at all, one tensor in memory at a time. The same input gives the same bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, entry in weights.items():
        header[name] = {"dtype": _NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [offset, offset + entry.num_bytes]}
        offset += entry.num_bytes
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
            for number, (name, entry) in enumerate(weights.items()):
                progress(f"writing {path.name}", number, len(weights))
                tensor = entry.read().detach().cpu().contiguous()
                assert (tuple(tensor.shape), tensor.dtype) == (entry.shape, entry.dtype), name
                file.write(tensor.view(-1).view(torch.uint8).numpy().data)
            progress(f"writing {path.name}", len(weights), len(weights))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _open_file(file: Path) -> dict[str, Entry]:
    header, start, file_bytes = _parse_header(file)
    entries = {}
    for name, row in header.items():
        if name == "__metadata__":
            continue
        shape, dtype, begin, end = _read_row(file, name, row)
        if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize or start + end > file_bytes:
            raise _damaged(file, ValueError(f"{name} lies outside of the file, whose end is missing"))
        entries[name] = Entry(shape, dtype, partial(_read_tensor, file, start + begin, shape, dtype), file=file)
    return entries


def _parse_header(file: Path) -> tuple[dict[str, object], int, int]:
    """The header, the place in the file where tensors begin, and the file's bytes."""
    try:
        text, file_bytes = read_header(file)
        header = None if text is None else json.loads(text)
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    if text is None or not isinstance(header, dict):
        raise _damaged(file, ValueError("it has no safetensors header"))
    return header, LENGTH_BYTES + len(text), file_bytes


def _read_row(file: Path, name: str, row: object) -> tuple[tuple[int, ...], torch.dtype, int, int]:
    try:
        assert isinstance(row, dict)
        code, shape, (begin, end) = str(row["dtype"]), tuple(map(int, row["shape"])), map(int, row["data_offsets"])
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise _damaged(file, ValueError(f"{name} has no place in it")) from error
    if code not in DTYPES:
        raise ModelError(
            f"{file} holds tensors of a type that weber does not read.",
            got=f"{name} is {code}",
            expected=", ".join(DTYPES),
            fix="use the file in bf16, fp16, fp32 or fp8",
        )
    return shape, DTYPES[code], begin, end


def _read_tensor(file: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes == 0:
        return torch.empty(shape, dtype=dtype, device="cpu")
    # Pages of the file would hold it open for as long as the tensor lives, and a model has thousands of tensors. Pages of no file go back
    # to the system with the tensor, where the heap would be left with holes of up to 32 MB.
    data = mmap.mmap(-1, num_bytes, access=mmap.ACCESS_COPY) if os.name == "posix" else bytearray(num_bytes)
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            num_read = stream.readinto(data)
    except OSError as error:
        raise _damaged(file, error) from error
    if num_read != num_bytes:
        raise _damaged(file, ValueError("its end is missing"))
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)


def is_abandoned(file: Path) -> bool:
    """Whether a temporary file has no living writer: one that is being written changes every second."""
    try:
        return time.time() - file.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:  # renamed meanwhile by its writer
        return False


def check_format(file: Path) -> None:
    """Raise ModelError for a file of another format, which its ending or its first bytes tell."""
    try:
        with file.open("rb") as stream:
            start = stream.read(_NUM_START_BYTES)
    except OSError:
        start = b""
    for endings, starts, what, fix in _OTHER_FORMATS:
        if file.suffix.lower() in endings or start.startswith(starts):
            raise ModelError(f"{file} cannot be read.", got=what, expected="*.safetensors", fix=fix)


def _damaged(file: Path, error: Exception) -> ModelError:
    check_format(file)
    return ModelError(
        f"{file} cannot be read as safetensors.",
        got=str(error).partition("\n")[0],
        expected="a whole *.safetensors file (*.ckpt, *.pt, *.bin and *.gguf are not read)",
        fix="download the file again",
    )
