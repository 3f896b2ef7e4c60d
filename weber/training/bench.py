"""Peak memory and time of training steps at a model's full size, with random weights, next to the estimate: `weber bench memory`.

Nothing is downloaded. Weights are drawn layer by layer where the model runs, and packed there.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.route import build_routes
from weber.families.table import build_family
from weber.families.tensors import Entry, Weights, build_entry
from weber.families.weights import Fill
from weber.kinds.table import KINDS
from weber.kinds.text import build_text_put, find_text
from weber.memory.device import build_device, build_dtype
from weber.memory.estimate import BATCHES, OWN, Estimate
from weber.memory.formats import FORMATS
from weber.memory.rates import GIB
from weber.optim.fused import FusedBackward
from weber.optim.stepper import Stepper
from weber.optim.table import build_optimizer
from weber.planning.attention import choose_attention
from weber.planning.budget import NUM_BATCHES, Workload, build_estimate
from weber.planning.encoders import build_encoders
from weber.planning.rehearsal import Rehearsal, Sample
from weber.planning.resolve import build_resolved
from weber.pocket.full_size import build_full_size
from weber.pocket.published import TRANSFORMERS
from weber.progress import Progress, ignore_progress
from weber.training.batch import Batch
from weber.training.compiling import compile_blocks
from weber.training.learner import Learner
from weber.training.network import Where, load_network
from weber.training.step import train_step

PRECISIONS = ("none", "int8", "nf4")
_SPREAD = 0.02
_NUM_WARM_UP = 1
_MEMORY_EVENT = "[memory]"

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A model, the edge of its pictures in pixels, and settings by section as in a TOML file. `changes`: of the model's configuration."""

    variant: str
    edge: int
    settings: Settings = field(default_factory=dict)
    changes: Mapping[str, object] = field(default_factory=dict)

    def describe(self) -> str:
        """The settings in a few words."""
        return ", ".join(f"{name} {value}" for section in self.settings.values() for name, value in section.items()) or "defaults"


