"""The FLUX.3 models as rows.

The step-distilled klein (black-forest-labs/flux-3-image-klein) is none of them: see `components.py:build_flux3`.
"""

from __future__ import annotations

from dataclasses import dataclass

from weber.families.family import SampleDefaults
from weber.families.license import License, build_own

TIMESTEP_SHIFT = 6.93
"""Of the sampler, whatever the size: the library's modular pipeline says so and reads no scheduler file."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model: where it is (a hub id) and how it is sampled."""

    name: str
    home: str
    summary: str
    architecture: str
    license: License
    sample_steps: int
    sample_cfg: float
    native_pixels: int = 1024

    @property
    def sample_defaults(self) -> SampleDefaults:
        """No guidance input: guidance is a second pass with another prompt."""
        return SampleDefaults(self.sample_steps, None, None, cfg=self.sample_cfg)


VARIANTS = (
    Variant(
        name="flux3-klein-base",
        home="black-forest-labs/flux-3-image-klein-base",
        summary="FLUX.3 klein 5.5 B before distillation, takes references",
        architecture="flux-3-klein",
        license=build_own("flux-kommunity-license", "black-forest-labs/flux-3-image-klein-base"),
        sample_steps=50,
        sample_cfg=3.5,
    ),
)
