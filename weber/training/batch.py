"""From the plan of a step to tensors: reads the cache, one step ahead of the training.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from weber.cache.encode import Encoders
from weber.cache.key import build_latent_key, build_mask_key, build_text_key
from weber.cache.live import LiveTexts
from weber.cache.masks import MASK_NAME, find_shape
from weber.cache.store import Store, find_files
from weber.data.batches import Draw
from weber.data.examples import Example
from weber.data.loss_masks import LossWindow
from weber.data.seeds import draw_choice
from weber.data.views import View
from weber.families.family import REFERENCE
from weber.families.finite import is_finite
from weber.memory.beside import SideStream, send
from weber.planning.lessons import ANSWER_NAME, Lesson
from weber.planning.plan import Plan, build_lessons
from weber.planning.prompts import Prompt
from weber.training.dealt import Dealt


@dataclass(frozen=True)
class Fixed:
    """Pairs of noise level and noise that are not those of the step: per sample, the number that all is drawn from, and what the law of
    noise levels is fed, none where they are given. `target_BCHW` fp32: the teacher's answers; None: it has yet to be asked."""

    seeds: tuple[int, ...]
    levels: tuple[float, ...] = ()
    target_BCHW: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `latents_BCHW` fp32 and `condition` are on the device; `places` are the samples' places in the step.

    `weights_B` fp32: how much each counts, None: 1. `mask_B1HW` fp32: what is learned of each, None: all. With `is_regularization` the
    model's own answer is asked for, with `fixed` that of a fixed pair of noise level and noise. `captions` are those that were drawn.
    `number`: which of the step's micro-batches it is, or a part of.
    """

    latents_BCHW: Tensor
    condition: dict[str, Tensor]
    places: tuple[int, ...]
    names: tuple[str, ...]
    weights_B: Tensor | None = None
    mask_B1HW: Tensor | None = None
    is_regularization: bool = False
    captions: tuple[str, ...] = ()
    fixed: Fixed | None = None
    number: int = 0

    @property
    def is_asked_plainly(self) -> bool:
        """Without routes and rollouts: what the model is kept as it is on, and what it is measured by."""
        return self.is_regularization or self.fixed is not None

    def list_tensors(self) -> list[Tensor]:
        """All that is on the device."""
        others = self.weights_B, self.mask_B1HW, None if self.fixed is None else self.fixed.target_BCHW
        return [self.latents_BCHW, *self.condition.values(), *(tensor for tensor in others if tensor is not None)]


class Samples(Protocol):
    """What samples are read from, by their keys: a `Store`, or what looks at them on the way."""

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of a sample."""
        ...


