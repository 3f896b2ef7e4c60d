"""The plan in words: what `weber plan` prints."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from weber.adapters.layouts import LAYOUTS
from weber.cache.masks import find_shape
from weber.cache.store import Store
from weber.config.load import list_changes
from weber.data.set_aside import list_reasons
from weber.data.words import describe_count
from weber.families.route import build_routes, count_kept
from weber.kinds.text import describe_text
from weber.memory.estimate import Estimate
from weber.objective.timesteps import describe_law
from weber.planning.attention import describe_attention
from weber.planning.budget import build_estimate
from weber.planning.caption_report import describe_captions, describe_cuts, describe_text_forms, describe_text_tokens
from weber.planning.checks import sample_size
from weber.planning.costs import describe_costs
from weber.planning.data_report import describe_pictures, describe_references, describe_set_aside, describe_sets
from weber.planning.evaluation import describe_evaluation
from weber.planning.needs import count_numbers
from weber.planning.plan import Plan, build_lessons, list_lacking
from weber.planning.sizes import (
    count_checkpoint_bytes,
    count_due,
    count_finished_bytes,
    count_model_bytes,
    count_text_bytes,
    describe_size,
)
from weber.planning.space import advise_room, list_disks
from weber.planning.spread import describe_demands, describe_spread
from weber.planning.traffic import build_links, list_demands
from weber.planning.turns import describe_uses
from weber.progress import Progress, ignore_progress
from weber.results.formats import DIFFUSERS, list_models
from weber.results.runs import EMA_ENDING, build_adapter_name, is_run


@dataclass(frozen=True)
class Report:
    """A plan in words, by section, and what it is estimated to take; `str` of it is what `weber plan` prints."""

    sections: Mapping[str, Sequence[str]]
    estimate: Estimate

    def __str__(self) -> str:
        return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in self.sections.items())


def build_report(plan: Plan, progress: Progress = ignore_progress) -> str:
    """The whole plan, section by section."""
    return str(describe_plan(plan, progress))


def describe_plan(plan: Plan, progress: Progress = ignore_progress) -> Report:
    """See `Report`."""
    estimate = build_estimate(plan.config, plan.workload)
    sections = (
        ("Model", _describe_model(plan)),
        ("Pictures", describe_pictures(plan)),
        ("Captions", describe_captions(plan, progress)),
        ("References and masks", describe_references(plan)),
        ("What is asked of each set", describe_sets(plan)),
        ("Held out", describe_evaluation(plan.config, plan.dataset, measured=plan.measured)),
        ("Set aside", describe_set_aside(plan)),
        ("Worth knowing", [*plan.dataset.notes, *_describe_smaller_steps(plan)]),
        ("Steps", _describe_steps(plan)),
        ("Devices", _describe_devices(plan, estimate)),
        ("Memory and time", describe_costs(plan, estimate)),
        ("Cache", _describe_cache(plan)),
        ("Files", _describe_files(plan)),
        ("Disk", _describe_disks(plan)),
        ("Settings that differ from the default", _describe_changes(plan)),
    )
    return Report({title: lines for title, lines in sections if lines}, estimate)


def build_summary(plan: Plan, progress: Progress = ignore_progress) -> str:
    """The plan in a few lines, for the start of a run, and what is worth knowing."""
    lines = [_describe_model(plan)[0], *_describe_steps(plan)[:1]]
    num_used, num_aside = len(plan.dataset.examples), len(plan.dataset.set_aside)
    num_buckets = len(plan.dataset.examples.count_uses())
    held = f", {len(plan.dataset.held_out)} held out" if len(plan.dataset.held_out) else ""
    lines.insert(1, f"{describe_count(num_used, 'picture')} in {describe_count(num_buckets, 'bucket')}{held}")
    if num_aside:
        reasons = ", ".join(f"{len(items)} {kind}" for kind, items in list_reasons(plan.dataset.set_aside))
        lines.append(f"{describe_count(num_aside, 'picture')} set aside: {reasons} (`weber plan` lists them)")
    lines += describe_spread(plan.config, plan.workload, spread=plan.spread)[:1]
    lines += [*plan.dataset.notes, *_describe_smaller_steps(plan), *describe_cuts(plan, progress)]
    if plan.fit is not None:
        chosen = ", ".join(f"{name} = {_show(value)}" for name, value in plan.fit.settings.items())
        lines.append(f"memory.fit has chosen {chosen or 'nothing'}")
    return "\n".join(lines)


def build_hint(plan: Plan, adapter: Path) -> str:
    """How to paint with a finished adapter: the run's first prompt with its pictures, or a caption with those that belong to it."""
    example = plan.dataset.examples[0]
    prompt = next((text for text in (*(one.text for one in plan.prompts[:1]), *example.captions) if text), "")
    words = ["weber", "sample", str(adapter.parent), "--prompt", prompt]
    first = plan.prompts[0] if plan.prompts else None
    references = [view.path for view in (first.references if first is not None else example.list_references(0))]
    masked = first.masked if first is not None else example.masked(0, 0) if example.masks else None
    if masked is not None:
        references = [masked.path]
        mask = masked.mask.path if masked.mask is not None and masked.mask.path is not None else "MASK.png"
        words += ["--mask", str(mask)]
    for path in references:
        words += ["--conditioning", str(path)]
    return "To paint with it: " + " ".join(shlex.quote(word) for word in words)


