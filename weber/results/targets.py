"""Where results may go: never over what they are made from, nor over anything but earlier results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weber.errors import ConfigError
from weber.results.files import read_model_facts
from weber.results.runs import MODEL_FOLDER, SUFFIX

MERGED, EXTRACTED, RESIZED, SCALED = "merged", "extracted", "resized", "scaled"
"""Facts of files that can be made again, and so may be replaced."""
FULL = "full"
"""The fact `kind` of a model whose own weights were trained."""
_NO_FOLDERS = {".ckpt", ".pt", ".pth", ".bin", ".txt", ".json", ".gguf", ".toml", ".png"}


def check_model(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a name that a model cannot have, or a target that may not be replaced."""
    if out.suffix in _NO_FOLDERS:
        fix = f"end the name in {SUFFIX}, or give a folder"
        raise ConfigError("A model is a *.safetensors file or a folder.", got=f"--out {out}", fix=fix)
    check_target(out if out.suffix == SUFFIX else out / MODEL_FOLDER, inputs=inputs)


def check_file(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a name that an adapter file cannot have, or a target that may not be replaced."""
    if out.suffix != SUFFIX:
        raise ConfigError("An adapter is one file.", got=f"--out {out}", expected=f"a name ending in {SUFFIX}", fix="correct --out")
    check_target(out, inputs=inputs)


def check_target(path: Path, *, inputs: Sequence[Path]) -> None:
    """Refuse a target that is, holds or lies in what is read, or that holds anything but an earlier result."""
    target = path.absolute().resolve()
    is_folder = path.suffix != SUFFIX
    for one in (place.expanduser().absolute().resolve() for place in inputs):
        if target == one or (one.is_dir() and target.is_relative_to(one)) or (is_folder and one.is_relative_to(target)):
            raise ConfigError("The result would replace what it is made from.", got=f"--out {path}", fix="choose another --out")
    check_replaced(target, key="--out")


def check_replaced(target: Path, *, key: str) -> None:
    """Refuse to write over anything but an earlier result."""
    files = sorted(target.glob(f"*{SUFFIX}")) if target.is_dir() else [target] if target.exists() else []
    if target.exists() and not (files and all(_is_result(file) for file in files)):
        raise ConfigError(
            "The result would replace something that was not trained, merged, extracted, resized or scaled.",
            got=f"{key} {target}",
            fix=f"choose another {key}",
        )


def _is_result(file: Path) -> bool:
    facts = read_model_facts(file)
    return not {MERGED, EXTRACTED, RESIZED, SCALED}.isdisjoint(facts) or facts.get("kind") == FULL


def list_places(*texts: str) -> list[Path]:
    """Those that are on this machine."""
    return [Path(text).expanduser() for text in texts if Path(text).expanduser().exists()]
