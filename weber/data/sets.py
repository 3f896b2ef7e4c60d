"""What can be said about a set before any of its pictures is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from stat import S_ISDIR

from weber.config.data import DataConfig
from weber.data.images import SUFFIXES
from weber.errors import ConfigError, DataError


def check_set(config: DataConfig, position: int, *, alignment_pixels: int) -> None:
    """Raise ConfigError if set number `position` asks for sizes that the model cannot take, DataError if it names no folder."""
    key = f"data.{position}"
    step, edge = config.step_pixels, isqrt(config.area_pixels)
    if step % alignment_pixels:
        raise ConfigError(
            f"{key}.bucket_step = {step} is not a multiple of {alignment_pixels} pixels",
            expected=f"a multiple of {alignment_pixels}, which the model needs",
            fix=f"set {key}.bucket_step = {(step // alignment_pixels + 1) * alignment_pixels}",
        )
    if edge < step:
        lower_step = f", or lower {key}.bucket_step" if step > alignment_pixels else ""
        raise ConfigError(
            f"{key}.resolution = {config.resolution or edge:g} ({config.resolution_type}) is too low for {key}.bucket_step = {step}",
            got=f"pictures of {edge} x {edge} pixels, less than one step of {step}",
            fix=f"raise {key}.resolution{lower_step}",
        )
    try:
        got = "" if S_ISDIR(config.path.stat().st_mode) else "a file"
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        got = str(error)
    if got:
        raise DataError(
            f'{key}.path = "{config.path}" is not a folder',
            got=got,
            expected="a folder of pictures",
            fix=f"set {key}.path to the folder; a relative path starts at {Path.cwd()}",
        )


def check_pictures(config: DataConfig, *, pictures: Sequence[Path], files: Sequence[Path]) -> None:
    """Raise DataError if a set has no picture file among its files."""
    if pictures:
        return
    kinds = Counter(path.suffix.lower() or "no ending" for path in files).most_common(5)
    raise DataError(
        f'the folder "{config.path}" has no pictures',
        got=f"files: {', '.join(f'{num} x {kind}' for kind, num in kinds)}" if kinds else "no files",
        expected=f"files ending in {' '.join(sorted(SUFFIXES))}",
        fix="name the folder that holds the pictures" + ("" if config.recursive else ", or set recursive = true if they lie in subfolders"),
    )
