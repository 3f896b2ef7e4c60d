"""From a folder of pictures to text files beside them: what is there is not made again, and a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from weber.captioners.wish import Describe
from weber.data.backends.sources import LOCAL
from weber.data.beside import cut_suffix
from weber.data.images import read_image
from weber.data.whole import write_whole
from weber.data.words import describe_some
from weber.errors import ConfigError, DataError, MissingExtraError
from weber.progress import Progress
from weber.tending.caption_texts import RECORDS, find_pictures

Join = Callable[[str, str], str]
"""From the text of a file and a new one to what the file shall say."""


@dataclass(frozen=True)
class Job:
    """Where texts go. `ending`: of the files; `overwrites` those that are there, or with `join` adds to them; else they are left alone.
    `what`: all that makes the texts what they are, so that a killed run that changes files goes on only as itself."""

    folder: Path
    ending: str
    what: str
    batch_size: int = 1
    prefix: str = ""
    suffix: str = ""
    recursive: bool = True
    overwrites: bool = False
    join: Join | None = None

    @property
    def changes(self) -> bool:
        """Are files changed that are there?"""
        return self.overwrites or self.join is not None


@dataclass(frozen=True)
class Outcome:
    """How many files are written, how many were there, and why pictures have none."""

    num_written: int
    num_there: int
    left: tuple[str, ...]


def check_job(job: Job) -> None:
    """Refuse what cannot be. Raises ConfigError."""
    if not job.ending.startswith(".") or "/" in job.ending or len(job.ending) < 2:
        raise ConfigError(
            "An ending begins with a dot.", got=f"--ending {job.ending!r}", expected="such as .txt or .caption", fix="write it so"
        )
    if job.batch_size < 1:
        raise ConfigError("A batch has at least one picture.", got=f"--batch {job.batch_size}", fix="write 1 or more")
    if job.overwrites and job.join is not None:
        raise ConfigError("Files are written over, or added to.", got="--overwrite --append", expected="one of both", fix="remove one")


def write_texts(job: Job, build: Callable[[], Describe], *, progress: Progress) -> Outcome:
    """Write what is missing. `build` makes the model, which is done only if there is something to look at. Raises DataError for a folder
    that has no pictures or cannot be written to, and what `build` raises."""
    check_job(job)
    files = find_pictures(job.folder, recursive=job.recursive)
    targets = _choose_targets(files.pictures, job)
    journal = _Journal(job)
    missing = [name for name, target in targets.items() if not ((target.exists() and not job.changes) or name in journal.done)]
    left = [f"{name}: {reason}" for name, reason in files.unread.items()]
    written, describe = 0, None
    for number, (names, images) in enumerate(_read_batches(job, missing, left), 1):
        describe = describe or build()
        for name, text in zip(names, describe(images), strict=True):
            if _write(job, targets[name], text):
                journal.add(name)
                written += 1
            else:
                left.append(f"{name}: the model says nothing")
        progress("writing texts", min(number * job.batch_size, len(missing)), len(missing))
    journal.close()
    return Outcome(written, len(targets) - len(missing), tuple(left))


def _choose_targets(names: Sequence[str], job: Job) -> dict[str, Path]:
    targets, owners = dict[str, Path](), dict[Path, str]()
    for name in names:
        target = job.folder / (cut_suffix(name) + job.ending)
        if target in owners:
            raise ConfigError(
                "Two pictures would share one text file.",
                got=describe_some([owners[target], name]),
                expected="names that differ before their endings",
                fix="rename one of them",
            )
        owners[target], targets[name] = name, target
    return targets


def _read_batches(job: Job, names: Sequence[str], left: list[str]) -> Iterator[tuple[list[str], list[Image.Image]]]:
    """Pictures, so many at once; what cannot be read is `left`."""
    found, images = list[str](), list[Image.Image]()
    for name in names:
        try:
            image = read_image(LOCAL.read(job.folder / name))
        except (DataError, MissingExtraError) as error:
            left.append(f"{name}: {error.what}")
            continue
        found.append(name)
        images.append(image)
        if len(images) == job.batch_size:
            yield found, images
            found, images = [], []
    if images:
        yield found, images


def _write(job: Job, target: Path, text: str) -> bool:
    text = " ".join(text.split())
    if not text:
        return False
    text = f"{job.prefix}{text}{job.suffix}"
    if job.join is not None and target.exists():
        text = job.join(_read_text(target), text)
    write_whole(target, f"{text}\n".encode())
    return True


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            "A text file cannot be added to.", got=f"{file}: {error}", expected="UTF-8", fix="save it again, or write --overwrite"
        ) from error


class _Journal:
    """Which pictures a run has done that changes files; gone when it is through. Of other runs the files themselves say it."""

    def __init__(self, job: Job) -> None:
        name = blake2b(repr((job.what, job.ending, job.prefix, job.suffix)).encode(), digest_size=6).hexdigest()
        self._file, self._is_kept = job.folder / RECORDS / f"texts-{name}.jsonl", job.changes
        self.done = set(self._read()) if job.changes else set[str]()

    def add(self, name: str) -> None:
        """Another one is done."""
        if self._is_kept:
            self._file.parent.mkdir(exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(name))  # a line of its own, also behind one that was cut off

    def close(self) -> None:
        """All are done."""
        if self._is_kept:
            self._file.unlink(missing_ok=True)
            with suppress(OSError):  # where undo files are
                self._file.parent.rmdir()

    def _read(self) -> list[str]:
        if not self._file.exists():
            return []
        done: list[str] = []
        for line in self._file.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):  # the end, or what a kill has cut off
                done.append(json.loads(line))
        return done
