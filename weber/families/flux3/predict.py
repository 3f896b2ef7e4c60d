"""From noisy latents to velocity: our loop over the blocks of diffusers' `Flux3Transformer2DModel`.

Legend: B batch, C latent channels, H W latent size, N image tokens, R tokens of all references, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from weber.blocks.attended import attended
from weber.blocks.own import OwnBlocks
from weber.families.family import Condition, Run, list_references, run_plainly
from weber.families.flux3.blocks import build_block, list_layers
from weber.families.flux3.positions import build_image_ids, build_text_ids
from weber.families.patches import pack, unpack
from weber.families.route import Rotary, Route
from weber.families.tokens import embed_text
from weber.kernels.rotate import build_angles

if TYPE_CHECKING:
    from diffusers import Flux3Transformer2DModel


@dataclass(frozen=True)
class _Mode:
    """The tokens of a kind, on their way into the joint blocks, with their modulation there (one for all or for each) and positions."""

    tokens: Tensor
    modulation: Tensor
    rotary: Rotary


class Flux3Predictor(nn.Module):
    """The network over latents. Equal to the library's own forward in fp32 (tests/families/flux3/test_predict.py), but for the last bits
    in training (`_spread`).

    One difference below fp32: t stays in fp32 up to its sinusoids, where the library rounds it to the weights' dtype. References and text
    are told t = 0 by the model itself.
    """

    def __init__(self, transformer: Flux3Transformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.run: Run = run_plainly
        self.routes: Sequence[Route] = ()  # never others: see `Family.takes_routes`
        self.is_fused = True
        self.attention: str | None = None
        self.own_blocks = OwnBlocks(list_layers, build_block)

    def forward(self, noisy_BCHW: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Velocity (B, C, H, W) in the weights' dtype; t (B,) fp32 in 0..1.

        condition: text (B, T, D') or projected (B, T, D), see `tokens.py`; reference_0, ... (B, C, h, w).
        """
        model, dtype = self.transformer, self.transformer.x_embedders["image"].weight.dtype
        height, width = noisy_BCHW.shape[-2:]
        device, num_tokens = noisy_BCHW.device, height * width
        time_B1D, clean_B1D = self._embed_time(t_B, dtype), self._embed_time(torch.zeros_like(t_B), dtype)

        text_tokens = embed_text(model, condition, dtype=dtype)
        text_ids = build_text_ids(text_tokens.shape[1], device)
        text = self._run_mode("txt", text_tokens, time_B1D=clean_B1D, ids=text_ids, blocks=model.txt_mode_blocks)
        pictures = [self._run_images("image", pack(noisy_BCHW), time_B1D=time_B1D, ids=build_image_ids(noisy_BCHW, 0))]
        references = list_references(condition)
        if references:
            tokens = torch.cat([pack(latents) for latents in references], dim=1)
            ids = torch.cat([build_image_ids(latents, -1 - number) for number, latents in enumerate(references)])
            pictures.append(self._run_images("image_cond", tokens, time_B1D=clean_B1D, ids=ids))

        text_BTD, content_BND = text.tokens, torch.cat([mode.tokens for mode in pictures], dim=1)
        modulation = pictures[0].modulation
        if references:
            modulation = torch.cat([mode.modulation.expand(-1, mode.tokens.shape[1], -1) for mode in pictures], dim=1)
        rotary = _join(mode.rotary for mode in (text, *pictures))
        angles = build_angles(rotary)
        for block in model.single_transformer_blocks:
            own = self.own_blocks.find(block, self.attention) if self.is_fused else None
            place = rotary if own is None else angles
            call = own or attended(block, self.attention)
            text_BTD, content_BND = self.run(block, call, content_BND, text_BTD, modulation, text.modulation, place)

        time = _spread(time_B1D, num_tokens)
        return unpack(model.proj_out(model.norm_out(content_BND[:, :num_tokens], time)), height, width)

    def _run_images(self, name: str, latents_BNC: Tensor, *, time_B1D: Tensor, ids: Tensor) -> _Mode:
        embedder = self.transformer.x_embedders[name]
        tokens = embedder(latents_BNC.to(embedder.weight.dtype))
        return self._run_mode(name, tokens, time_B1D=time_B1D, ids=ids, blocks=self.transformer.mode_blocks[name])

    def _run_mode(self, name: str, tokens: Tensor, *, time_B1D: Tensor, ids: Tensor, blocks: Iterable[nn.Module]) -> _Mode:
        """The blocks that see tokens of one kind only."""
        model = self.transformer
        time = _spread(functional.silu(time_B1D), tokens.shape[1])
        early, rotary = model.early_stream_modulations[name](time), model.pos_embed(ids)
        angles = build_angles(rotary)
        for block in blocks:
            own = self.own_blocks.find(block, self.attention) if self.is_fused else None
            call = own or attended(block, self.attention)
            tokens = self.run(block, call, tokens, early, rotary if own is None else angles)
        return _Mode(tokens, model.single_stream_modulations[name](time), rotary)

    def _embed_time(self, t_B: Tensor, dtype: torch.dtype) -> Tensor:
        model = self.transformer
        embedding: Tensor = model.timestep_embedder(model.time_proj(t_B * 1000).to(dtype))
        return embedding[:, None]


def _spread(time_B1D: Tensor, num_tokens: int) -> Tensor:
    """Modulation is the same for all tokens of a kind, and in training it is made once for all.

    The library makes it token by token, whose last bits are others; where nothing is trained, so do we.
    """
    return time_B1D if torch.is_grad_enabled() else time_B1D.expand(-1, num_tokens, -1)


def _join(rotaries: Iterable[Rotary]) -> Rotary:
    cosines, sines = zip(*rotaries, strict=True)
    return torch.cat(cosines), torch.cat(sines)