def _describe_devices(plan: Plan, estimate: Estimate) -> list[str]:
    """What several devices hold, and what they need beside computing."""
    lines = describe_spread(plan.config, plan.workload, spread=plan.spread)
    if not lines:
        return []
    links, save_every = build_links(plan.workload), plan.count_steps(plan.config.output.save_every)
    save_bytes = count_checkpoint_bytes(plan)
    demands = list_demands(plan.config, plan.workload, links=links, save_bytes=save_bytes, save_every=save_every)
    return [*lines, *describe_demands(demands, estimate.time.seconds, links=links)]


def _describe_model(plan: Plan) -> list[str]:
    adapter, memory = plan.config.adapter, plan.config.memory
    short, longer = plan.kind.describe(plan.config, plan.trained)
    objective = plan.resolved.objective
    between = objective.guidance_range
    guidance = "" if plan.training_guidance is None else f", guidance {plan.training_guidance} in training"
    guidance = guidance if between is None else f", guidance {between[0]:g} to {between[1]:g} in training"
    home = plan.config.model.path or plan.config.model.transformer or ("comes with weber" if plan.family.is_local else "from the hub")
    wish, lacking = plan.machine.wish, plan.model.lacking
    where = str(plan.device) if wish is None else f"{wish.title}, which is not here,"
    lines = [
        f"{plan.family.variant} ({home}) on {where} in {_name(plan.dtype)}, {short}",
        *_describe_gain(plan),
        *([] if lacking is None else [f"planned from the sizes that weber ships: {lacking.what[:1].lower()}{lacking.what[1:]}"]),
        *longer.splitlines(),
        f"{describe_law(objective)}{guidance}, gradient checkpointing {memory.gradient_checkpointing}",
        describe_attention(plan.config, plan.workload, is_here=wish is None),
    ]
    rollout = objective.rollout
    if rollout is not None:
        passes = "1 further forward pass" if rollout.max_steps == 1 else f"1 to {rollout.max_steps} further forward passes"
        ramp = " at the end of the ramp" if rollout.ramp_steps else ""
        lines.append(f"the model's own steps as input: {passes} for {rollout.probability:.0%} of the samples{ramp}")
    if plan.config.adapter.text_encoder:
        lines.append(describe_text(plan.config, plan.trained))
    lines += [f"{one.name.replace('_', ' ')} {one.describe()}" for one in plan.frozen]
    if plan.start is not None:
        lines.append(f"starts from {adapter.start_from}: {plan.start.layout} layout, {plan.start.num_layers} layers")
        lines += plan.start.notes
    lines += [*describe_text_tokens(plan), *_describe_routes(plan)]
    if plan.config.objective.text_mask:
        lines.append("the padding behind captions is hidden, in training and in pictures")
    if plan.config.optim.fused_backward:
        lines.append("fused backward: each weight moves as its gradient arrives, and gradients are not clipped")
    return lines


