"""Scores of the pictures that are painted on the way: whether they fit their prompts, and how near they are to what is learned."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from weber.data.examples import Example
from weber.data.views import read_pixels
from weber.planning.looking import CLIP_KEY, LIKENESS_KEY, OWN
from weber.planning.plan import Plan
from weber.progress import Progress
from weber.sampling.grid import build_sheet
from weber.sampling.scorers import Scorer, find_scorer, load_scorer
from weber.sampling.scores import find_nearest, measure_fit, measure_likeness, normalize
from weber.sampling.validate import save_picture
from weber.training.batch import Reader

MOST_LEARNED = 256
"""Of so many pictures that are learned, evenly chosen, painted ones are compared with each."""
_GRID = 16


class Copy(NamedTuple):
    """A painted picture that is almost one that is learned."""

    file: Path
    learned: Path
    cosine: float


@dataclass(frozen=True)
class Scored:
    """Numbers by their names, and what is a copy."""

    numbers: Mapping[str, float]
    copies: Sequence[Copy]


class Scoring:
    """Scores pictures with the models that the settings name, which are in memory only meanwhile."""

    def __init__(self, plan: Plan, reader: Reader) -> None:
        self._plan, self._reader = plan, reader
        self._examples = _choose(plan)
        self._learned: Tensor | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether there is anything to be scored."""
        config = self._plan.resolved.sampling
        return config.clip_model is not None or config.likeness_model is not None

    def score(self, painted: Mapping[Path, str], progress: Progress) -> Scored:
        """Pictures with their prompts."""
        config, files = self._plan.resolved.sampling, list(painted)
        pictures = [_open(file) for file in files]
        numbers: dict[str, float] = {}
        copies: list[Copy] = []
        scorer: Scorer | None = None
        if config.clip_model is not None:
            scorer = load_scorer(find_scorer(config.clip_model, key=CLIP_KEY, needs_text=True))
            features_ND = scorer.embed_pictures(pictures, progress)
            numbers |= measure_fit(features_ND, scorer.embed_texts(list(painted.values())))
        if config.likeness_model is not None:
            if config.likeness_model == OWN:
                features_ND = self._embed_latents(pictures)
            elif config.likeness_model != config.clip_model:
                scorer = load_scorer(find_scorer(config.likeness_model, key=LIKENESS_KEY, needs_text=False))
                features_ND = scorer.embed_pictures(pictures, progress)
            learned_MD = self._embed_learned(scorer, progress)
            numbers |= measure_likeness(features_ND, learned_MD)
            nearest = zip(files, find_nearest(features_ND, learned_MD), strict=True)
            copies = [Copy(file, self._examples[one.place].path, one.cosine) for file, one in nearest if one.is_copy]
        del scorer
        gc.collect()
        return Scored(numbers, copies)

    def save_copies(self, copies: Sequence[Copy], painted: Mapping[Path, str], file: Path) -> None:
        """A sheet: each copy beside what it is a copy of."""
        examples = {example.path: example for example in self._examples}
        rows = []
        for one in copies:
            learned = Image.fromarray(read_pixels(examples[one.learned].target(0), self._plan.dataset.files))
            own = _open(one.file)
            learned.thumbnail(own.size)
            rows.append((f"{painted[one.file]} | {one.learned.name}, cosine {one.cosine:.3f}", [own, learned]))
        save_picture(build_sheet(["painted", "learned"], rows), file)

    def _embed_learned(self, scorer: Scorer | None, progress: Progress) -> Tensor:
        """Of the pictures that are learned (M, D); made once."""
        if self._learned is None:
            if scorer is None or self._plan.resolved.sampling.likeness_model == OWN:
                self._learned = normalize([self._describe(self._reader.read_latents(one.target(0))[None]) for one in self._examples])
            else:
                shown = [Image.fromarray(read_pixels(one.target(0), self._plan.dataset.files)) for one in self._examples]
                self._learned = scorer.embed_pictures(shown, progress)
        return self._learned

    @torch.no_grad()
    def _embed_latents(self, pictures: Iterable[Image.Image]) -> Tensor:
        """By the run's own autoencoder (N, D)."""
        family, encoders = self._plan.family, self._plan.encoders
        encoder, rows = encoders.load(family.image_part), []
        for picture in pictures:
            pixels = torch.from_numpy(np.asarray(picture)).to(encoders.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            rows.append(self._describe(family.encode_images(encoder, pixels)["latents"].cpu()))
        return normalize(rows)

    def _describe(self, latents_1CHW: Tensor) -> Tensor:
        """What is where, as a row (D,): means over a grid of cells, the same for any size."""
        cells = functional.adaptive_avg_pool2d(self._plan.family.spread_latents(latents_1CHW).float(), _GRID)
        return cells.flatten()


def _choose(plan: Plan) -> list[Example]:
    """Of the pictures that are learned, each content once, evenly over the sets."""
    learned = {one.content: one for one in plan.dataset.examples if not one.is_regularization}
    every = max(1, -(-len(learned) // MOST_LEARNED))
    return list(learned.values())[::every]


def _open(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB")
