"""What FLUX.3 reads of a prompt: eight inner states of the text part of Qwen3-VL, side by side.

Legend: T text tokens, D width of one state. The encoder is told which tokens are padding, but the transformer attends to all of them, so
the window, which grows with the prompt, is part of the recipe. As in diffusers 0.42
`modular_pipelines/flux3/encoders.py:Flux3TextEncoderStep`, for one prompt at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.counts import build_count
from weber.families.family import TextLimit
from weber.families.flux3.original import QWEN
from weber.families.source import Source
from weber.families.weights import Fill, load_chat_tokenizer, load_part, read_part_config

WINDOW_TOKENS = 80
MOST_TOKENS = 8192
STATES = (4, 8, 12, 16, 20, 24, 28, 32)
_MODEL_TYPE = "qwen3_vl_text"
_PADDING_POSITION = 1


class PromptEncoder(nn.Module):
    """A tokenizer and its language model, which belong together."""

    def __init__(self, tokenizer: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    def forward(self, prompt: str) -> Tensor:
        """(1, T, 8 D); T is the prompt's length, with its chat template, up to the next multiple of 80 and at most 8192."""
        device = next(self.encoder.parameters()).device
        text = _build_text(self.tokenizer, prompt)
        num_tokens = len(self.tokenizer(text, truncation=True, max_length=MOST_TOKENS).input_ids)
        window = min(math.ceil(num_tokens / WINDOW_TOKENS) * WINDOW_TOKENS, MOST_TOKENS)
        tokens = self.tokenizer(
            text, return_tensors="pt", padding="max_length", padding_side="right", truncation=True, max_length=window
        ).to(device)
        # What transformers gave padding when the model was trained; later versions give it 0.
        positions = torch.arange(window, device=device)[None].masked_fill(tokens.attention_mask == 0, _PADDING_POSITION)
        output = self.encoder(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            position_ids=positions,
            output_hidden_states=True,
            use_cache=False,
        )
        return torch.stack([output.hidden_states[number] for number in STATES], dim=2).flatten(2)


def load_prompt_encoder(source: Source, *, dtype: torch.dtype, fill: Fill | None = None) -> PromptEncoder:
    """The language model with its tokenizer.

    Of the language model only what is needed is read from the disk and held in memory: 33 of its 36 layers, as the library normalizes
    the state after the last one, and neither the head nor the vision tower.
    """
    from transformers import Qwen3VLTextModel

    tokenizer = load_chat_tokenizer(str(source.load_folder("tokenizer")))
    config = read_text_config(source)
    changes = config | {"num_hidden_layers": min(int(str(config["num_hidden_layers"])), STATES[-1] + 1)}
    # A folder is read as a single file is, by names, so that no class of the library asks for the tensors that are left out.
    place = replace(source.find("text_encoder"), is_single=True)
    encoder = load_part(Qwen3VLTextModel, place, original=QWEN, dtype=dtype, changes=changes, fill=fill)
    return PromptEncoder(tokenizer, encoder)


def load_limit(source: Source) -> TextLimit:
    """How much of a prompt is read; what the template adds counts too."""
    folder = source.load_folder("tokenizer")
    return TextLimit(MOST_TOKENS, build_count("flux3", folder, load=partial(load_chat_tokenizer, str(folder)), count=_count_tokens))


def _count_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[int]:
    return [len(tokenizer(_build_text(tokenizer, one)).input_ids) for one in prompts]


def _build_text(tokenizer: Any, prompt: str) -> str:
    message = {"role": "user", "content": prompt}
    text: str = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return text


def read_text_config(source: Source) -> dict[str, object]:
    """Configuration of the language model alone. Raises ModelError where it is another one than the model reads."""
    whole = read_part_config(source, "text_encoder", original=QWEN)
    inner = whole.get("text_config", whole)
    config = dict(inner) if isinstance(inner, dict) else {}
    num_layers, model_type = config.get("num_hidden_layers"), config.get("model_type")
    if model_type != _MODEL_TYPE or not isinstance(num_layers, int) or num_layers < STATES[-1]:
        raise ModelError(
            "The text encoder is not of the kind that the model reads.",
            got=f"model_type = {model_type!r} with num_hidden_layers = {num_layers} in text_encoder/config.json",
            expected=f"Qwen3-VL, with at least {STATES[-1]} layers of model_type = {_MODEL_TYPE!r}",
            fix="use the text encoder that was published with the model",
        )
    return config
