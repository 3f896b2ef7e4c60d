"""What a run of another trainer really does with its settings, as far as it can be known without training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from weber.config.data import DataConfig
from weber.config.importers.outcome import Imported
from weber.config.importers.report import write_page
from weber.data.geometry import place_picture
from weber.data.pictures import Part
from weber.data.report import measure_cuts
from weber.errors import DataError
from weber.objective.timesteps import build_timesteps, describe_law
from weber.planning.plan import Plan

PAGE_NAME = "import.md"
_NUM_DRAWS = 2**14
_MOST_PICTURES = 10_000
"""Of so many of a set, drawn evenly, the cuts are computed once more."""


def describe_old_run(imported: Imported, plan: Plan) -> list[str]:
    """Steps and epochs, the rate and the scale that act, the noise levels, and what its windows cut away beside ours."""
    return [_describe_steps(plan), *_describe_scale(plan), _describe_levels(plan), *_describe_cuts(imported, plan)]


def write_import(imported: Imported, plan: Plan) -> str:
    """The page for the run folder."""
    lines = describe_old_run(imported, plan)
    return "\n".join([write_page(imported), "## What the old run really did", "", *(f"- {line}" for line in lines), ""])


def _describe_steps(plan: Plan) -> str:
    config, pictures = plan.resolved.train, plan.dataset.examples
    per_epoch, num_repeated = plan.batches.steps_per_epoch, sum(len(part) * part.shared.repeats for part in pictures.parts)
    group = config.batch_size * config.accumulation
    return (
        f"{plan.num_steps} steps of {group} pictures: an epoch is {per_epoch} steps, for {len(pictures)} pictures that come up"
        f" {num_repeated} times in it; so {plan.num_steps / per_epoch:.1f} epochs"
    )


def _describe_scale(plan: Plan) -> list[str]:
    adapter, optim = plan.resolved.adapter, plan.resolved.optim
    lines = [f"learning rate {optim.lr:g} with {optim.name}, {optim.schedule}, {optim.warmup_steps} steps of warm-up"]
    if adapter.kind == "lora" and adapter.alpha is not None:
        scale = adapter.alpha / (adapter.rank**0.5 if adapter.rslora else adapter.rank)
        lines.append(f"what adapters of rank {adapter.rank} say counts {scale:.4g} times (alpha {adapter.alpha:g})")
    return lines


def _describe_levels(plan: Plan) -> str:
    """Quarters of the noise levels, at the commonest size."""
    objective, family, counts = plan.resolved.objective, plan.family, plan.dataset.examples.count_uses()
    bucket = max(counts, key=lambda one: (counts[one], one))
    shift = family.shift(family.num_tokens(*family.latent_shape(bucket.height, bucket.width)[1:]))
    levels = build_timesteps(objective, [(number + 0.5) / _NUM_DRAWS for number in range(_NUM_DRAWS)], token_shift=shift)
    low, middle, high = torch.quantile(levels.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return (
        f"noise levels by {describe_law(objective)}: half of them between {low:.2f} and {high:.2f}, half above {middle:.2f}"
        f" (1 is pure noise), at {bucket.width} x {bucket.height}; `--plot levels.png` draws them"
    )


def _describe_cuts(imported: Imported, plan: Plan) -> list[str]:
    lines = []
    for config in plan.config.data:
        part = next((one for one in plan.dataset.examples.parts if one.shared.set_name == config.set_name), None)
        if part is None or config.crop == "off":
            continue
        cut = measure_cuts(part)
        said = f"{config.set_name}: {100 * cut.mean():.1f} % of a picture is cut away in the mean, {100 * cut.max():.1f} % at most"
        if config.geometry != "ours":
            ours = _measure_ours(part, config, plan)
            said += f", as {imported.title} places windows; {100 * ours.mean():.1f} and {100 * ours.max():.1f} % by weber's own rule"
        lines.append(said)
    return lines


def _measure_ours(part: Part, config: DataConfig, plan: Plan) -> NDArray[np.float64]:
    """Shares that would be cut away by weber's geometry; pictures that it sets aside are left out."""
    ours, shares = config.model_copy(update={"geometry": "ours", "upscale": False}), list[float]()
    sizes = part.array("size")[:: max(1, len(part) // _MOST_PICTURES)]
    for width, height in sizes.tolist():
        try:
            placed = place_picture(width, height, config=ours, sizes=plan.family.picture_inputs.sizes)
        except DataError:
            continue
        window = placed.bucket.width * placed.bucket.height
        shares.append(max(0.0, 1 - window / (placed.resize_width * placed.resize_height)))
    return np.array(shares or [0.0])
