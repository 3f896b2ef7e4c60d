"""What opening the files of a set teaches: once for pictures and masks, which the index then knows; captions are read each time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from weber.config.caption_places import list_items
from weber.config.data import DataConfig
from weber.config.elsewhere import find_scheme
from weber.data.backends.backend import Backend
from weber.data.backends.sources import CAPTIONS, Sources
from weber.data.backends.tars import ENDING
from weber.data.caption_files import list_caption_files
from weber.data.captions import CaptionFile, read_captions, read_keyed_captions
from weber.data.faces import inspect_face
from weber.data.found import Found
from weber.data.images import encode_content, read_alpha, read_colors
from weber.data.index import FileFacts, Index
from weber.data.levels import Levels, read_levels
from weber.data.loss_masks import find_box
from weber.data.masks import read_white
from weber.data.remembered import Remembered
from weber.data.rows import Row
from weber.errors import DataError
from weber.progress import Progress

_NUM_PER_REPORT = 256
_NUM_THREADS, _NUM_FAR_NAMES = 32, 8  # of files elsewhere, where each answer takes its time


@dataclass(frozen=True)
class Inspected:
    """What the files of a set hold: by path, captions by the names of their files."""

    pictures: Mapping[Path, FileFacts]
    captions: Mapping[str, CaptionFile]
    references: Mapping[Path, FileFacts]
    masks: Mapping[Path, FileFacts]
    loss_masks: Mapping[Path, FileFacts]
    faces: Mapping[Path, FileFacts] = field(default_factory=dict)


def inspect_files(
    rows: Sequence[Row], found: Found, *, config: DataConfig, captions: Mapping[str, bytes | DataError], index: Index, progress: Progress
) -> Inspected:
    """Look at every file that the rows name; `captions` were read."""
    stats = {f"{one.folder}{os.sep}{name}": stat for one in found.listings for name, stat in zip(one.names, one.stats, strict=True)}

    def read(what: str, paths: Iterable[Path], inspect: Callable[[bytes], FileFacts], kind: str = "") -> dict[Path, FileFacts]:
        distinct = list(dict.fromkeys(paths))
        report = partial(progress, f"{what} of {config.set_name}")
        facts = index.read_facts(distinct, inspect, report=report, kind=kind, stats=stats) if distinct else []
        return dict(zip(distinct, facts, strict=True))

    named = dict.fromkeys(name for row in rows for name in row.texts.list_all())
    keyed = {row.texts.keyed for row in rows}
    return Inspected(
        read("looking at the pictures", (row.path for row in rows), _inspect_picture),
        {name: _read_caption(captions[name], config, is_keyed=name in keyed) for name in named},
        references=read("looking at the references", (path for row in rows for path in row.references), _inspect_picture),
        masks=read("looking at the masks", (row.mask for row in rows if row.mask is not None), _inspect_mask, "mask "),
        loss_masks=read("looking at the alpha channels", (row.path for row in rows), _inspect_alpha, "alpha ")
        if config.alpha_mask
        else read("looking at the loss masks", (row.loss_mask for row in rows if row.loss_mask), _inspect_loss_mask, "loss mask "),
        faces=read("looking for faces in the pictures", (row.path for row in rows), inspect_face, "face ") if config.crop == "face" else {},
    )


def read_caption_files(found: Found, files: Sources, *, config: DataConfig, progress: Progress) -> dict[str, bytes | DataError]:
    """What the caption files of a set hold, by name; nothing where captions come from elsewhere.

    All are read each time: a word may change and leave no trace in a file's stat, and to read it is as quick as to ask for that. Those
    in archives and elsewhere are remembered.
    """
    names = list_caption_files(config, found.files)
    read = partial(_read_texts, found, files, config=config, progress=progress)
    is_far = find_scheme(found.folder) or files.is_archived(found.folder)
    far = [name for name in names if is_far or f"{ENDING}/" in name.lower()]
    if not far:
        return read(names)
    stats = dict(zip(found.home.names, found.home.stats, strict=True))
    known = Remembered(found.folder, files.folder / CAPTIONS).read_all({name: stats[name] for name in far}, read)
    texts = known | read([name for name in names if name not in known])
    return {name: texts[name] for name in names}


def _read_texts(
    found: Found, files: Sources, names: Sequence[str], *, config: DataConfig, progress: Progress
) -> dict[str, bytes | DataError]:
    read: dict[str, bytes | DataError] = {}
    # on this machine more threads than cores take longer: they wait for Python's lock
    num_threads, num_names = (_NUM_THREADS, _NUM_FAR_NAMES) if find_scheme(found.folder) else (os.cpu_count(), _NUM_PER_REPORT)
    with ThreadPoolExecutor(num_threads) as pool:
        portions = [names[start : start + num_names] for start in range(0, len(names), num_names)]
        for portion, texts in zip(portions, pool.map(partial(_read_all, found.folder, files), portions), strict=True):
            read |= zip(portion, texts, strict=True)
            progress(f"reading the captions of {config.set_name}", len(read), len(names))
    return read


def _read_all(folder: Path, files: Backend, names: Sequence[str]) -> list[bytes | DataError]:
    read: list[bytes | DataError] = []
    for name in names:
        try:
            read.append(files.read(folder / name))
        except DataError as error:
            read.append(error)
    return read


def _read_caption(data: bytes | DataError, config: DataConfig, *, is_keyed: bool) -> CaptionFile:
    try:
        if isinstance(data, DataError):
            raise data
        return read_keyed_captions(data, list_items(config.caption_key)) if is_keyed else read_captions(data, config.caption_per)
    except DataError as error:
        return CaptionFile(reason=error.what)


def _inspect_picture(data: bytes) -> FileFacts:
    colors = read_colors(data)
    width, height = colors.image.size
    return FileFacts(encode_content(data), width, height, form=colors.done, problem=colors.problem)


def _inspect_mask(data: bytes) -> FileFacts:
    """Its text is the box of all that is white."""
    white = read_white(data)
    return _describe(data, white, text=" ".join(map(str, white.image.getbbox() or ())))


def _inspect_alpha(data: bytes) -> FileFacts:
    alpha = read_alpha(data)
    return FileFacts(encode_content(data), text="whole") if alpha is None else _describe_loss_mask(data, Levels(alpha))


def _inspect_loss_mask(data: bytes) -> FileFacts:
    return _describe_loss_mask(data, read_levels(data))


def _describe_loss_mask(data: bytes, levels: Levels) -> FileFacts:
    """Its text is the box of all that is not black, or "whole" where it is white everywhere."""
    box = find_box(levels.image)
    return _describe(data, levels, text="whole" if box is None else " ".join(map(str, box)))


def _describe(data: bytes, levels: Levels, *, text: str) -> FileFacts:
    width, height = levels.image.size
    return FileFacts(encode_content(data), width, height, text=text, form=levels.form, share=levels.share)