def _describe_routes(plan: Plan) -> list[str]:
    family, bucket = plan.family, max(plan.dataset.examples.count_uses(), key=lambda one: one.width * one.height)
    num_tokens = family.num_tokens(*family.latent_shape(bucket.height, bucket.width)[1:])
    num_blocks = len(family.blocks(family.build_predictor(family.skeleton)))
    return [
        f"blocks {route.first} to {route.last} of 0 to {num_blocks - 1} see {count_kept(num_tokens, route.ratio)} of {num_tokens} tokens"
        f" of a picture of {bucket.width} x {bucket.height}"
        for route in build_routes(plan.config.objective.tread, num_blocks=num_blocks)
    ]


def _describe_steps(plan: Plan) -> list[str]:
    train, per_epoch = plan.config.train, plan.batches.steps_per_epoch
    group = train.batch_size * train.accumulation
    buckets = plan.dataset.examples.count_uses()
    sums = " + ".join(f"ceil({number} / {group})" for number in list(buckets.values())[:4]) + (" + ..." if len(buckets) > 4 else "")
    epochs, uses = plan.num_steps / per_epoch, describe_uses(plan.config, plan.batches)
    asked = f"{train.epochs} epochs x {describe_count(per_epoch, 'step')}" if train.epochs is not None else "train.steps"
    steps, epoch = describe_count(plan.num_steps, "step"), describe_count(per_epoch, "step")
    return [
        f"{steps} of {_describe_groups(plan.batches.group_sizes)} = {epochs:.4g} epochs of {epoch}",
        f"pictures per epoch, with repeats: {sum(buckets.values())}",
        f"pictures per step: batch_size {train.batch_size} x accumulation {train.accumulation} = {group}",
        f"steps per epoch: {sums} = {per_epoch} (per bucket, partial batches kept)" if not uses else f"steps per epoch: {per_epoch}",
        f"steps in all: {asked} = {plan.num_steps}",
        *uses,
    ]


def _describe_groups(sizes: Sequence[int]) -> str:
    """How many pictures a step has: as many as are left of its bucket, at most."""
    least, most = min(sizes), max(sizes)
    if least == most:
        return describe_count(most, "picture")
    return f"{least} to {most} pictures ({sum(sizes) / len(sizes):.3g} on average)"


def _describe_smaller_steps(plan: Plan) -> list[str]:
    """A line where no step has as many pictures as it was asked to have."""
    train, most = plan.config.train, max(plan.batches.group_sizes)
    group = train.batch_size * train.accumulation
    if most == group:
        return []
    asked = f"train.batch_size x train.accumulation = {group}"
    return [f"no step has {group} pictures ({asked}): the largest bucket has {most}, with repeats, and a step is of one bucket"]


def _describe_cache(plan: Plan) -> list[str]:
    family, needs, element_bytes = plan.family, plan.needs, plan.dtype.itemsize
    num_texts, text_bytes = needs.num_kept, needs.num_kept * sum(count_text_bytes(plan, part) for part in family.text_parts)
    texts = describe_count(num_texts * len(family.text_parts), "text")
    if len(family.text_parts) > 1:
        texts += f" ({num_texts} for each of {' and '.join(family.text_parts)})"
    latents = f"{describe_count(needs.num_latents, 'latent')}, {describe_size(element_bytes * needs.num_numbers)}"
    lines = [f"{latents}; {texts}, {describe_size(text_bytes)}", *describe_text_forms(plan)]
    served = plan.encoders.served
    lines += [] if served is None else [f"texts are encoded by {served.name}, so no text encoder is read here"]
    if needs.windows:
        numbers = sum(math.prod(find_shape(window, family)) for window in needs.windows.values())
        lines.append(f"{describe_count(len(needs.windows), 'mask')} for the loss, {describe_size(4 * numbers)}")
    lessons = build_lessons(plan)
    answers = [] if lessons is None else list(lessons.list_all(plan.dataset.examples))
    if answers:
        buckets = [one.example.bucket for one in answers]
        numbers = sum(count_numbers(one.width, one.height, is_masked=False, family=family) for one in buckets)
        size = describe_size(4 * numbers)
        lines.append(f"{len(answers)} answers of the teacher, {size}; each costs a forward pass before the first step")
    folder = plan.config.output.cache
    if not family.is_local:
        return [*lines, f"kept in the folder {folder}; the model is not on this machine yet, so what is cached already is not known"]
    store = Store(folder)
    if answers:
        lines.append(f"to be asked now: {describe_count(len(list_lacking(plan, store)), 'answer')}")
    missing = needs.count_missing(store)
    masks = f" and {describe_count(missing.masks, 'mask')}" if needs.windows else ""
    texts = describe_count(missing.texts, "text")
    where = f", into the folder {folder}" if missing.latents + missing.texts + missing.masks else f"; all is in the folder {folder}"
    return [*lines, f"to be encoded now: {describe_count(missing.latents, 'latent')} and {texts}{masks}{where}"]


