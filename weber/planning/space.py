"""Room on disks: what a run will write to each, against what is free there, before it starts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import nn

from weber.cache.masks import find_shape
from weber.cache.store import Store
from weber.checkpoint.save import list_checkpoints
from weber.errors import ConfigError
from weber.memory.formats import FORMATS
from weber.memory.kept import list_kept
from weber.memory.load import choose_formats, list_blocks, list_kept_keys
from weber.memory.swap import choose_swapped
from weber.planning.checks import sample_size
from weber.planning.needs import count_numbers
from weber.planning.plan import Plan, build_lessons, list_lacking
from weber.planning.sizes import (
    count_checkpoint_bytes,
    count_due,
    count_finished_bytes,
    count_model_bytes,
    count_text_bytes,
    describe_size,
)
from weber.results.formats import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, list_models

_PIXEL_BYTES = 2.0  # of a PNG file
_FP32_BYTES = 4
_FUSED_SHARE = 2  # of the makers' layouts, whose layers are of several of the library's: the factors of each beside zeros


@dataclass(frozen=True)
class Need:
    """What will be written into a folder."""

    what: str
    folder: Path
    num_bytes: int


@dataclass(frozen=True)
class Disk:
    """A file system: a folder on it that exists, what is to be written there, and what is free."""

    place: Path
    needs: tuple[Need, ...]
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All that is to be written."""
        return sum(need.num_bytes for need in self.needs)

    @property
    def is_full(self) -> bool:
        """Whether there is not enough room."""
        return self.needed_bytes > self.free_bytes

    def describe(self) -> str:
        """A line for a person."""
        parts = ", ".join(f"{need.what} {describe_size(need.num_bytes)}" for need in self.needs if need.num_bytes)
        needed, free = describe_size(self.needed_bytes), describe_size(self.free_bytes)
        return f"{needed} to be written to the file system of {self.place}, where {free} are free: {parts or 'nothing'}"


def list_needs(plan: Plan) -> list[Need]:
    """What a run writes where nothing of it is encoded yet, such as on another machine."""
    return _list_needs(plan, None)


def list_disks(plan: Plan) -> list[Disk]:
    """The file systems that a run writes to. What the cache has already is looked up only where the whole would not fit."""
    disks = _group(list_needs(plan))
    output = plan.resolved.output
    if all(disk.needed_bytes <= disk.free_bytes for disk in disks) or not (plan.family.is_local and output.cache.is_dir()):
        return disks
    return _group(_list_needs(plan, Store(output.cache)))


def check_space(plan: Plan) -> None:
    """Refuse a run that would fill a disk. Raises ConfigError."""
    full = [disk for disk in list_disks(plan) if disk.is_full]
    if full:
        got = "; ".join(disk.describe() for disk in full)
        raise ConfigError("The run would fill the disk.", got=got, fix=advise_room(plan, full[0]))


def advise_room(plan: Plan, disk: Disk) -> str:
    """What to do where a disk has not enough room."""
    output, needs = plan.config.output, {need.what: need.num_bytes for need in disk.needs}
    fixes = [f"free {describe_size(disk.needed_bytes - disk.free_bytes)}"]
    fixes += ["lower output.keep_last"] if output.keep_last == "all" or output.keep_last > 1 else []
    if output.text_cache == "full" and needs.get("cache", 0) > disk.needed_bytes / 2:
        fixes.append('set output.text_cache = "projected", "fp8" or "live"')
    return ", or ".join([*fixes, "set output.folder or output.cache to a folder on another disk"])


def _list_needs(plan: Plan, store: Store | None) -> list[Need]:
    output = plan.resolved.output
    return [
        Need("cache", output.cache, _count_cache_bytes(plan, store)),
        Need("quantized model", output.cache, _count_kept_bytes(plan)),
        Need("swapped blocks", output.cache, _count_swap_bytes(plan)),
        Need("checkpoints", output.folder, _count_saves(plan) * count_checkpoint_bytes(plan)),
        Need("results", output.folder, _count_result_bytes(plan)),
        Need("pictures", output.folder, _count_picture_bytes(plan)),
    ]


def _group(needs: Iterable[Need]) -> list[Disk]:
    """Needs by file system."""
    found: dict[int, tuple[Path, list[Need]]] = {}
    for need in needs:
        place = next(one for one in (need.folder, *need.folder.parents) if one.is_dir())
        found.setdefault(place.stat().st_dev, (place, []))[1].append(need)
    return [Disk(place, tuple(parts), shutil.disk_usage(place).free) for place, parts in found.values()]


