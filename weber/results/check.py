"""What becomes of a file elsewhere: which tensors each program loads, whether the file holds the change that it was made from, and how
much of that is left in a model of few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from weber.adapters.compare import Comparison, Reads, build_changed, compare, list_changes, list_model_changes
from weber.adapters.files import AdapterFile
from weber.adapters.kinds import TRANSFORMER, find_kind
from weber.adapters.lycoris_files import LycorisFile
from weber.adapters.readers import Reading, build_merged_reading, list_model_readings, list_readings
from weber.errors import AdapterError, ConfigError, ModelError
from weber.families.table import FAMILIES
from weber.families.tensors import Weights, open_weights
from weber.progress import Progress
from weber.results.bases import find_architecture, find_pairings, open_base, open_whole
from weber.results.diff import find_file, load_any
from weber.results.files import Model
from weber.results.runs import MODEL_FOLDER, SUFFIX, find_config
from weber.results.survival import Survival, measure_survival


@dataclass(frozen=True)
class Equality:
    """A file beside what it was made from. `share`: of the largest difference, relative to the layer's change (of a whole model: to the
    largest weight); `name`: where that is. Nothing differs where `num_different` is 0."""

    num_layers: int
    num_different: int
    share: float
    name: str

    def __str__(self) -> str:
        if not self.num_different:
            return f"all {self.num_layers} layers are equal to the original, to the bit"
        return f"{self.num_different} of {self.num_layers} layers differ from the original, most {self.name} by {self.share:.2%}"


@dataclass(frozen=True)
class Check:
    """What becomes of a file; `str` of it is what `weber check` prints. `equality` is None without an original, `survival` is empty
    without a model; `notes` say why."""

    path: Path
    kind: str
    readings: tuple[Reading, ...]
    equality: Equality | None
    survival: tuple[Survival, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [(reading.program, str(reading)) for reading in self.readings]
        rows += [] if self.equality is None else [("change", str(self.equality))]
        rows += [(f"in {one.format}", str(one)) for one in self.survival]
        width = max(len(label) for label, _ in rows)
        lines = [f"{self.path}: {self.kind}", *(f"  {label:<{width}}  {text}" for label, text in rows)]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def describe_keys(self) -> str:
        """Every tensor with every program: + where it is loaded, - with the reason where it is not."""
        lines = []
        for reading in self.readings:
            lines += [f"{reading.program}:", *(f"  + {name}" for name in reading.loaded)]
            lines += [f"  - {name}: {reason}" for name, reason in reading.left.items()]
        return "\n".join(lines)


def check(source: Path, *, original: Path | None, base: str | None, progress: Progress) -> Check:
    """What becomes of an adapter file, of that of a run, or of a whole model: a file, or a folder of one.

    `original`: the adapter that it was made from; `base`: its model, that of the run if left out. Raises ConfigError, AdapterError or
    ModelError for what is no such file, or for another model.
    """
    whole = _find_whole(source)
    if whole is not None:
        return _check_model(whole, original=original, base=base, progress=progress)
    path = find_file(source)
    adapter = load_any(path)
    pairings = find_pairings(adapter)
    readings = list_readings(open_weights([path]), pairings)
    modules = _list_modules(adapter)
    first = None if original is None else load_any(find_file(original))
    model, notes = _open_model(path, original, base, architecture=find_architecture(adapter))
    equality, survival = None, list[Survival]()
    if first is not None:
        find_pairings(adapter, first)
        reads = _list_reads([first, adapter], None if model is None else model.weights)
        equality = _measure_equality(compare(reads[0], reads[1], progress=progress))
    if model is not None:
        survival = measure_survival(adapter, model.weights, progress=progress)
        notes += [] if survival else ["the adapter changes nothing yet, so there is nothing to survive"]
    kind = f"adapter in the {adapter.layout} layout, for {' or '.join(adapter.classes)}"
    return Check(path, kind, (*readings, build_merged_reading(modules, pairings)), equality, tuple(survival), (*adapter.notes, *notes))


def _find_whole(source: Path) -> Path | None:
    """The file or the folder of a whole transformer that a path means."""
    folder = source / MODEL_FOLDER if (source / MODEL_FOLDER / "config.json").is_file() else source
    if (folder / "config.json").is_file():
        return folder
    try:
        is_whole = source.is_file() and find_kind(open_weights([source])) is TRANSFORMER
    except ModelError:  # which reading it as an adapter will say
        return None
    return source if is_whole else None


def _check_model(path: Path, *, original: Path | None, base: str | None, progress: Progress) -> Check:
    model = open_whole(path)
    names = list(open_weights([path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))))
    pairings = model.pairings
    equality, notes = None, list[str]()
    if original is not None:
        file = find_file(original)
        adapter = load_any(file)
        before, notes = _open_model(path, original, base, architecture=find_architecture(adapter))
        if before is None:
            raise ConfigError(
                "The model that the adapter was merged into is not known.",
                got=f"no --base, and {file} lies in no run folder whose model can be read",
                fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
            )
        equality = _compare_models(model.weights, build_changed(adapter, before.weights), progress=progress)
    elif base is not None:
        raise ConfigError("Nothing is compared, so --base has no effect.", got=f"--base {base}", fix="add --original with the adapter")
    family = next(row.transformer_class for row in FAMILIES if row.pairings is pairings)
    return Check(path, f"whole model, {family}", tuple(list_model_readings(names, pairings)), equality, (), tuple(notes))


def _open_model(path: Path, original: Path | None, base: str | None, *, architecture: str) -> tuple[Model | None, list[str]]:
    """The model that was named, or that of the run in which the file or its original lies, where that can be read; and what is to be said
    where there is none."""
    if base is not None:
        return open_base(path, base, architecture=architecture), []
    places = [path, *([] if original is None else [find_file(original)])]
    run = next((place for place in places if find_config(place.parent) is not None), None)
    if run is None:
        return None, ["without a model nothing is said of its bits: add --base with it"]
    try:
        return open_base(run, None, architecture=architecture), []
    except (ConfigError, ModelError) as error:
        return None, [f"the run's model cannot be read, so nothing is said of its bits: {error.what} {error.got}"]


def _list_modules(adapter: AdapterFile) -> list[str]:
    if isinstance(adapter, LycorisFile):
        return [*adapter.changes, *(module for one in adapter.fused.values() for module in one.match.modules)]
    return list(adapter.modules)


def _list_reads(adapters: Sequence[AdapterFile], base: Weights | None) -> list[Reads]:
    """What adapters change: as they say it themselves, else in their model."""
    try:
        return [list_changes(one) for one in adapters]
    except AdapterError:
        if base is None:
            raise
        return [list_model_changes(one, base) for one in adapters]


def _measure_equality(comparison: Comparison) -> Equality:
    different = comparison.different
    worst = different[0] if different else comparison.layers[0]
    return Equality(len(comparison.layers), len(different), worst.share, worst.name)


def _compare_models(weights: Weights, expected: Weights, *, progress: Progress) -> Equality:
    """Tensor by tensor, in the file's precision."""
    absent = [name for name in {**weights, **expected} if name not in weights or name not in expected]
    strange = [name for name, entry in weights.items() if name in expected and entry.shape != expected[name].shape]
    if absent or strange:
        raise AdapterError(
            "The file is another model than the one that the adapter was merged into.",
            got=f"{len(absent) + len(strange)} tensors that one alone has or that have other sizes, such as {(absent + strange)[0]}",
            fix="correct --base",
        )
    shares: dict[str, float] = {}
    for number, (name, entry) in enumerate(weights.items()):
        progress("comparing the models", number, len(weights))
        own, other = entry.read(), expected[name].read().to(entry.dtype)
        if not torch.equal(own, other):
            largest = float(other.float().abs().max()) or 1.0
            shares[name] = float((own.float() - other.float()).abs().max()) / largest
    progress("comparing the models", len(weights), len(weights))
    worst = max(shares, key=lambda name: shares[name], default="")
    return Equality(len(weights), len(shares), shares.get(worst, 0.0), worst)
