"""From the sets of a config to examples: pictures with their crops and captions, and what was set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weber.config.data import DataConfig
from weber.data.backends.local import LocalBackend
from weber.data.buckets import Bucket, build_bucket, check_size
from weber.data.captions import CAPTION_SUFFIX, build_captions, read_captions
from weber.data.crops import Crop, build_crops
from weber.data.images import SUFFIXES, encode_content, read_image
from weber.data.index import FileFacts, Index
from weber.data.sets import check_pictures, check_set
from weber.errors import DataError
from weber.progress import Progress

_DEFAULT_NUM_CROPS = 4
_NUM_SHOWN = 3  # pictures named per reason in an error


@dataclass(frozen=True, slots=True)
class Example:
    """One usable picture. `content` names its bytes; `width` and `height` are those of the upright picture, before any crop."""

    set_name: str
    path: Path
    content: str
    width: int
    height: int
    bucket: Bucket
    crops: tuple[Crop, ...]
    captions: tuple[str, ...]
    repeats: int

    @property
    def upscaled(self) -> bool:
        """Is the picture enlarged?"""
        return self.crops[0].resize_width > self.width or self.crops[0].resize_height > self.height

    @property
    def cut_fraction(self) -> float:
        """Share of the picture's pixels that a crop cuts away."""
        crop = self.crops[0]
        return 1 - crop.width * crop.height / (crop.resize_width * crop.resize_height)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A picture that cannot be used. The reason is one line: a kind, often with `: details`."""

    set_name: str
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """All pictures of all sets, in the order of the sets and then of their paths below the set's folder."""

    examples: tuple[Example, ...]
    set_aside: tuple[SetAside, ...]
    num_opened: int
    """Picture and caption files that the index did not know as they are, and that had to be opened."""


def build_dataset(sets: Sequence[DataConfig], *, alignment_pixels: int, index_path: Path, seed: int, progress: Progress) -> Dataset:
    """Look at every picture of every set. Only new and changed files are opened; `index_path` remembers the others.

    Raises ConfigError for sizes that cannot be; DataError for a folder that cannot be read, has no picture, or has no usable one.
    """
    for position, config in enumerate(sets):
        check_set(config, position, alignment_pixels=alignment_pixels)
    index = Index(index_path, backend=LocalBackend())
    examples: list[Example] = []
    set_aside: list[SetAside] = []
    for config in sets:
        used, refused = _read_set(config, index, seed, progress)
        if not used:
            raise _explain_nothing_left(config, refused)
        examples += used
        set_aside += refused
    return Dataset(tuple(examples), tuple(set_aside), index.num_opened)


def read_pixels(example: Example, crop: Crop) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of one crop of an example. Raises DataError if the file is no longer the one that was looked at."""
    try:
        data = LocalBackend().read(example.path)
    except DataError as error:
        raise DataError(f'the picture "{example.path}" can no longer be read', got=error.what, fix="start again") from error
    if encode_content(data) != example.content:
        raise DataError(f'the picture "{example.path}" was changed while the run was starting', fix="start again; it is then read anew")
    resized = read_image(data).resize((crop.resize_width, crop.resize_height), Image.Resampling.LANCZOS)
    return np.array(resized.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)))


def list_reasons(set_aside: Iterable[SetAside]) -> list[tuple[str, list[SetAside]]]:
    """Pictures set aside by kind of reason, the most frequent kind first."""
    kinds: dict[str, list[SetAside]] = {}
    for item in set_aside:
        kinds.setdefault(item.reason.partition(":")[0], []).append(item)
    return sorted(kinds.items(), key=lambda kind: -len(kind[1]))


def _read_set(config: DataConfig, index: Index, seed: int, progress: Progress) -> tuple[list[Example], list[SetAside]]:
    name = _name(config)
    files = LocalBackend().list(config.path.absolute(), recursive=config.recursive)
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    check_pictures(config, pictures=found, files=files)
    pictures = [path for path in found if _spell(path) == path]
    examples: list[Example] = []
    set_aside = [SetAside(name, _spell(path), "file name is not text: rename the file") for path in found if _spell(path) != path]
    facts = index.read_facts(pictures, _inspect_picture, report=partial(progress, f"looking at the pictures of {name}"))
    captions: Mapping[Path, FileFacts] = {}
    if config.captions == "textfile":
        captions = _read_caption_files(files, pictures, index, report=partial(progress, f"reading the captions of {name}"))
    for path, picture in zip(pictures, facts, strict=True):
        try:
            examples.append(_build_example(path, picture, captions, config, seed))
        except DataError as error:
            set_aside.append(SetAside(name, path, error.what))
    return examples, set_aside


def _spell(path: Path) -> Path:
    """The path with ? for what is not Unicode, as in names from old archives; those cannot be printed, indexed or read as a caption."""
    return Path(str(path).encode(errors="replace").decode())


def _read_caption_files(
    files: Sequence[Path], pictures: Sequence[Path], index: Index, *, report: Callable[[int, int], None]
) -> dict[Path, FileFacts]:
    """Facts of the caption files beside the pictures, by path without suffix."""
    stems = {path.with_suffix("") for path in pictures}
    beside = {path.with_suffix(""): path for path in files if path.suffix.lower() == CAPTION_SUFFIX and path.with_suffix("") in stems}
    facts = index.read_facts(list(beside.values()), _inspect_captions, report=report)
    return dict(zip(beside, facts, strict=True))


def _inspect_picture(data: bytes) -> FileFacts:
    image = read_image(data)
    return FileFacts(content=encode_content(data), width=image.width, height=image.height)


def _inspect_captions(data: bytes) -> FileFacts:
    return FileFacts(text="\n".join(read_captions(data)))


def _build_example(path: Path, picture: FileFacts, captions: Mapping[Path, FileFacts], config: DataConfig, seed: int) -> Example:
    if picture.reason:
        raise DataError(picture.reason)
    width, height, content = picture.width, picture.height, picture.content
    check_size(width, height, config=config)
    bucket = build_bucket(width, height, config=config)
    num_crops = config.num_crops or _DEFAULT_NUM_CROPS
    crops = build_crops(width, height, bucket=bucket, style=config.crop, num_crops=num_crops, seed_parts=(seed, content))
    lines = _read_lines(path, captions) if config.captions == "textfile" else build_captions(path, config)
    return Example(_name(config), path, content, width, height, bucket, crops, lines, config.repeats)


def _read_lines(path: Path, captions: Mapping[Path, FileFacts]) -> tuple[str, ...]:
    file_name = path.stem + CAPTION_SUFFIX
    facts = captions.get(path.with_suffix(""))
    if facts is None:
        raise DataError(f"no caption file: {file_name}")
    if facts.reason:
        raise DataError(f"{facts.reason}: {file_name}")
    return tuple(facts.text.split("\n"))


def _name(config: DataConfig) -> str:
    return config.name or config.path.name or config.path.absolute().name


def _explain_nothing_left(config: DataConfig, refused: Sequence[SetAside]) -> DataError:
    lines = [f'no picture of the set "{_name(config)}" can be used; reasons:']
    for kind, items in list_reasons(refused):
        lines.append(f"  {len(items)} x {kind}")
        lines += [f"      {item.path}: {item.reason}" for item in items[:_NUM_SHOWN]]
    return DataError("\n".join(lines), got=f"{len(refused)} pictures, all set aside", fix="mend the files, or change the set's settings")
