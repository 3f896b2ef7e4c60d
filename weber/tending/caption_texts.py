"""The caption files of a folder as texts that can be changed, found by the names of its pictures as training finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.backends.sources import LOCAL
from weber.data.beside import cut_suffix
from weber.data.caption_files import CaptionFiles
from weber.data.captions import LARGEST_BYTES, read_captions
from weber.data.files import Files, sort_files
from weber.data.left_out import leave_out
from weber.errors import DataError

RECORDS = ".weber"
"""Folder for undo files in a folder of pictures: hidden, so that no set has it in it."""


@dataclass(frozen=True)
class CaptionText:
    """A caption file: `text` is None where a picture has none yet. `name` is its own below the folder."""

    file: Path
    name: str
    text: str | None


@dataclass(frozen=True)
class Texts:
    """The caption files of a folder, and those that cannot be changed, as `name: reason`."""

    folder: Path
    files: tuple[CaptionText, ...]
    left: tuple[str, ...]


def find_pictures(folder: Path, *, recursive: bool = True) -> Files:
    """What lies in a folder. Raises DataError for a folder that is not there or has no picture."""
    if not folder.is_dir():
        what = "This is a file, not a folder." if folder.exists() else "There is no such folder."
        raise DataError(what, got=str(folder), expected="a folder of pictures", fix="correct the path")
    files = sort_files(leave_out(LOCAL.list(folder, recursive=recursive), own=()).files, LOCAL)
    if not files.pictures:
        raise DataError(
            "The folder has no pictures.",
            got=f"{folder} with {len(files.captions) + len(files.others)} other files",
            expected="picture files" + ("" if recursive else "; subfolders are not looked into"),
            fix="name the folder that they lie in",
        )
    return files


def read_texts(folder: Path, *, ending: str | None = None, recursive: bool = True) -> Texts:
    """The caption file of each picture: of that ending, or left out of the one that training reads."""
    config = DataConfig(path=folder, caption_endings=[] if ending is None else [ending], recursive=recursive)
    files = find_pictures(folder, recursive=recursive)
    known, found, left, seen = CaptionFiles(config, files), list[CaptionText](), list[str](), set[str]()
    for picture in files.pictures:
        own = known.find(picture)
        name = own.counting if ending is None else own.of_endings[0]
        name = name or cut_suffix(picture) + (ending or ".txt")
        if name in seen:  # two pictures of one stem
            continue
        seen.add(name)
        try:
            found.append(CaptionText(folder / name, name, _read(folder / name)))
        except DataError as error:
            left.append(f"{name}: {error.what}")
    return Texts(folder, tuple(found), tuple(left))


def _read(file: Path) -> str | None:
    if not file.exists():
        return None
    data = LOCAL.read(file)
    if not data.strip():
        return ""
    if len(data) <= LARGEST_BYTES and read_captions(data).is_json:
        raise DataError("it is JSON, not tags")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("caption file is not UTF-8 text") from error
