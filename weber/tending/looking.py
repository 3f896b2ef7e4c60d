"""Every picture of every set, looked at once: what it holds, what is wrong with it, how it would be cut, and what its captions say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from weber.config.data import DataConfig
from weber.config.expand import list_keys
from weber.data.backends.backend import FileStat
from weber.data.backends.sources import TABLES, Sources
from weber.data.caption_files import FoundFiles
from weber.data.caption_sources import choose_captions
from weber.data.caption_steps import Steps, build_steps
from weber.data.examples import Example
from weber.data.fetch import fetch_rows
from weber.data.found import find_files
from weber.data.hub import load_hub_set
from weber.data.images import encode_content, read_colors
from weber.data.index import FileFacts, Index
from weber.data.inspect import Inspected, inspect_files, read_caption_files
from weber.data.names import normalize_name
from weber.data.parquet_set import load_parquet_set
from weber.data.picture import build_example
from weber.data.rows import Row, list_rows
from weber.data.sets import PictureLimits, check_set, find_places
from weber.data.variants import build_variants
from weber.errors import DataError, MissingExtraError
from weber.progress import Progress
from weber.tending.measures import Measures, measure_picture

_NUM_PER_REPORT = 32
_MOST_FRAMES, _MOST_THUMBS = 2000, 20_000
"""Of more pictures some, evenly spread, are kept for that."""

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class Seen:
    """A picture. `name` is its own below the set's folder, or where it does not lie there the whole path; `size` (0, 0) where it cannot be
    read, and `broken` says why. `refusal`: why its set does not take it, and `silence` why it has no caption. `lost` is the share of it
    that the first crop cuts off, `window` what is left, as (left, top, width, height) in shares; `bucket` its size in training."""

    path: Path
    name: str
    set_name: str
    is_held_out: bool
    size: tuple[int, int] = (0, 0)
    content: str = ""
    measures: Measures | None = None
    broken: str = ""
    refusal: str = ""
    problem: str = ""
    captions: tuple[str, ...] = ()
    caption_file: Path | None = None
    beside: tuple[Path, ...] = ()
    silence: str = ""
    lost: float = 0.0
    window: Window = (0.0, 0.0, 1.0, 1.0)
    bucket: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Look:
    """What is asked of the pictures. `folder` is a cache folder; `own` are folders of a run, which are no part of any set."""

    alignment_pixels: int
    inputs: PictureLimits
    folder: Path
    seed: int = 0
    own: Sequence[Path] = ()
    has_thumbs: bool = False


def look_at(sets: Sequence[DataConfig], look: Look, *, progress: Progress) -> list[Seen]:
    """All pictures, in the order of the sets and their names. Raises as `build_dataset`, but not where none can be used."""
    sets = [find_places(config) for config in sets]
    files, seen, known = Sources(look.folder), list[Seen](), dict[Path, _Known]()
    for key, config in zip(list_keys(sets), sets, strict=True):
        check_set(config, key, alignment_pixels=look.alignment_pixels, inputs=look.inputs)
        local = load_parquet_set(config, files.folder / TABLES, files=files, progress=progress, key=key)
        local = local if config.hub is None else load_hub_set(config, look.folder / "hub", progress=progress)
        parts = [part for part, is_there in ((False, config.evaluation < 1), (True, config.evaluation > 0)) if is_there]
        for is_held_out in parts:
            index = _Measuring(look, files, known=known)
            seen += _look_at_set(local, look, index, key=key, is_held_out=is_held_out, progress=progress)
    return seen


def _look_at_set(config: DataConfig, look: Look, index: _Measuring, *, key: str, is_held_out: bool, progress: Progress) -> list[Seen]:
    files = index.files
    found = find_files(config, files, own=look.own)
    texts = read_caption_files(found, files, config=config, progress=progress)
    listed = list_rows(config, found, files=files, key=key, is_held_out=is_held_out)
    rows = fetch_rows(listed.rows, files, report=partial(progress, f"fetching the pictures of {config.set_name}"))
    used = [row for row in rows if not row.reason]
    index.choose([row.path for row in used])
    inspected = inspect_files(used, found, config=config, captions=texts, index=index, progress=progress)
    steps = build_steps(config, key=key, count_tokens=look.inputs.count_tokens)
    measured = {row.path: index.known[row.path].measures for row in used if row.path in index.known}
    build = _Builder(config, look, found.folder, inspected, measured, steps, is_held_out)
    return [build.build(row) for row in rows]


@dataclass(frozen=True)
class _Builder:
    """From rows to what was seen."""

    config: DataConfig
    look: Look
    folder: Path
    files: Inspected
    measured: Mapping[Path, Measures | None]
    steps: Steps | None
    is_held_out: bool

    def build(self, row: Row) -> Seen:
        """One picture."""
        config = self.config
        seen = Seen(row.path, row.name if row.is_below else str(row.path), config.set_name, self.is_held_out)
        if row.reason.startswith("caption is "):
            return _change(seen, silence=row.reason)
        facts = None if row.reason else self.files.pictures[row.path]
        if facts is None or facts.reason:
            return _change(seen, broken=row.reason if facts is None else facts.reason)
        captions, file, silence = self._read_captions(row)
        example, refusal = self._place(row, facts, silence)
        seen = _change(
            seen,
            size=(facts.width, facts.height),
            content=facts.content,
            measures=self.measured.get(row.path),
            refusal=refusal,
            problem=facts.problem,
            captions=captions,
            caption_file=None if file is None else self.folder / file,
            beside=tuple([self.folder / name for name in row.texts.list_all()] + [one for one in (row.mask, row.loss_mask) if one]),
            silence=silence,
        )
        return seen if example is None else _cut(seen, example)

    def _read_captions(self, row: Row) -> tuple[tuple[str, ...], str | None, str]:
        config = self.config
        try:
            found = choose_captions(row, config, files=self.files.captions)
            name, fallback = normalize_name(row.name), config.caption_fallback
            built = build_variants(found.texts, found.weights, steps=self.steps, seed=self.look.seed, name=name, fallback=fallback)
        except DataError as error:
            return (), None, error.what
        return built.texts, found.file, ""

    def _place(self, row: Row, facts: FileFacts, silence: str) -> tuple[Example | None, str]:
        """As it would be trained, and else why not, where that is not its caption's fault."""
        config, steps = self.config, self.steps
        if silence:
            row = row._replace(texts=FoundFiles(), captions=())
            config, steps = config.model_copy(update={"caption_fallback": ""}), None
        try:
            return build_example(row, self.files, config=config, steps=steps, seed=self.look.seed, inputs=self.look.inputs), ""
        except DataError as error:
            return None, error.what


