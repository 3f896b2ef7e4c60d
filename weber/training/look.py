"""How pictures are painted, and paintings from what the cache holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from weber.config.objective import ObjectiveConfig
from weber.families.family import Family
from weber.planning.prompts import Own, Prompt
from weber.sampling.euler import Painting
from weber.training.batch import Reader


@dataclass(frozen=True)
class Look:
    """How pictures are painted: (height, width), guidance, and, if `cfg` is not 1, classifier-free guidance away from `negative` after the
    first `no_cfg_until` steps."""

    size: tuple[int, int]
    guidance: float | None
    cfg: float = 1.0
    negative: str | None = None
    reference_t: float | None = None
    no_cfg_until: int = 0

    def with_own(self, own: Own) -> Look:
        """The same for a prompt with settings of its own."""
        return replace(
            self,
            size=(own.height or self.size[0], own.width or self.size[1]),
            guidance=self.guidance if own.guidance is None else own.guidance,
            cfg=self.cfg if own.cfg is None else own.cfg,
            negative=self.negative if own.negative_prompt is None else own.negative_prompt,
        )


def build_reference_t(objective: ObjectiveConfig) -> float | None:
    """The noise level that references are told, if it is not the picture's."""
    return 0.0 if objective.reference_timestep == "zero" else None


def build_paintings(family: Family, prompts: Sequence[Prompt], *, reader: Reader, look: Look, seed: int) -> list[Painting]:
    """A painting per prompt from what the cache holds; each has the next seed, if it has none of its own."""
    return [_build_own(family, prompt, reader=reader, look=look.with_own(prompt.own), seed=seed + n) for n, prompt in enumerate(prompts)]


def _build_own(family: Family, prompt: Prompt, *, reader: Reader, look: Look, seed: int) -> Painting:
    own, away = prompt.own, look.negative or ""
    painting = build_painting(
        family,
        reader.read_prompt(prompt),
        look=look,
        seed=seed if own.seed is None else own.seed,
        negative=None if look.cfg == 1 else reader.read_text(away),
    )
    strength = 1.0 if own.strength is None else own.strength
    return replace(painting, texts=(prompt.text, away), steps=own.steps, strength=strength)


def build_painting(
    family: Family, tensors: Mapping[str, Tensor], *, look: Look, seed: int, negative: Mapping[str, Tensor] | None = None
) -> Painting:
    """A painting from the tensors of one prompt, and of the negative prompt if `look.cfg` is not 1."""
    condition = _build_condition(tensors, look)
    away = None if negative is None else condition | _build_condition(negative, look)
    return Painting(family.latent_shape(*look.size), seed, condition, away, look.cfg, no_cfg_until=look.no_cfg_until)


def _build_condition(tensors: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
    condition = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
    if look.guidance is not None:
        condition["guidance"] = torch.tensor([look.guidance])
    if look.reference_t is not None:
        condition["reference_t"] = torch.tensor([look.reference_t])
    return condition
