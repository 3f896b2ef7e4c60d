"""What can be said about a set before any of its pictures is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from weber.config.data import DataConfig
from weber.config.elsewhere import find_scheme, write_address
from weber.data.backends.sources import is_known
from weber.data.backends.stores import STORES
from weber.data.backends.tars import ENDING
from weber.data.backends.web import SCHEMES
from weber.data.files import describe_kinds
from weber.data.formats import SUFFIXES, explain_ending
from weber.data.geometry_kohya import LONGEST
from weber.data.names import find_spelled
from weber.data.words import describe_some
from weber.errors import ConfigError, DataError

_FEWEST_PIXELS, _MOST_PIXELS = 8, 8192
"""Of an edge: what is less or more was meant in another unit."""


def _keep_size(width: int, height: int) -> tuple[int, int]:
    return width, height


@dataclass(frozen=True)
class PictureLimits:
    """What pictures the model looks at: up to `max_references`, or one with a mask (`repaints`); `sizes` is its list, if it has one.

    `reference_size` says what (width, height) a reference of that many pixels gets that keeps its own shape; `count_tokens` how many
    tokens the last text encoder makes of texts, None where its tokenizer is not here. Both are those of the `model`.
    """

    max_references: int = 0
    repaints: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    reference_size: Callable[[int, int], tuple[int, int]] = _keep_size
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None
    model: str = ""


def find_places(config: DataConfig) -> DataConfig:
    """The set with its folders and its table as they are spelled on the disk, where letters may be composed otherwise."""
    return config.model_copy(
        update={
            "name": config.set_name,
            "path": None if config.path is None else find_spelled(config.path),
            "metadata": None if config.metadata is None else find_spelled(config.metadata),
            "conditioning": [find_spelled(folder) for folder in config.conditioning],
            "masks": None if config.masks is None else find_spelled(config.masks),
            "loss_masks": None if config.loss_masks is None else find_spelled(config.loss_masks),
        }
    )


def check_set(config: DataConfig, key: str, *, alignment_pixels: int, inputs: PictureLimits) -> None:
    """Raise ConfigError if the set, which settings call `key`, asks for what the model cannot take, DataError if it names no folder."""
    _check_sizes(config, key, alignment_pixels=alignment_pixels, inputs=inputs)
    _check_inputs(config, key, inputs)
    if config.path is not None:
        _check_place(config.path, f"{key}.path", what="a folder", holds="a folder of pictures", is_kind=S_ISDIR)
    if config.metadata is not None:
        _check_place(config.metadata, f"{key}.metadata", what="a file", holds="a table in JSON Lines or CSV", is_kind=S_ISREG)
        if find_scheme(config.metadata) in SCHEMES:
            raise DataError(
                f'{key}.metadata = "{write_address(config.metadata)}" is an address of the web, which may hold another table at each start',
                expected="a file",
                fix="download the table, and name the file",
            )
    for number, step in enumerate(config.caption_steps):
        if step.folder is not None:
            place = f"{key}.caption_steps.{number}.folder"
            _check_place(step.folder, place, what="a folder", holds="a folder of lists, NAME.txt for __NAME__", is_kind=S_ISDIR)
    masks = {name: [folder] for name, folder in (("masks", config.masks), ("loss_masks", config.loss_masks)) if folder is not None}
    for name, folders in {"conditioning": config.conditioning, **masks}.items():
        for folder in folders:
            _check_place(folder, f"{key}.{name}", what="a folder", holds="a folder of pictures", is_kind=S_ISDIR)
            if config.path is not None and _identify(folder) == _identify(config.path):
                raise DataError(
                    f'{key}.{name} = "{folder}" is the folder of the pictures themselves',
                    got=f'{key}.path = "{config.path}"',
                    fix=f"name the folder of their {'references' if name == 'conditioning' else 'masks'}",
                )


def _check_sizes(config: DataConfig, key: str, *, alignment_pixels: int, inputs: PictureLimits) -> None:
    step, edge = config.step_pixels, isqrt(config.area_pixels)
    _check_sides(config, key, edge=edge)
    if config.aspect == "listed" and not inputs.sizes and not config.buckets:
        raise ConfigError(
            f'{key}.aspect = "listed", but the model was not made for a list of sizes',
            fix=f'list them in {key}.buckets, remove it, or set {key}.aspect = "bucket"',
        )
    for size in config.buckets:
        if size[0] % alignment_pixels or size[1] % alignment_pixels:
            nearest = [max(1, round(side / alignment_pixels)) * alignment_pixels for side in size]
            raise ConfigError(
                f"{key}.buckets has {size}, whose sides are not multiples of {alignment_pixels} pixels",
                expected=f"multiples of {alignment_pixels}, which the model needs",
                fix=f"write {nearest} instead",
            )
        if size[0] * size[1] > _MOST_PIXELS**2:
            raise ConfigError(
                f"{key}.buckets has {size}, more pixels than any picture has that is trained",
                fix="write width and height in pixels",
            )
    if step % alignment_pixels:
        raise ConfigError(
            f"{key}.bucket_step = {step} is not a multiple of {alignment_pixels} pixels",
            expected=f"a multiple of {alignment_pixels}, which the model needs",
            fix=f"set {key}.bucket_step = {(step // alignment_pixels + 1) * alignment_pixels}",
        )
    if edge < step and not config.buckets:
        lower_step = f", or lower {key}.bucket_step" if step > alignment_pixels else ""
        raise ConfigError(
            f"{key}.resolution = {_write_resolution(config)} ({config.resolution_type}) is too low for {key}.bucket_step = {step}",
            got=f"pictures of {edge} x {edge} pixels, less than one step of {step}",
            fix=f'set {key}.resolution_type = "megapixels", or write the edge in pixels'
            if config.resolution_type != "megapixels" and edge < _FEWEST_PIXELS
            else f"raise {key}.resolution{lower_step}",
        )
    if config.resolution_type == "megapixels" and edge > _MOST_PIXELS:
        raise ConfigError(
            f"{key}.resolution = {_write_resolution(config)} megapixels are more than any picture has that is trained",
            got=f"pictures of {edge} x {edge} pixels",
            fix=f'set {key}.resolution_type = "area", if that is an edge in pixels; or write 1.0 or so',
        )


def _write_resolution(config: DataConfig) -> str:
    return f"{config.resolution:g}" if isinstance(config.resolution, float) else str(config.resolution or config.edge_pixels)


def _check_sides(config: DataConfig, key: str, *, edge: int) -> None:
    """Raise ConfigError where not even a square would lie between the sides."""
    if config.downsample_to is not None and isinstance(config.resolution, float) and config.downsample_to <= config.resolution:
        raise ConfigError(
            f"{key}.downsample_to = {config.downsample_to:g} has no effect, as pictures are trained at {_write_resolution(config)}",
            fix=f"raise {key}.downsample_to above that, or remove it",
        )
    is_kohya = config.geometry == "kohya" and config.upscale and config.aspect != "square"
    longest = config.longest_side or (LONGEST if is_kohya else None)
    for name, side, is_broken in (
        ("shortest_side", config.shortest_side, config.shortest_side is not None and config.shortest_side > edge),
        ("longest_side", longest, longest is not None and longest < edge),
    ):
        if is_broken:
            raise ConfigError(
                f"{key}.{name} = {side} leaves no size for pictures of {key}.resolution = {_write_resolution(config)}",
                got=f"a square of that resolution has sides of {edge} pixels",
                fix=f"set {key}.{name} to {edge} or {'less' if name == 'shortest_side' else 'more'}, or remove it",
            )


def _check_inputs(config: DataConfig, key: str, inputs: PictureLimits) -> None:
    """Raise ConfigError for references and masks that the model cannot take."""
    found = "conditioning_columns" if config.conditioning_columns else "conditioning" if config.conditioning else "reference_own"
    conditioning = f"{key}.{found}"
    if config.reference_sizes and inputs.sizes:
        raise ConfigError(
            f"{key}.reference_sizes has no effect, because the model sees references at sizes of its own list.",
            fix=f"remove {key}.reference_sizes",
        )
    if config.num_references > inputs.max_references:
        most = f"at most {inputs.max_references}" if inputs.max_references else "no"
        raise ConfigError(
            f"The model takes {most} reference pictures.",
            got=f"{conditioning} with {config.num_references}",
            fix=f"shorten {conditioning}" if inputs.max_references else f"remove {conditioning}, or choose a model that takes references",
        )
    masks = {"masks": config.masks, "num_masks": config.num_masks}
    given = next((f"{key}.{name}" for name, value in masks.items() if value is not None), None)
    if given is not None and not inputs.repaints:
        raise ConfigError(f"The model does not repaint, so {given} has no effect.", fix=f"remove {given}, or choose a model that repaints")


def _identify(folder: Path) -> Path:
    """One path for one folder, whatever links lead there."""
    return folder if find_scheme(folder) else folder.resolve()


def _check_place(path: Path, key: str, *, what: str, holds: str, is_kind: Callable[[int], bool]) -> None:
    if scheme := find_scheme(path):  # what is there is known when it is listed
        if not is_known(path):
            raise DataError(
                f'{key} = "{write_address(path)}" is an address of an unknown kind',
                got=f"{scheme}://",
                expected=f"one of {', '.join(f'{one}://' for one in (*SCHEMES, *STORES))}",
                fix="write the path alone, as in /home/me/pictures" if scheme == "file" else f"write one of them, or download {holds}",
            )
        return
    try:
        archive = next((one for one in (path, *path.parents) if one.suffix.lower() == ENDING and one.is_file()), None)
        if archive is not None and what == "a folder":
            return
        mode = path.stat().st_mode
        got = "" if is_kind(mode) else "a folder" if S_ISDIR(mode) else "a file"
    except (OSError, ValueError) as error:  # ValueError: a character that no path can have
        got = str(error)
    if got:
        raise DataError(
            f'{key} = "{path}" is not {what}',
            got=got,
            expected=holds,
            fix=_find_place(path, what) or f"set {key} to the {what.partition(' ')[2]}; a relative path starts at {Path.cwd()}",
        )


def _find_place(path: Path, what: str) -> str:
    """What to do where a file was named and a folder is meant."""
    if what != "a folder" or path.suffix.lower() == ENDING:
        return ""
    if path.suffix.lower() in SUFFIXES:
        return f'name the folder that the pictures are in: "{path.parent}"'
    return explain_ending(path.name).partition(": ")[2]


def check_pictures(config: DataConfig, *, pictures: Sequence[str], files: Sequence[str], own: Sequence[str]) -> None:
    """Raise DataError if a set has no picture file among its files; `own` are folders of weber's own that were left out."""
    if pictures:
        return
    got = f"files: {describe_kinds(files)}" if files else "no files"
    deeper = "" if config.recursive else ", or set recursive = true if they lie in subfolders"
    raise DataError(
        f'the folder "{config.path}" has no pictures',
        got=got + (f", beside runs, caches and pictures of weber ({describe_some(own)}), whose pictures are no data" if own else ""),
        expected=f"files ending in {' '.join(sorted(SUFFIXES))}",
        fix=f"name the folder that holds the pictures{deeper}",
    )
