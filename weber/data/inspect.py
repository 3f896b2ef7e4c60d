"""What opening the files of a set teaches: once for pictures and masks, which the index then knows; captions are read each time."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from weber.config.caption_places import list_items
from weber.config.data import DataConfig
from weber.data.backends.local import LocalBackend
from weber.data.captions import CaptionFile, read_captions, read_keyed_captions
from weber.data.images import encode_content, read_alpha, read_colors
from weber.data.index import FileFacts, Index
from weber.data.levels import Levels, read_levels
from weber.data.loss_masks import find_box
from weber.data.masks import read_white
from weber.data.rows import Row
from weber.errors import DataError
from weber.progress import Progress

_NUM_PER_REPORT = 256


@dataclass(frozen=True)
class Inspected:
    """What the files of a set hold, by path."""

    pictures: Mapping[Path, FileFacts]
    captions: Mapping[Path, CaptionFile]
    references: Mapping[Path, FileFacts]
    masks: Mapping[Path, FileFacts]
    loss_masks: Mapping[Path, FileFacts]


def inspect_files(rows: Sequence[Row], config: DataConfig, *, index: Index, progress: Progress) -> Inspected:
    """Look at every file that the rows name."""

    def read(what: str, paths: Iterable[Path], inspect: Callable[[bytes], FileFacts], kind: str = "") -> dict[Path, FileFacts]:
        distinct = list(dict.fromkeys(paths))
        report = partial(progress, f"{what} of {config.set_name}")
        return dict(zip(distinct, index.read_facts(distinct, inspect, report=report, kind=kind), strict=True)) if distinct else {}

    pictures = read("looking at the pictures", (row.path for row in rows), _inspect_picture)
    captions = [path for row in rows for path in row.texts.list_all()]
    report = partial(progress, f"reading the captions of {config.set_name}")
    return Inspected(
        pictures,
        _read_captions(list(dict.fromkeys(captions)), config, keyed={row.texts.keyed for row in rows}, report=report),
        references=read("looking at the references", (path for row in rows for path in row.references), _inspect_picture),
        masks=read("looking at the masks", (row.mask for row in rows if row.mask is not None), _inspect_mask, "mask "),
        loss_masks=read("looking at the alpha channels", (row.path for row in rows), _inspect_alpha, "alpha ")
        if config.alpha_mask
        else read("looking at the loss masks", (row.loss_mask for row in rows if row.loss_mask), _inspect_loss_mask, "loss mask "),
    )


def _read_captions(
    paths: Sequence[Path], config: DataConfig, *, keyed: Container[Path | None], report: Callable[[int, int], None]
) -> dict[Path, CaptionFile]:
    """Not by the index: a word may change and leave no trace in a file's stat, and to read it is as quick as to ask for that."""
    found: dict[Path, CaptionFile] = {}
    keys = list_items(config.caption_key)

    def read(path: Path) -> CaptionFile:
        try:
            data = LocalBackend().read(path)
            return read_keyed_captions(data, keys) if path in keyed else read_captions(data, config.caption_per)
        except DataError as error:
            return CaptionFile(reason=error.what)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _NUM_PER_REPORT):
            portion = paths[start : start + _NUM_PER_REPORT]
            found |= zip(portion, pool.map(read, portion), strict=True)
            report(len(found), len(paths))
    return found


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
