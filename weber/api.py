"""weber from Python: what each verb of the command line does, as a function. What a function needs is imported when it is called.

Errors speak of arguments here, where those of the command line speak of flags.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from weber.errors import WeberError

if TYPE_CHECKING:
    from typing import Unpack

    from PIL.Image import Image

    from weber.adapters.compare import Comparison
    from weber.adapters.extract import Extraction
    from weber.adapters.inspect import Report as FileReport
    from weber.adapters.resize import Resized
    from weber.config.importers.outcome import Imported
    from weber.config.run import RunConfig
    from weber.planning.plan import Plan
    from weber.planning.report import Report
    from weber.progress import Progress
    from weber.results.check import Check
    from weber.track.progress import Watcher
    from weber.training.paint import Sampler, Wish

Place = str | os.PathLike[str]
_FLAG = re.compile(r"--([a-z][a-z-]*)")
_ARGUMENTS = {"prompt": "prompts", "resume": "resume=True", "format": "formats"}


class Look(TypedDict, total=False):
    """How pictures are painted; what is left out comes from the run, else from the model. `size` is (width, height) in pixels;
    `conditioning` and `mask` are files that go with every prompt; `library` is a file of further prompts."""

    steps: int | None
    guidance: float | None
    cfg: float | None
    negative: str | None
    size: tuple[int, int] | None
    conditioning: Sequence[Place]
    mask: Place | None
    attention: str | None
    library: Place | None
    no_cfg_until: int | None


class Asked(Look, total=False):
    """The same for `sample`: `num` is the pictures per prompt, each with the next seed; `blocks`: strengths of single blocks, such as
    "single:0.5"."""

    strength: float
    seed: int | None
    num: int
    blocks: str | None


class Compared(Look, total=False):
    """The same for `grid`: `checkpoints` are steps of a run, or "all"."""

    checkpoints: Sequence[int] | str
    strengths: Sequence[float]
    seeds: Sequence[int]


class OpenRun:
    """What `open_run` has opened: paints any number of times, and is read once. A context manager; `close` gives its memory back."""

    def __init__(self, sampler: Sampler, watcher: Watcher) -> None:
        self._sampler, self._watcher = sampler, watcher

    def sample(self, prompts: str | Sequence[str], **asked: Unpack[Asked]) -> list[Image]:
        """The pictures of these prompts, in their order. Raises WeberError for what cannot be painted."""
        wish = _build_wish(prompts, asked)
        with _speaking_of_arguments(), self._watcher.shown():
            return self._sampler.paint(wish)

    def close(self) -> None:
        """Give back what it has taken."""
        self._sampler.close()

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def plan(
    config: RunConfig | Place | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    card: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Check a run against its model, data and machine, without reading weights.

    `config`: a config, a TOML file, or a tree of plain values; `overrides`: `section.key=value` texts; `card`: a GPU that need not be
    here, such as "RTX 4090" or "24GB".
    """
    with _speaking_of_arguments():
        settings, watcher = read_config(config, overrides), _build_watcher(progress)
        from weber.planning.plan import build_plan

        with watcher.shown():
            return build_plan(settings, watcher.report, card=card)


def import_run(path: Place, overrides: Sequence[str] = (), *, tool: str | None = None, weber_defaults: bool = False) -> Imported:
    """The settings of another trainer as a run: its `config`, and what became of each key (`outcomes`).

    `tool`: whose file it is, left out: as it looks; `weber_defaults`: what the file leaves out is as weber has it.
    """
    with _speaking_of_arguments():
        from weber.config.importers.load import import_run as read

        return read(Path(path), overrides, tool=tool, weber_defaults=weber_defaults)


def report(plan: Plan, *, progress: Progress | None = None) -> Report:
    """A plan in words, by section, with its estimate of memory and time; `str` of it is what `weber plan` prints."""
    with _speaking_of_arguments():
        from weber.planning.report import describe_plan

        watcher = _build_watcher(progress)
        with watcher.shown():
            return describe_plan(plan, watcher.report)


