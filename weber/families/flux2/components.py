"""FLUX.2 as a `Family`: its parts, read from a folder in diffusers layout, from single files or from the hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from weber.errors import ConfigError, ModelError
from weber.families import patches
from weber.families.attention import TEXT_READ
from weber.families.family import Predictor, TextLimits
from weber.families.flux2 import graph, keys, original
from weber.families.flux2.predict import Flux2Predictor
from weber.families.flux2.prompts import NUM_STATES, RECIPES, TEXT_TOKENS, PromptEncoder, load_limit, load_prompt_encoder, read_text_config
from weber.families.flux2.variants import SCHEDULER, VARIANTS, Variant
from weber.families.graphs import BuildGraph
from weber.families.pairing import Pairing
from weber.families.patch_family import TEXT_FOLDERS, PatchFamily, check_text_width
from weber.families.schedule import list_sigmas
from weber.families.source import Source
from weber.families.weights import Fill, load_part, read_part_config

TRANSFORMER_CLASS = "Flux2Transformer2DModel"


class Flux2(PatchFamily):
    """One FLUX.2 model. Building it reads configuration files only and checks that every part is there."""

    transformer_class = TRANSFORMER_CLASS
    predictor_class = Flux2Predictor
    transformer_original = original.TRANSFORMER
    takes_routes = True
    reference_modules: Sequence[str] = ()
    prompts_per_batch: int | None = None
    lean_layers: Mapping[str, str] = keys.LEAN_LAYERS
    joined_layers: Sequence[Sequence[str]] = keys.JOINED_LAYERS
    adapter_targets: Mapping[str, Sequence[str]] = keys.ADAPTER_TARGETS
    pairings: Sequence[Pairing] = keys.PAIRINGS

    def __init__(self, source: Source, row: Variant, *, hides_padding: bool = False) -> None:
        self.source, self.row, self.variant, self.architecture = source, row, row.name, row.architecture
        self._hides_padding = hides_padding
        self.sample_defaults, self.native_pixels = row.sample_defaults, row.native_pixels
        self.text_parts: tuple[str, ...] = (row.text_part,)
        self.is_local = source.is_local
        self.text_limits: TextLimits = {row.text_part: partial(load_limit, row.text_part, source)}
        for part in ("transformer", self.image_part, *TEXT_FOLDERS):
            source.check_part(part)
        self.transformer_config = read_part_config(source, "transformer", original=original.TRANSFORMER)
        from diffusers import FlowMatchEulerDiscreteScheduler

        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(source.read_config("scheduler", "scheduler_config.json") or SCHEDULER)
        self.build_graph: BuildGraph = partial(graph.build_model_graph, source=source, row=row)
        self._text_width = _read_facts(self.transformer_config)[1]
        _check_transformer(self.transformer_config, row, where=source.name_part("transformer"))
        text_config = read_text_config(row.text_part, source)
        check_text_width(text_config, self._text_width, num_states=NUM_STATES, where=source.name_part("text_encoder"))

    def list_text_facts(self, part: str) -> list[str]:
        """See `PatchFamily.list_text_facts`."""
        recipe = RECIPES[part]
        return [f"tokens={TEXT_TOKENS}", f"states={recipe.states}", *recipe.list_facts()] + [TEXT_READ] * self._hides_padding

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        """See `Family.load`."""
        if part == self.image_part:
            from diffusers import AutoencoderKLFlux2

            assert fill is None
            module = load_part(AutoencoderKLFlux2, self.source.find("vae"), original=original.VAE, dtype=dtype)
        else:
            module = load_prompt_encoder(part, self.source, dtype=dtype, fill=fill)
        return module.to(device).eval().requires_grad_(False)

    def blocks(self, predictor: Predictor) -> list[nn.Module]:
        """See `Family.blocks`."""
        return [*predictor.transformer.transformer_blocks, *predictor.transformer.single_transformer_blocks]  # type: ignore[misc]

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_prompts`: `text` (B, T, D), and where padding is hidden `text_read` (B, T)."""
        text: dict[str, Tensor] = {"text": encoder(prompts)}
        if not self._hides_padding:
            return text
        assert isinstance(encoder, PromptEncoder)
        return text | {TEXT_READ: encoder.read_mask(prompts)}

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """See `Family.text_shapes`."""
        shapes: dict[str, tuple[int, ...]] = {"text": (TEXT_TOKENS, self._text_width)}
        return shapes | ({TEXT_READ: (TEXT_TOKENS,)} if self._hides_padding else {})

    def shift(self, num_tokens: int) -> float:
        """See `Family.shift`: e^mu, mu as the pipelines have it for the variant's own number of steps."""
        if not self.scheduler.config.use_dynamic_shifting:
            return float(self.scheduler.config.shift)
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return math.exp(compute_empirical_mu(num_tokens, self.row.sample_steps))

    def sigmas(self, num_steps: int, num_tokens: int) -> list[float]:
        """See `Family.sigmas`: the scheduler's own, as the pipelines ask for them."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        mu = compute_empirical_mu(num_tokens, num_steps) if self.scheduler.config.use_dynamic_shifting else None
        return list_sigmas(self.scheduler, num_steps, mu=mu)


def build_flux2(source: Source, variant: str | None, *, hides_padding: bool = False, text_tokens: int | None = None) -> Flux2:
    """The model at `source`; a variant left out is recognized by its guidance input, the width of its text and `is_distilled`.

    Parts that are nowhere come from the variant's own place. A single file does not say whether it is distilled: it is taken as the
    base model, which is made for training.
    """
    row = next((row for row in VARIANTS if row.name == variant), None) or _recognize(source)
    if text_tokens is not None:
        raise ConfigError(
            f"The model {row.name} was made with texts padded to {TEXT_TOKENS} tokens, all of which it sees: the padding is part of it.",
            got=f"model.text_tokens = {text_tokens}",
            fix="remove model.text_tokens",
        )
    _check_index(source, row)
    return Flux2(source.with_home(row.home), row, hides_padding=hides_padding)


def _recognize(source: Source) -> Variant:
    has_guidance, width = _read_facts(read_part_config(source, "transformer", original=original.TRANSFORMER))
    index = source.read_config("", "model_index.json") or {}
    is_distilled = bool(index.get("is_distilled", False)) and not has_guidance
    fitting = [row for row in VARIANTS if (row.has_guidance, row.is_distilled) == (has_guidance, is_distilled)]
    return next((row for row in fitting if row.text_width == width), fitting[0])


def _check_index(source: Source, row: Variant) -> None:
    said = (source.read_config("", "model_index.json") or {}).get("is_distilled", row.is_distilled)
    if said != row.is_distilled and not row.has_guidance:
        raise ModelError(
            f"The model is not what model.variant = {row.name!r} says.",
            got=f"is_distilled = {said} in its model_index.json",
            expected=f"is_distilled = {row.is_distilled} for {row.name}",
            fix="leave model.variant out, or name the other model of that size (with or without -base)",
        )


def _read_facts(config: Mapping[str, object]) -> tuple[bool, int]:
    """Whether guidance is an input, and the width of the text; what is left out is as in dev, the library's default."""
    return bool(config.get("guidance_embeds", True)), int(str(config.get("joint_attention_dim", VARIANTS[0].text_width)))


def _check_transformer(config: Mapping[str, object], row: Variant, *, where: str) -> None:
    channels = config.get("in_channels", patches.CHANNELS)
    if channels != patches.CHANNELS:
        raise ModelError(
            "This FLUX.2 model takes more than noisy latents as input and cannot be trained.",
            got=f"in_channels = {channels} in {where}",
            expected=f"in_channels = {patches.CHANNELS}",
            fix="choose another model.path",
        )
    has_guidance, width = _read_facts(config)
    is_other_size = width != row.text_width and width in {other.text_width for other in VARIANTS}
    if has_guidance != row.has_guidance or is_other_size:
        fitting = [other for other in VARIANTS if other.has_guidance == has_guidance]
        fitting = [other for other in fitting if other.text_width == width] or fitting
        raise ModelError(
            f"The model is not what model.variant = {row.name!r} says.",
            got=f"guidance_embeds = {has_guidance}, joint_attention_dim = {width} in {where}",
            expected=f"guidance_embeds = {row.has_guidance}, joint_attention_dim = {row.text_width} for {row.name}",
            fix=f"set model.variant to one of {', '.join(other.name for other in fitting)}, or leave it out",
        )
