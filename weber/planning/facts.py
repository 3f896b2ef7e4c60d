"""The plan as plain values, for programs: `weber plan --json`, and what becomes of each picture, `weber plan --pictures`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weber.config.expand import list_keys
from weber.data.crops import Crop
from weber.data.examples import Example
from weber.data.set_aside import find_advice
from weber.planning.costs import choose_phases, list_seconds
from weber.planning.plan import Plan
from weber.planning.report import Report, build_summary
from weber.planning.space import list_disks
from weber.progress import Progress

_MOST_CAPTIONS = 16
"""Of a picture that are written down, with their tokens."""
_NUM_AT_ONCE = 256


def build_facts(plan: Plan, report: Report) -> dict[str, Any]:
    """What `weber plan` says, in bytes and seconds."""
    estimate, load, fit = report.estimate, plan.workload, plan.fit
    is_gpu = load.device.type == "cuda"
    return {
        "summary": build_summary(plan).splitlines(),
        "sections": {title: list(lines) for title, lines in report.sections.items()},
        "model": plan.family.variant,
        "card": str(load.device) if plan.machine.wish is None else plan.machine.wish.title,
        "is_gpu": is_gpu,
        "num_steps": plan.num_steps,
        "text_limits": _list_limits(plan),
        "num_pictures": len(plan.dataset.examples),
        "num_set_aside": len(plan.dataset.set_aside),
        "num_held_out": len(plan.dataset.held_out),
        "device_bytes": load.device_bytes if is_gpu else load.host_bytes,
        "host_bytes": load.host_bytes,
        "phases": [{"name": one.name, "num_bytes": one.num_bytes, "parts": dict(one.parts)} for one in choose_phases(estimate)],
        "host": dict(estimate.host),
        "fit": None
        if fit is None
        else {"budget_bytes": fit.budget_bytes, "settings": dict(fit.settings), "reasons": [str(one) for one in fit.reasons]},
        "step_seconds": estimate.time.seconds,
        "seconds": list_seconds(plan, estimate),
        "is_measured": estimate.is_measured,
        "rates": estimate.rates_name,
        "disks": [
            {
                "place": str(disk.place),
                "needed_bytes": disk.needed_bytes,
                "free_bytes": disk.free_bytes,
                "needs": {need.what: need.num_bytes for need in disk.needs if need.num_bytes},
            }
            for disk in list_disks(plan)
        ],
    }


def write_pictures(plan: Plan, path: Path, *, progress: Progress) -> None:
    """A line of JSON for each picture: its bucket, its windows, its captions and their tokens; then one for each that is set aside."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    total, done = len(plan.dataset.examples) + len(plan.dataset.held_out), 0
    with unfinished.open("w", encoding="utf-8") as file:
        for is_held_out, pictures in ((False, plan.dataset.examples), (True, plan.dataset.held_out)):
            for start in range(0, len(pictures), _NUM_AT_ONCE):
                examples = pictures[start : start + _NUM_AT_ONCE]
                for row in _list_rows(plan, examples, is_held_out=is_held_out):
                    file.write(json.dumps(row, ensure_ascii=True) + "\n")
                done += len(examples)
                progress("measuring the captions of pictures", done, total)
        for item in plan.dataset.set_aside:
            kind = item.reason.partition(":")[0]
            row = {"set": item.set_name, "path": str(item.path), "reason": item.reason, "advice": find_advice(kind)}
            file.write(json.dumps(row, ensure_ascii=True) + "\n")
    unfinished.replace(path)


def _list_rows(plan: Plan, examples: Sequence[Example], *, is_held_out: bool) -> Iterator[dict[str, Any]]:
    shown = [list(example.captions[:_MOST_CAPTIONS]) for example in examples]
    tokens = _count_tokens(plan, [text for texts in shown for text in texts])
    keys = dict(zip((one.set_name for one in plan.config.data), list_keys(plan.config.data), strict=True))
    for example, texts in zip(examples, shown, strict=True):
        crop = example.crops[0]
        yield {
            "set": example.set_name,
            "key": keys.get(example.set_name, ""),
            "path": str(example.path),
            "content": example.content,
            "size": [example.width, example.height],
            "bucket": [example.bucket.width, example.bucket.height],
            "windows": [list(one) for one in dict.fromkeys(map(_find_window, example.crops))],
            "cut": max(0.0, example.cut_fraction),
            "scale": (crop.resize_width * crop.resize_height / (example.width * example.height)) ** 0.5,
            "captions": texts,
            "num_captions": len(example.captions),
            "weights": list(example.caption_weights[:_MOST_CAPTIONS]),
            "tokens": {part: [counts[text] for text in texts] for part, counts in tokens.items()},
            "caption_file": example.caption_file,
            "references": [str(one.path) for one in example.references],
            "masks": [str(one.path) for one in example.masks if one.path is not None],
            "loss_mask": None if example.loss_mask is None or example.loss_mask.is_alpha else str(example.loss_mask.path),
            "is_held_out": is_held_out,
        }


def _find_window(crop: Crop) -> tuple[float, ...]:
    """Left, top, width and height of what is kept, as shares of the whole picture."""
    sides = crop.resize_width, crop.resize_height
    return tuple(round(number / side, 5) for number, side in zip((crop.left, crop.top, crop.width, crop.height), sides * 2, strict=True))


def _count_tokens(plan: Plan, texts: Sequence[str]) -> dict[str, Mapping[str, int]]:
    """Of each text part the tokens of each text; nothing where the tokenizers are not here."""
    if plan.model.lacking is not None or not texts:
        return {}
    distinct = list(dict.fromkeys(texts))
    family = plan.family
    return {part: dict(zip(distinct, family.text_limits[part]().count(distinct), strict=True)) for part in family.text_parts}


def _list_limits(plan: Plan) -> dict[str, int]:
    """How many tokens each text part reads."""
    return {} if plan.model.lacking is not None else {part: plan.family.text_limits[part]().most_tokens for part in plan.family.text_parts}