def _count_cache_bytes(plan: Plan, store: Store | None) -> int:
    """Encoded pictures, texts, masks and answers; with a store only what it lacks."""
    family, needs, size = plan.family, plan.needs, plan.dtype.itemsize
    lessons = build_lessons(plan)
    answers = [] if lessons is None else list(lessons.list_all(plan.dataset.examples))
    numbers, texts, windows = needs.num_numbers, dict.fromkeys(family.text_parts, needs.num_kept), list(needs.windows.values())
    if store is not None:
        numbers, texts = needs.count_missing(store).numbers, needs.count_missing_texts(store)
        windows = [window for key, window in needs.windows.items() if key not in store]
        answers = list(list_lacking(plan, store).values())
    sizes = [one.example.bucket for one in answers]
    return (
        size * numbers
        + sum(num * count_text_bytes(plan, part) for part, num in texts.items())
        + _FP32_BYTES * sum(math.prod(find_shape(window, family)) for window in windows)
        + _FP32_BYTES * sum(count_numbers(one.width, one.height, is_masked=False, family=family) for one in sizes)
    )


def _count_kept_bytes(plan: Plan) -> int:
    """The quantized model, unless it is kept already."""
    memory, family = plan.resolved.memory, plan.family
    if not family.is_local or not memory.keep_quantized:
        return 0
    keys = list_kept_keys(family, memory, trained=plan.trained.shapes)
    if keys & list_kept(plan.resolved.output.cache).keys():
        return 0
    return sum(_list_packed_bytes(plan, family.skeleton).values()) if keys else 0


def _list_packed_bytes(plan: Plan, skeleton: nn.Module) -> dict[str, int]:
    formats = choose_formats(plan.family, skeleton, memory=plan.resolved.memory, trained=plan.trained.shapes)
    shapes: Mapping[str, tuple[int, ...]] = {name: tuple(skeleton.get_parameter(f"{name}.weight").shape) for name in formats}
    return {f"{name}.weight": FORMATS[form].num_bytes(shapes[name][0], shapes[name][1]) for name, form in formats.items()}


def _count_swap_bytes(plan: Plan) -> int:
    """Blocks that lie on the disk while the run lasts, and those of another model that paints."""
    memory = plan.resolved.memory
    if memory.swap_blocks == 0 or memory.swap_to != "disk":
        return 0
    skeleton = plan.family.skeleton
    names, packed = list_blocks(plan.family, skeleton), _list_packed_bytes(plan, skeleton)
    swapped = tuple(f"{names[number]}." for number in choose_swapped(len(names), memory.swap_blocks))
    parameters = ((name, one.numel() * plan.dtype.itemsize) for name, one in skeleton.named_parameters() if name.startswith(swapped))
    return (1 if plan.sibling is None else 2) * sum(packed.get(name, num_bytes) for name, num_bytes in parameters)


def _count_saves(plan: Plan) -> int:
    """The most checkpoints that will be there at once, without those that are there already and will go."""
    output, num_steps = plan.resolved.output, plan.num_steps
    have = [step for step, _ in list_checkpoints(output.folder)]
    left = num_steps - max([step for step in have if step <= num_steps], default=0)
    if left == 0:
        return 0
    saves = count_due(left, plan.count_steps(output.save_every))
    if output.keep_last == "all":
        return saves
    forever = 0 if output.keep_every is None else count_due(left, plan.count_steps(output.keep_every))
    return min(saves, max(1, output.keep_last + 1 - len(have))) + forever


def _count_result_bytes(plan: Plan) -> int:
    output = plan.resolved.output
    copies = 1 if plan.config.optim.ema_decay is None else 2
    if not plan.kind.is_adapter:
        models = list_models(output.formats, output.folder)
        return copies * len(models) * count_model_bytes(plan) if plan.family.is_local else 0
    merged = {MERGED_FILE, MERGED_FOLDER} & set(output.formats)
    layouts = 1 + _FUSED_SHARE * len({*output.formats} - {MERGED_FILE, MERGED_FOLDER, DIFFUSERS})
    whole_bytes = len(merged) * count_model_bytes(plan) if merged and plan.family.is_local else 0
    return copies * (layouts * count_finished_bytes(plan) + whole_bytes)


def _count_picture_bytes(plan: Plan) -> int:
    """Each picture is there once by itself and once on a sheet."""
    size = sample_size(plan.config, plan.family.alignment_pixels)
    return int(2 * plan.num_sheets * sum(prod(prompt.choose_size(size)) for prompt in plan.prompts) * _PIXEL_BYTES)
