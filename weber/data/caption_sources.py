"""Which captions a picture has, where there are several places: the first that has one, or by weights those of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from weber.config.caption_places import list_items
from weber.config.data import CaptionSource, DataConfig
from weber.data.captions import CAPTION_SUFFIXES, CaptionFile, read_folder_name
from weber.data.files import find_last
from weber.data.rows import Row
from weber.errors import DataError

_WITHOUT_CAPTION = ("no caption file", "caption file is empty", "caption file has no caption")
"""Kinds of reasons for which another place is asked; any other is to be mended."""


@dataclass(frozen=True)
class Captions:
    """The captions of a picture, how likely each is (no weights: all are as likely), and the file that the first one is from."""

    texts: tuple[str, ...]
    weights: tuple[float, ...] = ()
    file: str | None = None


@dataclass(frozen=True)
class _Place:
    """What one place has; or why it has nothing."""

    texts: tuple[str, ...] = ()
    file: str | None = None
    reason: str = ""


def choose_captions(row: Row, config: DataConfig, *, files: Mapping[str, CaptionFile]) -> Captions:
    """The captions of a picture. `files` are the caption files that were read. DataError with a one-line reason where it has none, and
    for a file that is broken."""
    groups = [_list_places(source, row, config, files) for source in config.caption_sources]
    weights: Sequence[float] = config.caption_weights
    if not weights or len(groups) > 1:  # weights, if any, are those of the sources
        chosen = [next((place for place in places if place.texts), places[0]) for places in groups]
    else:
        [chosen] = groups
    found = _draw_from(chosen, weights) if weights else _take_first(chosen)
    if found.texts:
        return found
    if config.caption_fallback is not None:
        return Captions((config.caption_fallback,))
    raise DataError(chosen[0].reason)


def _take_first(places: Sequence[_Place]) -> Captions:
    found = next((place for place in places if place.texts), _Place())
    return Captions(found.texts, file=found.file)


def _draw_from(places: Sequence[_Place], weights: Sequence[float]) -> Captions:
    """Of all places; what one of them lacks, the others get."""
    pairs = [(place, weight) for place, weight in zip(places, weights, strict=True) if place.texts]
    texts = tuple(text for place, _ in pairs for text in place.texts)
    shares = tuple(weight / len(place.texts) for place, weight in pairs for _ in place.texts)
    return Captions(texts, shares, next((place.file for place, _ in pairs), None))


def _list_places(source: CaptionSource, row: Row, config: DataConfig, files: Mapping[str, CaptionFile]) -> list[_Place]:
    """What each place of a source has for a picture, at least one."""
    match source:
        case "textfile":
            return [_read_file(path, row, files, ending=ending) for path, ending in _list_files(row, config)]
        case "json":
            found = _read_file(row.texts.keyed, row, files, ending=".json")
            if not found.texts:
                return [found] * max(1, len(list_items(config.caption_key)))
            assert found.file is not None
            return [_Place(texts, found.file) for texts in files[found.file].places]
        case "metadata":
            return [_Place(texts, reason=row.lack) for texts in row.captions] or [_Place(reason=row.lack)]
        case "filename":
            return [_Place((row.path.stem.replace("_", " "),))]
        case "foldername":
            return [_Place((read_folder_name(row.path.parent.name),))]
        case "instance":
            prompts = list_items(config.instance_prompt)
            return [_Place((prompt,)) for prompt in prompts] if config.caption_weights else [_Place(tuple(prompts))]
        case "none":
            return [_Place(("",))]


def _list_files(row: Row, config: DataConfig) -> Iterator[tuple[str | None, str]]:
    """A picture's caption files and their endings; without endings of the set's own, the one file that counts."""
    if config.caption_endings:
        yield from zip(row.texts.of_endings, config.caption_endings, strict=True)
    else:
        yield row.texts.counting, CAPTION_SUFFIXES[0]


def _read_file(name: str | None, row: Row, files: Mapping[str, CaptionFile], *, ending: str) -> _Place:
    if name is None:
        return _Place(reason=f"no caption file: {row.path.stem}{ending}")
    found = files[name]
    if not found.reason:
        return _Place(found.captions, name)
    kind, _, detail = found.reason.partition(": ")
    reason = f"{kind}: {find_last(name)}" + (f": {detail}" if detail else "")
    if kind not in _WITHOUT_CAPTION:
        raise DataError(reason)
    return _Place(reason=reason)
