"""From the sets of a config to examples: pictures with their crops and captions, and what was set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from weber.config.data import DataConfig
from weber.data.backends.local import LocalBackend
from weber.data.buckets import Bucket, build_bucket, check_size
from weber.data.captions import CAPTION_SUFFIX, build_captions, read_captions
from weber.data.crops import Crop, build_crops, build_reference_crop, check_shape
from weber.data.hub import load_hub_set
from weber.data.images import encode_content, read_alpha, read_image
from weber.data.index import FileFacts, Index
from weber.data.loss_masks import LossMask, LossWindow, find_box, read_gray, shows
from weber.data.masks import Mask, list_showing, read_mask_image
from weber.data.rows import Row, list_rows
from weber.data.sets import PictureLimits, check_set
from weber.data.views import View
from weber.errors import DataError
from weber.progress import Progress

_DEFAULT_NUM_CROPS = 4
_DEFAULT_NUM_MASKS = 4
_NUM_SHOWN = 3  # pictures named per reason in an error


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that a model looks at while it learns another; `crops` has one for each crop of that one."""

    path: Path
    content: str
    crops: tuple[Crop, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One usable picture. `content` names its bytes; `width` and `height` are those of the upright picture, before any crop.

    Every mask goes with every crop; `loss_mask` says what of the picture is learned, None: all. `loss_weight` is how much it counts;
    with `is_regularization` the model is kept as it is on it. `caption_dropout`: how likely the empty caption is.
    """

    set_name: str
    path: Path
    content: str
    width: int
    height: int
    bucket: Bucket
    crops: tuple[Crop, ...]
    captions: tuple[str, ...]
    repeats: int
    references: tuple[Reference, ...] = ()
    masks: tuple[Mask, ...] = ()
    loss_mask: LossMask | None = None
    loss_weight: float = 1.0
    is_regularization: bool = False
    caption_dropout: float = 0.0

    def target(self, crop: int) -> View:
        """The picture itself, by the index of its crop."""
        return View(self.path, self.content, self.crops[crop])

    def list_references(self, crop: int) -> tuple[View, ...]:
        """Its references, in order, as they belong to that crop of the picture."""
        return tuple(View(one.path, one.content, one.crops[crop]) for one in self.references)

    def masked(self, crop: int, mask: int) -> View | None:
        """The picture with one of its masks; None if it has none."""
        return View(self.path, self.content, self.crops[crop], self.masks[mask]) if self.masks else None

    def learned(self, crop: int) -> LossWindow | None:
        """What of the picture is learned, as it belongs to that crop; None: all of it."""
        return None if self.loss_mask is None else LossWindow(self.loss_mask, self.crops[crop])

    def caption(self, number: int | None) -> str:
        """One of its captions; None: the empty one in its place."""
        return "" if number is None else self.captions[number]

    def list_caption_numbers(self) -> list[int | None]:
        """All of its captions that may be drawn, as `caption` takes them."""
        own = range(len(self.captions)) if self.caption_dropout < 1 else ()
        return [*own, *([None] if self.caption_dropout > 0 else [])]

    def list_captions(self) -> list[str]:
        """Everything that may be drawn as its caption."""
        return [self.caption(number) for number in self.list_caption_numbers()]

    def list_views(self) -> Iterator[View]:
        """Everything of this example that is encoded."""
        for crop in range(len(self.crops)):
            yield self.target(crop)
            yield from self.list_references(crop)
            yield from (View(self.path, self.content, self.crops[crop], mask) for mask in self.masks)

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
    """Picture, caption, reference and mask files that the index did not know as they are, and that had to be opened."""


def build_dataset(
    sets: Sequence[DataConfig],
    *,
    alignment_pixels: int,
    inputs: PictureLimits,
    index_path: Path,
    hub_folder: Path,
    seed: int,
    progress: Progress,
) -> Dataset:
    """Look at every picture of every set. Only new and changed files are opened; `index_path` remembers the others.

    Hub datasets are unpacked below `hub_folder`. Raises ConfigError for sizes that cannot be and for references or masks that the
    model does not take; DataError for a folder or table that cannot be read, has no picture, or has no usable one, and where the loss is
    to be masked and no picture has a mask.
    """
    for position, config in enumerate(sets):
        check_set(config, position, alignment_pixels=alignment_pixels, inputs=inputs)
    index = Index(index_path, backend=LocalBackend())
    examples: list[Example] = []
    set_aside: list[SetAside] = []
    for position, config in enumerate(sets):
        local = config if config.hub is None else load_hub_set(config, hub_folder, progress=progress)
        used, refused = _read_set(local, index, seed, key=f"data.{position}", inputs=inputs, progress=progress)
        if not used:
            raise _explain_nothing_left(config, refused)
        _check_masked(config, used, key=f"data.{position}")
        examples += used
        set_aside += refused
    return Dataset(tuple(examples), tuple(set_aside), index.num_opened)


def _check_masked(config: DataConfig, used: Sequence[Example], *, key: str) -> None:
    """Refuse masks for the loss of which none hides anything."""
    if any(one.loss_mask for one in used):
        return
    if config.alpha_mask:
        raise DataError(
            f"{key}.alpha_mask has no effect, because no picture of the set is transparent anywhere",
            got=f"{len(used)} pictures without an alpha channel, or opaque ones",
            fix=f"remove {key}.alpha_mask, or use pictures with an alpha channel (PNG, WebP)",
        )
    if config.loss_masks is not None:
        raise DataError(
            f"{key}.loss_masks has no effect, because no mask of the set is black or gray anywhere",
            got=f'{key}.loss_masks = "{config.loss_masks}" with only white masks',
            expected="black where nothing is to be learned",
            fix=f"paint that black, or remove {key}.loss_masks",
        )


def list_reasons(set_aside: Iterable[SetAside]) -> list[tuple[str, list[SetAside]]]:
    """Pictures set aside by kind of reason, the most frequent kind first."""
    kinds: dict[str, list[SetAside]] = {}
    for item in set_aside:
        kinds.setdefault(item.reason.partition(":")[0], []).append(item)
    return sorted(kinds.items(), key=lambda kind: -len(kind[1]))


@dataclass(frozen=True)
class _Files:
    """What the files of a set hold, by path."""

    pictures: Mapping[Path, FileFacts]
    captions: Mapping[Path, FileFacts]
    references: Mapping[Path, FileFacts]
    masks: Mapping[Path, FileFacts]
    loss_masks: Mapping[Path, FileFacts]


def _read_set(
    config: DataConfig, index: Index, seed: int, *, key: str, inputs: PictureLimits, progress: Progress
) -> tuple[list[Example], list[SetAside]]:
    rows = list_rows(config, key=key)
    files = _read_files([row for row in rows if not row.reason], config, index, progress)
    examples: list[Example] = []
    set_aside: list[SetAside] = []
    for row in rows:
        try:
            examples.append(_build_example(row, files, config, seed=seed, inputs=inputs))
        except DataError as error:
            set_aside.append(SetAside(config.set_name, row.path, error.what))
    return examples, set_aside


def _read_files(rows: Sequence[Row], config: DataConfig, index: Index, progress: Progress) -> _Files:
    def read(what: str, paths: Iterable[Path], inspect: Callable[[bytes], FileFacts], kind: str = "") -> dict[Path, FileFacts]:
        distinct = list(dict.fromkeys(paths))
        report = partial(progress, f"{what} of {config.set_name}")
        return dict(zip(distinct, index.read_facts(distinct, inspect, report=report, kind=kind), strict=True)) if distinct else {}

    uses_files = config.caption_source == "textfile"
    captions = [row.caption_file for row in rows if row.caption_file is not None] if uses_files else []
    return _Files(
        pictures=read("looking at the pictures", (row.path for row in rows), _inspect_picture),
        captions=read("reading the captions", captions, _inspect_captions),
        references=read("looking at the references", (path for row in rows for path in row.references), _inspect_picture),
        masks=read("looking at the masks", (row.mask for row in rows if row.mask is not None), _inspect_mask, "mask "),
        loss_masks=read("looking at the alpha channels", (row.path for row in rows), _inspect_alpha, "alpha ")
        if config.alpha_mask
        else read("looking at the loss masks", (row.loss_mask for row in rows if row.loss_mask), _inspect_loss_mask, "loss mask "),
    )


def _inspect_picture(data: bytes) -> FileFacts:
    image = read_image(data)
    return FileFacts(content=encode_content(data), width=image.width, height=image.height)


def _inspect_captions(data: bytes) -> FileFacts:
    return FileFacts(text="\n".join(read_captions(data)))


def _inspect_mask(data: bytes) -> FileFacts:
    """Its text is the box of all that is white."""
    image = read_mask_image(data)
    return FileFacts(content=encode_content(data), width=image.width, height=image.height, text=" ".join(map(str, image.getbbox() or ())))


def _inspect_alpha(data: bytes) -> FileFacts:
    return _describe_loss_mask(data, read_alpha(data))


def _inspect_loss_mask(data: bytes) -> FileFacts:
    return _describe_loss_mask(data, read_gray(data))


def _describe_loss_mask(data: bytes, image: Image.Image | None) -> FileFacts:
    """Its text is the box of all that is not black, or "whole" where it is white everywhere."""
    box, (width, height) = find_box(image), (0, 0) if image is None else image.size
    text = "whole" if box is None else " ".join(map(str, box))
    return FileFacts(content=encode_content(data), width=width, height=height, text=text)


def _build_example(row: Row, files: _Files, config: DataConfig, *, seed: int, inputs: PictureLimits) -> Example:
    if row.reason:
        raise DataError(row.reason)
    picture = files.pictures[row.path]
    if picture.reason:
        raise DataError(picture.reason)
    width, height, content = picture.width, picture.height, picture.content
    check_size(width, height, config=config)
    bucket = build_bucket(width, height, config=config, sizes=inputs.sizes)
    num_crops = config.num_crops or _DEFAULT_NUM_CROPS
    crops = build_crops(width, height, bucket=bucket, style=config.crop, num_crops=num_crops, seed_parts=(seed, content))
    captions = _build_captions(row, files, config)
    masks: tuple[Mask, ...] = ()
    if row.mask is not None:
        mask = _check_usable(row.mask, files.masks, kind="mask")
        masks, crops = (Mask(row.mask, mask.content),), _choose_crops(row.mask, mask, crops, picture=picture)
    elif inputs.repaints:
        masks = tuple(Mask(None, f"{seed} {content} {number}") for number in range(config.num_masks or _DEFAULT_NUM_MASKS))
    loss_mask, crops = _choose_loss_mask(row, files, crops, picture=picture, is_alpha=config.alpha_mask)
    size = inputs.reference_size if config.conditioning_type == "reference_loose" else None
    references = tuple(_build_reference(path, files, crops, picture=picture, size=size) for path in row.references)
    return Example(
        config.set_name,
        row.path,
        content,
        width,
        height,
        bucket,
        crops,
        captions,
        config.repeats,
        references,
        masks,
        loss_mask,
        config.loss_weight,
        config.regularization,
        config.caption_dropout,
    )


def _build_captions(row: Row, files: _Files, config: DataConfig) -> tuple[str, ...]:
    if config.caption_source == "metadata":
        return row.captions
    if config.caption_source != "textfile":
        return build_captions(row.path, config)
    file_name = row.path.stem + CAPTION_SUFFIX
    if row.caption_file is None:
        raise DataError(f"no caption file: {file_name}")
    facts = files.captions[row.caption_file]
    if facts.reason:
        raise DataError(f"{facts.reason}: {file_name}")
    return tuple(facts.text.split("\n"))


def _check_usable(path: Path, files: Mapping[Path, FileFacts], *, kind: str) -> FileFacts:
    if files[path].reason:
        raise DataError(f"unusable {kind}: {path.name}: {files[path].reason}")
    return files[path]


def _choose_loss_mask(
    row: Row, files: _Files, crops: tuple[Crop, ...], *, picture: FileFacts, is_alpha: bool
) -> tuple[LossMask | None, tuple[Crop, ...]]:
    """What is learned of a picture, None for all of it, and the windows in which there is something of that."""
    path = row.path if is_alpha else row.loss_mask
    if path is None:
        return None, crops
    mask = _check_usable(path, files.loss_masks, kind="loss mask")
    if not is_alpha:
        _check_shape(path, mask, picture=picture, kind="loss mask")
    if mask.text == "whole":
        return None, crops
    box = tuple(int(side) for side in mask.text.split())
    showing = tuple(crop for crop in crops if shows(crop, box=box, size=(mask.width, mask.height)))
    if not showing:
        raise DataError(f"unusable loss mask: {path.name}: all that is inside of the crop is {'transparent' if is_alpha else 'black'}")
    return LossMask(path, mask.content, is_alpha), showing


def _check_shape(path: Path, mask: FileFacts, *, picture: FileFacts, kind: str) -> None:
    try:
        check_shape((mask.width, mask.height), picture=(picture.width, picture.height))
    except DataError as error:
        raise DataError(f"unusable {kind}: {path.name}: {error.what}") from error


def _choose_crops(path: Path, mask: FileFacts, crops: tuple[Crop, ...], *, picture: FileFacts) -> tuple[Crop, ...]:
    """The windows in which the mask shows."""
    _check_shape(path, mask, picture=picture, kind="mask")
    showing = list_showing(crops, box=[int(side) for side in mask.text.split()], width=mask.width, height=mask.height)
    if not showing:
        raise DataError(f"unusable mask: {path.name}: nothing white is inside of the crop")
    return showing


def _build_reference(
    path: Path, files: _Files, crops: Sequence[Crop], *, picture: FileFacts, size: Callable[[int, int], tuple[int, int]] | None
) -> Reference:
    """Cut as the picture is, or to a size of its own."""
    facts = _check_usable(path, files.references, kind="reference")
    if size is not None:
        bucket = Bucket(*size(facts.width, facts.height))
        own = build_crops(facts.width, facts.height, bucket=bucket, style="center", num_crops=1, seed_parts=())
        return Reference(path, facts.content, own * len(crops))
    like = (picture.width, picture.height)
    return Reference(path, facts.content, tuple(build_reference_crop(facts.width, facts.height, crop=crop, picture=like) for crop in crops))


def _explain_nothing_left(config: DataConfig, refused: Sequence[SetAside]) -> DataError:
    lines = [f'no picture of the set "{config.set_name}" can be used; reasons:']
    for kind, items in list_reasons(refused):
        lines.append(f"  {len(items)} x {kind}")
        lines += [f"      {item.path}: {item.reason}" for item in items[:_NUM_SHOWN]]
    return DataError("\n".join(lines), got=f"{len(refused)} pictures, all set aside", fix="mend the files, or change the set's settings")
