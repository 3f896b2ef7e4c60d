"""Quantized weights on disk, named by what they are made from: the second start reads in seconds what the first one has packed.

A file holds the packed layers alone, as `<layer>.<tensor>`, and at its end a crc32 of each tensor. Everything else comes from the model.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from weber.errors import CacheError, ModelError
from weber.families.tensors import Entry, Weights, is_abandoned, open_weights, save_weights
from weber.memory.formats import FORMATS
from weber.progress import Progress

KEPT_VERSION = 1
"""Raised when a format stores something else under the same name, so that old files are no longer found."""

FOLDER = "models"
"""Subfolder of `output.cache`."""

_CHECKSUMS = "checksums"
_ENDING, _DAMAGED, _TEMPORARY = ".safetensors", ".damaged", ".tmp"
_SPARE_BYTES = 2**28


class DamagedKeptError(Exception):
    """A kept file whose bytes are not those that were written."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file.name} was damaged: {reason}")
        self.file = file


def build_kept_key(identity: str, formats: Mapping[str, str], *, dtype: torch.dtype) -> str:
    """32 hex digits: of the weights' identity, the format of each packed layer, and the precision that they were packed from."""
    facts = {"formats": dict(formats), "dtype": str(dtype), "identity": identity, "version": KEPT_VERSION}
    return blake2b(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode(), digest_size=16).hexdigest()


def build_packed_weights(weights: Weights, formats: Mapping[str, str], *, device: torch.device) -> dict[str, Entry]:
    """The packed tensors of the layers in `formats`, in the order of `weights`, which have `<layer>.weight`.

    A layer is packed on `device` when the first of its tensors is read; the tensors of one layer are held at a time, until each was read.
    """
    packed: dict[str, Entry] = {}
    held: dict[str, dict[str, Tensor]] = {}
    for name, entry in weights.items():
        layer = name.removesuffix(".weight")
        if layer in formats and layer != name:
            for leaf, (shape, dtype) in FORMATS[formats[layer]].packed_shapes(entry.shape[0], entry.shape[1]).items():
                read = partial(_read_packed, held, layer, leaf, entry, formats[layer], device)
                packed[f"{layer}.{leaf}"] = Entry(shape, dtype, read)
    return packed


def load_kept(file: Path, packed: Weights, *, progress: Progress) -> Weights:
    """The same tensors from the file, which is written first where it is missing. Raises CacheError where it cannot be.

    Raises DamagedKeptError, as reading any of them may, where the file is not as it was written.
    """
    if not file.is_file():
        _check_space(file, packed)
        _write(file, packed, lambda _, done, total: progress("quantizing the model", done, total))
    return _open(file, packed)


def set_aside(damage: DamagedKeptError) -> None:
    """Rename a damaged file, so that it is written anew."""
    with suppress(FileNotFoundError):  # collected meanwhile by another process
        damage.file.replace(damage.file.with_name(damage.file.name + _DAMAGED))


def build_disk_error(damage: DamagedKeptError) -> CacheError:
    """What is to be said of a file that is damaged right after it was written."""
    return CacheError(
        f"The quantized model in {damage.file.parent} is not read as it was written.",
        got=str(damage),
        fix="check the disk, set output.cache to a folder on another one, or set memory.keep_quantized = false",
    )


def find_kept(cache: Path, key: str) -> Path:
    """Where a model of that key is kept, or would be."""
    return cache / FOLDER / f"{key}{_ENDING}"


def list_kept(cache: Path) -> dict[str, Path]:
    """The kept models of a cache folder, by key."""
    return {file.name.removesuffix(_ENDING): file for file in sorted((cache / FOLDER).glob(f"*{_ENDING}"))}


def collect_kept(cache: Path, keep: Set[str], *, is_dry: bool = False) -> tuple[int, int]:
    """Delete kept models whose keys are not in `keep`, damaged ones, and what killed processes left; returns their number and bytes.

    `is_dry`: delete nothing.
    """
    folder = cache / FOLDER
    unneeded = [file for key, file in list_kept(cache).items() if key not in keep]
    unneeded += [*folder.glob(f"*{_DAMAGED}"), *_list_stale(folder)]
    num_bytes = sum(file.stat().st_size for file in unneeded)
    for file in [] if is_dry else unneeded:
        file.unlink()
    return len(unneeded), num_bytes


def _read_packed(
    held: dict[str, dict[str, Tensor]], layer: str, leaf: str, weight: Entry, form: str, device: torch.device
) -> Tensor:
    if leaf not in held.get(layer, {}):
        held.clear()
        held[layer] = FORMATS[form].pack(weight.read().to(device))
    tensor = held[layer].pop(leaf)
    return tensor.contiguous()


def _open(file: Path, packed: Weights) -> Weights:
    try:
        weights = open_weights([file])
        checksums = weights.get(_CHECKSUMS)
        sums = None if checksums is None else checksums.read()
    except ModelError as error:
        raise DamagedKeptError(file, error.got) from error
    if sums is None or sums.shape != (len(packed),):
        raise DamagedKeptError(file, "its checksums are missing")
    for name, entry in packed.items():
        if name not in weights or (weights[name].shape, weights[name].dtype) != (entry.shape, entry.dtype):
            raise DamagedKeptError(file, f"{name} is missing or has another shape")
    return {
        name: replace(weights[name], read=partial(_read_checked, file, name, weights[name], checksum))
        for name, checksum in zip(packed, sums.tolist(), strict=True)
    }


def _read_checked(file: Path, name: str, entry: Entry, checksum: int) -> Tensor:
    try:
        tensor = entry.read()
    except ModelError as error:
        raise DamagedKeptError(file, error.got) from error
    if _compute_checksum(tensor) != checksum:
        raise DamagedKeptError(file, f"the bytes of {name} do not match their checksum")
    return tensor


def _write(file: Path, packed: Weights, progress: Progress) -> None:
    for leftover in _list_stale(file.parent):
        leftover.unlink(missing_ok=True)
    sums: list[int] = []

    def read(entry: Entry) -> Tensor:
        tensor = entry.read().cpu()
        sums.append(_compute_checksum(tensor))
        return tensor

    weights = {name: replace(entry, read=partial(read, entry)) for name, entry in packed.items()}
    # Read last, when all the others have been written.
    weights[_CHECKSUMS] = Entry((len(packed),), torch.int64, lambda: torch.tensor(sums, dtype=torch.int64))
    try:
        save_weights(file, weights, metadata={}, progress=progress)
    except OSError as error:
        raise _build_error(file, error.strerror or str(error)) from error


def _compute_checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.view(-1).view(torch.uint8).numpy().data)


def _check_space(file: Path, packed: Weights) -> None:
    folder = next(folder for folder in file.absolute().parents if folder.is_dir())
    needed, free = sum(entry.num_bytes for entry in packed.values()) + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise _build_error(file, f"{needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free in {folder}")


def _build_error(file: Path, got: str) -> CacheError:
    return CacheError(
        f"The quantized model cannot be kept in {file.parent}.",
        got=got,
        fix="free space on that disk (`weber cache gc` deletes what no run needs), set output.cache to a folder on a larger one, or set"
        " memory.keep_quantized = false, which quantizes the model at every start",
    )


def _list_stale(folder: Path) -> list[Path]:
    return [file for file in folder.glob(f".*{_ENDING}.*{_TEMPORARY}") if is_abandoned(file)]
