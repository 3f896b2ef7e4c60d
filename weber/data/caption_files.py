"""The caption files of a folder, found by the names of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.config.toml import write_value
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.files import Files
from weber.data.names import ByName, normalize_name
from weber.data.words import describe_count, describe_some

_JSON = ".json"


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Of one picture: the file that counts where the set has no endings of its own, those of its endings, and the one with names."""

    counting: Path | None = None
    of_endings: tuple[Path | None, ...] = ()
    keyed: Path | None = None

    def list_all(self) -> list[Path]:
        """All that there are."""
        return [path for path in (self.counting, *self.of_endings, self.keyed) if path is not None]


class CaptionFiles:
    """The caption files of a set: those of the usual endings, those of its own endings, and JSON files with captions under names."""

    def __init__(self, config: DataConfig, files: Files) -> None:
        self._config, self._usual = config, files.captions
        sources, every = config.caption_sources, [*files.captions, *files.others]
        has_own = bool(config.caption_endings)
        self._counting = _index(_prefer_first(files.captions)) if "textfile" in sources and not has_own else None
        self._endings = tuple(_index(every, ending) for ending in config.caption_endings)
        self._keyed = _index(every, _JSON) if "json" in sources else None

    def find(self, picture: Path) -> FoundFiles:
        """The files of a picture."""
        stem = picture.with_suffix("").as_posix()
        return FoundFiles(_find(self._counting, stem), tuple(_find(one, stem) for one in self._endings), _find(self._keyed, stem))

    def describe_lone(self, folder: Path, pictures: Sequence[Path]) -> list[str]:
        """A line for caption files that are not read: without a picture, behind another one of that stem, of another ending."""
        read = {path for picture in pictures for path in self.find(picture).list_all()}
        stems = {normalize_name(path.with_suffix("").as_posix()) for path in pictures}
        unread = [path for path in self._usual if path not in read]
        lone = [path for path in unread if normalize_name(path.with_suffix("").as_posix()) not in stems]
        endings = self._config.caption_endings
        behind = f"not read beside one that ends in {CAPTION_SUFFIXES[0]}"
        if endings:
            behind = f"not read, as its ending is none of caption_endings = {write_value(endings)}"
        lines = []
        for paths, what in ((lone, "without a picture of that name"), ([path for path in unread if path not in lone], behind)):
            if paths:
                names = describe_some([path.relative_to(folder).as_posix() for path in paths])
                lines.append(f"{self._config.set_name}: {describe_count(len(paths), 'caption file')} {what}: {names}")
        return lines


def _prefer_first(captions: Sequence[Path]) -> list[Path]:
    """Caption files in the order in which one is taken before another of the same stem."""
    return sorted(captions, key=lambda path: CAPTION_SUFFIXES.index(path.suffix.lower()))


def _index(paths: Iterable[Path], ending: str | None = None) -> ByName[Path]:
    """The files by what is before their ending, or of one ending alone."""
    if ending is None:
        return ByName((path.with_suffix("").as_posix(), path) for path in paths)
    return ByName((path.as_posix()[: -len(ending)], path) for path in paths if path.name.lower().endswith(ending.lower()))


def _find(known: ByName[Path] | None, stem: str) -> Path | None:
    return None if known is None else next(iter(known.find(stem)), None)
