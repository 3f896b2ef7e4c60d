"""FLUX.3 as a `Family`: its parts, read from a folder in diffusers layout or from the hub; the transformer from a single file too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from weber.errors import ConfigError, ModelError
from weber.families import patches
from weber.families.family import Predictor, TextLimits
from weber.families.flux3 import keys, original
from weber.families.flux3.predict import Flux3Predictor
from weber.families.flux3.prompts import STATES, WINDOW_TOKENS, load_limit, load_prompt_encoder, read_text_config
from weber.families.flux3.variants import TIMESTEP_SHIFT, VARIANTS, Variant
from weber.families.graphs import BuildGraph, build_no_graph
from weber.families.pairing import Pairing
from weber.families.patch_family import TEXT_FOLDERS, PatchFamily, check_text_width
from weber.families.schedule import list_sigmas
from weber.families.source import Source
from weber.families.weights import Fill, load_weights, read_part_config

TRANSFORMER_CLASS = "Flux3Transformer2DModel"
_TEXT_WIDTH = 20480


class Flux3(PatchFamily):
    """One FLUX.3 model. Building it reads configuration files only and checks that every part is there."""

    transformer_class = TRANSFORMER_CLASS
    predictor_class = Flux3Predictor
    transformer_original = original.TRANSFORMER
    text_parts: tuple[str, ...] = ("qwen",)
    takes_routes = False
    reference_modules: Sequence[str] = keys.REFERENCE_MODULES
    build_graph: BuildGraph = staticmethod(build_no_graph)
    prompts_per_batch: int | None = 1
    lean_layers: Mapping[str, str] = keys.LEAN_LAYERS
    joined_layers: Sequence[Sequence[str]] = keys.JOINED_LAYERS
    adapter_targets: Mapping[str, Sequence[str]] = keys.ADAPTER_TARGETS
    pairings: Sequence[Pairing] = keys.PAIRINGS

    def __init__(self, source: Source, row: Variant) -> None:
        self.source, self.row, self.variant, self.architecture = source, row, row.name, row.architecture
        self.sample_defaults, self.native_pixels = row.sample_defaults, row.native_pixels
        self.is_local = source.is_local
        self.text_limits: TextLimits = {"qwen": partial(load_limit, source)}
        self.transformer_config = read_part_config(source, "transformer", original=original.TRANSFORMER)
        _check_transformer(self.transformer_config, source)
        for part in ("transformer", self.image_part, *TEXT_FOLDERS):
            source.check_part(part)
        from diffusers import FlowMatchEulerDiscreteScheduler

        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=TIMESTEP_SHIFT)
        self._text_width = int(str(self.transformer_config.get("joint_attention_dim", _TEXT_WIDTH)))
        text_config = read_text_config(source)
        check_text_width(text_config, self._text_width, num_states=len(STATES), where=source.name_part("text_encoder"))

    def list_text_facts(self, part: str) -> list[str]:
        """See `PatchFamily.list_text_facts`."""
        return [f"window={WINDOW_TOKENS}", f"states={STATES}"]

    def load(self, part: str, *, device: torch.device, dtype: torch.dtype, fill: Fill | None = None) -> nn.Module:
        """See `Family.load`."""
        if part == self.image_part:
            from diffusers import AutoencoderKLFlux2

            assert fill is None
            module = load_weights(AutoencoderKLFlux2, str(self.source.load_folder("vae")), dtype=dtype)
        else:
            module = load_prompt_encoder(self.source, dtype=dtype, fill=fill)
        return module.to(device).eval().requires_grad_(False)

    def blocks(self, predictor: Predictor) -> list[nn.Module]:
        """See `Family.blocks`; those of `mode_blocks.image_cond` run with references only."""
        from diffusers import Flux3Transformer2DModel

        model = predictor.transformer
        assert isinstance(model, Flux3Transformer2DModel)
        modes = model.mode_blocks
        return [*model.txt_mode_blocks, *modes["image"], *modes["image_cond"], *model.single_transformer_blocks]

    def encode_prompts(self, part: str, encoder: nn.Module, prompts: Sequence[str]) -> dict[str, Tensor]:
        """See `Family.encode_prompts`: `text` (1, T, D) of one prompt, as T depends on it."""
        assert len(prompts) == self.prompts_per_batch
        return {"text": encoder(prompts[0])}

    def text_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """See `Family.text_shapes`: of a prompt of up to 80 tokens; longer ones have multiples of that."""
        return {"text": (WINDOW_TOKENS, self._text_width)}

    def shift(self, num_tokens: int) -> float:
        """See `Family.shift`: the same for every size."""
        return TIMESTEP_SHIFT

    def sigmas(self, num_steps: int, num_tokens: int) -> list[float]:
        """See `Family.sigmas`: the scheduler's own, as `Flux3SetTimestepsStep` asks for them."""
        return list_sigmas(self.scheduler, num_steps)


def build_flux3(source: Source, variant: str | None, *, hides_padding: bool = False, text_tokens: int | None = None) -> Flux3:
    """The model at `source`; parts that are nowhere come from the variant's own place. Raises ModelError for a step-distilled one, and
    ConfigError for `hides_padding` and `text_tokens`.

    The network of that one has a second noise level as input, the one that a step jumps to, and learned the mean velocity between the
    two. Training draws one noise level and knows the velocity there: that says nothing of any jump that its sampler makes.
    """
    row = next((row for row in VARIANTS if row.name == variant), VARIANTS[0])
    if hides_padding:
        raise ConfigError(
            f"The blocks of the model {row.name} take no text mask, and its prompts are padded by less than {WINDOW_TOKENS} tokens.",
            got="objective.text_mask = true",
            fix="remove objective.text_mask",
        )
    if text_tokens is not None:
        raise ConfigError(
            f"The model {row.name} sees as many tokens as a text has, up to the next multiple of {WINDOW_TOKENS}: none are to spare.",
            got=f"model.text_tokens = {text_tokens}",
            fix="remove model.text_tokens",
        )
    return Flux3(source.with_home(row.home), row)


def _check_transformer(config: Mapping[str, object], source: Source) -> None:
    if config.get("flow_map", False):
        base = VARIANTS[0]
        raise ModelError(
            "A step-distilled FLUX.3 model cannot be trained: it predicts jumps between two noise levels, not the velocity at one.",
            got=f"flow_map = True in {source.name_part('transformer')}",
            expected=f"{base.name} ({base.home})",
            fix=f"set model.variant = {base.name!r}; its LoRA fits the distilled model too, whose layers have the same names and shapes",
        )
    for name in ("in_channels", "cond_in_channels"):
        if config.get(name, patches.CHANNELS) != patches.CHANNELS:
            raise ModelError(
                "This FLUX.3 model takes other latents than its autoencoder makes and cannot be trained.",
                got=f"{name} = {config[name]} in {source.name_part('transformer')}",
                expected=f"{name} = {patches.CHANNELS}",
                fix="choose another model.path",
            )
