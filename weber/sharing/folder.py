"""The folder that is shown: files of the result, its page, its pictures and its curve."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from weber.adapters.kinds import TRANSFORMER, find_kind
from weber.adapters.lycoris_files import is_lycoris
from weber.adapters.readers import Reading, list_readings
from weber.config.publish import PublishConfig
from weber.errors import ConfigError
from weber.families.tensors import open_weights
from weber.progress import Progress
from weber.results.bases import find_pairings
from weber.results.diff import load_any
from weber.results.export import export
from weber.results.files import read_model_facts
from weber.results.formats import DIFFUSERS, MERGED_FOLDER
from weber.results.runs import MODEL_FOLDER, MODEL_NAME, SUFFIX, Saved, find_run
from weber.sharing.captions import CAPTIONS, read_captions
from weber.sharing.card import CARD, CURVE, Shown, build_card
from weber.sharing.curve import build_curve
from weber.sharing.shown import find_base, list_pictures, save_pictures
from weber.track.jsonl import read_metrics

LIBRARY_NAME = "pytorch_lora_weights.safetensors"
"""The file that diffusers looks for first in a repository of a LoRA."""
_STAGED = ".publish-"
_LOADER = "diffusers"


@dataclass(frozen=True)
class Folder:
    """A folder that can be sent. `files`: all that is in it, the page last; `step`: of the run."""

    path: Path
    files: Sequence[Path]
    step: int | None
    notes: tuple[str, ...]


def write_folder(place: Path, config: PublishConfig, *, out: Path, progress: Progress) -> Folder:
    """Write what is shown of a run (its folder, a checkpoint, or a result in it) into a folder that is not there, or empty.

    Raises CheckpointError for what is no run, ConfigError or AdapterError for formats that it cannot have.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("The folder is not empty.", got=str(out), expected="one that is new or empty", fix="choose another --out")
    saved = find_run(place)
    saved = saved if saved.ema is None else find_run(place, weights="trained")
    facts = read_model_facts(saved.path)
    step = facts.get("steps")
    step = step if isinstance(step, int) else None
    title = _choose_title(saved, config)
    out.mkdir(parents=True, exist_ok=True)
    _write_results(saved, config, out=out, title=title, progress=progress)
    weights = sorted(path for path in out.rglob(f"*{SUFFIX}"))
    readings = _list_readings(weights, out)
    metrics = [(line["step"], line["loss"]) for line in read_metrics(saved.home.folder) if line.get("loss") is not None]
    points = [one for one in metrics if step is None or one[0] <= step]
    if points:
        build_curve(points, title="Loss by step").save(out / CURVE)
    captions = read_captions(saved.home.folder) if config.captions else []
    shown = Shown(
        title,
        saved.config,
        config,
        find_base(saved.config),
        facts,
        {path: _hash(path) for path in weights},
        readings,
        save_pictures(list_pictures(saved.home.folder, step=step), out),
        next((name for name, some in readings.items() if any(one.program == _LOADER and not one.left for one in some)), None),
        bool(points),
        captions,
    )
    (out / CARD).write_text(build_card(shown, folder=out), encoding="utf-8")
    files = sorted((path for path in out.rglob("*") if path.is_file()), key=lambda path: (path.name == CARD, str(path)))
    silent = "the page tells no words that call it up; publish.trigger_words (--trigger) does"
    unknown = f"publish.captions has none to tell, because {saved.home.folder} has no {CAPTIONS}"
    notes = {silent: config.trigger_words is None, unknown: config.captions and not captions}
    return Folder(out, files, step, tuple(note for note, is_so in notes.items() if is_so))


@contextmanager
def stage_folder(place: Path, config: PublishConfig, *, progress: Progress) -> Iterator[Folder]:
    """The same in a folder of the run that is gone afterwards."""
    staged = create_staged(place)
    try:
        yield write_folder(place, config, out=staged, progress=progress)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def create_staged(place: Path) -> Path:
    """A new empty folder in the run that a path means."""
    return Path(mkdtemp(prefix=_STAGED, dir=find_run(place).home.folder))


def clear_staged(run_folder: Path) -> None:
    """Delete what a run that was killed has left to be sent."""
    for old in run_folder.glob(f"{_STAGED}*"):
        shutil.rmtree(old, ignore_errors=True)


def _choose_title(saved: Saved, config: PublishConfig) -> str:
    named = None if config.to is None else config.to.rstrip("/").rpartition("/")[2]
    return named or saved.config.output.name or saved.home.folder.name


def _write_results(saved: Saved, config: PublishConfig, *, out: Path, title: str, progress: Progress) -> None:
    """The result of the run as it is, and what else was asked for."""
    formats, is_model = list(dict.fromkeys(config.formats)), saved.config.adapter.kind == "full"
    if not is_model and DIFFUSERS in formats:
        formats.remove(DIFFUSERS)
        _put(saved.path, out / (title + SUFFIX if is_lycoris(saved.path) else LIBRARY_NAME))
    if is_model and saved.path.is_dir() and {DIFFUSERS, MERGED_FOLDER} & set(formats):
        formats = [name for name in formats if name not in (DIFFUSERS, MERGED_FOLDER)]
        for file in saved.path.iterdir():
            _put(file, out / MODEL_FOLDER / file.name)
    if not formats:
        return
    for path in export(saved.path, formats, base=None, out=out, progress=progress):
        _name_after(path, saved.path.stem, title)


def _name_after(path: Path, stem: str, title: str) -> None:
    """A result is called after the page, not after the run's file."""
    if path.name == MODEL_NAME:
        path.rename(path.with_name(title + SUFFIX))
    elif path.name.startswith(stem):
        path.rename(path.with_name(title + path.name.removeprefix(stem)))


def _put(file: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no such thing: results are replaced whole, never changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copy2(file, target)


def _list_readings(weights: Sequence[Path], out: Path) -> Mapping[str, Sequence[Reading]]:
    """Of the adapter files what each program makes of them."""
    readings = {}
    for path in weights:
        tensors = open_weights([path])
        if path.parent == out and find_kind(tensors) is not TRANSFORMER:
            readings[path.name] = list_readings(tensors, find_pairings(load_any(path)))
    return readings


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
