"""Memory and time of a run, known before it is loaded: bytes per part and phase, FLOPs, seconds per step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from weber.memory.simulate import ATTENTION, Product, Stretch, Trace, Work

CONTEXT_BYTES = 5 * 2**30 // 8
"""What a GPU's driver, its loaded kernels and cuBLAS' workspaces take beside PyTorch's tensors, whatever is computed: 0.6 GiB."""

OWN, BATCHES = "the GPU's own", "batches"
"""Names of parts."""

IN_FLIGHT = 2
"""Offloaded inputs of blocks that are on the device at once: one on its way, one in use."""


@dataclass(frozen=True)
class Profile:
    """A pass over the whole model.

    `peak_bytes`: the most alive at once beside what was there before, of which `gradient_bytes` are gradients of parameters;
    `saved_bytes`: what of it is kept for the backward pass; `hosted_bytes`: what offloading takes from it; `left_bytes`: what stays
    behind for the next pass; `input_bytes`: the most that a block is given.
    """

    peak_bytes: int
    gradient_bytes: int
    saved_bytes: int
    left_bytes: int
    forward: Work
    backward: Work
    hosted_bytes: int = 0
    input_bytes: int = 0

    @property
    def work(self) -> Work:
        """Of both directions."""
        return self.forward + self.backward


def build_profile(traces: Sequence[Trace], places: Sequence[int], *, is_offloaded: bool = False) -> Profile:
    """Put a pass together: block i of the whole model behaves like block `places[i]` in `traces[i]`.

    Exact, because a block's stretch depends on nothing but the block and how it is run. Where inputs are offloaded, those of all blocks
    but the first are on the device only while they are used or on their way.
    """
    ran = [(trace, place) for trace, place in zip(traces, places, strict=True) if place in trace.forward]
    kept = [max(0, trace.forward[place].left_bytes) for trace, place in ran]
    hosted = [0, *kept[1:]] if is_offloaded else [0] * len(ran)
    level = _Level()
    for (trace, place), moved in zip(ran, hosted, strict=True):
        level.run(trace.forward[place], moved_bytes=moved)
    saved_bytes, forward = level.bytes, level.work
    level.work = Work()
    level.run(ran[-1][0].turn)
    for (trace, place), moved in zip(reversed(ran), reversed(hosted), strict=True):
        if place in trace.backward:
            level.run(trace.backward[place], moved_bytes=-moved)
    return Profile(
        level.peak_bytes + IN_FLIGHT * max(hosted),
        level.peak_gradient_bytes,
        saved_bytes,
        max(trace.left_bytes for trace, _ in ran),
        forward,
        level.work,
        sum(hosted),
        max(trace.input_bytes for trace, _ in ran),
    )


def build_between(small: tuple[int, Profile], large: tuple[int, Profile], *, at: int) -> Profile:
    """Of a size between two that are known, each with its number of tokens: all grows with that, but attention with its square.

    Its products are those of both sizes, each so much smaller that together they are as much.
    """
    (fewest, least), (most, greatest) = small, large
    share = (at - fewest) / (most - fewest) if most > fewest else 0.0
    square = (at**2 - fewest**2) / (most**2 - fewest**2) if most > fewest else 0.0

    def blend(low: float, high: float, part: float = share) -> int:
        return round(low + part * (high - low))

    def mix(low: Work, high: Work) -> Work:
        products: Counter[Product] = Counter()
        for work, is_high in ((low, False), (high, True)):
            for (kind, flops, num_bytes), count in work.products.items():
                part = square if kind == ATTENTION else share
                whole = blend(0, flops, part if is_high else 1 - part), blend(0, num_bytes, share if is_high else 1 - share)
                if any(whole):
                    products[kind, *whole] += count
        return Work(products, blend(low.moved_bytes, high.moved_bytes), blend(low.num_kernels, high.num_kernels))

    numbers = ("peak_bytes", "gradient_bytes", "saved_bytes", "left_bytes", "hosted_bytes", "input_bytes")
    blended = {name: blend(getattr(least, name), getattr(greatest, name)) for name in numbers}
    return Profile(forward=mix(least.forward, greatest.forward), backward=mix(least.backward, greatest.backward), **blended)


@dataclass
class _Level:
    """Bytes that are alive while stretches run one after the other."""

    bytes: int = 0
    gradient_bytes: int = 0
    peak_bytes: int = 0
    peak_gradient_bytes: int = 0
    work: Work = field(default_factory=Work)

    def run(self, stretch: Stretch, *, moved_bytes: int = 0) -> None:
        """`moved_bytes` of what it leaves go to the host; less than 0: of what it frees these were there."""
        if self.bytes + stretch.peak_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_gradient_bytes = self.bytes + stretch.peak_bytes, self.gradient_bytes
        self.bytes += stretch.left_bytes - moved_bytes
        self.gradient_bytes += stretch.gradient_bytes
        self.work = self.work + stretch.work


@dataclass(frozen=True)
class Phase:
    """A time of a run, and the bytes that are on the device at its peak, part by part. `has_network`: the network is there, not an
    encoder alone. `seconds`: of one picture or caption; of painting, of one step of the sampler."""

    name: str
    parts: Mapping[str, int]
    has_network: bool = True
    seconds: float = 0.0

    @property
    def num_bytes(self) -> int:
        """All parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step: of computing, forward and backward; of copying from the host, in the same two; of the processor, which
    computes ahead of the device; of the update. Copies and the processor's share run beside the computing."""

    forward: float
    backward: float
    copied_forward: float = 0.0
    copied_backward: float = 0.0
    on_host: float = 0.0
    update: float = 0.0

    @property
    def seconds(self) -> float:
        """Whatever takes longest, in each direction."""
        forward = max(self.forward, self.copied_forward, self.on_host)
        return forward + max(self.backward, self.copied_backward) + self.update

    @property
    def computing_share(self) -> float:
        """How much of the step is computing; less than 1 where it waits for copies or for the host."""
        return (self.forward + self.backward + self.update) / self.seconds


def build_average(times: Sequence[tuple[StepTime, int]]) -> StepTime:
    """Of steps that occur so often each."""
    total = sum(count for _, count in times)
    return StepTime(*(sum(getattr(one, part.name) * count for one, count in times) / total for part in fields(StepTime)))


@dataclass(frozen=True)
class Estimate:
    """What a run will need. `host` has the bytes of the host's own memory beside those of phases; on a CPU these are the same memory.

    `rates_name`: the device that the time is for; `is_measured`: by a short measurement, not from its datasheet. `limits`: seconds of
    computing by what takes them. `kept_bytes`: what the largest pass keeps for its backward pass.
    """

    phases: tuple[Phase, ...]
    host: Mapping[str, int]
    time: StepTime
    work: Work
    rates_name: str
    is_measured: bool
    limits: Mapping[str, float] = field(default_factory=dict)
    kept_bytes: int = 0

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.num_bytes)

    @property
    def host_bytes(self) -> int:
        """All of the host."""
        return sum(self.host.values())

    def find(self, start: str) -> Phase:
        """The largest phase whose name begins so."""
        return max((phase for phase in self.phases if phase.name.startswith(start)), key=lambda phase: phase.num_bytes)

    def count_seconds(self, start: str) -> float:
        """Of the slowest phase whose name begins so; 0 where there is none."""
        return max((phase.seconds for phase in self.phases if phase.name.startswith(start)), default=0.0)
