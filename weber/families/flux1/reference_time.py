"""The blocks of diffusers' FLUX.1 where the tokens of references are at another noise level than the rest.

Line by line `FluxTransformerBlock.forward` and `FluxSingleTransformerBlock.forward`, but that shifts, scales and gates of the last tokens
come from another modulation. Equal to the library's where both are the same (tests/families/flux1/test_reference_time.py).

Legend: B batch, T text tokens, N tokens of the picture and then of its references, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weber.families.route import Rotary


@dataclass(frozen=True)
class ReferenceTime:
    """A block of either kind, called as the block itself is; of the N tokens, those from `num_tokens` on have the modulation here."""

    block: Any
    modulation_BD: Tensor
    num_tokens: int

    def __call__(
        self, image_BND: Tensor, text_BTD: Tensor, modulation_BD: Tensor, rotary: Rotary, attention: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Text and image tokens after the block."""
        from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

        run = self._run_double if isinstance(self.block, FluxTransformerBlock) else self._run_single
        return run(image_BND, text_BTD, modulation_BD, {"image_rotary_emb": rotary, **(attention or {})})

    def _run_double(self, image: Tensor, text: Tensor, modulation: Tensor, attention: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        block = self.block
        image_normed, gate, shift_ff, scale_ff, gate_ff = self._modulate(block.norm1, image, modulation, self.num_tokens)
        text_normed, text_gate, text_shift_ff, text_scale_ff, text_gate_ff = block.norm1_context(text, emb=modulation)

        image_seen, text_seen = block.attn(hidden_states=image_normed, encoder_hidden_states=text_normed, **attention)
        image = image + gate * image_seen
        text = text + text_gate[:, None] * text_seen

        image = image + gate_ff * block.ff(block.norm2(image) * (1 + scale_ff) + shift_ff)
        text_normed = block.norm2_context(text) * (1 + text_scale_ff[:, None]) + text_shift_ff[:, None]
        return _clip(text + text_gate_ff[:, None] * block.ff_context(text_normed)), image

    def _run_single(self, image: Tensor, text: Tensor, modulation: Tensor, attention: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        block, num_text_tokens = self.block, text.shape[1]
        tokens = torch.cat([text, image], dim=1)
        normed, gate = self._modulate(block.norm, tokens, modulation, num_text_tokens + self.num_tokens)
        seen = block.attn(hidden_states=normed, **attention)
        tokens = _clip(tokens + gate * block.proj_out(torch.cat([seen, block.act_mlp(block.proj_mlp(normed))], dim=2)))
        return tokens[:, :num_text_tokens], tokens[:, num_text_tokens:]

    def _modulate(self, norm: Any, tokens: Tensor, modulation: Tensor, num_tokens: int) -> list[Tensor]:
        """What the norm makes of the first tokens, and with the modulation here of the rest: normed tokens, then a value per token."""
        normed, *parts = norm(tokens[:, :num_tokens], emb=modulation)
        reference_normed, *reference_parts = norm(tokens[:, num_tokens:], emb=self.modulation_BD)
        counts = (num_tokens, tokens.shape[1] - num_tokens)
        return [torch.cat([normed, reference_normed], dim=1)] + [
            torch.cat([part[:, None].expand(-1, count, -1) for part, count in zip(both, counts, strict=True)], dim=1)
            for both in zip(parts, reference_parts, strict=True)
        ]


def _clip(tokens: Tensor) -> Tensor:
    return tokens.clip(-65504, 65504) if tokens.dtype == torch.float16 else tokens
