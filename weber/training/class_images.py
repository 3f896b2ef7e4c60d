"""Pictures of a class, painted by the model as it is, for a set that keeps the model what it is: prior preservation."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from weber.data.backends.sources import LOCAL
from weber.data.files import sort_files
from weber.data.whole import write_whole
from weber.data.words import describe_count
from weber.errors import ConfigError
from weber.sampling.validate import find_free, save_picture
from weber.track.progress import Watcher
from weber.training.paint import Sampler, Wish, check_wish
from weber.training.subject import Subject

_NUM_AT_ONCE = 4
"""A kill loses the work of so many."""


@dataclass(frozen=True)
class ClassImages:
    """How many pictures the folder is to have; those that lie in it count, whoever has painted them. `seed`: of the first."""

    folder: Path
    num: int
    seed: int = 0


def paint_class_images(subject: Subject, wish: Wish, *, images: ClassImages, watcher: Watcher) -> int:
    """Paint the pictures that are missing, each with its prompt as its caption beside it; returns how many those were.

    A picture's seed follows from its number, so a killed call goes on as if it had not been. Raises ConfigError for what cannot be.
    """
    if images.num < 1:
        raise ConfigError("There is nothing to paint.", got=f"--num {images.num}", fix="give 1 or more; 100 to 200 are usual")
    if images.folder.is_file():
        raise ConfigError("Pictures go into a folder.", got=f"{images.folder}, which is a file", fix="name a folder")
    check_wish(replace(wish, seed=images.seed), subject)
    images.folder.mkdir(parents=True, exist_ok=True)
    there = sort_files(LOCAL.list(images.folder.absolute(), recursive=True), LOCAL).pictures
    own = {name for name in there if name in {_name(number) for number in range(images.num)}}
    _mend_captions(images.folder, own, wish.prompts[0])
    num_missing = max(0, images.num - len(there))
    missing = [number for number in range(images.num) if _name(number) not in own][:num_missing]
    if not missing:
        return 0
    watcher.write(f"{describe_count(len(there), 'picture')} in {images.folder}, {len(missing)} to be painted.")
    once = _Once(watcher)
    with closing(Sampler(subject, watcher=once)) as sampler:
        for start in range(0, len(missing), _NUM_AT_ONCE):
            numbers = missing[start : start + _NUM_AT_ONCE]
            pictures = sampler.paint(replace(wish, seeds=[images.seed + number for number in numbers]))
            for number, picture in zip(numbers, pictures, strict=True):
                file = find_free(images.folder / _name(number))
                write_whole(file.with_suffix(".txt"), f"{wish.prompts[0]}\n".encode())
                save_picture(picture, file)
            watcher.report("class images", min(start + _NUM_AT_ONCE, len(missing)), len(missing))
    return len(missing)


def _name(number: int) -> str:
    return f"class-{number:06}.png"


def _mend_captions(folder: Path, names: set[str], prompt: str) -> None:
    """Write the captions of pictures whose caption somebody has deleted."""
    for name in names:
        file = (folder / name).with_suffix(".txt")
        if not file.exists():
            write_whole(file, f"{prompt}\n".encode())


class _Once(Watcher):
    """Says each line once, and nothing of the steps of single pictures."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher.console)
        self._watcher, self._said = watcher, set[str]()

    def write(self, line: str) -> None:
        """See `Watcher.write`."""
        if line not in self._said:
            self._said.add(line)
            self._watcher.write(line)

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `Watcher.report`."""
        if what != "painting":
            self._watcher.report(what, done, total, note)
