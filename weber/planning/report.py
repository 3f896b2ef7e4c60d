"""The plan in words: what `weber plan` prints."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from weber.adapters.layouts import LAYOUTS
from weber.cache.key import build_latent_key, build_text_key
from weber.cache.masks import find_shape
from weber.cache.store import Store
from weber.config.adapter import SHIFTED_STARTS
from weber.config.load import list_changes
from weber.data.examples import Example, list_reasons
from weber.data.report import list_bucket_counts
from weber.data.views import View
from weber.families.family import Family
from weber.families.route import build_routes, count_kept
from weber.kinds.text import describe_text
from weber.objective.timesteps import describe_law
from weber.optim.table import count_state_bytes
from weber.planning.checks import sample_size
from weber.planning.costs import describe_costs
from weber.planning.plan import Plan, build_lessons, list_captions, list_lacking, list_views, list_windows
from weber.results.formats import DIFFUSERS, list_models
from weber.results.runs import ADAPTER_NAME, EMA_ENDING

_CUT = 0.2


def build_report(plan: Plan) -> str:
    """The whole plan, section by section."""
    sections = (
        ("Model", _describe_model(plan)),
        ("Pictures", _describe_pictures(plan)),
        ("References and masks", _describe_references(plan)),
        ("What is asked of each set", _describe_sets(plan)),
        ("Set aside", _describe_set_aside(plan)),
        ("Steps", _describe_steps(plan)),
        ("Memory and time", describe_costs(plan)),
        ("Cache", _describe_cache(plan)),
        ("Files", _describe_files(plan)),
        ("Settings that differ from the default", _describe_changes(plan)),
    )
    return "\n\n".join(title + "\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections if lines)


def build_summary(plan: Plan) -> str:
    """The plan in four lines, for the start of a run."""
    lines = [_describe_model(plan)[0], *_describe_steps(plan)[:1]]
    num_used, num_aside = len(plan.dataset.examples), len(plan.dataset.set_aside)
    lines.insert(1, f"{num_used} pictures in {len({one.bucket for one in plan.dataset.examples})} buckets")
    if num_aside:
        reasons = ", ".join(f"{len(items)} {kind}" for kind, items in list_reasons(plan.dataset.set_aside))
        lines.append(f"{num_aside} pictures set aside: {reasons} (`weber plan` lists them)")
    if plan.fit is not None:
        chosen = ", ".join(f"{name} = {_show(value)}" for name, value in plan.fit.settings.items())
        lines.append(f"memory.fit has chosen {chosen or 'nothing'}")
    return "\n".join(lines)


def build_hint(plan: Plan, adapter: Path) -> str:
    """How to paint with a finished adapter: the run's first prompt with its pictures, or a caption with those that belong to it."""
    example, sampling = plan.dataset.examples[0], plan.config.sampling
    words = ["weber", "sample", str(adapter.parent), "--prompt", sampling.prompts[0] if sampling.prompts else example.captions[0]]
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
        *([] if lacking is None else [f"planned from the sizes that weber ships: {lacking.what[:1].lower()}{lacking.what[1:]}"]),
        *longer.splitlines(),
        f"{describe_law(objective)}{guidance}, gradient checkpointing {memory.gradient_checkpointing}",
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
        lines.append(f"starts from {adapter.start_from}: {plan.start.layout} layout, {len(plan.start.modules)} layers")
    lines += _describe_routes(plan)
    if plan.config.objective.text_mask:
        lines.append("the padding behind captions is hidden, in training and in pictures")
    if plan.config.optim.fused_backward:
        lines.append("fused backward: each weight moves as its gradient arrives, and gradients are not clipped")
    return lines


def _describe_routes(plan: Plan) -> list[str]:
    family, bucket = plan.family, max((one.bucket for one in plan.dataset.examples), key=lambda one: one.width * one.height)
    num_tokens = family.num_tokens(*family.latent_shape(bucket.height, bucket.width)[1:])
    num_blocks = len(family.blocks(family.build_predictor(family.load_skeleton())))
    return [
        f"blocks {route.first} to {route.last} of 0 to {num_blocks - 1} see {count_kept(num_tokens, route.ratio)} of {num_tokens} tokens"
        f" of a picture of {bucket.width} x {bucket.height}"
        for route in build_routes(plan.config.objective.tread, num_blocks=num_blocks)
    ]


def _describe_pictures(plan: Plan) -> list[str]:
    rows = [("set", "bucket", "pictures", "x repeats", "upscaled", "cut away")]
    rows += [
        (
            count.set_name,
            f"{count.bucket.width} x {count.bucket.height}",
            str(count.num_pictures),
            str(count.num_with_repeats),
            str(count.num_upscaled),
            f"{100 * count.mean_cut_fraction:.1f} %",
        )
        for count in list_bucket_counts(plan.dataset)
    ]
    return _align(rows)


