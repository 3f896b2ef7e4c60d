"""From the sets of a config to examples: every file is looked at, and what cannot be used is set aside."""


from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from weber.config.data import DataConfig
from weber.config.expand import list_keys
from weber.data.backends.sources import TABLES, Sources
from weber.data.beside import Unused, describe_unused, list_unused
from weber.data.caption_steps import build_steps, describe_idle
from weber.data.columns import Columns, build_columns
from weber.data.dataset import Dataset
from weber.data.faces import check_faces
from weber.data.fetch import fetch_rows
from weber.data.found import Found, find_files, find_home
from weber.data.hub import load_hub_set
from weber.data.index import Index
from weber.data.inspect import inspect_files, read_caption_files
from weber.data.known import FOLDER_NAME, Known
from weber.data.notes import (
    describe_changes,
    describe_copies,
    describe_doubles,
    describe_json,
    describe_known,
    describe_mask_names,
    describe_own_references,
    describe_problems,
    describe_repeat_names,
    describe_small,
    explain_repeat_name,
    find_repeat_names,
)
from weber.data.packing import Packer
from weber.data.parquet_set import load_parquet_set
from weber.data.picture import build_example
from weber.data.pictures import Part, Pictures, Shared
from weber.data.rows import list_rows
from weber.data.set_aside import SetAside, describe_items, list_advice, list_reasons
from weber.data.sets import PictureLimits, check_set, find_places
from weber.data.wildcards import list_wildcard_files
from weber.data.words import describe_count
from weber.errors import DataError
from weber.progress import Progress

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
    """Look at every picture of every set. Only new and changed files are opened; `index_path` remembers the others, and the folder beside
    it what became of a set of which nothing has changed.

    Hub datasets are unpacked below `hub_folder`; the run's `own` folders are no part of any set. Raises ConfigError for sizes that cannot
    be and for references or masks that the model does not take; DataError for a folder or table that cannot be read, has no picture, or
    has no usable one, and where the loss is to be masked and no picture has a mask.
    """
    sets = [find_places(config) for config in sets]
    keys = list_keys(sets)
    for key, config in zip(keys, sets, strict=True):
        if config.crop == "face":
            check_faces()
        check_set(config, key, alignment_pixels=alignment_pixels, inputs=inputs)
    files = Sources(index_path.parent)
    index = Index(index_path, backend=files)
    builder = _Builder(files, index, index_path.parent / FOLDER_NAME, seed, inputs, own, progress)
    learned, held = list[_Set](), list[_Set]()
    for key, config in zip(keys, sets, strict=True):
        local = load_parquet_set(config, files.folder / TABLES, files=files, progress=progress, key=key)
        local = local if config.hub is None else load_hub_set(config, hub_folder, progress=progress)
        learned += [builder.read_set(local, key=key)] if config.evaluation < 1 else []
        held += [builder.read_set(local, key=key, is_held_out=True)] if config.evaluation else []
    found = [*learned, *(one for one in held if one.config.evaluation == 1)]
    parts, held_parts = [one.part for one in learned], [one.part for one in held]
    notes = [
        *(note for one in found for note in one.notes),
        *describe_unused(unused for one in found for unused in one.unused),
        *describe_doubles(parts),
        *describe_known(parts, held_parts),
    ]
    set_aside = [item for one in (*learned, *held) for item in one.set_aside]
    kept = tuple(one.file for one in (*learned, *held))
    noted = tuple(dict.fromkeys(notes))
    return Dataset(Pictures(parts), tuple(set_aside), index.num_opened, noted, files, kept, Pictures(held_parts))


@dataclass(frozen=True)
class _Set:
    """What was found for one set; `columns` have all of it."""

    config: DataConfig
    columns: Columns
    file: Path

    @property
    def part(self) -> Part:
        config = self.config
        chances = config.caption_dropout, config.reference_dropout, config.reference_order == "shuffled"
        numbers = config.repeats, config.loss_weight, config.regularization, *chances
        return Part(Shared(config.set_name, find_home(config), *numbers), self.columns)

    @property
    def notes(self) -> list[str]:
        return list(self.columns.facts["notes"])

    @property
    def unused(self) -> list[Unused]:
        return [Unused(*row) for row in self.columns.facts["unused"]]

    @property
    def set_aside(self) -> list[SetAside]:
        return [SetAside(self.config.set_name, Path(path), reason) for path, reason in self.columns.facts["set_aside"]]


