"""Regularization with fixed pairs: a picture is seen with a few pairs of noise level and noise, and the answers of the model without what
is trained are in the cache, under keys of all that they depend on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import product

import torch

from weber.adapters.factors import Factors
from weber.cache.encode import Encoders
from weber.cache.key import build_key, build_latent_key, build_text_key
from weber.config.run import RunConfig
from weber.data.examples import Example
from weber.data.seeds import build_seed, draw_uniform
from weber.objective.timesteps import build_timesteps

ANSWER_NAME = "velocity"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Lesson:
    """One use of a picture, with number `pair` of its fixed pairs; the other numbers are as in a `Draw`."""

    example: Example
    caption: int | None
    crop: int
    mask: int
    pair: int


class Lessons:
    """The fixed pairs of a run, and the names of the answers. `adapters` names those that are frozen, with their strengths."""

    def __init__(self, config: RunConfig, encoders: Encoders, *, adapters: str) -> None:
        assert config.objective.teacher_draws is not None
        self._config, self._encoders, self._adapters = config, encoders, adapters
        self.num_pairs = config.objective.teacher_draws

    def list_all(self, examples: Iterable[Example]) -> Iterator[Lesson]:
        """All lessons of the pictures for regularization."""
        for example in examples:
            if not example.is_regularization:
                continue
            crops, masks = range(len(example.crops)), range(max(1, len(example.masks)))
            numbered = product(example.list_caption_numbers(), crops, masks, range(self.num_pairs))
            yield from (Lesson(example, *numbers) for numbers in numbered)

    def build_seed(self, lesson: Lesson) -> int:
        """What all that is random in a lesson is drawn from."""
        masked, target = lesson.example.masked(lesson.crop, lesson.mask), lesson.example.target(lesson.crop)
        view = (target if masked is None else masked).describe()
        text = lesson.example.caption(lesson.caption)
        return build_seed(self._config.train.seed, "teacher", lesson.example.content, view, text, lesson.pair)

    def draw_place(self, lesson: Lesson) -> float:
        """What the law of noise levels is fed, in 0..1: the pairs of a picture are spread evenly over the law."""
        return (lesson.pair + draw_uniform(self.build_seed(lesson), "timestep")) / self.num_pairs

    def build_key(self, lesson: Lesson, *, dtype: torch.dtype) -> str:
        """Where the answer is in the cache: a key of all that it depends on."""
        example, family, objective, memory = lesson.example, self._encoders.family, self._config.objective, self._config.memory
        _, height, width = family.latent_shape(example.bucket.height, example.bucket.width)
        shift = family.shift(family.num_tokens(height, width))
        masked, (model, image_encoder, *text_encoders) = example.masked(lesson.crop, lesson.mask), self._identities
        views = [example.target(lesson.crop), *example.list_references(lesson.crop), *([] if masked is None else [masked])]
        text = example.caption(lesson.caption)
        facts = {
            "version": _VERSION,
            "pictures": [build_latent_key(view, encoder=image_encoder, dtype=dtype) for view in views],
            "texts": [build_text_key(text, encoder=encoder, dtype=dtype) for encoder in text_encoders],
            "seed": self.build_seed(lesson),
            "t": float(build_timesteps(objective, [self.draw_place(lesson)], token_shift=shift)).hex(),
            "told": [objective.guidance, objective.guidance_range, objective.text_mask, objective.reference_timestep],
            "memory": [memory.quantize, memory.multiplies_packed, memory.modulation],
            "adapters": self._adapters,
        }
        content = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        precision = str(dtype).removeprefix("torch.")
        return build_key(content=content, preparation="teacher", encoder=model, dtype=precision)

    @cached_property
    def _identities(self) -> list[str]:
        """Of the transformer, the image encoder and the text encoders."""
        family = self._encoders.family
        return [family.identify("transformer"), *map(self._encoders.identify, (family.image_part, *family.text_parts))]


def identify_factors(modules: Mapping[str, Factors]) -> str:
    """A name for the changes that an adapter makes."""
    digest = blake2b(digest_size=16)
    for name, factors in sorted(modules.items()):
        digest.update(f"{name} {factors.alpha}".encode())
        for tensor in (factors.down, factors.up):
            digest.update(tensor.float().contiguous().numpy().data)
    return digest.hexdigest()