def _describe_references(plan: Plan) -> list[str]:
    """A line per set: how many references, of what sizes, and what they cost; how many masks."""
    lines = []
    for config in plan.config.data:
        examples = [one for one in plan.dataset.examples if one.set_name == config.set_name]
        counts = Counter(len(one.references) for one in examples)
        if set(counts) - {0}:
            lines.append(f"{config.set_name}: " + _describe_counts(counts) + f" ({config.conditioning_type or 'reference_strict'})")
            lines += _describe_sizes(examples, plan.family)
        masks = [mask for one in examples for mask in one.masks]
        if masks:
            lines.append(f"{config.set_name}: {len(masks)} masks, {'drawn at random' if masks[0].path is None else 'from files'}")
    return lines


def _describe_sets(plan: Plan) -> list[str]:
    """Lines for sets whose pictures are learned otherwise than as a whole and as they are."""
    lines, draws = [], plan.config.objective.teacher_draws
    for config in plan.config.data:
        examples, name = [one for one in plan.dataset.examples if one.set_name == config.set_name], config.set_name
        if config.loss_masks is not None or config.alpha_mask:
            where = "their alpha channel" if config.alpha_mask else str(config.loss_masks)
            masked = sum(one.loss_mask is not None for one in examples)
            count = f"{masked} of {len(examples)} pictures have a mask for the loss"
            lines.append(f"{name}: {count}, from {where}" + ("" if masked == len(examples) else "; of the others all is learned"))
        if config.caption_dropout > 0:
            lines.append(f"{name}: captions are empty with probability {config.caption_dropout:g}")
        if config.loss_weight != 1:
            lines.append(f"{name}: pictures count {config.loss_weight:g} times in the loss")
        if config.regularization:
            how = "one more forward pass each time" if draws is None else f"with {draws} fixed noises each, whose answers are kept"
            lines.append(f"{name}: regularization, the model is kept as it is on {len(examples)} pictures, {how}")
    return lines


def _describe_counts(counts: Counter[int]) -> str:
    return ", ".join(
        f"{num} {'picture' if num == 1 else 'pictures'} with {number or 'no'} {'reference' if number == 1 else 'references'}"
        for number, num in sorted(counts.items(), reverse=True)
    )


def _describe_sizes(examples: Sequence[Example], family: Family) -> list[str]:
    views = [view for one in examples for crop in range(len(one.crops)) for view in one.list_references(crop)]
    tokens = Counter((view.crop.width, view.crop.height) for view in views)
    most = max(family.num_tokens(*family.latent_shape(height, width)[1:]) for width, height in tokens)
    own = max(family.num_tokens(*family.latent_shape(one.bucket.height, one.bucket.width)[1:]) for one in examples)
    sizes = ", ".join(f"{width} x {height}" for (width, height), _ in tokens.most_common(3)) + (", ..." if len(tokens) > 3 else "")
    lines = [f"  references of {sizes}: at most {most} tokens each beside {own} of the picture"]
    cut = sum(1 for view in views if 1 - view.crop.width * view.crop.height / (view.crop.resize_width * view.crop.resize_height) > _CUT)
    if cut:
        lines.append(f"  {cut} references are cut by more than {_CUT:.0%}: their shape is not the picture's")
    return lines


def _describe_set_aside(plan: Plan) -> list[str]:
    lines = []
    for kind, items in list_reasons(plan.dataset.set_aside):
        lines.append(f"{len(items)} {kind}")
        lines += [f"  {item.path}: {item.reason}" for item in items]
    return lines


def _describe_steps(plan: Plan) -> list[str]:
    train, per_epoch = plan.config.train, plan.batches.steps_per_epoch
    group = train.batch_size * train.accumulation
    uses = sum(one.repeats for one in plan.dataset.examples)
    buckets: dict[object, int] = {}
    for one in plan.dataset.examples:
        buckets[one.bucket] = buckets.get(one.bucket, 0) + one.repeats
    sums = " + ".join(f"ceil({number} / {group})" for number in list(buckets.values())[:4]) + (" + ..." if len(buckets) > 4 else "")
    epochs = plan.num_steps / per_epoch
    asked = f"{train.epochs} epochs x {per_epoch} steps" if train.epochs is not None else "train.steps"
    return [
        f"{plan.num_steps} steps of {group} pictures = {epochs:.4g} epochs of {per_epoch} steps",
        f"pictures per epoch, with repeats: {uses}",
        f"pictures per step: batch_size {train.batch_size} x accumulation {train.accumulation} = {group}",
        f"steps per epoch: {sums} = {per_epoch} (per bucket, partial batches kept)",
        f"steps in all: {asked} = {plan.num_steps}",
    ]


