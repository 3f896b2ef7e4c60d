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
from weber.tending.undo import Row, build_row, is_untouched, write_record

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
    """How many files are written, how many were there, why pictures have none, and what gives files back what they held."""

    num_written: int
    num_there: int
    left: tuple[str, ...]
    record: Path | None = None


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
            if not (whole := _build_text(job, targets[name], text)):
                left.append(f"{name}: the model says nothing")
                continue
            journal.add(name, targets[name], text=whole)
            write_whole(targets[name], whole.encode())
            written += 1
        progress("writing texts", min(number * job.batch_size, len(missing)), len(missing))
    return Outcome(written, len(targets) - len(missing), tuple(left), journal.close())


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


def _build_text(job: Job, target: Path, text: str) -> str:
    """What a file shall hold; empty where the model has said nothing."""
    text = " ".join(text.split())
    if not text:
        return ""
    text = f"{job.prefix}{text}{job.suffix}"
    if job.join is not None and target.exists():
        text = job.join(_read_text(target), text)
    return f"{text}\n"


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            "A text file cannot be added to.", got=f"{file}: {error}", expected="UTF-8", fix="save it again, or write --overwrite"
        ) from error


class _Journal:
    """What a run that changes files has done, and what they held: written before each file is. In the end that is what `weber data undo`
    takes. Of other runs the files themselves say what is done."""

    def __init__(self, job: Job) -> None:
        name = blake2b(repr((job.what, job.ending, job.prefix, job.suffix)).encode(), digest_size=6).hexdigest()
        self._file, self._is_kept = job.folder / RECORDS / f"texts-{name}.jsonl", job.changes
        self._rows = dict(self._read()) if job.changes else dict[str, Row]()
        self.done = {name for name, row in self._rows.items() if not is_untouched(row)}

    def add(self, name: str, target: Path, *, text: str) -> None:
        """The file of another picture will hold that."""
        if self._is_kept and name not in self.done:
            self._rows[name] = build_row(target, text)
            self._file.parent.mkdir(exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps([name, self._rows[name]]))  # a line of its own, also behind one that was cut off

    def close(self) -> Path | None:
        """All are done; the file that undoes it, if anything was changed."""
        record = None
        if any(row["before"] is not None for row in self._rows.values()):
            record = write_record(self._file.parent, list(self._rows.values()))
        if self._is_kept:
            self._file.unlink(missing_ok=True)
            with suppress(OSError):  # where undo files are
                self._file.parent.rmdir()
        return record

    def _read(self) -> Iterator[tuple[str, Row]]:
        if not self._file.exists():
            return
        for line in self._file.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):  # the end, or what a kill has cut off
                name, row = json.loads(line)
                yield name, row
