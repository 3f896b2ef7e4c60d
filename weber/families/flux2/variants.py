"""The FLUX.2 models as rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weber.families.family import SampleDefaults
from weber.families.license import APACHE, License, build_own

_FLUX = "flux-non-commercial-license"

SCHEDULER: dict[str, object] = {"shift": 3.0, "use_dynamic_shifting": True, "time_shift_type": "exponential"}
"""Settings of the published `scheduler_config.json`, the same for every row, for models that come without one."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model: where it is, what it is fed and how it is sampled. `text_width`: of the three states of the encoder together."""

    name: str
    home: str
    summary: str
    architecture: str
    license: License
    text_width: int
    text_part: Literal["mistral", "qwen"] = "qwen"
    is_distilled: bool = False
    sample_steps: int = 50
    sample_guidance: float | None = None
    sample_cfg: float = 1.0
    native_pixels: int = 1024

    @property
    def has_guidance(self) -> bool:
        """Whether guidance is an input of the network."""
        return self.sample_guidance is not None

    @property
    def sample_defaults(self) -> SampleDefaults:
        """Guidance 1.0 in training: the distilled model then learns the plain velocity (peers.md 1.2).

        Timesteps are `sigmoid` for all: the four steps of a distilled one lie at 1, 0.97, 0.91 and 0.77, not on the `fast` schedule.
        """
        return SampleDefaults(self.sample_steps, self.sample_guidance, 1.0 if self.has_guidance else None, self.sample_cfg)


VARIANTS = (
    Variant(
        name="flux2-dev",
        home="black-forest-labs/FLUX.2-dev",
        summary="FLUX.2 dev, 32 B, guidance-distilled, takes references",
        architecture="flux-2-dev",
        license=build_own(_FLUX, "black-forest-labs/FLUX.2-dev", file="LICENSE.txt"),
        text_width=15360,
        text_part="mistral",
        sample_guidance=4.0,
    ),
    Variant(
        name="flux2-klein-base-4b",
        home="black-forest-labs/FLUX.2-klein-base-4B",
        summary="FLUX.2 klein 4 B before distillation, takes references",
        architecture="flux-2-klein-4b",
        license=APACHE,
        text_width=7680,
        sample_cfg=4.0,
    ),
    Variant(
        name="flux2-klein-base-9b",
        home="black-forest-labs/FLUX.2-klein-base-9B",
        summary="FLUX.2 klein 9 B before distillation, takes references",
        architecture="flux-2-klein-9b",
        license=build_own(_FLUX, "black-forest-labs/FLUX.2-klein-base-9B"),
        text_width=12288,
        sample_cfg=4.0,
    ),
    Variant(
        name="flux2-klein-4b",
        home="black-forest-labs/FLUX.2-klein-4B",
        summary="FLUX.2 klein 4 B, for 4 steps, takes references",
        architecture="flux-2-klein-4b",
        license=APACHE,
        text_width=7680,
        is_distilled=True,
        sample_steps=4,
    ),
    Variant(
        name="flux2-klein-9b",
        home="black-forest-labs/FLUX.2-klein-9B",
        summary="FLUX.2 klein 9 B, for 4 steps, takes references",
        architecture="flux-2-klein-9b",
        license=build_own(_FLUX, "black-forest-labs/FLUX.2-klein-9B"),
        text_width=12288,
        is_distilled=True,
        sample_steps=4,
    ),
)