@dataclass(frozen=True)
class _Builder:
    """How sets become pictures, and where what became of them is kept."""

    files: Sources
    index: Index
    folder: Path
    seed: int
    inputs: PictureLimits
    own: Sequence[Path]
    progress: Progress

    def read_set(self, config: DataConfig, *, key: str, is_held_out: bool = False) -> _Set:
        """What is learned of it, or held out. From what was kept, if nothing has changed since."""
        inputs = self.inputs
        limits = [inputs.max_references, inputs.repaints, inputs.sizes, inputs.model]
        about = {"key": key, "held out": is_held_out, "seed": self.seed, "inputs": limits}
        known = Known(self.folder, config, about=about, backend=self.files)
        found = find_files(config, self.files, own=self.own)
        captions = read_caption_files(found, self.files, config=config, progress=self.progress)
        others = [*list_wildcard_files(config), *([] if config.metadata is None else [config.metadata])]
        fingerprint = known.build_fingerprint(found, captions=captions, others=others)
        columns = known.open(fingerprint)
        if columns is None:
            self.index.asked, num_passing = {}, self.index.num_passing
            columns = self._build(config, found, captions, key=key, is_held_out=is_held_out)
            if self.index.num_passing == num_passing:
                columns = known.keep(columns, fingerprint, asked=self.index.asked)
        return _Set(config, columns, known.file)

    def _build(
        self, config: DataConfig, found: Found, captions: Mapping[str, bytes | DataError], *, key: str, is_held_out: bool
    ) -> Columns:
        steps = build_steps(config, key=key, count_tokens=self.inputs.count_tokens)
        listed = list_rows(config, found, files=self.files, key=key, is_held_out=is_held_out)
        report = partial(self.progress, f"fetching the pictures of {config.set_name}")
        rows = fetch_rows(listed.rows, self.files, report=report)
        used = [row for row in rows if not row.reason]
        files = inspect_files(used, found, config=config, captions=captions, index=self.index, progress=self.progress)
        packer, set_aside = Packer(find_home(config)), list[SetAside]()
        for row in rows:
            try:
                packer.add(build_example(row, files, config=config, steps=steps, seed=self.seed, inputs=self.inputs))
            except DataError as error:
                set_aside.append(SetAside(config.set_name, row.path, error.what))
        unused = list_unused(found.beside.all)
        if not len(packer):
            raise _explain_nothing_left(config, set_aside, notes=[*listed.notes, *describe_unused(unused)], key=key)
        part = Part(Shared(config.set_name, find_home(config)), build_columns(packer.build(), packer.facts))
        if not is_held_out:
            _check_masked(config, part, key=key)
        notes = [
            *listed.notes,
            *describe_repeat_names(config, part.paths, key=key),
            *describe_mask_names(config, part.paths),
            *describe_own_references(config, part),
            *describe_idle(config, steps, key=key),
            *describe_json(config, files.captions),
            *describe_changes(config, part, faces=files.faces),
            *describe_problems(config.set_name, {**files.references, **files.pictures}),
            *describe_small(config, part, sizes=self.inputs.sizes),
            *describe_copies(part),
        ]
        aside = [(str(item.path), item.reason) for item in set_aside]
        return build_columns(part.columns.arrays, {**packer.facts, "notes": notes, "unused": unused, "set_aside": aside})


def _check_masked(config: DataConfig, part: Part, *, key: str) -> None:
    """Refuse masks for the loss of which none hides anything."""
    if any(shape.is_partial for shape in part.shapes):
        return
    if config.alpha_mask:
        raise DataError(
            f"{key}.alpha_mask has no effect, because no picture of the set is transparent anywhere",
            got=f"{describe_count(len(part), 'picture')} without an alpha channel, or with an opaque one",
            fix=f"remove {key}.alpha_mask, or use pictures with an alpha channel (PNG, WebP)",
        )
    if config.loss_masks is not None:
        raise DataError(
            f"{key}.loss_masks has no effect, because no mask of the set is black or gray anywhere",
            got=f'{key}.loss_masks = "{config.loss_masks}" with only white masks',
            expected="black where nothing is to be learned",
            fix=f"paint that black, or remove {key}.loss_masks",
        )


def _explain_nothing_left(config: DataConfig, refused: Sequence[SetAside], *, notes: Sequence[str], key: str) -> DataError:
    lines, advice = [f'no picture of the set "{config.set_name}" can be used; reasons:'], list_advice(refused)
    for kind, items in list_reasons(refused):
        lines.append(f"  {len(items)} x {kind}")
        lines += [f"      {line}" for line in describe_items(items, most=_NUM_SHOWN)]
    names = {} if config.hub is not None else find_repeat_names(config, (str(item.path) for item in refused))
    advice += [explain_repeat_name(name, said, config=config, key=key) for name, said in names.items()]
    fix = "; ".join(advice) or "mend the files, or change the set's settings"
    got = "; ".join([f"{describe_count(len(refused), 'picture')}, all set aside", *notes])
    return DataError("\n".join(lines), got=got, fix=fix)
