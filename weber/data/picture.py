"""One row of a set becomes an example, by what its files hold; what speaks against it is the reason why it is set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.buckets import check_size
from weber.data.caption_sources import choose_captions
from weber.data.caption_steps import Steps
from weber.data.changes import names_a_side, vary_crops
from weber.data.crops import Crop, check_shape, cut_crops
from weber.data.examples import Example, Reference
from weber.data.faces import read_center
from weber.data.geometry import choose_aspect, place_picture
from weber.data.index import FileFacts
from weber.data.inspect import Inspected
from weber.data.loss_masks import LossMask, shows
from weber.data.masks import Mask, list_showing
from weber.data.names import normalize_name
from weber.data.references import build_own_reference, build_references
from weber.data.rows import Row
from weber.data.sets import PictureLimits
from weber.data.variants import build_variants
from weber.errors import DataError

_DEFAULT_NUM_CROPS = 4
_DEFAULT_NUM_MASKS = 4
_SHOWN_CHARACTERS = 60


def build_example(
    row: Row, files: Inspected, *, config: DataConfig, steps: Steps | None, seed: int, inputs: PictureLimits
) -> Example:
    """The example of a picture. Raises DataError with a one-line reason where it cannot be used."""
    if row.reason:
        raise DataError(row.reason)
    picture = files.pictures[row.path]
    if picture.reason:
        raise DataError(picture.reason)
    width, height, content = picture.width, picture.height, picture.content
    if row.size not in (None, (width, height)):
        raise DataError(f"another size than its row says: {width} x {height} pixels, not {row.size[0]} x {row.size[1]}")
    check_size(width, height, config=config)
    aspect = choose_aspect(width, height, config=config, seed_parts=(seed, content))
    placed = place_picture(width, height, config=config, sizes=inputs.sizes, aspect=aspect)
    num_crops = config.num_crops or _DEFAULT_NUM_CROPS
    face = read_center(files.faces[row.path]) if config.crop == "face" else None
    crops = cut_crops(placed, style=config.crop, num_crops=num_crops, seed_parts=(seed, content), face=face)
    found, name = choose_captions(row, config, files=files.captions), normalize_name(row.name)
    captions = build_variants(found.texts, found.weights, steps=steps, seed=seed, name=name, fallback=config.caption_fallback)
    masks: tuple[Mask, ...] = ()
    if row.mask is not None:
        mask = _check_usable(row.mask, files.masks, kind="mask")
        masks = (Mask(row.mask, mask.content, mask.form, mask.share),)
        crops = _choose_crops(row.mask, mask, crops, picture=picture)
    elif inputs.repaints:
        masks = tuple(Mask(None, f"{seed} {content} {number}") for number in range(config.num_masks or _DEFAULT_NUM_MASKS))
    loss_mask, crops = _choose_loss_mask(row, files, crops, picture=picture, is_alpha=config.alpha_mask)
    if config.mirror_sides == "refuse" and (side := next(filter(names_a_side, captions.texts), None)) is not None:
        raise DataError(f"caption mentions left or right: {' '.join(side.split())[:_SHOWN_CHARACTERS]}")
    if config.mirror or config.color_jitter is not None:
        crops = vary_crops(crops, config=config, captions=captions.texts, seed_parts=(seed, content))
    has_references = bool(row.references) or config.reference_own is not None
    references = tuple(_list_references(row, files, crops, config=config, seed=seed, inputs=inputs)) if has_references else ()
    return Example(
        config.set_name,
        row.path,
        content,
        width,
        height,
        placed.bucket,
        crops,
        captions.texts,
        config.repeats,
        references,
        masks,
        loss_mask,
        config.loss_weight,
        config.regularization,
        config.caption_dropout,
        found.file or "",
        picture.form,
        captions.weights,
        not captions.is_whole,
        config.reference_dropout,
        config.reference_order == "shuffled",
    )


def _check_usable(path: Path, files: Mapping[Path, FileFacts], *, kind: str) -> FileFacts:
    if files[path].reason:
        raise DataError(f"unusable {kind}: {path.name}: {files[path].reason}")
    return files[path]


def _choose_loss_mask(
    row: Row, files: Inspected, crops: tuple[Crop, ...], *, picture: FileFacts, is_alpha: bool
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
        raise DataError(f"unusable loss mask: {path.name}: all that is inside of the crop is {_name_unlearned(mask, is_alpha)}")
    return LossMask(path, mask.content, is_alpha, mask.form, mask.share), showing


def _name_unlearned(mask: FileFacts, is_alpha: bool) -> str:
    return "transparent" if is_alpha else "black or transparent" if mask.form else "black"


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


def _list_references(
    row: Row, files: Inspected, crops: Sequence[Crop], *, config: DataConfig, seed: int, inputs: PictureLimits
) -> Iterator[Reference]:
    """Those that were found, then the picture itself where that was asked for."""
    picture = files.pictures[row.path]
    number = len(row.references) + (config.reference_own is not None)
    if number > inputs.max_references:
        raise DataError(f"too many references: {number}, the model takes {inputs.max_references}")
    found = [(path, _check_usable(path, files.references, kind="reference")) for path in row.references]
    yield from build_references(found, crops, picture=picture, config=config, size=inputs.reference_size)
    if config.reference_own is not None:
        yield build_own_reference(row.path, picture, crops=crops, kind=config.reference_own, seed=seed)
