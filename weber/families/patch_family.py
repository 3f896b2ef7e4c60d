"""What FLUX.2 and FLUX.3 have in common as a `Family`: latents that are patches, references, one text encoder with its tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import nn

from weber.errors import ModelError
from weber.families import patches
from weber.families.family import TRANSFORMER, PictureInputs, Predictor, TextRange
from weber.families.source import Source
from weber.families.tensors import Weights
from weber.families.weights import Original, build_skeleton, open_part

TEXT_FOLDERS = ("text_encoder", "tokenizer")


def _load_skeleton(family: PatchFamily) -> nn.Module:
    return family.load_skeleton()


class PatchFamily(ABC):
    """Half of a `Family`; the other half names the library's class of the transformer, its predictor and its makers' file."""

    transformer_class: ClassVar[str]
    predictor_class: ClassVar[type[Any]]
    transformer_original: ClassVar[Original]

    alignment_pixels = patches.SCALE_PIXELS
    latent_patch = 2
    image_part = "vae"
    picture_inputs = PictureInputs(max_references=10)
    takes_reference_t = False
    assistant: str | None = None
    adapted_text: str | None = None
    text_range: TextRange | None = None
    modulation_modules: Sequence[str] = ()
    encode_images = staticmethod(patches.encode_images)
    decode_latents = staticmethod(patches.decode_latents)
    latent_shape = staticmethod(patches.build_latent_shape)
    reference_size = staticmethod(patches.build_reference_size)
    skeleton = cached_property(_load_skeleton)

    source: Source
    transformer_config: dict[str, object]

    def identify(self, part: str) -> str:
        """See `Family.identify`."""
        if part in (TRANSFORMER, self.image_part):
            return self.source.identify(part, extra=[part])
        facts = [part, *self.list_text_facts(part)]
        return "-".join(self.source.identify(folder, extra=facts) for folder in TEXT_FOLDERS)

    @abstractmethod
    def list_text_facts(self, part: str) -> list[str]:
        """What is done to a prompt, as text; a change of it makes other keys."""
        ...

    def build_predictor(self, transformer: nn.Module, *, is_modulation_apart: bool = False) -> Predictor:
        """See `Family.build_predictor`."""
        assert isinstance(transformer, self._load_class()) and not is_modulation_apart
        predictor: Predictor = self.predictor_class(transformer)
        return predictor

    def load_skeleton(self, part: str = TRANSFORMER) -> nn.Module:
        """See `Family.load_skeleton`."""
        assert part == TRANSFORMER, "no text part gets adapters"
        return build_skeleton(self._load_class(), self.transformer_config)

    def open_transformer(self) -> Weights:
        """See `Family.open_transformer`."""
        return open_part(self.source.find(TRANSFORMER), self.transformer_original)

    def _load_class(self) -> Any:
        import diffusers

        return getattr(diffusers, self.transformer_class)

    def num_tokens(self, latent_height: int, latent_width: int) -> int:
        """See `Family.num_tokens`: latents are patches already, so every place is a token."""
        return latent_height * latent_width


def check_text_width(config: Mapping[str, object], text_width: int, *, num_states: int, where: str) -> None:
    """Raise ModelError where the text encoder's states, of so many layers beside each other, are not as wide as the transformer reads."""
    width, share = text_width // num_states, {3: "a third", 8: "an eighth"}[num_states]
    if config.get("hidden_size") != width:
        raise ModelError(
            "The text encoder is not the one that the model was made with.",
            got=f"hidden_size = {config.get('hidden_size')} in {where}",
            expected=f"hidden_size = {width}, {share} of the transformer's joint_attention_dim = {text_width}",
            fix="use the text encoder that was published with the model",
        )
