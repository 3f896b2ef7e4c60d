"""The captions of a picture: from a file beside it, its own name, or the set."""

from __future__ import annotations

from pathlib import Path

from weber.config.data import DataConfig
from weber.errors import DataError

CAPTION_SUFFIX = ".txt"


def read_captions(data: bytes) -> tuple[str, ...]:
    """Captions in a caption file's bytes: UTF-8, one per line that is not empty. Raises DataError with a one-line reason."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("caption file is not UTF-8 text") from error
    if "\0" in text:
        raise DataError("caption file is not UTF-8 text")
    # str.splitlines would also cut at characters that stand inside captions, such as U+0085 and U+2028
    lines = tuple(line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip())
    if not lines:
        raise DataError("caption file is empty")
    return lines


def build_captions(picture: Path, config: DataConfig) -> tuple[str, ...]:
    """Captions of a picture that need no file beside it (`captions` other than `textfile`); at each use one is drawn."""
    if config.captions == "filename":
        return (picture.stem.replace("_", " "),)
    if config.instance_prompt is not None:
        return (config.instance_prompt,) if isinstance(config.instance_prompt, str) else tuple(config.instance_prompt)
    return ("",)
