"""A sheet of checkpoints, seeds and strengths, all of the same prompts: what `weber grid` does."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from PIL import Image

from weber.checkpoint.save import list_checkpoints
from weber.errors import CheckpointError
from weber.planning.prompts import Prompt
from weber.results.runs import find_home
from weber.sampling.grid import build_sheet
from weber.track.progress import Watcher
from weber.training.paint import Sampler, Wish, check_wish
from weber.training.subject import Subject, find_subject

ALL = "all"
"""Every checkpoint of a run."""
LARGEST_CELL_PIXELS = 512
"""Pictures on the sheet are no larger."""


@dataclass(frozen=True)
class Axes:
    """What is compared. `checkpoints`: steps of a run, or `all`; left out, what the place itself holds."""

    checkpoints: Sequence[str] = ()
    strengths: Sequence[float] = ()
    seeds: Sequence[int] = ()


def find_subjects(place: str | Path, axes: Axes, *, base: str | None, memory: Mapping[str, object]) -> list[Subject]:
    """What is painted with: each of the checkpoints, or what is at the place. Raises what `find_subject` raises, and CheckpointError for
    checkpoints that are not there."""
    return [find_subject(one, base=base, memory=memory) for one in _list_places(place, axes.checkpoints)]


def paint_grid(subjects: Sequence[Subject], wish: Wish, *, axes: Axes, watcher: Watcher) -> Image.Image:
    """The sheet of a wish. The network is read once for each of the subjects. Raises ConfigError for what cannot be painted."""
    seeds = list(dict.fromkeys(axes.seeds)) or [subjects[0].sampling.first_seed]
    asked = replace(wish, strengths=list(dict.fromkeys(axes.strengths)) or [1.0], seeds=seeds)
    for subject in subjects:
        check_wish(asked, subject)
    with watcher.shown():
        painted = [_paint(subject, asked, watcher=watcher) for subject in subjects]
    return _build(painted, steps=["" if subject.step is None else f"step {subject.step}" for subject in subjects], wish=asked)


def _list_places(place: str | Path, checkpoints: Sequence[str]) -> list[str | Path]:
    """The checkpoints of a run that are asked for, in the order of their steps or as they are named; the place itself where none are."""
    if not checkpoints:
        return [place]
    home = find_home(Path(place).expanduser().absolute())
    found = {} if home is None else dict(list_checkpoints(home.folder))
    if not found:
        raise CheckpointError("There are no checkpoints.", got=str(place), fix="give output.folder of a run, or remove --checkpoints")
    if list(checkpoints) == [ALL]:
        return list(found.values())
    lacking = [one for one in checkpoints if not one.isdecimal() or int(one) not in found]
    if lacking:
        raise CheckpointError(
            "The run has no such checkpoint.",
            got=f"--checkpoints {','.join(lacking)}",
            expected=f"steps of {', '.join(map(str, found))}",
            fix=f"name steps that are there, or {ALL}",
        )
    return [found[step] for step in dict.fromkeys(map(int, checkpoints))]


def _paint(subject: Subject, wish: Wish, *, watcher: Watcher) -> list[tuple[Prompt, Image.Image]]:
    """All pictures of one checkpoint, small enough for the sheet. The next network gets its memory."""
    with closing(Sampler(subject, watcher=watcher)) as sampler:
        painted = sampler.paint_prompts(wish)
    gc.collect()
    for _, picture in painted:
        picture.thumbnail((LARGEST_CELL_PIXELS, LARGEST_CELL_PIXELS), Image.Resampling.LANCZOS)
    return painted


def _build(painted: Sequence[Sequence[tuple[Prompt, Image.Image]]], *, steps: Sequence[str], wish: Wish) -> Image.Image:
    """Columns are the strengths where there are several, else the seeds, else the checkpoints; rows say the rest."""
    axes = {"strength": [f"strength {one:g}" for one in wish.strengths], "seed": [f"seed {one}" for one in wish.seeds], "step": steps}
    across = next((name for name, words in axes.items() if len(words) > 1), "strength")
    each = len(wish.seeds) * len(wish.strengths)
    rows: dict[tuple[int, str], list[Image.Image]] = {}
    for place, seed, number in product(range(len(painted[0]) // each), range(len(wish.seeds)), range(len(steps))):
        first = place * each + seed * len(wish.strengths)
        for prompt, picture in painted[number][first : first + len(wish.strengths)]:
            step = [steps[number]] if len(steps) > 1 and across != "step" else []
            ways = [*(way for way in prompt.ways if way not in axes[across]), *step]
            rows.setdefault((place, replace(prompt, ways=tuple(ways)).caption), []).append(picture)
    return build_sheet(axes[across], [(caption, pictures) for (_, caption), pictures in rows.items()])
