"""The part of the plan that speaks of captions: how many, what becomes of them, some as they will be drawn, and what is not read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from weber.cache.text_forms import FULL, build_text_form
from weber.config.data import DataConfig
from weber.config.expand import list_keys
from weber.config.output import TextCache
from weber.data.buckets import Bucket
from weber.data.examples import Example
from weber.data.packing import ROWS
from weber.data.pictures import Part
from weber.data.walk import find_name
from weber.data.words import describe_count
from weber.families.tokens import TEXT
from weber.planning.lengths import Lengths, list_lengths
from weber.planning.plan import Plan
from weber.planning.sizes import describe_size
from weber.progress import Progress

_NUM_DRAWN = 10
_NUM_TRIED = 400
"""Draws that are looked at for captions of every set that were not shown yet."""

_FORMS: tuple[TextCache, ...] = ("full", "projected", "fp8")
_MUCH_BYTES = 2**30
_SHOWN_CHARACTERS = 100
_STEP = 16
_WORTH = 0.02
"""Of all tokens: what is less is not worth a word."""


def describe_captions(plan: Plan, progress: Progress) -> list[str]:
    """How many captions there are, what becomes of them, some of each set as they will be drawn, and how many are cut."""
    lines, drawn = [], _draw_first(plan)
    for key, config in zip(list_keys(plan.config.data), plan.config.data, strict=True):
        if config.evaluation == 1:
            continue
        part = plan.dataset.examples.find_part(config.set_name)
        lines += [_count_captions(config, part), *_describe_variety(config, part, key=key)]
        lines += [f'  drawn: {name}: "{_shorten(text)}"' for name, text in drawn[config.set_name]]
    if plan.model.lacking is not None:
        return [*lines, "how many tokens they have is not known without the model's own tokenizers, which are not here"]
    for one in list_lengths(plan.family, plan.needs.texts, progress=progress):
        read = f"{one.part} reads {one.most_tokens} tokens: "
        lines.append(read + (_describe_cut(one, plan) if one.num_cut else f"no text is longer, the longest has {one.longest_tokens}"))
        above = "; ".join(f"more than {mark}: {number}" for mark, number in one.num_above.items())
        lines.append(f"  tokens of {describe_count(one.num_texts, 'text')}: {above}")
        lines += _propose_tokens(one, plan)
    return lines


def describe_text_tokens(plan: Plan) -> list[str]:
    """A line where the network sees fewer tokens of a text than it was made for."""
    asked, known = plan.config.model.text_tokens, plan.family.text_range
    if asked is None or known is None or asked == known.most:
        return []
    return [f"texts of {asked} tokens in place of {known.most}, padding included: {_compare(plan, asked)}"]


def describe_text_forms(plan: Plan) -> list[str]:
    """A line for what the texts would take in every form that the run may have, where that is much."""
    family, num, chosen = plan.family, len(plan.needs.texts), plan.config.output.text_cache
    shapes = [family.text_shapes(part) for part in family.text_parts]
    sizes = {}
    for name in (*_FORMS, "live"):
        form = build_text_form(name, family, dtype=plan.dtype) if name != "live" else None
        found = [(form if TEXT in one else FULL).count_bytes(one, plan.dtype) for one in shapes] if form is not None else []
        sizes[name] = num * sum(found)
    if max(sizes.values()) < _MUCH_BYTES and chosen == "full":
        return []
    told = ", ".join(f"{name} {describe_size(size)}" if size else f"{name} nothing" for name, size in sizes.items())
    return [f"  output.text_cache = \"{chosen}\"; what texts take on the disk: {told}"]


def _propose_tokens(one: Lengths, plan: Plan) -> list[str]:
    """A line where all texts would fit into fewer tokens of the text that the network sees, and that is less work worth the while."""
    known, part = plan.family.text_range, plan.family.text_parts[-1]
    if known is None or one.part != part or plan.config.model.text_tokens is not None:
        return []
    enough = max(known.fewest, _STEP * math.ceil(one.longest_tokens / _STEP))
    if enough >= known.most or _find_saved(plan, enough) < _WORTH:
        return []
    return [f"  model.text_tokens = {enough} is enough for all of them: {_compare(plan, enough)}"]


def _compare(plan: Plan, asked: int) -> str:
    bucket = _find_largest(plan)
    return f"{_find_saved(plan, asked):.0%} fewer tokens in each step at {bucket.width} x {bucket.height}"


def _find_saved(plan: Plan, asked: int) -> float:
    """Which share of the tokens of text and picture is not there with so many of the text."""
    family, bucket = plan.family, _find_largest(plan)
    assert family.text_range is not None
    most = family.text_range.most
    return (most - asked) / (most + family.num_tokens(*family.latent_shape(bucket.height, bucket.width)[1:]))


def _find_largest(plan: Plan) -> Bucket:
    return max(plan.dataset.examples.count_uses(), key=lambda one: one.width * one.height)


def describe_cuts(plan: Plan, progress: Progress) -> list[str]:
    """A line for each text part that cuts captions."""
    found = list_lengths(plan.family, plan.needs.texts, progress=progress)
    return [f"{one.part} reads {one.most_tokens} tokens: {_describe_cut(one, plan)}" for one in found if one.num_cut]


def _count_captions(config: DataConfig, part: Part) -> str:
    noun = "text" if config.caption_steps else "caption"
    line = f"{config.set_name}: {describe_count(len(part.captions), noun)} for {describe_count(len(part), 'picture')}"
    files = part.columns.read_texts("caption_file")
    if {"textfile", "json"} & set(config.caption_sources):
        line += f" in {describe_count(len(set(files) - {''}), 'file')}"
    # hashes are enough for a number that is shown, and take less memory than a million texts
    line += f", {len(np.unique(np.fromiter(map(hash, part.captions), np.int64)))} distinct"
    if len(part.captions) > len(part):
        how = "drawn by weights" if "caption.weight" in part.columns.arrays else "drawn"
        line += f"; of a picture's {noun}s one is {how} at each use"
        if config.caption_sources == ("textfile",) and not config.caption_steps:
            line += ' (caption_per = "file" makes each file one caption)'
    fallback = 0 if config.caption_fallback is None else _count_fallback(config, part)
    return line + (f"; {describe_count(fallback, 'picture')} with caption_fallback" if fallback else "")


def _count_fallback(config: DataConfig, part: Part) -> int:
    """With steps, only where captions are in files it is known."""
    if not config.caption_steps:
        return sum(text == config.caption_fallback for text in part.captions)
    are_files = set(config.caption_sources) <= {"textfile", "json"}
    return sum(not name for name in part.columns.read_texts("caption_file")) if are_files else 0


def _describe_variety(config: DataConfig, part: Part, *, key: str) -> list[str]:
    """What the steps make of the captions of a set, and what of it is never seen."""
    if not config.caption_steps:
        return []
    kinds = list(dict.fromkeys(one.kind for one in config.caption_steps))
    lines = [f"  after the steps {', '.join(kinds)}; each text is encoded once and kept"]
    counts = np.diff(part.array("caption" + ROWS), prepend=0)
    is_partial = part.array("partial") > 0 if "partial" in part.columns.arrays else np.zeros(len(part), np.bool_)
    if any(one.is_random for one in config.caption_steps):
        whole = describe_count(int((~is_partial).sum()), "picture")
        lines.append(f"  of {whole} they are all that the steps can make, each as likely as without a cache")
    if is_partial.any():
        most, number = int(counts[is_partial].max()), int(is_partial.sum())
        more = f"{key}.caption_variants = {2 * most}"
        lines.append(
            f"  of {describe_count(number, 'picture')} they are up to {most} of many, drawn by train.seed: the others are never seen"
            f" ({more} keeps twice as many)"
        )
    empty = _find_share(part, "")
    return [*lines, f"  captions are empty in {empty:.2g} of the draws, where steps leave nothing"] if empty else lines


def _find_share(part: Part, text: str) -> float:
    """How likely a text is among the captions of a picture, in the mean over the pictures."""
    has = np.fromiter((one == text for one in part.captions), np.bool_)
    weights = part.array("caption.weight") if "caption.weight" in part.columns.arrays else np.ones(len(has))
    starts = np.concatenate([[0], part.array("caption" + ROWS)[:-1]])
    return float((np.add.reduceat(weights * has, starts) / np.add.reduceat(weights, starts)).mean())


def _draw_first(plan: Plan) -> dict[str, dict[tuple[str, str], None]]:
    """The first captions that are drawn of each set, in order, each once: names of pictures and texts."""
    found: dict[str, dict[tuple[str, str], None]] = {config.set_name: {} for config in plan.config.learned_sets}
    for example, number in _list_draws(plan):
        shown = found[example.set_name]
        if len(shown) < _NUM_DRAWN:
            shown[example.path.name, example.caption(number)] = None
        if all(len(one) == _NUM_DRAWN for one in found.values()):
            break
    return found


def _list_draws(plan: Plan) -> Iterator[tuple[Example, int | None]]:
    num, step = 0, 0
    while num < _NUM_TRIED:
        for batch in plan.batches.draw_step(step):
            for draw in batch:
                yield plan.dataset.examples[draw.example], draw.caption
                num += 1
        step += 1


def _describe_cut(one: Lengths, plan: Plan) -> str:
    name = next((find_name(part, one.longest) for part in plan.dataset.examples.parts if one.longest in part.captions), None)
    where = f" ({name})" if name else ""
    verb = "is longer, and the rest of it is" if one.num_cut == 1 else "are longer, and the rest of them is"
    worst = f'the longest has {one.longest_tokens}{where}: "{_shorten(one.longest)}"'
    looked = "" if one.num_texts == len(plan.needs.texts) else f" that were looked at, of {len(plan.needs.texts)},"
    return f"{one.num_cut} of {describe_count(one.num_texts, 'text')}{looked} {verb} not read; {worst}"


def _shorten(text: str) -> str:
    """One line of it."""
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."
