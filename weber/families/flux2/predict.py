"""From noisy latents to velocity: our loop over the blocks of diffusers' `Flux2Transformer2DModel`.

Legend: B batch, C latent channels, H W latent size, N image tokens (of the picture, then of its references), T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from weber.blocks.attended import attended
from weber.blocks.own import OwnBlocks
from weber.families.attention import build_mask
from weber.families.family import Condition, Run, list_references, run_plainly
from weber.families.flux2.blocks import build_block, list_layers
from weber.families.flux2.positions import build_ids
from weber.families.patches import pack, unpack
from weber.families.route import Passage, Rotary, Route
from weber.families.tokens import Tokens, build_tokens, embed_text

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel

Layout = tuple[int, tuple[tuple[int, int], ...], torch.device]


class Flux2Predictor(nn.Module):
    """The network over latents. Equal to the library's own forward in fp32 (tests/families/flux2/test_predict.py).

    One difference below fp32: t and guidance stay in fp32 up to their sinusoids, where the library rounds them to the weights' dtype.
    """

    def __init__(self, transformer: Flux2Transformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.run: Run = run_plainly
        self.routes: Sequence[Route] = ()
        self.is_fused = True
        self.attention: str | None = None
        self.own_blocks = OwnBlocks(list_layers, build_block)
        self._rotary: tuple[Layout, Rotary] | None = None

    def forward(self, noisy_BCHW: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Velocity (B, C, H, W) in the weights' dtype; t (B,) fp32 in 0..1.

        condition: `text` (B, T, D') or `projected` (B, T, D), see `tokens.py`; where the model has it, `guidance` (B,); `reference_0`, ...
        (B, C, h, w); `text_read` (B, T), see
        `attention.py`; `route_scores` and `route_kept` (N,), see `route.py`.
        """
        model, dtype = self.transformer, self.transformer.x_embedder.weight.dtype
        height, width = noisy_BCHW.shape[-2:]
        pictures = [noisy_BCHW, *list_references(condition)]
        image_BND = model.x_embedder(torch.cat([pack(picture.to(dtype)) for picture in pictures], dim=1))
        text_BTD = embed_text(model, condition, dtype=dtype)
        rotary, mask = self._load_rotary(text_BTD.shape[1], pictures), build_mask(condition, image_BND)
        passage = Passage(self.routes, condition, num_tokens=height * width, rotary=rotary, mask=mask)

        modulation_BD = self._embed_time(t_B, condition)
        image_modulation = model.double_stream_modulation_img(modulation_BD)
        text_modulation = model.double_stream_modulation_txt(modulation_BD)
        single_modulation = model.single_stream_modulation(modulation_BD)

        blocks, tokens = [*model.transformer_blocks, *model.single_transformer_blocks], build_tokens(text_BTD, image_BND)
        for number, block in enumerate(blocks):
            if passage.turns(number):
                tokens = build_tokens(tokens.text, passage.turn(number, tokens.image))
            is_double = number < len(model.transformer_blocks)
            told = (image_modulation, text_modulation) if is_double else (single_modulation,)
            own = self.own_blocks.find(block, self.attention) if self.is_fused and passage.mask is None else None
            place = (passage.rotary, _tell_mask(passage)) if own is None else (passage.read_angles(),)
            call = own or attended(block, self.attention)
            if is_double:
                tokens = build_tokens(*self.run(block, call, tokens.image, tokens.text, *told, *place))
            else:
                alone = (None,) if own is None else ()  # the library's blocks may be given the text apart
                tokens = Tokens(None, self.run(block, call, tokens.join(), *alone, *told, *place), tokens.num_text)
        image_BND = passage.turn(len(blocks), tokens.image)

        velocity_BNC = model.proj_out(model.norm_out(image_BND, modulation_BD))
        return unpack(velocity_BNC[:, : height * width], height, width)

    def _embed_time(self, t_B: Tensor, condition: Condition) -> Tensor:
        embedder, dtype = self.transformer.time_guidance_embed, self.transformer.x_embedder.weight.dtype
        embedding: Tensor = embedder.timestep_embedder(embedder.time_proj(t_B * 1000).to(dtype))
        if self.transformer.config.guidance_embeds:
            embedding = embedding + embedder.guidance_embedder(embedder.time_proj(condition["guidance"] * 1000).to(dtype))
        return embedding

    def _load_rotary(self, num_text_tokens: int, pictures: list[Tensor]) -> Rotary:
        """Cosines and sines of every position; the last ones are kept, as a run of steps has mostly one layout."""
        sizes = tuple((int(picture.shape[-2]), int(picture.shape[-1])) for picture in pictures)
        layout = (num_text_tokens, sizes, pictures[0].device)
        if self._rotary is None or self._rotary[0] != layout:
            self._rotary = layout, self.transformer.pos_embed(build_ids(*layout))
        return self._rotary[1]


def _tell_mask(passage: Passage) -> dict[str, Tensor] | None:
    """As the library's blocks take it."""
    return None if passage.mask is None else {"attention_mask": passage.mask}
