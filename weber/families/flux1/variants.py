"""The FLUX.1 models as rows."""

from __future__ import annotations

from dataclasses import dataclass

from weber.families.family import SampleDefaults


@dataclass(frozen=True)
class Variant:
    """One model: where it is, what it is fed and how it is sampled."""

    name: str
    repo: str | None
    summary: str
    has_guidance: bool
    text_tokens: int
    sample_steps: int
    sample_guidance: float | None

    @property
    def sample_defaults(self) -> SampleDefaults:
        """Guidance 1.0 in training: the distilled model then learns the plain velocity (peers.md 1.2)."""
        return SampleDefaults(self.sample_steps, self.sample_guidance, 1.0 if self.has_guidance else None)


VARIANTS = (
    Variant("flux1-dev", "black-forest-labs/FLUX.1-dev", "FLUX.1 dev, 11.9 B parameters, guidance-distilled", True, 512, 28, 3.5),
    Variant("flux1-krea", "black-forest-labs/FLUX.1-Krea-dev", "FLUX.1 Krea dev, as dev with a photographic look", True, 512, 28, 4.5),
    Variant("flux1-schnell", "black-forest-labs/FLUX.1-schnell", "FLUX.1 schnell, distilled to 4 steps", False, 256, 4, None),
    Variant("pocket", None, "the small FLUX.1 made by weber, for trials and tests", True, 64, 20, 3.5),
)
