"""`weber bench`: what this machine takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import Texts, build_watcher, say

app = App(name="bench", help="Measure this machine.")


def memory(
    *models: str,
    precision: Texts | None = None,
    pixels: Annotated[list[int] | None, Parameter(negative="")] = None,
    device: str = "auto",
    steps: int = 5,
    blocks: int | None = None,
    out: Path | None = None,
) -> None:
    """Measure peak memory and step time with random weights of full size, next to the estimate.

    Parameters
    ----------
    models
        Variants (`weber variants`); a large and a small one if left out.
    precision
        Precision of the frozen weights, as `memory.quantize`; none, int8 and nf4 if left out.
    pixels
        Edge of the pictures; 512 and 1024 if left out.
    device
        As `memory.device`.
    steps
        Steps whose median time is given.
    blocks
        Blocks of each kind, for machines that are too small for all.
    out
        File for the same as JSON.
    """
    from weber.pocket.published import LARGE_AND_SMALL
    from weber.training.bench import PRECISIONS, build_records, build_table, list_cases, measure_cases

    cases = list_cases(models or LARGE_AND_SMALL, precisions=precision or PRECISIONS, edges=pixels or [512, 1024], num_blocks=blocks)
    watcher = build_watcher()
    with watcher.shown():
        found = list(measure_cases(cases, device=device, num_steps=steps, progress=watcher.report))
    measured = [one for one in found if not isinstance(one, str)]
    for text in (one for one in found if isinstance(one, str)):
        say(text)
    if measured:
        say(f"On {measured[0].device}:\n\n{build_table(measured)}")
    if out is not None:
        out.write_text(json.dumps(build_records(measured), indent=1) + "\n", encoding="utf-8")
