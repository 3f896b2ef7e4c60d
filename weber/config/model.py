"""`[model]`: which base model is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from weber.config.elsewhere import check_url
from weber.config.section import HIDDEN, PathText, Secret, Section


class FrozenConfig(Section):
    """An adapter that takes part in the run, frozen."""

    path: PathText
    """An adapter file, or a hub id with one."""

    strength: Annotated[float, Field(ge=-4, le=4)] = 1.0
    """Strength while training."""

    sample_strength: Annotated[float, Field(ge=-4, le=4)] | None = None
    """Strength in pictures. Left out: as `strength`."""


class ModelConfig(Section):
    """Which base model is trained."""

    variant: str | None = None
    """A row of the table of variants (`weber variants` lists them). Left out: recognized from the model's files, or the table's first
    row where no path is given either."""

    path: PathText | None = None
    """A folder in diffusers layout, a hub id such as `owner/name`, or a single *.safetensors file with the transformer as BFL and
    ComfyUI have it (of several pieces the first). Left out: the variant's own hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id. Refused for what is on this machine."""

    transformer: PathText | None = None
    """Another transformer than that of `path`: a folder, a hub id or a single file that may hold nothing else."""

    vae: PathText | None = None
    """Another autoencoder than that of `path`: a folder, a hub id or a single file (`ae.safetensors`)."""

    text_encoder: PathText | None = None
    """Another first text encoder (CLIP-L, Mistral, Qwen): a folder, a hub id or a single file (`clip_l.safetensors`)."""

    text_encoder_2: PathText | None = None
    """Another second text encoder (T5): a folder, a hub id or a single file (`t5xxl_fp16.safetensors`). Refused for a model with one."""

    text_encoder_url: Annotated[Annotated[str, AfterValidator(check_url)] | None, Secret()] = None
    """Another machine that encodes texts, so that no text encoder is read here: the address that `weber serve-text` prints there, with
    its token (so it is in no message and in no file but the settings of the run); or the hub's own server, of which the address ends in
    `/predict` and the token is that of `hf auth login`. What it makes is kept in the cache under the same keys as if it were made here."""

    tokenizer_path: PathText | None = None
    """Where the tokenizers are: a model in diffusers layout, a folder or a hub id. Left out: with the model, else with the variant's
    own hub id."""

    text_tokens: Annotated[int, Field(ge=8, le=512)] | None = None
    """How many tokens the network sees of what T5 makes of a text, padding included: fewer are less work in every step. In training, in
    pictures and in the cache alike; the rest of longer texts is not read. 77 to 512, or to what the model was made for
    (`pocket`: 8 to 24). Left out: what it was made for. Refused for models of which the padding is a part."""

    assistant: PathText | None = None
    """A LoRA that takes part while training and is left out of pictures and saved files: a file or a hub id; `"off"` for none.
    Left out: the variant's own, which only a distilled one has."""

    assistant_strength: Annotated[float, Field(ge=0, le=4)] = 1.0
    """Strength of the assistant while training."""

    assistant_sample_strength: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Strength of the assistant in pictures."""

    adapters: list[FrozenConfig] = []
    """Adapters that take part, frozen, each under its own `[[model.adapters]]`: what is trained builds on them, and they are not in its
    file."""

    @model_validator(mode="after")
    def _refuse_unused(self) -> ModelConfig:
        encoders = {"text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}
        named = [name for name, place in encoders.items() if place is not None]
        if self.text_encoder_url is not None and named:
            raise ValueError(f"{named[0]} has no effect where another machine encodes texts (text_encoder_url); remove one of them")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        secret = ("text_encoder_url",)
        return [(name, HIDDEN if name in secret and value is not None else value) for name, value in super().__repr_args__()]