@dataclass(frozen=True)
class Measured:
    """What was found: bytes that PyTorch held at the most, those that it took from the device (GPUs only), and seconds per step."""

    case: Case
    device: str
    estimate: Estimate
    peak_bytes: int
    reserved_bytes: int | None
    seconds: float

    @property
    def estimated_bytes(self) -> int:
        """The estimate of what PyTorch holds while it trains: without the GPU's own, and with one batch, as none is read ahead here."""
        trains = [one for one in self.estimate.phases if one.name.startswith(("training", "updating"))]
        return max(one.num_bytes - one.parts.get(OWN, 0) - one.parts.get(BATCHES, 0) // NUM_BATCHES for one in trains)


def list_cases(variants: Sequence[str], *, precisions: Sequence[str], edges: Sequence[int], num_blocks: int | None = None) -> list[Case]:
    """Every model in every precision and size, and where its modulation can be on the host, with that.

    `num_blocks` of each kind, for machines that are too small for all. Raises ConfigError for names that nothing has.
    """
    formats = ("none", *FORMATS)
    _check("--precision", [one for one in precisions if one not in formats], expected=", ".join(formats))
    _check("--pixels", [one for one in edges if one < 64 or one % 32], expected="multiples of 32, at least 64")
    _check("--blocks", [] if num_blocks is None or num_blocks > 0 else [num_blocks], expected="1 or more")
    for name in variants:
        if name not in TRANSFORMERS:
            known = ", ".join(TRANSFORMERS)
            raise ConfigError("There is no such model of known size.", got=name, expected=known, fix="choose one of these")
    changes = {} if num_blocks is None else {"num_layers": num_blocks, "num_single_layers": num_blocks}
    cases = []
    for variant in variants:
        for edge in edges:
            for precision in precisions:
                memory = {} if precision == "none" else {"quantize": precision}
                cases.append(Case(variant, edge, {"memory": memory}, changes))
                if _has_modulation(variant):
                    cases.append(Case(variant, edge, {"memory": {**memory, "modulation": "host"}}, changes))
    return cases


def _check(option: str, wrong: Sequence[object], *, expected: str) -> None:
    if wrong:
        got = f"{option} {' '.join(map(str, wrong))}"
        raise ConfigError("This cannot be measured.", got=got, expected=expected, fix=f"correct {option}, or leave it out")


def measure_cases(
    cases: Sequence[Case], *, device: str = "auto", num_steps: int = 5, progress: Progress = ignore_progress
) -> Iterator[Measured | str]:
    """Each case measured, or why it was not: on a device without memory for it, say. Raises ConfigError."""
    _check("--steps", [] if num_steps > 0 else [num_steps], expected="1 or more")
    for number, case in enumerate(cases):
        progress(f"{case.variant} at {case.edge}, {case.describe()}", number, len(cases))
        try:
            yield measure_case(case, device=device, num_steps=num_steps)
        except torch.OutOfMemoryError as error:
            yield f"{case.variant} at {case.edge}, {case.describe()}: {str(error).splitlines()[0]}"
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    progress("measured", len(cases), len(cases))


def measure_case(case: Case, *, device: str = "auto", num_steps: int = 5) -> Measured:
    """A few real training steps on drawn numbers. Raises torch.OutOfMemoryError."""
    with TemporaryDirectory(prefix="weber-bench-") as name:
        folder = Path(name)
        build_full_size(folder / "model", case.variant, changes=case.changes)
        config = _build_config(case, folder, device)
        place, family = build_device(config.memory), build_family(config.model)
        config = build_resolved(config, family, num_steps=_NUM_WARM_UP + num_steps + 1)
        dtype = build_dtype(config.memory, place)
        trained = KINDS[config.adapter.kind].choose(config, family, skeleton=family.load_skeleton(), dtype=dtype)
        sample = Sample(case.edge, case.edge, batch=config.train.batch_size)
        workload = Workload(family, place, dtype, trained, {sample: 1})
        held = _list_storages()
        learner, batch = _build_learner(config, workload, folder), _draw_batch(config, workload, sample)
        step = iter(range(_NUM_WARM_UP + num_steps + 1))

        def run() -> None:
            train_step(learner, [batch], step=next(step))

        for _ in range(_NUM_WARM_UP):
            run()
        peak_bytes = _measure_peak(run, place, held=held)
        seconds = [_measure_seconds(run, place) for _ in range(num_steps)]
        reserved_bytes = torch.cuda.max_memory_reserved(place) if place.type == "cuda" else None
        if learner.swap is not None:
            learner.swap.close()
        device_name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
        return Measured(case, device_name, build_estimate(config, workload), peak_bytes, reserved_bytes, median(seconds))


def build_table(found: Sequence[Measured]) -> str:
    """As Markdown."""
    head = ["model", "pixels", "settings", "estimate GiB", "measured GiB", "reserved GiB", "estimate s", "measured s"]
    rows = [head, ["---", "---:", "---", *["---:"] * 5]]
    for one in found:
        reserved = "" if one.reserved_bytes is None else f"{one.reserved_bytes / GIB:.2f}"
        sizes = [f"{one.estimated_bytes / GIB:.2f}", f"{one.peak_bytes / GIB:.2f}", reserved]
        rows.append(
            [one.case.variant, str(one.case.edge), one.case.describe(), *sizes, f"{one.estimate.time.seconds:.3f}", f"{one.seconds:.3f}"]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def build_records(found: Sequence[Measured]) -> list[dict[str, object]]:
    """For JSON."""
    return [
        {
            "model": one.case.variant,
            "pixels": one.case.edge,
            "settings": one.case.settings,
            "changes": one.case.changes,
            "device": one.device,
            "estimated_bytes": one.estimated_bytes,
            "peak_bytes": one.peak_bytes,
            "reserved_bytes": one.reserved_bytes,
            "estimated_seconds": one.estimate.time.seconds,
            "seconds": one.seconds,
        }
        for one in found
    ]


class _Drawn:
    """A family whose transformer has random weights, which are drawn on the device when they are read; and the text encoder that learns."""

    def __init__(self, family: Family, *, device: torch.device, dtype: torch.dtype) -> None:
        self._family, self._device, self._dtype = family, device, dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def open_transformer(self) -> Weights:
        """See `Family.open_transformer`."""
        state = self._family.load_skeleton().state_dict()
        return {name: Entry(tuple(one.shape), self._dtype, lambda one=one: self._draw(one)) for name, one in state.items()}  # type: ignore[misc]

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        """See `Family.load`."""
        encoder = self._family.load_skeleton(part).to(dtype).to_empty(device=device)
        for buffer in encoder.buffers():
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))  # places of tokens
        for parameter in encoder.parameters():
            parameter.data = self._draw(parameter)
        if fill is not None:
            fill(encoder, {name: build_entry(one) for name, one in encoder.named_parameters()})
        return encoder

    def _draw(self, like: Tensor) -> Tensor:
        drawn = torch.empty(like.shape, dtype=self._dtype, device=self._device)
        return drawn.fill_(1.0) if like.dim() == 1 else drawn.normal_(0.0, _SPREAD)


