"""The caption files of a folder, found by the names of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weber.config.data import DataConfig
from weber.config.toml import write_value
from weber.data.beside import cut_suffix
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.files import Files, find_suffix
from weber.data.names import ByName, normalize_name
from weber.data.words import describe_count, describe_some

_JSON = ".json"


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Of one picture: the file that counts where the set has no endings of its own, those of its endings, and the one with names."""

    counting: str | None = None
    of_endings: tuple[str | None, ...] = ()
    keyed: str | None = None

    def list_all(self) -> list[str]:
        """All that there are."""
        return [name for name in (self.counting, *self.of_endings, self.keyed) if name is not None]


def list_caption_files(config: DataConfig, files: Files) -> list[str]:
    """The files of a set that may be read for captions."""
    endings, sources = tuple(one.lower() for one in config.caption_endings), config.caption_sources
    usual = files.captions if "textfile" in sources and not endings else []
    if "json" in sources:
        endings = (*endings, _JSON)
    own = [name for name in (*files.captions, *files.others) if name.lower().endswith(endings)] if endings else []
    return list(dict.fromkeys([*usual, *own]))


class CaptionFiles:
    """The caption files of a set: those of the usual endings, those of its own endings, and JSON files with captions under names."""

    def __init__(self, config: DataConfig, files: Files) -> None:
        self._config, self._usual = config, files.captions
        sources, every = config.caption_sources, [*files.captions, *files.others]
        has_own = bool(config.caption_endings)
        self._counting = _index(_prefer_first(files.captions)) if "textfile" in sources and not has_own else None
        self._endings = tuple(_index(every, ending) for ending in config.caption_endings)
        self._keyed = _index(every, _JSON) if "json" in sources else None

    def find(self, picture: str) -> FoundFiles:
        """The files of a picture of that name below the folder."""
        stem = cut_suffix(picture)
        return FoundFiles(_find(self._counting, stem), tuple(_find(one, stem) for one in self._endings), _find(self._keyed, stem))

    def describe_lone(self, pictures: Sequence[str], *, read: Iterable[str]) -> list[str]:
        """A line for caption files that are not `read`: without a picture, behind another one of that stem, of another ending."""
        taken, stems = set(read), {normalize_name(cut_suffix(name)) for name in pictures}
        unread = [name for name in self._usual if name not in taken]
        lone = [name for name in unread if normalize_name(cut_suffix(name)) not in stems]
        others = set(unread).difference(lone)
        endings = self._config.caption_endings
        behind = f"not read beside one that ends in {CAPTION_SUFFIXES[0]}"
        if endings:
            behind = f"not read, as its ending is none of caption_endings = {write_value(endings)}"
        lines = []
        for names, what in ((lone, "without a picture of that name"), ([name for name in unread if name in others], behind)):
            if names:
                lines.append(f"{self._config.set_name}: {describe_count(len(names), 'caption file')} {what}: {describe_some(names)}")
        return lines


def _prefer_first(captions: Sequence[str]) -> list[str]:
    """Caption files in the order in which one is taken before another of the same stem."""
    return sorted(captions, key=lambda name: CAPTION_SUFFIXES.index(find_suffix(name)))


def _index(names: Iterable[str], ending: str | None = None) -> ByName[str]:
    """The files by what is before their ending, or of one ending alone."""
    if ending is None:
        return ByName((cut_suffix(name), name) for name in names)
    return ByName((name[: -len(ending)], name) for name in names if name.lower().endswith(ending.lower()))


def _find(known: ByName[str] | None, stem: str) -> str | None:
    return None if known is None else next(iter(known.find(stem)), None)
