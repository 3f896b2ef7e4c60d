"""What pictures are painted with: what a run has learned, an adapter file on a model, or a model as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn

from weber.adapters.files import load_adapter
from weber.adapters.kinds import find_kind
from weber.adapters.lora import load_adapter_onto
from weber.adapters.lycoris_files import is_lycoris, load_lycoris
from weber.adapters.lycoris_paint import load_lycoris_onto
from weber.adapters.text import split_modules
from weber.checkpoint.save import CONFIG_NAME, list_checkpoints
from weber.config.load import build_config
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.output import SamplingConfig
from weber.errors import CheckpointError, ConfigError, ModelError
from weber.families.family import TRANSFORMER, Family
from weber.families.table import build_family
from weber.families.tensors import open_weights
from weber.kinds.kind import Kind, Put
from weber.kinds.table import KINDS
from weber.kinds.text import add_encoder
from weber.memory.device import build_device, build_dtype
from weber.planning.assistant import Frozen, load_frozen
from weber.planning.checks import sample_size
from weber.planning.sibling import find_sibling
from weber.results.bases import read_base, speaking_of
from weber.results.files import read_model_facts
from weber.results.runs import MODEL_NAME, SUFFIX, Saved, find_adapter, find_home, find_run
from weber.training.look import build_reference_t

_EXPECTED = "a run folder, one of its checkpoints, an adapter file, or a model: a variant, a folder, a hub id or a file"
_NUM_SHOWN = 3
_ONLY_IN_TRAINING = ("fit", "gradient_checkpointing", "offload_activations")
_HUB_ID = re.compile(r"[^/~.][^/]*/[^/]+")


def _put_nothing(transformer: nn.Module) -> None:
    """A model as it is."""


@dataclass(frozen=True)
class Subject:
    """What is painted with. `name`: for a person. `home`: the folder that pictures of it go beside, if it is on this machine. `ending`: of
    the names of its pictures.

    `kind` says how strong it is; None for a model as it is. `trained`: weights that are its own, which are never packed. `has_text`: CLIP
    is part of it. `size`: (height, width) of its pictures. `file`: name of the adapter, or of the model that was trained; `step`: of the
    run. `encoding`: the model whose encoders read prompts and pictures, which is that of the run where another one paints.
    `layers`: those that the adapter changes. `model`: settings of the run's model; of others there are none.
    """

    name: str
    home: Path | None
    family: Family
    encoding: Family
    memory: MemoryConfig
    sampling: SamplingConfig
    size: tuple[int, int]
    reference_t: float | None = None
    cache: Path | None = None
    kind: Kind | None = None
    put: Put = _put_nothing
    trained: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    frozen: tuple[Frozen, ...] = ()
    has_text: bool = False
    ending: str = ""
    file: str | None = None
    step: int | None = None
    layers: tuple[str, ...] = ()
    model: ModelConfig = ModelConfig()


def find_subject(place: str | Path, *, base: str | None = None, memory: Mapping[str, object]) -> Subject:
    """What is at a place: a run folder or what lies in it; with `base` an adapter; else a model. Reads no weights of the model.

    `memory`: settings of that section, which take the place of the run's. Raises CheckpointError, ConfigError, ModelError or AdapterError.
    """
    path = Path(place).expanduser()
    if base is not None:
        return _find_adapter(path, base, memory=memory)
    if path.exists() and find_home(path.absolute()) is not None:
        return _find_run(path, memory=memory)
    if path.is_file() and _is_adapter(path):
        raise ConfigError(
            "The model that this adapter changes is not known.",
            got=f"{path}, which lies in no run folder",
            fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
        )
    if not path.exists() and _is_path(str(place)):
        raise CheckpointError(
            "This is not a run folder.",
            got=str(place),
            expected=_EXPECTED + _list_beside(path),
            fix="give output.folder of a run, or correct the path",
        )
    try:
        with speaking_of("PLACE"):
            family = build_family(read_base(str(place)))
    except ModelError as error:
        if not path.is_dir() or (path / TRANSFORMER).is_dir():
            raise
        raise CheckpointError(
            "The folder is neither a run nor a model.",
            got=str(place),
            expected=_EXPECTED,
            fix=f"give output.folder of a run{_list_runs(path)}, or correct the path",
        ) from error
    home = path.absolute() if path.is_dir() else path.absolute().parent if path.is_file() else None
    return Subject(str(place), home, family, family, _build_memory(MemoryConfig(), memory), SamplingConfig(), _choose_size(family))


def _list_beside(path: Path) -> str:
    """The checkpoints that a run has, where a path names none of them."""
    names = [folder.name for _, folder in list_checkpoints(path.absolute().parent)]
    return f"; its run has {', '.join(names)}" if names else ""


def _list_runs(path: Path) -> str:
    """The runs in a folder, for somebody who has named that."""
    runs = sorted(str(file.parent) for file in path.glob(f"*/{CONFIG_NAME}"))
    return f", such as {', '.join(runs[:_NUM_SHOWN])}" if runs else ""


def _find_run(path: Path, *, memory: Mapping[str, object]) -> Subject:
    saved = find_run(path)
    kind = KINDS[saved.config.adapter.kind]
    config = saved.config.model_copy(update={"memory": _build_memory(saved.config.memory, memory)})
    family = build_family(config.model, hides_padding=config.objective.text_mask)
    dtype = build_dtype(config.memory, build_device(config.memory))
    trained = kind.choose(config, family, skeleton=family.skeleton, dtype=dtype)
    return Subject(
        name=_describe_saved(saved),
        home=saved.home.folder,
        family=find_sibling(config, family, is_run=True) or family,
        encoding=family,
        memory=config.memory,
        sampling=config.sampling,
        size=sample_size(config, family.alignment_pixels),
        reference_t=build_reference_t(config.objective),
        cache=config.output.cache,
        kind=kind,
        put=kind.read(saved, family, trained=trained),
        trained=trained.shapes,
        frozen=load_frozen(config.model, family, in_pictures=True),
        has_text=config.adapter.text_encoder,
        ending=saved.home.ending,
        file=saved.path.name if kind.is_adapter else f"{config.output.name}{SUFFIX}" if config.output.name else MODEL_NAME,
        step=_read_step(saved),
        layers=tuple(trained.modules),
        model=config.model,
    )


def _read_step(saved: Saved) -> int | None:
    step = saved.home.step if saved.home.step is not None else read_model_facts(saved.path).get("steps")
    return int(step) if isinstance(step, int | str) and str(step).isdecimal() else None


def _describe_saved(saved: Saved) -> str:
    """Which files paint, and the step that they are of."""
    step = _read_step(saved)
    mean = "" if saved.ema is None else f" and {saved.ema.name}"
    return f"{saved.path}{mean}" + ("" if step is None else f" of step {step}")


def _find_adapter(path: Path, base: str, *, memory: Mapping[str, object]) -> Subject:
    """An adapter of any program, or of a run, on a model that is named."""
    if not path.exists():
        raise CheckpointError("There is no such adapter.", got=str(path), fix="correct the path, or remove --base to paint with a model")
    file = find_adapter(path)
    with speaking_of("--base"):
        family = build_family(read_base(base))
    put, has_text, layers = _build_put(file)
    kind = KINDS["lycoris" if is_lycoris(file) else "lora"]
    skeleton = family.load_skeleton()
    if has_text:
        if family.adapted_text is None:
            raise ConfigError(
                f"The adapter changes CLIP too, which the model {family.variant} does not have.",
                got=f"{file} with --base {base}",
                fix="choose the model that the adapter was trained on",
            )
        add_encoder(skeleton, family.load_skeleton(family.adapted_text))
    put(skeleton)  # refused now, if it does not fit
    return Subject(
        name=str(file),
        home=file.absolute().parent,
        family=family,
        encoding=family,
        memory=_build_memory(MemoryConfig(), memory),
        sampling=SamplingConfig(),
        size=_choose_size(family),
        kind=kind,
        put=put,
        has_text=has_text,
        file=file.name,
        layers=layers,
    )


def _build_memory(memory: MemoryConfig, changes: Mapping[str, object]) -> MemoryConfig:
    idle = [name for name in changes if name in _ONLY_IN_TRAINING]
    if idle:
        raise ConfigError("The setting has no effect on pictures.", got=f"memory.{idle[0]}", fix=f"remove memory.{idle[0]}")
    # Within a whole config, so that what is wrong is told as it is everywhere else; the pictures are not looked at.
    return build_config({"data": [{"path": "."}], "memory": {**memory.model_dump(exclude_defaults=True), **changes}}).memory


def _build_put(file: Path) -> tuple[Put, bool, tuple[str, ...]]:
    """What puts an adapter file on a transformer, whether it changes CLIP too, and which layers of the transformer it changes."""
    if is_lycoris(file):
        lycoris = load_lycoris(file)
        return partial(load_lycoris_onto, file=lycoris), False, tuple(lycoris.changes)
    adapter = load_adapter(file)
    modules, text = split_modules(adapter.modules)
    return partial(load_adapter_onto, adapter=adapter), bool(text), tuple(modules)


def _is_adapter(path: Path) -> bool:
    try:
        return find_kind(open_weights([path])).is_adapter
    except ModelError:
        return False


def _is_path(place: str) -> bool:
    """Whether a person means a place on this machine, rather than a variant or a hub id."""
    return "/" in place and (_HUB_ID.fullmatch(place) is None or Path(place).parent.is_dir() or place.endswith(".safetensors"))


def _choose_size(family: Family) -> tuple[int, int]:
    return family.native_pixels, family.native_pixels
