"""From the sets of a config to examples: every file is looked at, and what cannot be used is set aside."""


from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.backends.local import LocalBackend
from weber.data.beside import Beside, describe_unused
from weber.data.buckets import Bucket, build_bucket, check_size
from weber.data.caption_sources import choose_captions
from weber.data.caption_steps import Steps, build_steps, describe_idle
from weber.data.crops import Crop, build_crops, build_reference_crop, check_shape
from weber.data.examples import Dataset, Example, Reference
from weber.data.hub import load_hub_set
from weber.data.index import FileFacts, Index
from weber.data.inspect import Inspected, inspect_files
from weber.data.loss_masks import LossMask, shows
from weber.data.masks import Mask, list_showing
from weber.data.names import normalize_name
from weber.data.notes import (
    describe_doubles,
    describe_json,
    describe_mask_names,
    describe_own_references,
    describe_problems,
    describe_repeat_names,
    describe_small,
    explain_repeat_name,
    find_repeat_names,
)
from weber.data.rows import Row, list_rows
from weber.data.set_aside import SetAside, describe_items, list_advice, list_reasons
from weber.data.sets import PictureLimits, check_set, find_places
from weber.data.variants import build_variants
from weber.data.words import describe_count
from weber.errors import DataError
from weber.progress import Progress

_DEFAULT_NUM_CROPS = 4
_DEFAULT_NUM_MASKS = 4
_NUM_SHOWN = 3  # pictures named per reason in an error


def build_dataset(
    sets: Sequence[DataConfig],
    *,
    alignment_pixels: int,
    inputs: PictureLimits,
    index_path: Path,
    hub_folder: Path,
    seed: int,
    progress: Progress,
    own: Sequence[Path] = (),
) -> Dataset:
    """Look at every picture of every set. Only new and changed files are opened; `index_path` remembers the others.

    Hub datasets are unpacked below `hub_folder`; the run's `own` folders are no part of any set. Raises ConfigError for sizes that cannot
    be and for references or masks that the model does not take; DataError for a folder or table that cannot be read, has no picture, or
    has no usable one, and where the loss is to be masked and no picture has a mask.
    """
    sets = [find_places(config) for config in sets]
    for position, config in enumerate(sets):
        check_set(config, position, alignment_pixels=alignment_pixels, inputs=inputs)
    index = Index(index_path, backend=LocalBackend())
    found = []
    for position, config in enumerate(sets):
        local = config if config.hub is None else load_hub_set(config, hub_folder, progress=progress)
        found.append(_read_set(local, index, seed, key=f"data.{position}", inputs=inputs, own=own, progress=progress))
    examples = [example for one in found for example in one.examples]
    notes = [
        *(note for one in found for note in one.notes),
        *describe_unused(folder for one in found for folder in one.beside),
        *describe_doubles(examples),
    ]
    set_aside = [item for one in found for item in one.set_aside]
    return Dataset(tuple(examples), tuple(set_aside), index.num_opened, tuple(dict.fromkeys(notes)))


def _check_masked(config: DataConfig, used: Sequence[Example], *, key: str) -> None:
    """Refuse masks for the loss of which none hides anything."""
    if any(one.loss_mask for one in used):
        return
    if config.alpha_mask:
        raise DataError(
            f"{key}.alpha_mask has no effect, because no picture of the set is transparent anywhere",
            got=f"{describe_count(len(used), 'picture')} without an alpha channel, or with an opaque one",
            fix=f"remove {key}.alpha_mask, or use pictures with an alpha channel (PNG, WebP)",
        )
    if config.loss_masks is not None:
        raise DataError(
            f"{key}.loss_masks has no effect, because no mask of the set is black or gray anywhere",
            got=f'{key}.loss_masks = "{config.loss_masks}" with only white masks',
            expected="black where nothing is to be learned",
            fix=f"paint that black, or remove {key}.loss_masks",
        )


@dataclass(frozen=True)
class _Set:
    """What was found for one set."""

    examples: Sequence[Example]
    set_aside: Sequence[SetAside]
    beside: Sequence[Beside]
    notes: Sequence[str]