def _describe_cache(plan: Plan) -> list[str]:
    family, captions = plan.family, list_captions(plan)
    element_bytes = torch.empty((), dtype=plan.dtype).element_size()
    views = list_views(plan)
    latent_bytes = sum(_count_numbers(view, family) * element_bytes for view in views)
    text_bytes = len(captions) * sum(
        math.prod(shape) * element_bytes for part in family.text_parts for shape in family.text_shapes(part).values()
    )
    lines = [
        f"{len(views)} latents, {_size(latent_bytes)}; {len(captions)} texts, {_size(text_bytes)}; in {plan.config.output.cache}",
    ]
    windows = list_windows(plan)
    if windows:
        numbers = sum(math.prod(find_shape(window, family)) for window in windows)
        lines.append(f"{len(windows)} masks for the loss, {_size(4 * numbers)}")
    lessons = build_lessons(plan)
    answers = [] if lessons is None else list(lessons.list_all(plan.dataset.examples))
    if answers:
        numbers = sum(_count_numbers(one.example.target(one.crop), family) for one in answers)
        lines.append(f"{len(answers)} answers of the teacher, {_size(4 * numbers)}; each costs a forward pass before the first step")
    if not family.is_local:
        return [*lines, "the model is not on this machine yet, so what is cached already is not known"]
    store = Store(plan.config.output.cache)
    if answers:
        lines.append(f"to be asked now: {len(list_lacking(plan, store))} answers")
    image_encoder = plan.encoders.identify(family.image_part)
    text_encoders = [plan.encoders.identify(part) for part in family.text_parts]
    latents = sum(build_latent_key(view, encoder=image_encoder, dtype=plan.dtype) not in store for view in views)
    texts = sum(
        any(build_text_key(caption, encoder=encoder, dtype=plan.dtype) not in store for encoder in text_encoders)
        for caption in captions
    )
    return [*lines, f"to be encoded now: {latents} latents and {texts} texts"]


def _count_numbers(view: View, family: Family) -> int:
    """Numbers that the encoder makes of a picture, and of its mask."""
    channels, height, width = family.latent_shape(view.crop.height, view.crop.width)
    return (channels + (0 if view.mask is None else family.picture_inputs.mask_channels)) * height * width


def _describe_files(plan: Plan) -> list[str]:
    config = plan.config
    folder = config.output.folder
    saves = _count_due(plan.num_steps, config.output.save_every)
    lines = [
        *_describe_finished(plan),
        f"{folder / 'config.toml'} and metrics.jsonl" + (", tensorboard/" if config.output.tensorboard else ""),
        f"checkpoints every {config.output.save_every} steps ({saves}), {_size(_count_checkpoint_bytes(plan))} each;"
        f" the last {config.output.keep_last} are kept",
    ]
    if config.sampling.prompts:
        height, width = sample_size(config, plan.family.alignment_pixels)
        times = _count_due(plan.num_steps, config.sampling.every) + 1
        lines.append(f"pictures/: {times} times {len(config.sampling.prompts)} pictures of {width} x {height} and a sheet each")
    return lines


def _describe_finished(plan: Plan) -> list[str]:
    """What is there at the end, and the same for the running mean."""
    output = plan.config.output
    whole_bytes = sum(entry.num_bytes for entry in plan.family.open_transformer().values()) if plan.family.is_local else None
    whole = "" if whole_bytes is None else f", {_size(whole_bytes)}"
    if plan.kind.is_adapter:
        lines = [f"{output.folder / ADAPTER_NAME}, {_size(_count_file_bytes(plan))}: the finished adapter"]
        others = [name for name in output.formats if name != DIFFUSERS]
        size = f"; {whole[2:]} for each merged model" if whole and not set(others) <= set(LAYOUTS) else ""
        lines += [f"at the end {', '.join(others)} beside it{size}"] if others else []
    else:
        lines = [f"{path}{whole}: the finished model" for path in list_models(output.formats, output.folder)]
    return [*lines, f"the same of the running mean, with {EMA_ENDING} in the name"] if plan.config.optim.ema_decay is not None else lines


def _count_checkpoint_bytes(plan: Plan) -> int:
    mean_bytes = 0 if plan.config.optim.ema_decay is None else 4 * plan.num_parameters
    state_bytes = count_state_bytes(plan.config.optim, plan.trained.shapes.values(), dtype=plan.trained.dtype)
    return _count_file_bytes(plan) + state_bytes + mean_bytes


def _count_file_bytes(plan: Plan) -> int:
    """What learned, and what is taken away beside it."""
    return plan.trained.num_bytes * (2 if plan.config.adapter.init in SHIFTED_STARTS else 1)


def _describe_changes(plan: Plan) -> list[str]:
    """What somebody has set otherwise, and what was chosen; not what the model's own sizes filled in."""
    chosen = {} if plan.fit is None else plan.fit.settings
    lines = [f"{key} = {_show(value)}  (default {_show(default)})" for key, value, default in list_changes(plan.asked)]
    return lines + [f"memory.{name} = {_show(value)}  (chosen by memory.fit)" for name, value in chosen.items()]


def _count_due(num_steps: int, every: int) -> int:
    return -(-num_steps // every)


def _show(value: object) -> str:
    return "none" if value is None else str(value) if isinstance(value, Path) else repr(value)


def _name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


def _size(num_bytes: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _align(rows: Sequence[Iterable[str]]) -> list[str]:
    table = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)] + _right(row[2:], widths[2:]))
        for row in table
    ]
