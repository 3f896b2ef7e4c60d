"""What a run will need, before anything is loaded: memory by part and phase, and time; and the settings with which it fits.

Of the sizes of pictures the smallest and the largest are rehearsed. Between them what is kept and computed grows with the number of
tokens, and attention with its square.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod

import torch

from weber.blocks.own import DEVICES
from weber.blocks.replay import count_recorded_bytes
from weber.config.adapter import SHIFTED_STARTS
from weber.config.memory import MemoryConfig
from weber.config.optim import OptimConfig
from weber.config.run import RunConfig
from weber.data.pictures import Pictures
from weber.families.family import Family
from weber.families.pattern import list_meant
from weber.kinds.kind import Trained
from weber.memory.estimate import (
    BATCHES,
    CONTEXT_BYTES,
    OWN,
    Estimate,
    Phase,
    Profile,
    StepTime,
    build_average,
    build_between,
    build_profile,
)
from weber.memory.fit import Choices
from weber.memory.load import choose_formats
from weber.memory.load import list_blocks as list_block_names
from weber.memory.rates import GIB, HOST_BYTES_PER_SECOND, MEMORY, Rates, load_rates, read_host_bytes
from weber.memory.simulate import Work
from weber.memory.swap import NUM_SLOTS, bytes_per_step, choose_swapped
from weber.optim.ema import count_mean_bytes
from weber.optim.methods import PIECE
from weber.optim.stepper import CHUNK_BYTES
from weber.optim.table import OPTIMIZERS, count_state_bytes
from weber.planning.assistant import Frozen
from weber.planning.checks import sample_size
from weber.planning.evaluation import Measured
from weber.planning.machine import Machine
from weber.planning.prompts import Prompt
from weber.planning.rehearsal import Encoding, Rehearsal, RehearsedEncoders, Sample, Sizes, count_update_bytes

NUM_BATCHES = 2
"""On the device: the one that is trained on, and the next."""

_DISK_BYTES_PER_SECOND = 2e9
_PROGRAM_BYTES = 3 * GIB  # of the host, for Python and the libraries of a GPU
_SUMS = 2  # flat, and as they come from others
_UPDATE_KERNELS, _UNPACK_KERNELS = 20, 3
"""What another model that paints takes too."""


@dataclass(frozen=True)
class Workload:
    """A run as far as memory is concerned: how often each sample is drawn, and the pictures that are painted and `measured` on the way.

    `rates` left out: those of the device. `host_bytes`, `device_bytes`: memory of the host, and of a GPU; None: enough, or not known.
    `cached`: parts of the model that have nothing to encode, because all that they would make is in the cache. With several processes
    this is what each has; `is_sharded`: a part of every block, of which `group` processes have all; None: all of them;
    `divided`: text parts that all have between them while texts are encoded.
    """

    family: Family
    device: torch.device
    dtype: torch.dtype
    trained: Trained
    samples: Mapping[Sample, int]
    paintings: Sequence[Sample] = ()
    frozen: Sequence[Frozen] = ()
    rates: Rates | None = None
    host_bytes: int | None = field(default_factory=read_host_bytes)
    device_bytes: int | None = None
    cached: Container[str] = frozenset()
    measured: Sequence[Sample] = ()
    num_processes: int = 1
    is_sharded: bool = False
    group: int | None = None
    divided: Container[str] = frozenset()

    @property
    def num_near(self) -> int:
        """How many processes have all blocks between them."""
        return self.group or self.num_processes

    def count_sharded_share(self) -> float:
        """Of the numbers that learn, those that one process alone moves: those of the blocks themselves."""
        family = self.family
        names = tuple(f"{name}." for name in list_block_names(family, family.skeleton))
        known = {name for name, _ in family.skeleton.named_parameters()}
        inside = sum(prod(shape) for name, shape in self.trained.shapes.items() if name in known and name.startswith(names))
        return inside / self.trained.num_parameters

    def count_frozen_share(self) -> float:
        """Of the numbers of the blocks, those that do not change."""
        family = self.family
        names = tuple(f"{name}." for name in list_block_names(family, family.skeleton))
        sizes = {name: one.numel() for name, one in family.skeleton.named_parameters() if name.startswith(names)}
        num = sum(size for name, size in sizes.items() if name not in self.trained.shapes)
        return num / sum(sizes.values())

    def count_own(self, num_bytes: float) -> int:
        """Of what is trained, or comes with it: what each process has."""
        share = self.count_sharded_share() if self.is_sharded else 0.0
        return int(num_bytes * (1 - share + share / self.num_near)) if share else int(num_bytes)

    def count_rounds(self, config: RunConfig) -> int:
        """Micro-batches of a step that each process has."""
        return -(-config.train.accumulation // self.num_processes)


def build_workload(
    config: RunConfig,
    family: Family,
    *,
    machine: Machine,
    trained: Trained,
    pictures: Pictures,
    prompts: Sequence[Prompt],
    frozen: Sequence[Frozen],
) -> Workload:
    """Of the pictures that a run learns from, and those that it paints on the way."""
    groups: Counter[Sample] = Counter()
    for (shared, shape), number in zip(pictures.kinds, pictures.counts, strict=True):
        is_whole = bool(config.objective.tread) and (shape.is_partial or shared.is_regularization)
        sample = Sample(shape.bucket.width, shape.bucket.height, shape.references, shape.is_masked, is_whole=is_whole)
        groups[sample] += number * shared.repeats
    samples = {replace(sample, batch=min(config.train.batch_size, number)): number for sample, number in groups.items()}
    size = sample_size(config, family.alignment_pixels)
    kinds = {
        (*one.choose_size(size)[::-1], tuple((view.crop.width, view.crop.height) for view in one.references), one.masked is not None)
        for one in prompts
    }
    paintings = [Sample(*kind) for kind in sorted(kinds)]
    return Workload(
        family,
        machine.device,
        machine.dtype,
        trained,
        samples,
        paintings,
        frozen,
        rates=machine.rates,
        host_bytes=machine.host_bytes,
        device_bytes=machine.device_bytes,
    )


def list_measured(measured: Measured) -> list[Sample]:
    """The sizes of what is measured, one picture at a time."""
    kinds = set()
    for one in (*measured.held_out, *measured.learned):
        references = tuple((other.crops[0].width, other.crops[0].height) for other in one.references)
        kinds.add((one.bucket.width, one.bucket.height, references, bool(one.masks)))
    return [Sample(*kind) for kind in sorted(kinds)]


def build_estimate(config: RunConfig, workload: Workload) -> Estimate:
    """Memory and time of a run with its settings as they are."""
    return Budget(config, workload).build_estimate(config.memory)


class Budget:
    """Estimates of one run under any settings of memory. What is rehearsed is kept, so that the next one costs little.

    `rates` may be changed, for another device; `cached` too.
    """

    def __init__(self, config: RunConfig, workload: Workload) -> None:
        self.config, self.load, self.rates, self.cached = config, workload, workload.rates, workload.cached
        load = workload
        # Several processes take gradients off the weights after each micro-batch, so that none finds any there.
        alone = config.model_copy(update={"train": config.train.model_copy(update={"accumulation": 1})})
        rehearsed = config if load.num_processes == 1 else alone
        self._rehearsal = Rehearsal(rehearsed, load.family, load.device, load.dtype, load.trained, load.frozen)
        self._encoders = RehearsedEncoders(load.family, load.dtype)
        self._updates = _Updates(config.optim, load.trained)
        self._profiles: dict[object, Profile] = {}
        self._sizes: dict[object, Sizes] = {}
        self._ends = {}
        for is_whole in {one.is_whole for one in load.samples}:
            by_size = sorted((one for one in load.samples if one.is_whole == is_whole), key=self._rehearsal.count_tokens)
            self._ends[is_whole] = by_size[0], by_size[-1]

    def count_sample_bytes(self) -> float:
        """Of what is read for a picture, on average."""
        samples = self.load.samples
        total = sum(number * self._rehearsal.count_input_bytes(replace(one, batch=1)) for one, number in samples.items())
        return total / sum(samples.values())

    def build_choices(self) -> Choices:
        """What can be chosen for this run."""
        family, trained, is_gpu = self.load.family, self.load.trained, self.load.device.type == "cuda"
        is_adapter = self.config.adapter.kind != "full"
        quantizable = choose_formats(family, self._rehearsal.skeleton, memory=MemoryConfig(quantize="int8"), trained=trained.shapes)
        return Choices(
            num_blocks=len(self._rehearsal.names),
            num_text_encoders=len(family.text_parts),
            precisions=("none", "int8") if self.load.device.type == "mps" else ("none", "int8", "nf4"),
            quantizes=bool(quantizable),
            places_modulation=bool(family.modulation_modules) and not list_meant(trained.modules, family.modulation_modules),
            swaps=(is_gpu or self.config.memory.swap_to == "disk") and (is_adapter or self.config.optim.fused_backward),
            leans=not self.config.adapter.has_dropout,
            paints=bool(self.load.paintings),
            has_host=is_gpu,
        )

    def build_estimate(self, memory: MemoryConfig, *, is_rough: bool = False) -> Estimate:
        """The whole run. `is_rough`: of the samples only the largest, whose time stands for all."""
        samples = {largest: 1 for _, largest in self._ends.values()} if is_rough else self.load.samples
        # What packing adds to activations is small: that is looked at in the end.
        run = memory.model_copy(update={"quantize": "none", "int8_matmul": False, "fp8_matmul": False}) if is_rough else memory
        profiles = {sample: self._interpolate(sample, run) for sample in samples}
        still, largest = self._list_still(memory), max(profiles.values(), key=lambda one: one.peak_bytes)
        phases = [*self._list_training(still, profiles, memory=memory), *self._list_looks(still, run), *self._list_encoding(memory)]
        return Estimate(
            tuple(phases),
            self._list_hosted(memory, largest),
            build_average([(self._count_time(profile, memory), samples[sample]) for sample, profile in profiles.items()]),
            self.config.train.accumulation * largest.work,
            self._rates.name,
            self._rates.is_measured,
            _count_parts(
                largest,
                rates=self._rates,
                unpacking=_build_unpacking(self._measure(memory)),
                times=self.load.count_rounds(self.config),
                passes=2 + _count_again(memory),
                update=self._updates.count_seconds(self._rates),
            ),
            max(profile.saved_bytes for profile in profiles.values()),
        )

    @property
    def _rates(self) -> Rates:
        return self.rates or load_rates(self.load.device, self.load.dtype)

    def _interpolate(self, sample: Sample, memory: MemoryConfig) -> Profile:
        both = self._ends[sample.is_whole]
        if sample in both:
            return self._build_profile(sample, memory)
        ends = [(self._rehearsal.count_tokens(end), self._build_profile(end, memory)) for end in both]
        return build_between(*ends, at=self._rehearsal.count_tokens(sample))

    def _build_profile(self, sample: Sample, memory: MemoryConfig, *, learns: bool = True) -> Profile:
        mode, is_packed, is_offloaded = memory.gradient_checkpointing, memory.quantize != "none", memory.offload_activations
        key = sample, mode, is_packed, is_offloaded, memory.multiplies_packed, learns
        if key not in self._profiles:
            kinds = [mode] * len(self._rehearsal.names)
            if isinstance(mode, int):
                kinds = ["all" if number % mode == mode - 1 else "none" for number in range(len(kinds))]
            rehearse, multiplies = self._rehearsal.simulate, memory.multiplies_packed
            simulate = partial(rehearse, sample=sample, is_packed=is_packed, multiplies_packed=multiplies, learns=learns)
            traces = {kind: simulate(kind) for kind in set(kinds)}
            self._profiles[key] = build_profile([traces[kind] for kind in kinds], self._rehearsal.places, is_offloaded=is_offloaded)
        return self._profiles[key]

    def _measure(self, memory: MemoryConfig) -> Sizes:
        key = memory.quantize, memory.modulation, memory.quantize_text_encoder
        if key not in self._sizes:
            self._sizes[key] = self._rehearsal.measure(memory)
        return self._sizes[key]

    def list_blocks(self, memory: MemoryConfig) -> tuple[list[int], list[int]]:
        """Bytes of the blocks that stay on the device, and of those that are swapped."""
        sizes = self._measure(memory)
        own = [0] * len(sizes.blocks) if memory.modulation == "host" else sizes.modulation
        whole = [block + more for block, more in zip(sizes.blocks, own, strict=True)]
        swapped = set(choose_swapped(len(whole), memory.swap_blocks))
        return [size for number, size in enumerate(whole) if number not in swapped], [whole[number] for number in sorted(swapped)]

    def _list_still(self, memory: MemoryConfig) -> dict[str, int]:
        """What is on the device from the first step to the last."""
        config, optim, load = self.config, self.config.optim, self.load
        resident, swapped = self.list_blocks(memory)
        others = [factors for one in load.frozen for factors in one.modules.values()]
        parts = {
            "weights of the blocks": _count_still(config, load, resident),
            "slots for swapped blocks": min(NUM_SLOTS, len(swapped)) * max(swapped, default=0),
            "slots for whole blocks": _count_slots(config, load, resident),
            "other weights": self._measure(memory).others,
            "text encoder": self._measure(memory).text,
            "text encoders in the run": sum(one.weight_bytes for one in _list_live(self._encoders, self.config, memory=memory)),
            "adapters": load.trained.num_bytes + _count_copy_bytes(load, self.config, memory) if self.config.adapter.kind != "full" else 0,
            "what adapters start with": self.load.trained.num_bytes if self.config.adapter.init in SHIFTED_STARTS else 0,
            "frozen adapters": sum((one.down.numel() + one.up.numel()) * load.dtype.itemsize for one in others),
            "optimizer": self.load.count_own(self._updates.state_bytes) if optim.state_on == "device" else 0,
            "running mean": self.load.count_own(self._updates.mean_bytes) if optim.ema_on == "device" or load.device.type == "cpu" else 0,
            "sums of gradients": _SUMS * self.load.count_own(load.trained.num_bytes) if load.num_processes > 1 else 0,
            OWN: CONTEXT_BYTES if load.device.type == "cuda" else 0,
        }
        return {name: size for name, size in parts.items() if size}

    def _list_hosted(self, memory: MemoryConfig, profile: Profile) -> dict[str, int]:
        """What is in the host's own memory; where the device is the host, what is on the device is not named again."""
        optim, is_gpu, load = self.config.optim, self.load.device.type == "cuda", self.load
        resident, swapped = self.list_blocks(memory)
        sibling = _count_sibling(self.config, self.load, sizes=self._measure(memory), blocks=self.list_blocks(memory), memory=memory)
        parts = {
            "the program": _PROGRAM_BYTES if is_gpu else 0,
            "swapped blocks": sum(swapped) if memory.swap_to == "host" else 0,
            "parts of blocks": _count_away(self.config, load, resident),
            "modulation": sum(self._measure(memory).modulation) if memory.modulation == "host" else 0,
            "the model that paints": sibling.host,
            "offloaded activations": profile.hosted_bytes,
            "optimizer": self.load.count_own(self._updates.state_bytes) + CHUNK_BYTES if optim.state_on == "host" else 0,
            "running mean": load.count_own(self._updates.mean_bytes) if optim.ema_on == "cpu" and load.device.type != "cpu" else 0,
        }
        if self.config.sampling.model is not None:
            parts["the model that paints"] = parts["swapped blocks"] + parts["modulation"]
        return {name: size for name, size in parts.items() if size}

    def _list_training(self, still: Mapping[str, int], profiles: Mapping[Sample, Profile], *, memory: MemoryConfig) -> list[Phase]:
        accumulation, phases = self.load.count_rounds(self.config), []
        live = max((one.activation_bytes for one in _list_live(self._encoders, self.config, memory=memory)), default=0)
        for sample, profile in profiles.items():
            stays = accumulation > 1 and self.load.num_processes == 1
            gradients = self.load.count_own(self.load.trained.num_bytes if stays else profile.gradient_bytes)
            moving = {
                "activations": profile.peak_bytes - profile.gradient_bytes,
                "gradients": gradients,
                BATCHES: NUM_BATCHES * accumulation * self._rehearsal.count_input_bytes(sample),
            }
            if live:
                moving["encoding captions"] = live
            is_plain = memory.gradient_checkpointing not in ("all", "lean") and not memory.offload_activations and not memory.compile
            if is_plain and self.load.device.type == "cpu" and (recorded_bytes := count_recorded_bytes(profile.input_bytes)):
                moving["recorded blocks"] = recorded_bytes
            if memory.compile and memory.quantize != "none" and memory.gradient_checkpointing != "none":
                moving["unpacked weights"] = _count_unpacked(self._measure(memory.model_copy(update={"quantize": "none"})))
            phases.append(Phase(f"training at {sample.describe()}", {**still, **moving}))
        if not self.config.optim.fused_backward:
            largest = max(map(prod, self.load.trained.shapes.values()))
            update = {"gradients": self.load.count_own(self.load.trained.num_bytes), "update": count_update_bytes(largest)}
            phases.append(Phase("updating the weights", {**still, **update}))
        return phases

    def _list_looks(self, still: Mapping[str, int], memory: MemoryConfig) -> list[Phase]:
        """What is painted, and measured one picture at a time while the next step's are there too."""
        plain = memory.model_copy(update={"gradient_checkpointing": "none", "offload_activations": False})
        sibling = _count_sibling(self.config, self.load, sizes=self._measure(memory), blocks=self.list_blocks(memory), memory=memory)
        beside = {"the model that paints": sibling.device} if sibling.device else {}
        phases, optim = list[Phase](), self.config.optim
        looks = {sample: self._build_profile(sample, plain, learns=False) for sample in (*self.load.paintings, *self.load.measured)}
        times = {sample: self._count_time(profile, memory) for sample, profile in looks.items()}
        each = {one: max(time.forward, time.copied_forward, time.on_host) / self.config.train.accumulation for one, time in times.items()}
        for sample in self.load.paintings:
            parts = {**still, **beside, "activations": looks[sample].peak_bytes}
            phases.append(Phase(f"painting {sample.describe()}", parts, seconds=each[sample]))
            decoder = self._encoders.decode(sample.width, sample.height, is_tiled=memory.vae_tiling)
            if decoder is not None:
                parts = {**still, **beside, "autoencoder": decoder.weight_bytes, "activations": decoder.activation_bytes}
                phases.append(Phase(f"decoding {sample.describe()}", parts, seconds=self._rates.count_seconds(decoder.work)))
        is_beside = self.config.evaluation.weights == "ema" and (optim.ema_on == "device" or self.load.device.type == "cpu")
        beside = {"trained weights beside the mean": self.load.trained.num_bytes} if is_beside else {}
        for sample in self.load.measured:
            largest = max(map(self._rehearsal.count_input_bytes, (sample, *self.load.samples)))
            parts = {"activations": looks[sample].peak_bytes, BATCHES: NUM_BATCHES * self.config.train.accumulation * largest}
            phases.append(Phase(f"evaluating {sample.describe()}", {**still, **beside, **parts}, seconds=each[sample]))
        return phases

    def _list_encoding(self, memory: MemoryConfig) -> list[Phase]:
        batch, own = memory.encode_batch_size, {OWN: CONTEXT_BYTES} if self.load.device.type == "cuda" else {}
        samples = [*self.load.samples, *self.load.paintings, *self.load.measured]
        width, height = max({(one.width, one.height) for one in samples} | {size for one in samples for size in one.references}, key=prod)
        family, precisions = self.load.family, (memory.quantize_text_encoder, memory.quantize_text_encoder_2)
        encoder = self._encoders.encode(width, height, batch=batch, is_tiled=memory.vae_tiling)
        rows = [(family.image_part, "encoding pictures", "autoencoder", encoder)]
        is_here = self.config.model.text_encoder_url is None
        for part, precision in zip(family.text_parts if is_here else (), precisions, strict=False):
            rows.append((part, f"encoding captions ({part})", "text encoder", self._encoders.read(part, precision, batch=batch)))
        num = self.load.num_processes
        sizes = {
            part: found.count_divided(num, num_slots=NUM_SLOTS) if part in self.load.divided else found.weight_bytes
            for part, _, _, found in rows
            if found is not None
        }
        return [
            Phase(
                name,
                {what: sizes[part], "activations": found.activation_bytes, **own},
                has_network=False,
                seconds=self._rates.count_seconds(found.work),
            )
            for part, name, what, found in rows
            if found is not None and part not in self.cached
        ]

    def _count_time(self, profile: Profile, memory: MemoryConfig) -> StepTime:
        sizes, rates, optim, times = self._measure(memory), self._rates, self.config.optim, self.load.count_rounds(self.config)
        passes, unpack = 1 + _count_again(memory), rates.count_seconds(_build_unpacking(sizes))
        _, swapped = self.list_blocks(memory)
        moved = bytes_per_step(swapped, trained_sizes=swapped if self.config.adapter.kind == "full" else ())
        inward, outward = float(moved[0]), moved[1]
        if self.load.is_sharded:
            num = self.load.num_near
            passes_in = 2 if self.config.parallel.reshard else 1 / times
            inward = passes_in * sum(self.list_blocks(memory)[0]) * (1 if self.config.parallel.offload else (num - 1) / num)
        link = rates.link if memory.swap_to == "host" else _DISK_BYTES_PER_SECOND
        updates = self._updates
        state_seconds = updates.state_bytes / rates.link if optim.state_on == "host" else 0.0
        hosted = sum(sizes.modulation) if memory.modulation == "host" else 0
        return StepTime(
            forward=times * (rates.count_seconds(profile.forward) + unpack),
            backward=times * (rates.count_seconds(profile.backward) + passes * unpack),
            copied_forward=times * (inward / 2 + profile.hosted_bytes) / link,
            copied_backward=times * (max(inward / 2, outward) + profile.hosted_bytes) / link + optim.fused_backward * state_seconds,
            on_host=times * hosted / HOST_BYTES_PER_SECOND,
            update=max(updates.count_seconds(rates), 0.0 if optim.fused_backward else state_seconds) + updates.count_mean_seconds(rates),
        )


