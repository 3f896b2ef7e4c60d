"""What FLUX.1 reads of a prompt: the pooled state of CLIP-L and the last hidden states of T5.

Legend: B prompts, T text tokens. The text encoders attend to padding, so the padded length is part of the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from weber.families.attention import TEXT_READ
from weber.families.counts import build_count
from weber.families.family import TextLimit
from weber.families.flux1 import original
from weber.families.source import Source
from weber.families.weights import Fill, load_named_part, load_tokenizer, read_part_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLIP_TOKENS = 77


class PromptEncoder(nn.Module):
    """A tokenizer and its encoder, which belong together. Of CLIP the names of its layers are those in adapter files: `text_model...`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: nn.Module, *, num_tokens: int, mask: str | None = None) -> None:
        super().__init__()
        self.tokenizer, self.text_model, self.num_tokens, self.mask = tokenizer, encoder, num_tokens, mask

    def forward(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """CLIP: `pooled` (B, D); T5: `text` (B, T, D), and with a mask `text_mask` (B, T), 1 = read, 0 = padding, or `text_read` (B, T)
        bool."""
        from transformers import CLIPTextModel

        device = next(self.text_model.parameters()).device
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=self.num_tokens, truncation=True, return_tensors="pt")
        output = self.text_model(tokens.input_ids.to(device))
        if isinstance(self.text_model, CLIPTextModel):
            return {"pooled": output.pooler_output}
        text: Tensor = output.last_hidden_state
        if self.mask is None:
            return {"text": text}
        read = tokens.attention_mask.to(text.device)
        return {"text": text, self.mask: read.bool() if self.mask == TEXT_READ else read.to(text)}


def load_limit(source: Source, part: str, *, num_tokens: int) -> TextLimit:
    """How much CLIP (`clip`), or T5 padded to `num_tokens` (`t5`), reads of a prompt."""
    is_clip = part == "clip"
    folder, load = source.load_folder("tokenizer" if is_clip else "tokenizer_2"), _load_clip_tokenizer if is_clip else _load_t5_tokenizer
    count = build_count(f"flux1 {part}", folder, load=partial(load, source), count=_count_tokens)
    return TextLimit(CLIP_TOKENS if is_clip else num_tokens, count)


def _count_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[int]:
    return [len(tokens) for tokens in tokenizer(list(prompts), verbose=False).input_ids]


def _load_clip_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    from transformers import CLIPTokenizer

    tokenizer: PreTrainedTokenizerBase = load_tokenizer(CLIPTokenizer, str(source.load_folder("tokenizer")))
    return tokenizer


def _load_t5_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    from transformers import T5Tokenizer

    tokenizer: PreTrainedTokenizerBase = load_tokenizer(T5Tokenizer, str(source.load_folder("tokenizer_2")))
    return tokenizer


def load_clip(source: Source, *, dtype: torch.dtype, fill: Fill | None = None) -> PromptEncoder:
    """CLIP-L with its tokenizer."""
    from transformers import CLIPTextModel

    encoder = load_named_part(CLIPTextModel, source, part="text_encoder", original=original.CLIP, dtype=dtype, fill=fill)
    return PromptEncoder(_load_clip_tokenizer(source), encoder, num_tokens=CLIP_TOKENS)


def load_clip_skeleton(source: Source) -> PromptEncoder:
    """CLIP-L on the meta device, with its tokenizer; reads no weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = read_part_config(source, "text_encoder", original=original.CLIP)
    text = config.get("text_config", config)
    assert isinstance(text, dict)
    with torch.device("meta"):
        encoder: nn.Module = CLIPTextModel(CLIPTextConfig.from_dict(text))
    encoder.eval().requires_grad_(False)
    return PromptEncoder(_load_clip_tokenizer(source), encoder, num_tokens=CLIP_TOKENS)


def load_t5(source: Source, *, dtype: torch.dtype, num_tokens: int, mask: str | None, fill: Fill | None = None) -> PromptEncoder:
    """T5 encoder with its tokenizer, padded to `num_tokens`; `mask` is what the tensor that says what is padding is called."""
    from transformers import T5EncoderModel

    encoder = load_named_part(T5EncoderModel, source, part="text_encoder_2", original=original.T5, dtype=dtype, fill=fill)
    return PromptEncoder(_load_t5_tokenizer(source), encoder, num_tokens=num_tokens, mask=mask)
