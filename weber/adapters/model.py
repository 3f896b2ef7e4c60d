"""A whole transformer as files: in the library's layout, or in one file with the makers' names. One tensor in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from weber.errors import AdapterError
from weber.families.pairing import Pairing, build_original_weights
from weber.families.tensors import Entry, Weights, save_weights
from weber.progress import Progress, ignore_progress

SHARD_BYTES = 10 * 10**9
"""As the library's `save_pretrained` does it."""
_STEM = "diffusion_pytorch_model"


def save_model_folder(
    folder: Path,
    weights: Weights,
    *,
    config: Mapping[str, object],
    metadata: Mapping[str, str],
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = ignore_progress,
) -> None:
    """Write a folder that the library's `from_pretrained` reads, whole or not at all: config.json, and one or several shards.

    It replaces an earlier one. Raises AdapterError where the folder holds anything else.
    """
    check_folder(folder)
    shards = _split(weights, shard_bytes)
    names = [f"{_STEM}-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [f"{_STEM}.safetensors"]
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, shard in zip(names, shards, strict=True):
            save_weights(temporary / name, shard, metadata=metadata, progress=progress)
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": sum(entry.num_bytes for entry in weights.values())},
                "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
            }
            _write_json(temporary / f"{_STEM}.safetensors.index.json", index)
        _write_json(temporary / "config.json", config)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_model_file(
    path: Path,
    weights: Weights,
    *,
    pairings: Sequence[Pairing],
    config: Mapping[str, object],
    metadata: Mapping[str, str],
    progress: Progress = ignore_progress,
) -> None:
    """Write one file with the makers' names; the library's configuration is in its header as `weber_config`."""
    originals = build_original_weights(weights, pairings)
    save_weights(path, originals, metadata={**metadata, "weber_config": json.dumps(config, sort_keys=True)}, progress=progress)


def check_folder(folder: Path) -> None:
    """Raise AdapterError where something else than such a folder would be replaced."""
    others = [file.name for file in folder.iterdir() if not file.name.startswith((_STEM, "config.json"))] if folder.is_dir() else []
    if others or folder.is_file():
        raise AdapterError(
            "The model would replace other files.", got=f"{folder} with {', '.join(others[:3])}", fix="choose another name, or remove them"
        )


def _split(weights: Weights, shard_bytes: int) -> list[dict[str, Entry]]:
    """Shards of at most that size, in order; a larger tensor has its own."""
    shards: list[dict[str, Entry]] = [{}]
    size = 0
    for name, entry in weights.items():
        if size and size + entry.num_bytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = entry
        size += entry.num_bytes
    return shards


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
