"""The FLUX.1 models as rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weber.families.family import SampleDefaults

POCKET = Path(__file__).parents[2] / "pocket" / "weights"


@dataclass(frozen=True)
class Variant:
    """One model: where it is (a hub id, or a folder that comes with weber), what it is fed and how it is sampled."""

    name: str
    home: str
    summary: str
    has_guidance: bool
    text_tokens: int
    text_width: int
    native_pixels: int
    sample_steps: int
    sample_guidance: float | None

    @property
    def sample_defaults(self) -> SampleDefaults:
        """Guidance 1.0 in training: the distilled model then learns the plain velocity (peers.md 1.2)."""
        return SampleDefaults(self.sample_steps, self.sample_guidance, 1.0 if self.has_guidance else None)


VARIANTS = (
    Variant("flux1-dev", "black-forest-labs/FLUX.1-dev", "FLUX.1 dev, guidance-distilled", True, 512, 4096, 1024, 28, 3.5),
    Variant("flux1-krea", "black-forest-labs/FLUX.1-Krea-dev", "FLUX.1 Krea dev, photographic look", True, 512, 4096, 1024, 28, 4.5),
    Variant("flux1-schnell", "black-forest-labs/FLUX.1-schnell", "FLUX.1 schnell, for 4 steps", False, 256, 4096, 1024, 4, None),
    Variant("pocket", str(POCKET), "a FLUX.1 of 6.4 M parameters that paints emoji, comes with weber", True, 24, 128, 64, 20, 2.0),
)
