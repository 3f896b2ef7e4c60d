"""FLUX.1 as a `Family`: its parts, wherever their files are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from weber.errors import ConfigError
from weber.families.attention import TEXT_MASK, TEXT_READ
from weber.families.family import TRANSFORMER, Predictor, TextLimits
from weber.families.flux1 import graph, keys, original, prompts
from weber.families.flux1.latents import ALIGNMENT_PIXELS, SCALE_PIXELS, decode_pixels, encode_masked, encode_pixels
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux1.recognize import check_pipeline, check_transformer, recognize_variant
from weber.families.flux1.variants import VARIANTS, Variant
from weber.families.graphs import BuildGraph
from weber.families.pairing import Pairing
from weber.families.schedule import list_sigmas
from weber.families.source import Source
from weber.families.tensors import Weights
from weber.families.weights import Fill, build_skeleton, load_part, open_part, read_part_config

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

TRANSFORMER_CLASS = "FluxTransformer2DModel"
_FOLDERS = {
    "vae": ("vae",),
    "clip": ("text_encoder", "tokenizer"),
    "t5": ("text_encoder_2", "tokenizer_2"),
    "transformer": ("transformer",),
}
_LATENT_CHANNELS = 16


def _list_blocks(predictor: Predictor) -> list[nn.Module]:
    return [*predictor.transformer.transformer_blocks, *predictor.transformer.single_transformer_blocks]  # type: ignore[misc]


def _load_skeleton(family: Flux1) -> nn.Module:
    return family.load_skeleton()


class Flux1:
    """One FLUX.1 model. Building it reads configuration files only and checks that every part is there."""

    alignment_pixels = ALIGNMENT_PIXELS
    latent_patch = 1
    image_part = "vae"
    text_parts: tuple[str, ...] = ("clip", "t5")
    adapter_targets: Mapping[str, Sequence[str]] = keys.ADAPTER_TARGETS
    pairings: Sequence[Pairing] = keys.PAIRINGS
    takes_reference_t = True
    takes_routes = True
    reference_modules: Sequence[str] = ()
    prompts_per_batch: int | None = None
    adapted_text: str | None = "clip"
    modulation_modules: Sequence[str] = keys.MODULATION
    lean_layers: Mapping[str, str] = keys.LEAN_LAYERS
    joined_layers: Sequence[Sequence[str]] = keys.JOINED_LAYERS
    blocks = staticmethod(_list_blocks)
    skeleton = cached_property(_load_skeleton)

    def __init__(self, source: Source, variant: Variant, *, hides_padding: bool = False) -> None:
        self.source, self.row, self.variant = source, variant, variant.name
        self._mask = TEXT_READ if hides_padding else TEXT_MASK if variant.masks_text else None
        self.architecture, self.assistant, self.picture_inputs = variant.architecture, variant.assistant, variant.picture_inputs
        self.sample_defaults, self.native_pixels = variant.sample_defaults, variant.native_pixels
        self.text_range = next(row for row in VARIANTS if row.name == variant.name).text_range
        self.transformer_config = read_part_config(source, "transformer", original=original.TRANSFORMER)
        check_transformer(self.transformer_config, variant)
        for folders in _FOLDERS.values():
            for folder in folders:
                source.check_part(folder)
        self.is_local = source.is_local
        self.text_limits: TextLimits = {
            part: partial(prompts.load_limit, source, part, num_tokens=variant.text_tokens) for part in self.text_parts
        }
        from diffusers import FlowMatchEulerDiscreteScheduler

        settings = source.read_config("scheduler", "scheduler_config.json")
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(variant.scheduler if settings is None else settings)
        self._mu = _read_mu(self.scheduler)
        self.build_graph: BuildGraph = partial(graph.build_model_graph, source=source, row=variant, scheduler=self.scheduler.config)

    def identify(self, part: str) -> str:
        """See `Family.identify`."""
        extra = [part]
        if part == "t5":
            extra += [f"tokens={self.row.text_tokens}"] + ["mask"] * self.row.masks_text + [TEXT_READ] * (self._mask == TEXT_READ)
        return "-".join(self.source.identify(folder, extra=extra) for folder in _FOLDERS[part])

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        """See `Family.load`."""
        if part == "vae":
            from diffusers import AutoencoderKL

            assert fill is None
            module = load_part(AutoencoderKL, self.source.find("vae"), original=original.VAE, dtype=dtype)
        elif part == "clip":
            module = prompts.load_clip(self.source, dtype=dtype, fill=fill)
        else:
            module = prompts.load_t5(self.source, dtype=dtype, num_tokens=self.row.text_tokens, mask=self._mask, fill=fill)
        return module.to(device).eval().requires_grad_(False)

    def build_predictor(self, transformer: nn.Module, *, is_modulation_apart: bool = False) -> Predictor:
        """See `Family.build_predictor`."""
        from diffusers import FluxTransformer2DModel

        assert isinstance(transformer, FluxTransformer2DModel)
        return Flux1Predictor(transformer, is_modulation_apart=is_modulation_apart)

    def load_skeleton(self, part: str = TRANSFORMER) -> nn.Module:
        """See `Family.load_skeleton`."""
        if part == TRANSFORMER:
            from diffusers import FluxTransformer2DModel

            return build_skeleton(FluxTransformer2DModel, self.transformer_config)
        assert part == self.adapted_text
        return prompts.load_clip_skeleton(self.source)

    def open_transformer(self) -> Weights:
        """See `Family.open_transformer`."""
        return open_part(self.source.find("transformer"), original.TRANSFORMER)

    def encode_images(self, encoder: nn.Module, pixels: Tensor, *, masks: Tensor | None = None) -> dict[str, Tensor]:
        """See `Family.encode_images`."""
        from diffusers import AutoencoderKL

        assert isinstance(encoder, AutoencoderKL)
        if masks is None:
            return {"latents": encode_pixels(encoder, pixels)}
        latents, folded = encode_masked(encoder, pixels, masks_B1HW=masks)
        return {"masked": latents, "mask": folded}

    def reference_size(self, width: int, height: int) -> tuple[int, int]:
        """See `Family.reference_size`: of the sizes that the model was made for, that of the nearest aspect, as `FluxKontextPipeline`
        chooses; else its own, cut to whole tokens."""
        if not self.picture_inputs.sizes:
            return width // ALIGNMENT_PIXELS * ALIGNMENT_PIXELS, height // ALIGNMENT_PIXELS * ALIGNMENT_PIXELS
        return min(self.picture_inputs.sizes, key=lambda size: (abs(width / height - size[0] / size[1]), size))

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_prompts`: `pooled` (B, P) from clip; `text` (B, T, D), and where padding is masked `text_mask` or
        `text_read` (B, T), from t5."""
        tensors: dict[str, Tensor] = encoder(prompts)
        return tensors

    def decode_latents(self, encoder: nn.Module, latents: Tensor) -> Tensor:
        """See `Family.decode_latents`."""
        from diffusers import AutoencoderKL

        assert isinstance(encoder, AutoencoderKL)
        return decode_pixels(encoder, latents)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """See `Family.latent_shape`."""
        return (_LATENT_CHANNELS, height // SCALE_PIXELS, width // SCALE_PIXELS)

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """See `Family.text_shapes`."""
        if part == "clip":
            return {"pooled": (int(str(self.transformer_config["pooled_projection_dim"])),)}
        shapes: dict[str, tuple[int, ...]] = {"text": (self.row.text_tokens, int(str(self.transformer_config["joint_attention_dim"])))}
        return shapes | ({} if self._mask is None else {self._mask: (self.row.text_tokens,)})

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
        return list_sigmas(self.scheduler, num_steps, mu=mu)


def build_flux1(source: Source, variant: str | None, *, hides_padding: bool = False, text_tokens: int | None = None) -> Flux1:
    """The model at `source`; a variant left out is recognized from its files. `text_tokens` is how many the network sees of a text."""
    row = recognize_variant(source) if variant is None else next(row for row in VARIANTS if row.name == variant)
    if hides_padding and row.masks_text:
        raise ConfigError(
            f"The model {row.name} has a text mask of its own, with which padding weighs less; it is always on.",
            got="objective.text_mask = true",
            fix="remove objective.text_mask",
        )
    if text_tokens is not None:
        _check_tokens(row, text_tokens)
        row = replace(row, text_tokens=text_tokens)
    family = Flux1(source.with_home(row.home), row, hides_padding=hides_padding)
    check_pipeline(source, row)
    return family


def _check_tokens(row: Variant, text_tokens: int) -> None:
    if row.text_range is None:
        raise ConfigError(
            f"The padding behind texts is part of the model {row.name}, where it weighs less than words and is counted all the same.",
            got=f"model.text_tokens = {text_tokens}",
            fix="remove model.text_tokens",
        )
    fewest, most = row.text_range.fewest, row.text_range.most
    if not fewest <= text_tokens <= most:
        raise ConfigError(
            f"The model {row.name} was made for texts of {most} tokens, and sees {fewest} of them at least.",
            got=f"model.text_tokens = {text_tokens}",
            expected=f"{fewest} to {most}",
            fix=f"set model.text_tokens to {fewest if text_tokens < fewest else most}, or remove it for {most}",
        )


def _read_mu(scheduler: FlowMatchEulerDiscreteScheduler) -> tuple[float, float]:
    """Offset and slope of mu over the number of tokens; a constant shift is the line without a slope."""
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return math.log(config.shift), 0.0
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return config.base_shift - slope * config.base_image_seq_len, slope
