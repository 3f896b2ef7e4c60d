"""The FLUX.1 models as rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weber.families.family import PictureInputs, SampleDefaults, TextRange
from weber.families.license import APACHE, License, build_own

POCKET = Path(__file__).parents[2] / "pocket" / "weights"

_HALF_OF_SIZES = ((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104))
KONTEXT_SIZES = (*_HALF_OF_SIZES, (1024, 1024), *((height, width) for width, height in reversed(_HALF_OF_SIZES)))
"""(width, height): diffusers `PREFERRED_KONTEXT_RESOLUTIONS`."""


_FLUX_DEV = "flux-1-dev-non-commercial-license"
_FEWEST_TOKENS = 77
"""Of a text that the network sees, but of models that are small: as many as CLIP reads."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model: where it is (a hub id, or a folder that comes with weber), what it is fed and how it is sampled.

    `pipeline`: the library's class that paints with it. `is_twin`: its files look like those of another row, so that it is recognized
    by its home only. `masks_text`: padded text weighs less in attention. `training_guidance` 1.0: a distilled model then learns the
    plain velocity (peers.md 1.2). `is_shifted`: the sampler's noise levels are shifted by the number of tokens.
    """

    name: str
    home: str
    summary: str
    architecture: str
    license: License
    pipeline: str = "FluxPipeline"
    is_twin: bool = False
    in_channels: int = 64
    has_guidance: bool = True
    text_tokens: int = 512
    text_width: int = 4096
    masks_text: bool = False
    picture_inputs: PictureInputs = PictureInputs()
    native_pixels: int = 1024
    sample_steps: int = 28
    sample_guidance: float = 3.5
    training_guidance: float = 1.0
    cfg: float = 1.0
    timesteps: str = "sigmoid"
    assistant: str | None = None
    is_shifted: bool = True

    @property
    def text_range(self) -> TextRange | None:
        """See `Family.text_range`: padding that weighs something of its own is part of the model."""
        return None if self.masks_text else TextRange(_FEWEST_TOKENS if self.text_tokens >= _FEWEST_TOKENS else 8, self.text_tokens)

    @property
    def sample_defaults(self) -> SampleDefaults:
        """How it is sampled and trained."""
        return SampleDefaults(
            self.sample_steps,
            self.sample_guidance if self.has_guidance else None,
            self.training_guidance if self.has_guidance else None,
            self.cfg,
            self.timesteps,
        )

    @property
    def scheduler(self) -> dict[str, object]:
        """Settings of the published `scheduler_config.json`, for files that come without one."""
        line = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
        return {"shift": 3.0 if self.is_shifted else 1.0, "use_dynamic_shifting": self.is_shifted, **line}


VARIANTS = (
    Variant(
        name="flux1-krea",
        home="black-forest-labs/FLUX.1-Krea-dev",
        summary="FLUX.1 Krea dev, photographic look",
        architecture="flux-1-dev",
        license=build_own(_FLUX_DEV, "black-forest-labs/FLUX.1-Krea-dev"),
        is_twin=True,
        sample_guidance=4.5,
    ),
    Variant(
        name="flux1-dev",
        home="black-forest-labs/FLUX.1-dev",
        summary="FLUX.1 dev, guidance-distilled",
        architecture="flux-1-dev",
        license=build_own(_FLUX_DEV, "black-forest-labs/FLUX.1-dev"),
    ),
    Variant(
        name="flux1-schnell",
        home="black-forest-labs/FLUX.1-schnell",
        summary="FLUX.1 schnell, for 4 steps; trained with an assistant LoRA",
        architecture="flux-1-schnell",
        license=APACHE,
        has_guidance=False,
        text_tokens=256,
        sample_steps=4,
        timesteps="fast",
        assistant="ostris/FLUX.1-schnell-training-adapter",
        is_shifted=False,
    ),
    Variant(
        name="flux1-kontext",
        home="black-forest-labs/FLUX.1-Kontext-dev",
        summary="FLUX.1 Kontext dev, edits reference pictures",
        architecture="flux-1-kontext",
        license=build_own(_FLUX_DEV, "black-forest-labs/FLUX.1-Kontext-dev"),
        pipeline="FluxKontextPipeline",
        picture_inputs=PictureInputs(max_references=8, sizes=KONTEXT_SIZES),
        sample_guidance=2.5,
    ),
    Variant(
        name="flux1-fill",
        home="black-forest-labs/FLUX.1-Fill-dev",
        summary="FLUX.1 Fill dev, repaints what a mask says",
        architecture="flux-1-fill",
        license=build_own(_FLUX_DEV, "black-forest-labs/FLUX.1-Fill-dev"),
        pipeline="FluxFillPipeline",
        in_channels=384,
        picture_inputs=PictureInputs(repaints=True, mask_channels=64),
        sample_steps=50,
        sample_guidance=30.0,
    ),
    Variant(
        name="fluxbooru",
        home="terminusresearch/fluxbooru-v0.3",
        summary="FLUX.1 dev retrained for illustrations, with classifier-free guidance",
        architecture="flux-1-dev",
        license=build_own(_FLUX_DEV, "black-forest-labs/FLUX.1-dev"),
        is_twin=True,
        training_guidance=3.5,
        cfg=6.0,
    ),
    Variant(
        name="libreflux",
        home="jimmycarter/LibreFlux-SimpleTuner",
        summary="FLUX.1 schnell undistilled, free licence, with classifier-free guidance",
        architecture="flux-1-schnell",
        license=APACHE,
        is_twin=True,
        has_guidance=False,
        masks_text=True,
        cfg=6.0,
        is_shifted=False,
    ),
    Variant(
        name="pocket",
        home=str(POCKET),
        summary="a FLUX.1 of 6.4 M parameters that paints emoji, comes with weber",
        architecture="flux-1-pocket",
        license=APACHE,
        text_tokens=24,
        text_width=128,
        native_pixels=64,
        sample_steps=20,
        sample_guidance=2.0,
    ),
)
"""The first is taken where nothing is said."""
