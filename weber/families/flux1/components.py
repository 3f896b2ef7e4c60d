"""FLUX.1 as a `Family`: its parts, read from a folder in diffusers layout or from the hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.family import Predictor
from weber.families.flux1 import keys, prompts
from weber.families.flux1.latents import ALIGNMENT_PIXELS, SCALE_PIXELS, decode_pixels, encode_pixels
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux1.variants import VARIANTS, Variant
from weber.families.source import TOKENIZER, WEIGHTS, Source, build_identity
from weber.families.weights import load_weights

TRANSFORMER_CLASS = "FluxTransformer2DModel"
_FOLDERS = {
    "vae": ("vae",),
    "clip": ("text_encoder", "tokenizer"),
    "t5": ("text_encoder_2", "tokenizer_2"),
    "transformer": ("transformer",),
}
_PACKED_CHANNELS = 64


class Flux1:
    """One FLUX.1 model. Building it reads configuration files only and checks that every part is there."""

    alignment_pixels = ALIGNMENT_PIXELS
    image_part = "vae"
    text_parts: tuple[str, ...] = ("clip", "t5")
    adapter_targets: Mapping[str, Sequence[str]] = keys.ADAPTER_TARGETS

    def __init__(self, source: Source, variant: Variant) -> None:
        self.source, self.row, self.variant = source, variant, variant.name
        self.sample_defaults, self.native_pixels = variant.sample_defaults, variant.native_pixels
        self.is_local = source.is_local
        for folders in _FOLDERS.values():
            for position, folder in enumerate(folders):
                source.check_part(folder, holds=WEIGHTS if position == 0 else TOKENIZER)
        self.transformer_config = source.read_config("transformer")
        self.vae_config = source.read_config("vae")
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(source.read_config("scheduler", "scheduler_config.json"))
        self._mu = _read_mu(self.scheduler)
        _check_transformer(self.transformer_config, variant)

    def identify(self, part: str) -> str:
        """See `Family.identify`."""
        extra = [part] + ([f"tokens={self.row.text_tokens}"] if part == "t5" else [])
        return "-".join(build_identity(self.source.load_folder(folder), extra=extra) for folder in _FOLDERS[part])

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """See `Family.load`."""
        folders = [str(self.source.load_folder(folder)) for folder in _FOLDERS[part]]
        if part == "vae":
            module = load_weights(AutoencoderKL, folders[0], dtype=dtype)
        elif part == "clip":
            module = prompts.load_clip(*folders, dtype=dtype)
        else:
            module = prompts.load_t5(*folders, dtype=dtype, num_tokens=self.row.text_tokens)
        return module.to(device).eval().requires_grad_(False)

    def load_predictor(self, *, device: torch.device, dtype: torch.dtype, gradient_checkpointing: bool) -> Predictor:
        """See `Family.load_predictor`."""
        folder = self.source.load_folder("transformer")
        transformer = load_weights(FluxTransformer2DModel, str(folder), dtype=dtype)
        assert isinstance(transformer, FluxTransformer2DModel)
        transformer.to(device).eval().requires_grad_(False)
        return Flux1Predictor(transformer, gradient_checkpointing=gradient_checkpointing)

    def load_skeleton(self) -> nn.Module:
        """See `Family.load_skeleton`."""
        with torch.device("meta"):
            skeleton: nn.Module = FluxTransformer2DModel.from_config(self.transformer_config)
        return skeleton

    def blocks(self, predictor: Predictor) -> list[nn.Module]:
        """See `Family.blocks`."""
        return [*predictor.transformer.transformer_blocks, *predictor.transformer.single_transformer_blocks]  # type: ignore[misc]

    def encode_images(self, encoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        """See `Family.encode_images`."""
        assert isinstance(encoder, AutoencoderKL)
        return {"latents": encode_pixels(encoder, pixels)}

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_prompts`: `pooled` (B, P) from clip, `text` (B, T, D) from t5."""
        return {"pooled" if part == "clip" else "text": encoder(prompts)}

    def decode_latents(self, encoder: nn.Module, latents: Tensor) -> Tensor:
        """See `Family.decode_latents`."""
        assert isinstance(encoder, AutoencoderKL)
        return decode_pixels(encoder, latents)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """See `Family.latent_shape`."""
        return (_PACKED_CHANNELS // 4, height // SCALE_PIXELS, width // SCALE_PIXELS)

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """See `Family.text_shapes`."""
        if part == "clip":
            return {"pooled": (int(str(self.transformer_config["pooled_projection_dim"])),)}
        return {"text": (self.row.text_tokens, int(str(self.transformer_config["joint_attention_dim"])))}

    def num_tokens(self, latent_height: int, latent_width: int) -> int:
        """See `Family.num_tokens`."""
        return (latent_height // 2) * (latent_width // 2)

    def shift(self, num_tokens: int) -> float:
        """See `Family.shift`: e^mu, mu on the line through (256, 0.5) and (4096, 1.15) where the scheduler says so."""
        offset, slope = self._mu
        return math.exp(offset + slope * num_tokens)

    def sigmas(self, num_steps: int, num_tokens: int) -> list[float]:
        """See `Family.sigmas`: the scheduler's own, as `FluxPipeline` asks for them."""
        mu = math.log(self.shift(num_tokens)) if self.scheduler.config.use_dynamic_shifting else None
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        return [float(sigma) for sigma in self.scheduler.sigmas]

    def export_key(self, module: str) -> str:
        """See `Family.export_key`."""
        return keys.export_key(module)


def build_flux1(source: Source, variant: str | None) -> Flux1:
    """The model at `source`; a variant left out is recognized by its guidance input and the width of its text."""
    if variant is not None:
        return Flux1(source, next(row for row in VARIANTS if row.name == variant))
    config = source.read_config("transformer")
    fitting = [row for row in VARIANTS if row.has_guidance == bool(config.get("guidance_embeds", False))]
    return Flux1(source, next((row for row in fitting if row.text_width == config.get("joint_attention_dim", 4096)), fitting[0]))


def _read_mu(scheduler: FlowMatchEulerDiscreteScheduler) -> tuple[float, float]:
    """Offset and slope of mu over the number of tokens; a constant shift is the line without a slope."""
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return math.log(config.shift), 0.0
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return config.base_shift - slope * config.base_image_seq_len, slope


def _check_transformer(config: dict[str, object], variant: Variant) -> None:
    channels = config.get("in_channels", _PACKED_CHANNELS)
    if channels != _PACKED_CHANNELS:
        raise ModelError(
            "This FLUX.1 model takes more than noisy latents as input and cannot be trained yet.",
            got=f"in_channels = {channels} in transformer/config.json",
            expected=f"in_channels = {_PACKED_CHANNELS} (dev, krea, schnell)",
            fix="choose such a model as model.path",
        )
    has_guidance = bool(config.get("guidance_embeds", False))
    if has_guidance != variant.has_guidance:
        fitting = ", ".join(row.name for row in VARIANTS if row.has_guidance == has_guidance)
        raise ModelError(
            f"The model is not what model.variant = {variant.name!r} says.",
            got=f"guidance_embeds = {has_guidance} in transformer/config.json",
            expected=f"guidance_embeds = {variant.has_guidance} for {variant.name}",
            fix=f"set model.variant to one of {fitting}, or leave it out",
        )
