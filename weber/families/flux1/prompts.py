"""What FLUX.1 reads of a prompt: the pooled state of CLIP-L and the last hidden states of T5.

Legend: B prompts, T text tokens. The text encoders attend to padding, so the padded length is part of the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase, T5EncoderModel, T5Tokenizer

from weber.families.flux1 import original
from weber.families.source import Source
from weber.families.weights import Fill, load_named_part, load_tokenizer

CLIP_TOKENS = 77


class PromptEncoder(nn.Module):
    """A tokenizer and its encoder, which belong together."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: nn.Module, *, num_tokens: int, has_mask: bool = False) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.num_tokens, self.has_mask = tokenizer, encoder, num_tokens, has_mask

    def forward(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """CLIP: `pooled` (B, D); T5: `text` (B, T, D), and with a mask `text_mask` (B, T), 1 = read, 0 = padding."""
        device = next(self.encoder.parameters()).device
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=self.num_tokens, truncation=True, return_tensors="pt")
        output = self.encoder(tokens.input_ids.to(device))
        if isinstance(self.encoder, CLIPTextModel):
            return {"pooled": output.pooler_output}
        text: Tensor = output.last_hidden_state
        return {"text": text} | ({"text_mask": tokens.attention_mask.to(text)} if self.has_mask else {})


def load_clip(source: Source, *, dtype: torch.dtype, fill: Fill | None = None) -> PromptEncoder:
    """CLIP-L with its tokenizer."""
    encoder = load_named_part(CLIPTextModel, source, part="text_encoder", original=original.CLIP, dtype=dtype, fill=fill)
    return PromptEncoder(load_tokenizer(CLIPTokenizer, str(source.load_folder("tokenizer"))), encoder, num_tokens=CLIP_TOKENS)


def load_t5(source: Source, *, dtype: torch.dtype, num_tokens: int, has_mask: bool, fill: Fill | None = None) -> PromptEncoder:
    """T5 encoder with its tokenizer, padded to `num_tokens`."""
    encoder = load_named_part(T5EncoderModel, source, part="text_encoder_2", original=original.T5, dtype=dtype, fill=fill)
    tokenizer = load_tokenizer(T5Tokenizer, str(source.load_folder("tokenizer_2")))
    return PromptEncoder(tokenizer, encoder, num_tokens=num_tokens, has_mask=has_mask)
