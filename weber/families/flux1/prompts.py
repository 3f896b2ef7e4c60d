"""What FLUX.1 reads of a prompt: the pooled state of CLIP-L and the last hidden states of T5.

Legend: B prompts, T text tokens. Padding is attended to, so the padded length is part of the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase, T5EncoderModel, T5Tokenizer

from weber.families.weights import load_tokenizer, load_weights

CLIP_TOKENS = 77


class PromptEncoder(nn.Module):
    """A tokenizer and its encoder, which belong together."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: nn.Module, *, num_tokens: int) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.num_tokens = tokenizer, encoder, num_tokens

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """CLIP: (B, D) pooled; T5: (B, T, D)."""
        device = next(self.encoder.parameters()).device
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.num_tokens, truncation=True, return_tensors="pt"
        ).input_ids.to(device)
        output = self.encoder(ids)
        state: Tensor = output.pooler_output if isinstance(self.encoder, CLIPTextModel) else output.last_hidden_state
        return state


def load_clip(encoder_folder: str, tokenizer_folder: str, *, dtype: torch.dtype) -> PromptEncoder:
    """CLIP-L with its tokenizer."""
    encoder = load_weights(CLIPTextModel, encoder_folder, dtype=dtype)
    return PromptEncoder(load_tokenizer(CLIPTokenizer, tokenizer_folder), encoder, num_tokens=CLIP_TOKENS)


def load_t5(encoder_folder: str, tokenizer_folder: str, *, dtype: torch.dtype, num_tokens: int) -> PromptEncoder:
    """T5 encoder with its tokenizer, padded to `num_tokens`."""
    encoder = load_weights(T5EncoderModel, encoder_folder, dtype=dtype)
    return PromptEncoder(load_tokenizer(T5Tokenizer, tokenizer_folder), encoder, num_tokens=num_tokens)