def _count_still(config: RunConfig, load: Workload, blocks: Sequence[int]) -> int:
    """Bytes of the blocks that stay on the device."""
    return sum(blocks) // (load.num_near if load.is_sharded else 1) - _count_away(config, load, blocks)


def _count_away(config: RunConfig, load: Workload, blocks: Sequence[int]) -> int:
    """Bytes of a process's parts of blocks that lie in the memory of the host."""
    is_away = load.is_sharded and config.parallel.offload
    return int(sum(blocks) // load.num_near * load.count_frozen_share()) if is_away else 0


def _count_slots(config: RunConfig, load: Workload, blocks: Sequence[int]) -> int:
    """Bytes of slots for blocks that are put together."""
    if not load.is_sharded:
        return 0
    return min(NUM_SLOTS, len(blocks)) * max(blocks, default=0) if config.parallel.reshard else sum(blocks)


def _count_parts(
    profile: Profile, *, rates: Rates, unpacking: Work, times: int, passes: float, update: float
) -> dict[str, float]:
    """Seconds of a step's computing, by what takes them: `times` micro-batches that unpack `passes` times each, and the `update`."""
    pieces = [rates.count_parts(profile.forward), rates.count_parts(profile.backward)]
    found = {name: times * sum(piece[name] for piece in pieces) for name in pieces[0]}
    for name, seconds in rates.count_parts(unpacking).items():
        found[name] += times * passes * seconds
    found[MEMORY] += update
    return found


@dataclass(frozen=True)
class _Sibling:
    """Bytes of the model that paints, on the device and on the host."""

    device: int
    host: int


def _count_sibling(
    config: RunConfig, load: Workload, *, sizes: Sizes, blocks: tuple[Sequence[int], Sequence[int]], memory: MemoryConfig
) -> _Sibling:
    """The model of `sampling.model`, if there is one, which has the same layers, and what is on it. `blocks`: bytes of those that stay,
    and of those that are swapped."""
    if config.sampling.model is None:
        return _Sibling(0, 0)
    resident, swapped = blocks
    slots = min(NUM_SLOTS, len(swapped)) * max(swapped, default=0)
    frozen = sum(factors.down.numel() + factors.up.numel() for one in load.frozen for factors in one.modules.values())
    on_device = sum(resident) + slots + sizes.others + load.trained.num_bytes + frozen * load.dtype.itemsize
    modulation = sum(sizes.modulation) if memory.modulation == "host" else 0
    return _Sibling(on_device, modulation + (sum(swapped) if memory.swap_to == "host" else 0))


def _list_live(encoders: RehearsedEncoders, config: RunConfig, *, memory: MemoryConfig) -> list[Encoding]:
    """The text encoders that stay with the network and read one caption at a time, as far as their sizes are known."""
    if config.output.text_cache != "live" or config.model.text_encoder_url is not None:
        return []
    precisions = (memory.quantize_text_encoder, memory.quantize_text_encoder_2)
    found = [encoders.read(part, one, batch=1) for part, one in zip(encoders.family.text_parts, precisions, strict=False)]
    return [one for one in found if one is not None]


def _count_copy_bytes(load: Workload, config: RunConfig, memory: MemoryConfig) -> int:
    """Of adapters in the precision that blocks compute in; in that of the adapters themselves, of those that several layers share."""
    names = [name for name in load.trained.shapes if load.dtype != load.trained.dtype or ".lora_A." in name]
    is_own = memory.runs_own_blocks and load.device.type in DEVICES and config.adapter.kind == "lora"
    return sum(prod(load.trained.shapes[name]) for name in names) * load.dtype.itemsize if is_own else 0


def _count_unpacked(plain: Sizes) -> int:
    """A compiled block that is computed again may have unpacked its weights all at once, where others have one layer of them at a time."""
    return max(block + own for block, own in zip(plain.blocks, plain.modulation, strict=True))


def _build_unpacking(sizes: Sizes) -> Work:
    """Of packed weights, once."""
    return Work(moved_bytes=sizes.read_bytes, num_kernels=_UNPACK_KERNELS * sizes.num_packed)


def _count_again(memory: MemoryConfig) -> float:
    """How often each block is computed again, on average."""
    mode = memory.gradient_checkpointing
    return 1 / mode if isinstance(mode, int) else float(mode == "all")


@dataclass(frozen=True)
class _Updates:
    """What the optimizer and the running mean hold, and how long they take."""

    optim: OptimConfig
    trained: Trained

    @cached_property
    def state_bytes(self) -> int:
        """Of the optimizer."""
        return count_state_bytes(self.optim, self.trained.shapes.values(), dtype=self.trained.dtype)

    @cached_property
    def mean_bytes(self) -> int:
        """Of the running mean."""
        return 0 if self.optim.ema_decay is None else count_mean_bytes(self.trained.num_parameters)

    def count_seconds(self, rates: Rates) -> float:
        """Each number, its gradient and its state are read and written, and several times where no kernel does it all at once."""
        num_bytes = 2 * (2 * self.trained.num_bytes + self.state_bytes)
        if OPTIMIZERS[self.optim.name].is_fused(self.optim):
            return num_bytes / rates.bandwidth
        num_pieces = sum(-(-prod(shape) // PIECE) for shape in self.trained.shapes.values())
        return rates.count_seconds(Work(moved_bytes=4 * num_bytes, num_kernels=_UPDATE_KERNELS * num_pieces))

    def count_mean_seconds(self, rates: Rates) -> float:
        """Of the running mean."""
        if self.optim.ema_on == "device":
            return 3 * self.mean_bytes / rates.bandwidth
        return self.mean_bytes / rates.link + 3 * self.mean_bytes / HOST_BYTES_PER_SECOND