def _build_config(case: Case, folder: Path, device: str) -> RunConfig:
    settings = {section: dict(values) for section, values in case.settings.items()}
    memory = {"device": device, **settings.pop("memory", {})}
    if memory.get("quantize", "none") != "none" or memory.get("modulation") == "int8":
        memory["keep_quantized"] = False
    model = {"path": str(folder / "model"), "variant": case.variant}
    output = {"folder": str(folder / "run"), "cache": str(folder / "cache")}
    return build_config({"model": model, "data": [{"path": str(folder)}], "memory": memory, "output": output, **settings})


def _build_learner(config: RunConfig, workload: Workload, folder: Path) -> Learner:
    family = cast("Family", _Drawn(workload.family, device=workload.device, dtype=workload.dtype))
    parameters: list[tuple[str, nn.Parameter]] = []

    def put(transformer: nn.Module) -> None:
        kind = KINDS[config.adapter.kind]
        parameters.extend(kind.build(transformer, config, trained=workload.trained, base=family.open_transformer(), start=None))

    encoders = build_encoders(family, config.memory, device=workload.device, dtype=workload.dtype)
    network = load_network(
        family,
        config.memory,
        where=Where(workload.device, workload.dtype, folder / "cache"),
        trained=workload.trained.shapes,
        put=build_text_put(put, encoders=encoders, learns=config.adapter.text_encoder),
        progress=ignore_progress,
    )
    compile_blocks(config.memory, network.predictor, family=family, is_dynamic=False)
    network.predictor.attention = choose_attention(config, workload).training.name
    network.predictor.transformer.train()
    network.predictor.routes = build_routes(config.objective.tread, num_blocks=len(family.blocks(network.predictor)))
    rates = [workload.trained.rates.get(name, 1.0) for name, _ in parameters]
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=config.train.seed, rates=rates)
    fused = FusedBackward(optimizer) if config.optim.fused_backward and isinstance(optimizer, Stepper) else None
    guidance = family.sample_defaults.training_guidance
    text = find_text(family, network.predictor.transformer)
    return Learner(config, family, network.predictor, parameters, optimizer, guidance, fused=fused, swap=network.swap, text=text)


def _draw_batch(config: RunConfig, workload: Workload, sample: Sample) -> Batch:
    rehearsal = Rehearsal(config, workload.family, workload.device, workload.dtype, workload.trained)
    latents, _, condition = rehearsal.build_inputs(sample)
    generator = torch.Generator(workload.device).manual_seed(build_seed(config.train.seed, "bench"))

    def draw(like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype, device=workload.device).normal_(generator=generator)

    drawn = {name: draw(like) for name, like in condition.items() if name != "guidance"}
    names = ("drawn",) * sample.batch
    return Batch(draw(latents), drawn, tuple(range(sample.batch)), names, captions=names)


def _measure_peak(run: Callable[[], None], device: torch.device, *, held: Container[int]) -> int:
    """Bytes that PyTorch holds at the most in one run, without the storages `held`; on a CPU by what its allocator reports."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    gc.collect()
    before = sum(size for place, size in _list_storages().items() if place not in held)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    alive = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == _MEMORY_EVENT:
            alive += event.nbytes()
            peak = max(peak, alive)
    return before + peak


def _list_storages() -> dict[int, int]:
    """Addresses and bytes of the memory of all tensors that Python knows."""
    # Not isinstance(): some objects of torch warn when they are asked for their class. Compilers leave tensors without memory behind.
    tensors = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter) and one.device.type == "cpu"]
    storages = (one.untyped_storage() for one in tensors if not torch._is_functional_tensor(one))
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _measure_seconds(run: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _has_modulation(variant: str) -> bool:
    return bool(TRANSFORMERS[variant]["_class_name"] == next(iter(TRANSFORMERS.values()))["_class_name"])