def _read_set(
    config: DataConfig, index: Index, seed: int, *, key: str, inputs: PictureLimits, own: Sequence[Path], progress: Progress
) -> _Set:
    listed, steps = list_rows(config, key=key, own=own), build_steps(config, key=key, count_tokens=inputs.count_tokens)
    files = inspect_files([row for row in listed.rows if not row.reason], config, index=index, progress=progress)
    examples: list[Example] = []
    set_aside: list[SetAside] = []
    for row in listed.rows:
        try:
            examples.append(_build_example(row, files, config, steps=steps, seed=seed, inputs=inputs))
        except DataError as error:
            set_aside.append(SetAside(config.set_name, row.path, error.what))
    if not examples:
        raise _explain_nothing_left(config, set_aside, notes=[*listed.notes, *describe_unused(listed.beside)], key=key)
    _check_masked(config, examples, key=key)
    notes = [
        *listed.notes,
        *describe_repeat_names(config, (example.path for example in examples), key=key),
        *describe_mask_names(config, [example.path for example in examples]),
        *describe_own_references(config, examples),
        *describe_idle(config, steps, key=key),
        *describe_json(config, files.captions),
        *describe_problems(config.set_name, {**files.references, **files.pictures}),
        *describe_small(config, examples, sizes=inputs.sizes),
    ]
    return _Set(examples, set_aside, listed.beside, notes)


def _build_example(
    row: Row, files: Inspected, config: DataConfig, *, steps: Steps | None, seed: int, inputs: PictureLimits
) -> Example:
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
    found, name = choose_captions(row, config, files=files.captions), _find_name(row.path, config)
    captions = build_variants(found.texts, found.weights, steps=steps, seed=seed, name=name, fallback=config.caption_fallback)
    masks: tuple[Mask, ...] = ()
    if row.mask is not None:
        mask = _check_usable(row.mask, files.masks, kind="mask")
        masks = (Mask(row.mask, mask.content, mask.form, mask.share),)
        crops = _choose_crops(row.mask, mask, crops, picture=picture)
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
        captions.texts,
        config.repeats,
        references,
        masks,
        loss_mask,
        config.loss_weight,
        config.regularization,
        config.caption_dropout,
        found.file,
        picture.form,
        captions.weights,
        not captions.is_whole,
    )


def _find_name(path: Path, config: DataConfig) -> str:
    """A picture's name below the folder of its set, with its ending: the same wherever that folder lies."""
    assert config.path is not None
    top = config.path.absolute()
    return normalize_name((path.relative_to(top) if path.is_relative_to(top) else Path(path.name)).as_posix())


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


def _build_reference(
    path: Path, files: Inspected, crops: Sequence[Crop], *, picture: FileFacts, size: Callable[[int, int], tuple[int, int]] | None
) -> Reference:
    """Cut as the picture is, or to a size of its own."""
    facts = _check_usable(path, files.references, kind="reference")
    if size is not None:
        bucket = Bucket(*size(facts.width, facts.height))
        own = build_crops(facts.width, facts.height, bucket=bucket, style="center", num_crops=1, seed_parts=())
        return Reference(path, facts.content, own * len(crops), facts.form)
    like = (picture.width, picture.height)
    windows = tuple(build_reference_crop(facts.width, facts.height, crop=crop, picture=like) for crop in crops)
    return Reference(path, facts.content, windows, facts.form)


def _explain_nothing_left(config: DataConfig, refused: Sequence[SetAside], *, notes: Sequence[str], key: str) -> DataError:
    lines, advice = [f'no picture of the set "{config.set_name}" can be used; reasons:'], list_advice(refused)
    for kind, items in list_reasons(refused):
        lines.append(f"  {len(items)} x {kind}")
        lines += [f"      {line}" for line in describe_items(items, most=_NUM_SHOWN)]
    names = {} if config.hub is not None else find_repeat_names(config, (item.path for item in refused))
    advice += [explain_repeat_name(name, said, config=config, key=key) for name, said in names.items()]
    fix = "; ".join(advice) or "mend the files, or change the set's settings"
    got = "; ".join([f"{describe_count(len(refused), 'picture')}, all set aside", *notes])
    return DataError("\n".join(lines), got=got, fix=fix)
