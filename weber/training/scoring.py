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
from weber.data.words import describe_count
from weber.planning.looking import CLIP_KEY, LIKENESS_KEY, OWN
from weber.planning.plan import Plan
from weber.progress import Progress
from weber.sampling.grid import build_sheet
from weber.sampling.preview import spread
from weber.sampling.scorers import Scorer, find_scorer, load_scorer
from weber.sampling.scores import (
    CLIP,
    CLIP_LEAST,
    CLIP_MOST,
    LEARNED,
    NEAREST,
    PAINTED,
    find_nearest,
    measure_fit,
    measure_likeness,
    normalize,
)
from weber.sampling.validate import save_picture
from weber.training.batch import Reader

MOST_LEARNED = 256
"""Of so many pictures that are learned, evenly chosen, painted ones are compared with each."""
COPIES = "painted_copies"
"""The name of the finding."""
_FOLDER = Path("pictures") / "copies"
_GRID, _NUM_NAMED = 16, 3


class Copy(NamedTuple):
    """A painted picture that is almost one that is learned."""

    file: Path
    learned: Path
    cosine: float


@dataclass(frozen=True)
class Scored:
    """Numbers by their names, and what is a copy. `num_cut`: prompts of which only the beginning was read."""

    numbers: Mapping[str, float]
    copies: Sequence[Copy]
    num_cut: int = 0

    def describe(self) -> str:
        """The numbers for a person."""
        said = []
        if CLIP in self.numbers:
            clip, least, most = (self.numbers[name] for name in (CLIP, CLIP_LEAST, CLIP_MOST))
            cut = "" if self.num_cut == 0 else f"; of {describe_count(self.num_cut, 'prompt')} the end is not read"
            said.append(f"they fit their prompts by {clip:.1f} (100 x cosine; {least:.1f} to {most:.1f}{cut})")
        if LEARNED in self.numbers:
            said.append(f"likeness to learned pictures {self.numbers[LEARNED]:.3f}, to the nearest {self.numbers[NEAREST]:.3f}")
        if PAINTED in self.numbers:
            said.append(f"to each other {self.numbers[PAINTED]:.3f}")
        return ", ".join(said)

    def describe_copies(self, sheet: Path) -> str:
        """A sentence, without its stop, with the settings to change."""
        named = ", ".join(f"{one.file.name} is {one.learned.name} (cosine {one.cosine:.3f})" for one in self.copies[:_NUM_NAMED])
        more = f" and {len(self.copies) - _NUM_NAMED} more" if len(self.copies) > _NUM_NAMED else ""
        return (
            f"painted pictures are almost pictures that are learned: {named}{more}, side by side in {sheet}: stop earlier (train.steps),"
            " lower adapter.rank or optim.lr, or add pictures"
        )


def build_scoring(plan: Plan, reader: Reader) -> Scoring | None:
    """What scores the pictures of a run, if that is asked for."""
    config = plan.resolved.sampling
    return None if config.clip_model is None and config.likeness_model is None else Scoring(plan, reader)


class Scoring:
    """Scores pictures with the models that the settings name, which are in memory only meanwhile."""

    def __init__(self, plan: Plan, reader: Reader) -> None:
        self._plan, self._reader = plan, reader
        self._examples = _choose(plan)
        self._texts = {prompt.file: prompt.text for prompt in plan.prompts}
        self._learned: Tensor | None = None

    def score(self, files: Sequence[Path], progress: Progress) -> Scored:
        """Pictures, of which each is called as its prompt."""
        config, pictures = self._plan.resolved.sampling, [_open(file) for file in files]
        numbers, num_cut = dict[str, float](), 0
        copies: list[Copy] = []
        scorer: Scorer | None = None
        if config.clip_model is not None:
            scorer = load_scorer(find_scorer(config.clip_model, key=CLIP_KEY, needs_text=True))
            texts = [self._texts[file.stem] for file in files]
            features_ND = scorer.embed_pictures(pictures, progress)
            numbers |= measure_fit(features_ND, scorer.embed_texts(texts))
            num_cut = sum(number > scorer.num_tokens for number in scorer.count_tokens(texts))
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
        return Scored(numbers, copies, num_cut)

    def save_copies(self, copies: Sequence[Copy], *, step: int) -> Path:
        """A sheet: each copy beside what it is a copy of; returns the file."""
        views, rows = {one.path: one.target(0) for one in self._examples}, []
        for one in copies:
            own = _open(one.file)
            learned = Image.fromarray(read_pixels(views[one.learned], self._plan.dataset.files))
            learned.thumbnail(own.size)
            rows.append((f"{self._texts[one.file.stem]} | {one.learned.name}, cosine {one.cosine:.3f}", [own, learned]))
        sheet = self._plan.resolved.output.folder / _FOLDER / f"step-{step:06d}.png"
        save_picture(build_sheet(["painted", "learned"], rows), sheet)
        return sheet

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
            pixels = torch.from_numpy(np.array(picture)).to(encoders.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            rows.append(self._describe(family.encode_images(encoder, pixels)["latents"].cpu()))
        return normalize(rows)

    def _describe(self, latents_1CHW: Tensor) -> Tensor:
        """What is where, as a row (D,): means over a grid of cells, the same for any size."""
        cells = functional.adaptive_avg_pool2d(spread(latents_1CHW.float(), self._plan.family.latent_patch), _GRID)
        return cells.flatten()


def _choose(plan: Plan) -> list[Example]:
    """Of the pictures that are learned, each content once, evenly over the sets."""
    learned = {one.content: one for one in plan.dataset.examples if not one.is_regularization}
    every = max(1, -(-len(learned) // MOST_LEARNED))
    return list(learned.values())[::every]


def _open(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB")
