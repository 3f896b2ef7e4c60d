"""The part of the plan that speaks of pictures, references and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weber.config.data import DataConfig
from weber.data.levels import CUTOUT
from weber.data.pictures import Part
from weber.data.report import CUTS, Changes, count_changes, list_bucket_counts
from weber.data.set_aside import SetAside, describe_items, find_advice, list_reasons
from weber.data.words import describe_count
from weber.families.family import Family
from weber.planning.plan import Plan

SHOWN_ITEMS = 10
"""Pictures set aside that are named for each reason; a file has them all."""

_CUT = 0.2


def describe_pictures(plan: Plan) -> list[str]:
    """A table of buckets, and what is done to colors."""
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
    num_converted = sum(int((part.array("color") > 0).sum()) for part in plan.dataset.examples.parts)
    lines = [f"of {describe_count(num_converted, 'picture')} the colors are converted to sRGB, by their profiles"] if num_converted else []
    changes = [line for part in plan.dataset.examples.parts for line in _describe_changes(count_changes(part, most=SHOWN_ITEMS))]
    return _align(rows) + lines + changes


def _describe_changes(changes: Changes) -> list[str]:
    """How many pictures of a set are cut and scaled by how much, and which most."""
    cuts = ["not", *(f"to {100 * share:g} %" for share in CUTS[1:]), f"over {100 * CUTS[-1]:g} %"]
    scales = ["below 0.25", "to 0.5", "to 0.75", "to 1", "1", "to 1.25", "to 1.5", "over 1.5"]
    lines = [
        f"{changes.set_name}: cut away: {_describe_numbers(cuts, changes.cuts)}",
        f"{changes.set_name}: sides scaled by: {_describe_numbers(scales, changes.scales)}",
    ]
    for what, named in (("cut most", changes.most_cut), ("enlarged most", changes.most_enlarged)):
        if named:
            lines.append(f"{changes.set_name}: {what}:")
        lines += [
            f"  {one.name}: {100 * one.cut:.1f} % cut away, scaled by {one.scale:.3g}, {one.size[0]} x {one.size[1]} to"
            f" {one.bucket.width} x {one.bucket.height}"
            for one in named
        ]
    return lines


def _describe_numbers(words: Sequence[str], numbers: Sequence[int]) -> str:
    return ", ".join(f"{word} {number}" for word, number in zip(words, numbers, strict=True) if number)


def describe_references(plan: Plan) -> list[str]:
    """A line per set: how many references, of what sizes, and what they cost; how many masks."""
    lines = []
    for config in plan.config.learned_sets:
        part, counts = _find_part(plan, config), Counter[int]()
        for shape, number in zip(part.shapes, part.counts, strict=True):
            counts[len(shape.references)] += number
        if set(counts) - {0}:
            lines.append(f"{config.set_name}: " + _describe_counts(counts) + f" ({config.conditioning_type or 'reference_strict'})")
            lines += _describe_sizes(part, plan.family)
        if config.reference_dropout > 0:
            lines.append(f"{config.set_name}: references are left out with probability {config.reference_dropout:g}")
        if config.reference_order == "shuffled":
            lines.append(f"{config.set_name}: references are seen in any order")
        if "mask" in part.columns:
            is_drawn, shares = not part.columns.read_texts("mask")[0], part.array("mask.share")
            how = "drawn at random" if is_drawn else f"from files: {_describe_shares(shares)} painted anew"
            lines.append(f"{config.set_name}: {describe_count(len(shares), 'mask')}, {how}{_describe_cutouts(part, 'mask')}")
    return lines


def describe_sets(plan: Plan) -> list[str]:
    """Lines for sets whose pictures are learned otherwise than as a whole and as they are."""
    lines, draws = [], plan.config.objective.teacher_draws
    for config in plan.config.learned_sets:
        part, name = _find_part(plan, config), config.set_name
        if config.loss_masks is not None or config.alpha_mask:
            lines.append(f"{name}: {_describe_loss_masks(config, part)}")
        if config.caption_dropout > 0:
            lines.append(f"{name}: captions are empty with probability {config.caption_dropout:g}")
        if config.loss_weight != 1:
            lines.append(f"{name}: pictures count {config.loss_weight:g} times in the loss")
        if config.regularization:
            how = "one more forward pass each time" if draws is None else f"with {draws} fixed noises each, whose answers are kept"
            kept = describe_count(len(part), "picture")
            lines.append(f"{name}: regularization, the model is kept as it is on {kept}, {how}")
    return lines


def describe_set_aside(plan: Plan) -> list[str]:
    """For each reason the first pictures, what helps, and where the others are listed."""
    lines = []
    for kind, items in list_reasons(plan.dataset.set_aside):
        advice = find_advice(kind)
        lines.append(f"{len(items)} {kind}" + (f" ({advice})" if advice else ""))
        lines += [f"  {line}" for line in describe_items(items, most=SHOWN_ITEMS)]
        if len(items) > SHOWN_ITEMS:
            lines.append(f"  and {len(items) - SHOWN_ITEMS} more, in {find_list(plan)}")
    return lines


def find_list(plan: Plan) -> Path:
    """Where all pictures that were set aside are listed, if they are more than a plan shows."""
    return plan.config.output.cache / f"set-aside-{plan.config.output.folder.name}.txt"


def save_list(plan: Plan) -> None:
    """Write that file where it is needed, and remove it where it is not."""
    reasons: Sequence[tuple[str, Sequence[SetAside]]] = list_reasons(plan.dataset.set_aside)
    if any(len(items) > SHOWN_ITEMS for _, items in reasons):
        lines = [line for _, items in reasons for line in describe_items(items, most=len(items))]
        find_list(plan).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        find_list(plan).unlink(missing_ok=True)


def _find_part(plan: Plan, config: DataConfig) -> Part:
    return plan.dataset.examples.find_part(config.set_name)


def _describe_loss_masks(config: DataConfig, part: Part) -> str:
    where = "their alpha channel" if config.alpha_mask else str(config.loss_masks)
    shares = part.array("loss_mask.share")
    verb = "has" if len(shares) == 1 else "have"
    line = f"{len(shares)} of {describe_count(len(part), 'picture')} {verb} a mask for the loss, from {where}"
    line += f": {_describe_shares(shares)} learned{_describe_cutouts(part, 'loss_mask')}"
    return line + ("" if len(shares) == len(part) else "; of the others all is learned")


def _describe_shares(shares: NDArray[np.float64]) -> str:
    """How much of the pictures masks cover."""
    lowest, mean, highest = shares.min(), shares.mean(), shares.max()
    between = "" if highest - lowest < 0.005 else f" ({lowest:.0%} to {highest:.0%})"
    return f"{mean:.0%} of it is" if len(shares) == 1 else f"{mean:.0%} of them on average{between} is"


def _describe_cutouts(part: Part, name: str) -> str:
    number = part.count_word(f"{name}.word", CUTOUT)
    return f"; {number} of them cut-outs in their own colors, of which all that is opaque counts" if number else ""


def _describe_counts(counts: Counter[int]) -> str:
    return ", ".join(
        f"{describe_count(num, 'picture')} with {number or 'no'} {'reference' if number == 1 else 'references'}"
        for number, num in sorted(counts.items(), reverse=True)
    )


def _describe_sizes(part: Part, family: Family) -> list[str]:
    crops = part.array("reference.crop").astype(np.int64)
    found, numbers = np.unique(crops[:, 4:], axis=0, return_counts=True)
    tokens = Counter({(width, height): int(number) for (width, height), number in zip(found.tolist(), numbers, strict=True)})
    most = max(family.num_tokens(*family.latent_shape(height, width)[1:]) for width, height in tokens)
    own = max(family.num_tokens(*family.latent_shape(one.bucket.height, one.bucket.width)[1:]) for one in part.shapes)
    listed = sorted(tokens, key=lambda size: (-tokens[size], -size[0] * size[1], size))[:3]
    sizes = ", ".join(f"{width} x {height}" for width, height in listed) + (", ..." if len(tokens) > 3 else "")
    lines = [f"  references of {sizes}: at most {most} tokens each beside {own} of the picture"]
    cut = int((1 - crops[:, 4] * crops[:, 5] / (crops[:, 0] * crops[:, 1]) > _CUT).sum())
    if cut:
        verb = "is" if cut == 1 else "are"
        lines.append(f"  {describe_count(cut, 'reference')} {verb} cut by more than {_CUT:.0%}: of another shape than the picture")
    return lines


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _align(rows: Sequence[Iterable[str]]) -> list[str]:
    table = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)] + _right(row[2:], widths[2:]))
        for row in table
    ]
