"""What a run costs, in words: its memory by phase and whether there is so much, its time, and what limits that."""

from __future__ import annotations

from weber.errors import ConfigError
from weber.memory.estimate import Estimate, Phase
from weber.memory.fit import Fit
from weber.memory.rates import GIB
from weber.planning.faster import COPIES, PROCESSOR, describe_faster
from weber.planning.fitting import build_fitted
from weber.planning.plan import Plan
from weber.planning.sizes import count_due

_LESS = 0.02
"""What is too little to be said."""

_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def describe_costs(plan: Plan, estimate: Estimate) -> list[str]:
    """Memory and time of a plan."""
    lines = [] if plan.fit is None else _describe_fit(plan.fit)
    return [*lines, *describe_memory(estimate), *describe_lack(plan, estimate), *_describe_time(plan, estimate)]


def describe_memory(estimate: Estimate) -> list[str]:
    """Of each phase, part by part."""
    lines = []
    for phase in choose_phases(estimate):
        parts = sorted(phase.parts.items(), key=lambda part: -part[1])
        lines.append(f"{phase.name}: {_write(phase.num_bytes)}")
        lines.append("  " + ", ".join(f"{name} {_write(size)}" for name, size in parts))
    if estimate.host:
        parts = sorted(estimate.host.items(), key=lambda part: -part[1])
        lines.append(f"memory of the host: {_write(estimate.host_bytes)}")
        lines.append("  " + ", ".join(f"{name} {_write(size)}" for name, size in parts))
    return lines


def describe_step(estimate: Estimate) -> list[str]:
    """The time of a step, and what limits it."""
    source = "measured just now" if estimate.is_measured else "from its datasheet, as far as that is reached in practice"
    about = "at least" if estimate.is_measured else "about"
    step = f"{estimate.work.num_flops / 1e12:.3g} TFLOP and {about} {write_seconds(estimate.time.seconds)} per step"
    named = sorted(((share, name) for name, share in find_shares(estimate).items() if share > _LESS), reverse=True)
    limits = ", ".join(f"{name} ({share:.0%})" for share, name in named)
    return [f"{step} on {estimate.rates_name} ({source})", f"  what limits it: {limits}"]


def write_seconds(seconds: float) -> str:
    """A time for a person, in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    size, unit = next(row for row in _UNITS if seconds >= row[0])
    return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"


def find_shares(estimate: Estimate) -> dict[str, float]:
    """What takes a step's time; what runs beside the computing counts as far as it is waited for."""
    time, whole = estimate.time, sum(estimate.limits.values())
    shares = {name: time.computing_share * seconds / whole for name, seconds in estimate.limits.items()} if whole else {}
    shares[PROCESSOR if time.on_host > time.copied_forward else COPIES] = 1 - time.computing_share
    return shares


def list_seconds(plan: Plan, estimate: Estimate) -> dict[str, float]:
    """Of the whole run by what takes them, without reading the model."""
    parts = {f"{plan.num_steps} steps": plan.num_steps * estimate.time.seconds}
    num_pictures, num_passes = _count_pictures(plan)
    painting = num_passes * estimate.count_seconds("painting") + num_pictures * estimate.count_seconds("decoding")
    parts[f"{num_pictures} pictures on the way"] = painting
    evaluation = plan.config.evaluation
    times = count_due(plan.num_steps, plan.count_steps(evaluation.every)) + 1
    parts["evaluation"] = times * plan.measured.count_passes(evaluation) * estimate.count_seconds("evaluating")
    views, captions = plan.needs.num_latents, plan.needs.num_kept
    if plan.config.output.text_cache == "live":
        captions = plan.num_steps * sum(plan.batches.group_sizes) // plan.batches.steps_per_epoch
    each = sum(phase.seconds for phase in estimate.phases if phase.name.startswith("encoding captions"))
    parts["encoding"] = views * estimate.count_seconds("encoding pictures") + captions * each
    return parts


