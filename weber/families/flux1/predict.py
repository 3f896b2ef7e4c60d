"""From noisy latents to velocity: our loop over the blocks of diffusers' `FluxTransformer2DModel`.

Legend: B batch, C latent channels, H W latent size, N image tokens, T text tokens, D width.
"""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weber.families.family import Condition
from weber.families.flux1.latents import build_ids, pack, unpack

Rotary = tuple[Tensor, Tensor]


class Flux1Predictor(nn.Module):
    """The network over unpacked latents. Equal to the library's own forward in fp32 (tests/families/flux1/test_predict.py).

    One difference below fp32: t and guidance stay in fp32 up to their sinusoids, where the library rounds them to the weights' dtype.
    """

    def __init__(self, transformer: FluxTransformer2DModel, *, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.gradient_checkpointing = gradient_checkpointing
        self._rotary: dict[tuple[int, int, int, torch.device], Rotary] = {}

    def forward(self, noisy_BCHW: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Velocity (B, C, H, W) in the weights' dtype; t (B,) fp32 in 0..1; condition: text (B, T, D'), pooled (B, P), guidance (B,)."""
        model, dtype = self.transformer, self.transformer.x_embedder.weight.dtype
        height, width = noisy_BCHW.shape[-2:]
        image_BND = model.x_embedder(pack(noisy_BCHW.to(dtype)))
        text_BTD = model.context_embedder(condition["text"].to(dtype))
        modulation_BD = self._embed_time(t_B, condition)
        rotary = self._load_rotary(text_BTD.shape[1], height, width, noisy_BCHW.device)

        for block in model.transformer_blocks:
            text_BTD, image_BND = self._run(block, image_BND, text_BTD, modulation_BD, rotary)
        for block in model.single_transformer_blocks:
            text_BTD, image_BND = self._run(block, image_BND, text_BTD, modulation_BD, rotary)

        return unpack(model.proj_out(model.norm_out(image_BND, modulation_BD)), height, width)

    def _run(self, block: nn.Module, image: Tensor, text: Tensor, modulation: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor] = checkpoint(block, image, text, modulation, rotary, use_reentrant=False)
        else:
            out = block(image, text, modulation, rotary)
        return out

    def _embed_time(self, t_B: Tensor, condition: Condition) -> Tensor:
        pooled = condition["pooled"].to(self.transformer.x_embedder.weight.dtype)
        if not self.transformer.config.guidance_embeds:
            embedding: Tensor = self.transformer.time_text_embed(t_B * 1000, pooled)
        else:
            embedding = self.transformer.time_text_embed(t_B * 1000, condition["guidance"] * 1000, pooled)
        return embedding

    def _load_rotary(self, num_text_tokens: int, height: int, width: int, device: torch.device) -> Rotary:
        key = (num_text_tokens, height, width, device)
        if key not in self._rotary:
            self._rotary[key] = self.transformer.pos_embed(build_ids(num_text_tokens, height, width, device))
        return self._rotary[key]