def _change(seen: Seen, **values: object) -> Seen:
    return Seen(**{**seen.__dict__, **values})


def _cut(seen: Seen, example: Example) -> Seen:
    crop = example.crops[0]
    wide, high = crop.resize_width, crop.resize_height
    window = (crop.left / wide, crop.top / high, crop.width / wide, crop.height / high)
    return _change(seen, lost=1 - window[2] * window[3], window=window, bucket=(example.bucket.width, example.bucket.height))


class _Known(NamedTuple):
    """What a picture is; the sets of several resolutions have the same ones."""

    facts: FileFacts
    measures: Measures | None = None


class _Measuring(Index):
    """An index that opens every picture that was chosen, and measures it at the same time; of all other files it is what it is."""

    def __init__(self, look: Look, files: Sources, *, known: dict[Path, _Known]) -> None:
        super().__init__(look.folder / "index.sqlite", backend=files)
        self.files, self.known, self._has_thumbs = files, known, look.has_thumbs
        self._chosen, self._framed, self._shown = set[Path](), set[Path](), set[Path]()

    def choose(self, paths: Sequence[Path]) -> None:
        """The pictures of a set; some of many have copies for what is looked for in all at once."""
        self._chosen, self._framed = set(paths), _spread(paths, _MOST_FRAMES)
        self._shown = _spread(paths, _MOST_THUMBS) if self._has_thumbs else set()

    def read_facts(
        self,
        paths: Sequence[Path],
        inspect: Callable[[bytes], FileFacts],
        *,
        report: Callable[[int, int], None],
        kind: str = "",
        stats: Mapping[str, FileStat | None] = MappingProxyType({}),
    ) -> list[FileFacts]:
        """See `Index`."""
        if kind or not self._chosen.issuperset(paths):
            return super().read_facts(paths, inspect, report=report, kind=kind, stats=stats)
        facts = []
        with ThreadPoolExecutor() as pool:
            for one in pool.map(self._measure, paths):
                facts.append(one)
                if len(facts) % _NUM_PER_REPORT == 0 or len(facts) == len(paths):
                    report(len(facts), len(paths))
        return facts

    def _measure(self, path: Path) -> FileFacts:
        if path not in self.known:
            self.known[path] = self._open(path)
        return self.known[path].facts

    def _open(self, path: Path) -> _Known:
        try:
            data = self.files.read(path)
            colors = read_colors(data)
        except (DataError, MissingExtraError) as error:
            return _Known(FileFacts(reason=error.what))
        facts = FileFacts(encode_content(data), *colors.image.size, form=colors.done, problem=colors.problem)
        measures = measure_picture(colors.image, data, has_frame=path in self._framed, has_thumb=path in self._shown)
        return _Known(facts, measures)


def _spread(paths: Sequence[Path], most: int) -> set[Path]:
    every = max(1, -(-len(paths) // most))
    return set(paths[::every])