def _describe_time(plan: Plan, estimate: Estimate) -> list[str]:
    """A step, and the whole run."""
    parts = list_seconds(plan, estimate)
    said = ", ".join(f"{write_seconds(seconds)} for {name}" for name, seconds in parts.items() if seconds >= _LESS * sum(parts.values()))
    about = "at least" if estimate.is_measured else "about"
    faster = describe_faster(plan, estimate, shares=find_shares(estimate))
    advice = [] if faster is None else [f"  what would make it faster: {faster}"]
    whole = f"the whole run: {about} {write_seconds(sum(parts.values()))} ({said}), without reading the model"
    return [*describe_step(estimate), *advice, whole]


def _count_pictures(plan: Plan) -> tuple[int, int]:
    """Pictures that are painted in the whole run, and passes through the network for all of them."""
    sampling, times, passes = plan.resolved.sampling, plan.num_sheets, 0
    for prompt in plan.prompts:
        steps = prompt.own.steps or sampling.steps or 0
        passes += steps if prompt.choose_negative(None, sampling.cfg) is None else 2 * steps - sampling.no_cfg_until
    return times * len(plan.prompts), times * passes


def describe_lack(plan: Plan, estimate: Estimate) -> list[str]:
    """Where there is less memory than the run takes: that it would not run, and with what it would."""
    load, peak = plan.workload, estimate.peak
    lines = []
    if load.device_bytes is not None and peak.num_bytes > load.device_bytes:
        where = "the GPU" if plan.machine.wish is None else plan.machine.wish.title
        lines.append(f"NOT ENOUGH MEMORY: {peak.name} takes {_write(peak.num_bytes)}, and {where} has {_write(load.device_bytes)}")
        lines += [f"  {line}" for line in _describe_way_out(plan)]
    on_host = estimate.host_bytes + (0 if load.device.type == "cuda" else peak.num_bytes)
    if load.host_bytes is not None and on_host > load.host_bytes:
        lines.append(f"NOT ENOUGH MEMORY: the run takes {_write(on_host)} of the machine, which has {_write(load.host_bytes)}")
        if load.device.type == "cpu":
            lines.append('  `weber plan run.toml --card "RTX 4090"` says what it takes of a GPU')
    return lines


def _describe_way_out(plan: Plan) -> list[str]:
    """What `memory.fit` would choose."""
    if plan.fit is not None:
        return ["lower memory.fit, or leave it out of the settings for what the card has"]
    memory = plan.config.memory.model_copy(update={"fit": "auto"})
    try:
        _, fit = build_fitted(plan.config.model_copy(update={"memory": memory}), plan.workload)
    except ConfigError as error:
        return [f"no setting of memory is enough: {error.got}", error.fix]
    assert fit is not None
    chosen = ", ".join(f"{name} = {_show(value)}" for name, value in fit.settings.items())
    return [f'set memory.fit = "auto", which chooses {chosen}: {_write(fit.estimate.peak.num_bytes)}']


def _describe_fit(fit: Fit) -> list[str]:
    free = fit.budget_bytes - fit.estimate.peak.num_bytes
    lines = [f"to fit into {_write(fit.budget_bytes)}, of which {_write(free)} stay free, was chosen:"]
    return lines + [f"  {reason}" for reason in fit.reasons or ("nothing: it fits as it is",)]


def choose_phases(estimate: Estimate) -> list[Phase]:
    """Of each kind (the first word of the name, and what it encodes) the largest."""
    chosen: dict[str, Phase] = {}
    for phase in estimate.phases:
        kind = phase.name if not phase.has_network else phase.name.partition(" ")[0]
        if kind not in chosen or phase.num_bytes > chosen[kind].num_bytes:
            chosen[kind] = phase
    return sorted(chosen.values(), key=lambda phase: -phase.num_bytes)


def _show(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _write(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB // 10 else f"{num_bytes / 2**20:.1f} MiB"