def train(
    config: RunConfig | Place | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    resume: bool | int | str | Path = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Train to the end; returns the finished adapter file, or the folder of the model.

    `config`, `overrides`: as for `plan`. `resume`: go on from the latest good checkpoint, or from that of a step, or from a folder.
    `progress` is called as (what, done, total); without it bars go to standard error. `stop` is asked again and again; when it says yes,
    the run is saved and left with KeyboardInterrupt, as after Ctrl-C.
    """
    with _speaking_of_arguments():
        settings, imported = _read_run(config, overrides)
        from weber.training import assemble
        from weber.training.stop import Stop

        return assemble.train(settings, resume=resume, watcher=_build_watcher(progress), stop=Stop(stop), imported=imported)


def open_run(
    place: Place, *, base: str | None = None, memory: Mapping[str, object] | None = None, progress: Progress | None = None
) -> OpenRun:
    """Open a run folder, a checkpoint, an adapter file with its `base`, or a model, to paint with it any number of times.

    `memory`: settings of that section, such as `{"quantize": "nf4"}`.
    """
    with _speaking_of_arguments():
        from weber.training.paint import Sampler
        from weber.training.subject import find_subject

        watcher = _build_watcher(progress)
        return OpenRun(Sampler(find_subject(os.fspath(place), base=base, memory=memory or {}), watcher=watcher), watcher)


def sample(
    place: Place,
    prompts: str | Sequence[str],
    *,
    base: str | None = None,
    memory: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    **asked: Unpack[Asked],
) -> list[Image]:
    """Paint the pictures of these prompts, in their order: see `open_run`."""
    with open_run(place, base=base, memory=memory, progress=progress) as opened:
        return opened.sample(prompts, **asked)


def grid(
    place: Place,
    prompts: str | Sequence[str],
    *,
    base: str | None = None,
    memory: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    **asked: Unpack[Compared],
) -> Image:
    """Paint these prompts at several strengths, with several seeds and with several checkpoints of a run, on one sheet."""
    given: dict[str, Any] = dict(asked)
    checkpoints = given.pop("checkpoints", ())
    with _speaking_of_arguments():
        from weber.training.grids import Axes, find_subjects, paint_grid

        named = [checkpoints] if isinstance(checkpoints, str) else [str(one) for one in checkpoints]
        axes = Axes(named, given.pop("strengths", ()), given.pop("seeds", ()))
        subjects = find_subjects(os.fspath(place), axes, base=base, memory=memory or {})
        return paint_grid(subjects, _build_wish(prompts, given), axes=axes, watcher=_build_watcher(progress))


def inspect(file: Place) -> FileReport:
    """What a file is; `str` of it is what `weber inspect` prints."""
    with _speaking_of_arguments():
        from weber.adapters.inspect import inspect_file

        return inspect_file(Path(file))


def check(
    source: Place, *, original: Place | None = None, base: str | None = None, progress: Progress | None = None
) -> Check:
    """What becomes of an adapter file, that of a run, or a whole model elsewhere: what each program loads (`readings`), whether it holds
    the change of its `original` (`equality`), how much of that survives in few bits on its model `base` (`survival`)."""
    with _speaking_of_arguments():
        from weber.results.check import check as look

        watcher = _build_watcher(progress)
        with watcher.shown():
            made_of = None if original is None else Path(original)
            return look(Path(source), original=made_of, base=base, progress=watcher.report)


def diff(first: Place, second: Place, *, base: str | None = None, progress: Progress | None = None) -> Comparison:
    """Which layers of two adapters (files, run folders) differ, and by how much. `base`: their model, for kinds that depend on it."""
    with _speaking_of_arguments():
        from weber.results.diff import diff as compare

        watcher = _build_watcher(progress)
        with watcher.shown():
            return compare(Path(first), Path(second), base=base, progress=watcher.report)


def export(
    source: Place, formats: str | Sequence[str], *, base: str | None = None, out: Place | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write what a run has learned, or an adapter file, in other formats; returns the files and folders."""
    with _speaking_of_arguments():
        from weber.results.export import export as write

        named, watcher = [formats] if isinstance(formats, str) else formats, _build_watcher(progress)
        with watcher.shown():
            target = None if out is None else Path(out)
            return write(Path(source), named, base=base, out=target, progress=watcher.report, note=watcher.write)


def publish(
    run: Place,
    to: str | None = None,
    *,
    formats: str | Sequence[str] | None = None,
    public: bool = False,
    consent: bool = False,
    trigger: str | None = None,
    out: Place | None = None,
    progress: Progress | None = None,
) -> str:
    """Send what a run has learned with a page about it: `to` owner/name of the hub, or a folder in a storage; returns where it can be seen.

    With `out` nothing is sent, and what would be is written into that folder. What is left out is as the run's settings say;
    `public` needs `consent`.
    """
    with _speaking_of_arguments():
        from weber.sharing.once import Asked as Shown
        from weber.sharing.once import publish as show

        watcher = _build_watcher(progress)
        shown = Shown(to, [formats] if isinstance(formats, str) else formats, public, consent, trigger)
        target = None if out is None else Path(out)
        with watcher.shown():
            told = show(Path(run), shown, is_dry=target is not None, out=target, progress=watcher.report)
        for note in told.notes:
            watcher.write(note)
        return told.place


def write_report(run: Place, other: Place | None = None, *, out: Place | None = None, progress: Progress | None = None) -> Path:
    """Write a run, or two beside each other, as one HTML page; returns it: report.html in the folder of the first, unless `out` says."""
    with _speaking_of_arguments():
        from weber.pages.page import write_report as write

        watcher, places = _build_watcher(progress), (None if one is None else Path(one) for one in (other, out))
        second, target = places
        with watcher.shown():
            return write(Path(run), second, out=target, progress=watcher.report)


def merge(
    adapters: Mapping[Place, float] | Sequence[Place],
    out: Place,
    *,
    base: str | None = None,
    layout: str | None = None,
    rank: int | None = None,
    blocks: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Add adapters up, each with its weight (1 in a list): into one adapter file, or with `base` into a whole model; returns `out`.

    `blocks`: strengths of single blocks on top, such as "single:0.5, double.3:0"."""
    with _speaking_of_arguments():
        from weber.results.merge import merge as add_up

        watcher = _build_watcher(progress)
        weights = adapters if isinstance(adapters, Mapping) else dict.fromkeys(adapters, 1.0)
        weighted = [(Path(file), weight) for file, weight in weights.items()]
        with watcher.shown():
            notes = add_up(weighted, base=base, out=Path(out), layout=layout, rank=rank, progress=watcher.report, blocks=blocks)
            for note in notes:
                watcher.write(note)
        return Path(out)


def extract(
    tuned: str,
    out: Place,
    *,
    base: str,
    rank: int | None = None,
    energy: float | None = None,
    targets: str = "blocks",
    layout: str = "diffusers",
    progress: Progress | None = None,
) -> Extraction:
    """Write the LoRA of at most `rank`, or with the share `energy` of the change, that turns `base` into the fine-tune `tuned`."""
    with _speaking_of_arguments():
        from weber.results.extract import extract as take_out

        watcher = _build_watcher(progress)
        file = Path(out)
        with watcher.shown():
            return take_out(
                tuned, base=base, targets=targets, rank=rank, energy=energy, out=file, layout=layout, progress=watcher.report
            )


def resize(
    source: Place, out: Place, *, rank: int | None = None, energy: float | None = None, progress: Progress | None = None
) -> Resized:
    """Write a LoRA, or that of a run, with at most `rank` directions in each layer, or with the share `energy` of its change."""
    with _speaking_of_arguments():
        from weber.results.resize import resize as cut

        watcher = _build_watcher(progress)
        with watcher.shown():
            return cut(Path(source), rank=rank, energy=energy, out=Path(out), progress=watcher.report)


def scale(source: Place, out: Place, *, factor: float, progress: Progress | None = None) -> Path:
    """Write an adapter file, or that of a run, whose change is `factor` times as large; returns `out`."""
    with _speaking_of_arguments():
        from weber.results.scale import scale as write

        watcher = _build_watcher(progress)
        with watcher.shown():
            watcher.write(write(Path(source), factor, out=Path(out), progress=watcher.report))
        return Path(out)


def read_config(config: RunConfig | Place | Mapping[str, object], overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a config, a file (of weber, or of another trainer) or a tree of plain values means, with `section.key=value` texts over
    it."""
    return _read_run(config, overrides)[0]


def _read_run(
    config: RunConfig | Place | Mapping[str, object], overrides: Sequence[str]
) -> tuple[RunConfig, Imported | None]:
    from weber.config.load import build_config, is_own, load_config, write_overrides
    from weber.config.run import RunConfig

    if isinstance(config, RunConfig) and not overrides:
        return config, None
    if isinstance(config, str | os.PathLike):
        from weber.config.importers.load import load_any

        path = Path(config)
        return (load_config(path, overrides), None) if is_own(path) else load_any(path, overrides)
    tree = config.model_dump(exclude_unset=True) if isinstance(config, RunConfig) else copy.deepcopy(dict(config))
    write_overrides(tree, overrides)
    return build_config(tree), None


def _build_wish(prompts: str | Sequence[str], asked: Mapping[str, Any]) -> Wish:
    from weber.training.paint import Wish

    given: dict[str, Any] = dict(asked)
    width, height = given.pop("size", None) or (None, None)
    given["conditioning"] = [Path(file) for file in given.get("conditioning", ())]
    for name in ("mask", "library"):
        if given.get(name) is not None:
            given[name] = Path(given[name])
    return Wish([prompts] if isinstance(prompts, str) else list(prompts), width=width, height=height, **given)


def _build_watcher(progress: Progress | None) -> Watcher:
    from weber.track.progress import Listener, Watcher, build_console

    return Watcher(build_console(sys.stderr)) if progress is None else Listener(progress)


@contextmanager
def _speaking_of_arguments() -> Iterator[None]:
    """What errors say of flags, said of arguments: `--strength 2` as `strength 2`, `--resume` as `resume=True`."""
    try:
        yield
    except WeberError as error:
        error.rewrite(lambda text: _FLAG.sub(lambda flag: _ARGUMENTS.get(flag[1], flag[1].replace("-", "_")), text))
        raise