class _Looking:
    """Reads from the cache, and keeps in mind which samples are not finite."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.keys: set[str] = set()

    def read(self, key: str) -> dict[str, Tensor]:
        """See `Samples.read`."""
        tensors = self._store.read(key)
        if not all(map(is_finite, tensors.values())):
            self.keys.add(key)
        return tensors


class Reader:
    """Reads from the cache what the encoders made; texts from encoders that are there, where there are such. No tensor has a batch
    dimension."""

    def __init__(self, store: Samples, encoders: Encoders, *, live: LiveTexts | None = None) -> None:
        self._store, self._family, self._dtype, self._live = store, encoders.family, encoders.dtype, live
        self._texts = [(encoders.identify(part), encoders.find_form(part)) for part in encoders.family.text_parts]
        self._image_encoder = encoders.identify(encoders.family.image_part)

    def read_text(self, text: str) -> dict[str, Tensor]:
        """What all text parts made of a caption or prompt."""
        if self._live is not None:
            return self._live.read(text)
        tensors: dict[str, Tensor] = {}
        for encoder, form in self._texts:
            tensors |= form.unpack(self._store.read(build_text_key(text, encoder=encoder, dtype=self._dtype)), self._dtype)
        return tensors

    def read_latents(self, view: View) -> Tensor:
        """The latents of a picture."""
        return self._read_view(view)["latents"]

    def read_learned(self, window: LossWindow | None) -> Tensor | None:
        """How much of each part of a picture is learned (1, H, W)."""
        return None if window is None else self._store.read(build_mask_key(window, shape=find_shape(window, self._family)))[MASK_NAME]

    def read_answer(self, key: str) -> Tensor:
        """What the teacher said, fp32."""
        return self._store.read(key)[ANSWER_NAME]

    def read_pictures(self, references: Sequence[View], masked: View | None) -> dict[str, Tensor]:
        """What the network is told of reference pictures, and of a picture that is to be repainted."""
        tensors = {f"{REFERENCE}{number}": self.read_latents(view) for number, view in enumerate(references)}
        return tensors | ({} if masked is None else self._read_view(masked))

    def read_prompt(self, prompt: Prompt) -> dict[str, Tensor]:
        """Everything that the network is told for a prompt."""
        return self.read_text(prompt.text) | self.read_pictures(prompt.references, prompt.masked)

    def _read_view(self, view: View) -> dict[str, Tensor]:
        return self._store.read(build_latent_key(view, encoder=self._image_encoder, dtype=self._dtype))


@dataclass(frozen=True)
class _Sample:
    latents: Tensor
    condition: dict[str, Tensor]
    place: int
    example: Example
    caption: str
    mask: Tensor | None
    lesson: tuple[int, float, Tensor | None] | None

    @property
    def shapes(self) -> tuple[object, ...]:
        """Samples of equal shapes, that are learned in the same way, can be stacked."""
        shapes = ((name, tensor.shape) for name, tensor in sorted(self.condition.items()))
        return self.mask is None, self.example.is_regularization, self.latents.shape, *shapes


class Loader:
    """Reads the batches of a step; the next step is read, and copied to the device, in a thread while this one is trained on
    (`read_ahead`). Enter it as a context."""

    def __init__(self, plan: Plan, store: Store, *, live: LiveTexts | None = None, dealt: Dealt | None = None) -> None:
        """`dealt`: which micro-batches are read; None: all."""
        self._plan, self._store, self._live, self.dealt = plan, store, live, dealt or Dealt(plan)
        self._reader = Reader(store, plan.encoders, live=live)
        self._lessons = build_lessons(plan)
        self._ahead: tuple[int, Future[list[Batch]]] | None = None
        self._stream = SideStream(plan.device)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weber-loader")

    def load(self, step: int, *, is_whole: bool = False) -> list[Batch]:
        """The micro-batches of a step; if it `is_whole` also those that were dealt to others."""
        if is_whole:
            batches = self.read(step, slice(None))
            self._stream.hand_over(tensor for batch in batches for tensor in batch.list_tensors())
            return batches
        ahead, self._ahead = self._ahead, None
        batches = ahead[1].result() if ahead is not None and ahead[0] == step else self.read(step)
        self._stream.hand_over(tensor for batch in batches for tensor in batch.list_tensors())
        return batches

    def read_ahead(self, step: int) -> None:
        """Begin to read a step in the thread, if there is such a step. It holds Python's lock: the time for it is before a backward pass,
        which hardly needs the lock."""
        if step < self._plan.num_steps:
            self._ahead = (step, self._thread.submit(self.read, step))

    def load_lesson(self, lesson: Lesson) -> Batch:
        """One picture with one of its fixed pairs, for which the teacher has yet to be asked."""
        assert self._lessons is not None
        draw = Draw(0, 0, lesson.caption, lesson.crop, lesson.mask)
        return self._stack([self._load_sample(lesson.example, draw, (*self._describe(lesson), None))])

    def load_measured(self, example: Example, caption: int | None) -> Batch:
        """One picture with that caption, of which the noise has yet to be said; in the thread that reads everything else."""

        def read() -> Batch:
            with self._stream.open():
                return self._stack([self._load_sample(example, Draw(0, 0, caption, 0), None)])

        batch = self._thread.submit(read).result()
        self._stream.hand_over(batch.list_tensors())
        return batch

    def read(self, step: int, chosen: slice | None = None) -> list[Batch]:
        """The micro-batches of a step, here and now: those that are `chosen`, None: those of this process."""
        with self._stream.open():
            numbered = list(enumerate(self.dealt.draw_step(step)))[chosen or self.dealt.own]
            return [replace(batch, number=number) for number, draws in numbered for batch in self._load_batches(draws, step)]

    def find_not_finite(self, step: int) -> dict[str, list[Path]]:
        """Pictures of a step that have numbers in the cache which are not finite, and the cache's files with them."""
        found: dict[str, list[Path]] = {}
        for draw in (draw for draws in self.dealt.draw_step(step) for draw in draws):
            example, looking = self._plan.dataset.examples[draw.example], _Looking(self._store)
            self._load_sample(example, draw, None, reader=Reader(looking, self._plan.encoders, live=self._live))
            if looking.keys:
                found[str(example.path)] = find_files(self._store.folder, looking.keys)
        return found

    def _load_batches(self, draws: Sequence[Draw], step: int) -> list[Batch]:
        """One micro-batch, or several where texts or references have different sizes, and where some have a mask for the loss or are for
        regularization: each sample weighs the same in any case."""
        groups: dict[object, list[_Sample]] = {}
        for draw in draws:
            example = self._plan.dataset.examples[draw.example]
            sample = self._load_sample(example, draw, self._load_answer(example, draw, step))
            groups.setdefault(sample.shapes, []).append(sample)
        return [self._stack(samples) for samples in groups.values()]

    def _load_sample(
        self, example: Example, draw: Draw, lesson: tuple[int, float, Tensor | None] | None, *, reader: Reader | None = None
    ) -> _Sample:
        reader, caption = reader or self._reader, example.caption(draw.caption)
        condition = reader.read_text(caption)
        references = example.list_references(draw.crop)
        if draw.references is not None:
            references = tuple(references[number] for number in draw.references)
        condition |= reader.read_pictures(references, example.masked(draw.crop, draw.mask))
        latents, mask = reader.read_latents(example.target(draw.crop)), reader.read_learned(example.learned(draw.crop))
        return _Sample(latents, condition, draw.place, example, caption, mask, lesson)

    def _load_answer(self, example: Example, draw: Draw, step: int) -> tuple[int, float, Tensor | None] | None:
        """What the teacher said of one of the picture's fixed pairs; None where it is asked at each step."""
        if self._lessons is None or not example.is_regularization:
            return None
        pair = draw_choice(self._lessons.num_pairs, self._plan.resolved.train.seed, step, draw.place, "teacher")
        lesson = Lesson(example, draw.caption, draw.crop, draw.mask, pair)
        return *self._describe(lesson), self._reader.read_answer(self._lessons.build_key(lesson, dtype=self._plan.dtype))

    def _describe(self, lesson: Lesson) -> tuple[int, float]:
        assert self._lessons is not None
        return self._lessons.build_seed(lesson), self._lessons.draw_place(lesson)

    def _stack(self, samples: Sequence[_Sample]) -> Batch:
        device, first = self._plan.device, samples[0]
        weights = [sample.example.loss_weight for sample in samples]
        masks = [sample.mask for sample in samples if sample.mask is not None]
        return Batch(
            latents_BCHW=send(torch.stack([sample.latents for sample in samples]), device).float(),
            condition={name: send(torch.stack([sample.condition[name] for sample in samples]), device) for name in first.condition},
            places=tuple(sample.place for sample in samples),
            names=tuple(str(sample.example.path) for sample in samples),
            weights_B=None if set(weights) == {1.0} else send(torch.tensor(weights), device),
            mask_B1HW=send(torch.stack(masks), device) if masks else None,
            is_regularization=first.example.is_regularization,
            captions=tuple(sample.caption for sample in samples),
            fixed=self._build_fixed(samples),
        )

    def _build_fixed(self, samples: Sequence[_Sample]) -> Fixed | None:
        lessons = [sample.lesson for sample in samples if sample.lesson is not None]
        if not lessons:
            return None
        seeds, levels, answers = zip(*lessons, strict=True)
        known = [answer for answer in answers if answer is not None]
        return Fixed(seeds, levels, send(torch.stack(known), self._plan.device) if known else None)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