def _describe_files(plan: Plan) -> list[str]:
    config = plan.config
    folder = config.output.folder
    output = config.output
    saves = count_due(plan.num_steps, plan.count_steps(output.save_every))
    lines = [
        *_describe_finished(plan),
        *(f"note: {note}" for note in plan.kind.list_notes(plan.config, plan.family, trained=plan.trained)),
        f"{folder / 'config.toml'} and metrics.jsonl" + (", tensorboard/" if "tensorboard" in config.output.trackers else ""),
        f"checkpoints every {_describe_every(output.save_every)} ({saves}), {describe_size(count_checkpoint_bytes(plan))} each;"
        f" {'all' if output.keep_last == 'all' else f'the last {output.keep_last}'} are kept"
        + ("" if output.keep_every is None else f", and for good those of every {_describe_every(output.keep_every)}"),
    ]
    if plan.prompts:
        size = sample_size(config, plan.family.alignment_pixels)
        sizes = dict.fromkeys(prompt.choose_size(size) for prompt in plan.prompts)
        painted, measured = describe_count(len(plan.prompts), "picture"), ", ".join(f"{width} x {height}" for height, width in sizes)
        where = "" if plan.sibling is None else f", painted by {plan.sibling.variant} ({config.sampling.model})"
        lines.append(f"pictures/: {plan.num_sheets} times {painted} of {measured} and a sheet each{where}")
    return lines


def _describe_finished(plan: Plan) -> list[str]:
    """What is there at the end, and the same for the running mean."""
    output = plan.config.output
    whole_bytes = count_model_bytes(plan) if plan.family.is_local else None
    whole = "" if whole_bytes is None else f", {describe_size(whole_bytes)}"
    if plan.kind.is_adapter:
        path, size = output.folder / build_adapter_name(plan.config), describe_size(count_finished_bytes(plan))
        precision = "" if output.precision == "fp32" else f" in {output.precision}"
        lines = [f"{path}, {size}{precision}: the finished adapter"]
        others = [name for name in output.formats if name != DIFFUSERS]
        merged = f"; {whole[2:]} for each merged model" if whole and not set(others) <= set(LAYOUTS) else ""
        lines += [f"at the end {', '.join(others)} beside it{merged}"] if others else []
    else:
        lines = [f"{path}{whole}: the finished model" for path in list_models(output.formats, output.folder, name=output.name)]
    return [*lines, f"the same of the running mean, with {EMA_ENDING} in the name"] if plan.config.optim.ema_decay is not None else lines


def _describe_every(every: int | str) -> str:
    return f"{every} steps" if isinstance(every, int) else every


def _describe_disks(plan: Plan) -> list[str]:
    folder = plan.resolved.output.folder
    disks = list_disks(plan)
    lines = [disk.describe() for disk in disks]
    lines += [f"NOT ENOUGH ROOM: `weber train` refuses it; {advise_room(plan, disk)}" for disk in disks if disk.is_full]
    return [*lines, f"{folder} holds a run: `weber train` goes on with it with --resume, and not without"] if is_run(folder) else lines


def _describe_changes(plan: Plan) -> list[str]:
    """What somebody has set otherwise, and what was chosen; not what the model's own sizes filled in."""
    chosen = {} if plan.fit is None else plan.fit.settings
    lines = [f"{key} = {_show(value)}  (default {_show(default)})" for key, value, default in list_changes(plan.asked)]
    return lines + [f"memory.{name} = {_show(value)}  (chosen by memory.fit)" for name, value in chosen.items()]


def _show(value: object) -> str:
    return "none" if value is None else str(value) if isinstance(value, Path) else repr(value)


def _describe_gain(plan: Plan) -> list[str]:
    """Why a processor computes in the precision that it does, where that was tried."""
    gain = plan.machine.bf16_gain
    if gain is None:
        return []
    return [f"bf16 was tried at this run's sizes and takes {1 / gain:.2f} of the time of fp32 here; memory.dtype names either"]


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


