"""A folder of pictures, looked at before anybody is asked about it: how many there are, and what is said of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from weber.data.backends.sources import LOCAL
from weber.data.captions import LARGEST_BYTES, read_captions, read_folder_name
from weber.data.files import sort_files
from weber.data.left_out import leave_out
from weber.errors import DataError

_MOST_READ = 40
_SHORT = 60
"""Characters of a caption that serves as a prompt."""


@dataclass(frozen=True)
class Folder:
    """What lies in a folder: pictures, how many of them have a caption file, and some captions, the most frequent first."""

    path: Path
    num_pictures: int
    num_captions: int
    captions: tuple[str, ...]

    @property
    def word(self) -> str:
        """What its name proposes as a word for what is learned."""
        name = read_folder_name(self.path.expanduser().resolve().name)
        return " ".join(re.findall(r"[^\W_]+", name)).lower() or "thing"

    def describe(self) -> str:
        """In a sentence."""
        pictures = "1 picture" if self.num_pictures == 1 else f"{self.num_pictures} pictures"
        if self.num_captions == self.num_pictures:
            return f"{pictures}, each with a caption beside it" if self.num_pictures > 1 else f"{pictures} with a caption beside it"
        return f"{pictures}, {self.num_captions or 'none'} with a caption beside {'them' if self.num_captions != 1 else 'it'}"


def read_folder(path: Path) -> Folder:
    """Look at a folder; no picture is opened. Raises DataError where there is no folder, or no picture in it."""
    folder = path.expanduser()
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing of that name"
        raise DataError(f"{path} is no folder.", got=got, expected="a folder of pictures", fix="check the name, or make the folder first")
    files = sort_files(leave_out(LOCAL.list(folder, recursive=True), own=()).files, LOCAL)
    if not files.pictures:
        raise DataError(
            f"There is no picture in {path}.",
            got=f"{len(files.captions) + len(files.others) + len(files.unread)} other files",
            expected="JPEG, PNG, WebP and the like",
            fix="put the pictures there, each with its caption in a text file of the same name if you have captions",
        )
    stems = {name.rpartition(".")[0]: name for name in files.captions}
    with_captions = [stem for name in files.pictures if (stem := name.rpartition(".")[0]) in stems]
    found = Counter(text for stem in with_captions[:_MOST_READ] for text in _read(folder / stems[stem]))
    shown = [text for text, _ in found.most_common() if len(text) <= _SHORT] or [text for text, _ in found.most_common(2)]
    return Folder(path, len(files.pictures), len(with_captions), tuple(shown))


def _read(file: Path) -> tuple[str, ...]:
    """The captions of a file; none of one that cannot be read, which the plan will say."""
    try:
        with file.open("rb") as stream:
            return read_captions(stream.read(LARGEST_BYTES + 1)).captions
    except (DataError, OSError):
        return ()
