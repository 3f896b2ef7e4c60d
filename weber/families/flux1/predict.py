"""From noisy latents to velocity: our loop over the blocks of diffusers' `FluxTransformer2DModel`.

Legend: B batch, C latent channels, H W latent size, N tokens of the picture and then of its references, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from weber.blocks.attended import attended
from weber.blocks.own import OwnBlocks
from weber.families.attention import build_mask
from weber.families.family import Condition, Run, list_references, run_plainly
from weber.families.flux1.blocks import SingleBlock, build_block, list_layers
from weber.families.flux1.latents import build_ids, pack, unpack
from weber.families.flux1.modulation import Modulation
from weber.families.flux1.reference_time import ReferenceTime
from weber.families.route import Passage, Rotary, Route
from weber.families.tokens import Tokens, build_tokens, embed_text

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

Block = Callable[..., tuple[Tensor, Tensor]]
NUM_ROTARY = 16
"""How many positions are kept, one for each size of a bucket: 5 MB each at 1024 x 1024 pixels, 10 MB with a reference."""


class Flux1Predictor(nn.Module):
    """The network over unpacked latents. Equal to the library's own forward in fp32 (tests/families/flux1/test_predict.py).

    One difference below fp32: t and guidance stay in fp32 up to their sinusoids, where the library rounds them to the weights' dtype.
    """

    def __init__(self, transformer: FluxTransformer2DModel, *, is_modulation_apart: bool = False) -> None:
        super().__init__()
        self.transformer = transformer
        self.modulation = Modulation(self._list_blocks()) if is_modulation_apart else None
        self.run: Run = run_plainly
        self.routes: Sequence[Route] = ()
        self.is_fused = True
        self.attention: str | None = None
        self.own_blocks = OwnBlocks(list_layers, build_block)
        self._rotary: dict[tuple[object, ...], Rotary] = {}

    def forward(self, noisy_BCHW: Tensor, t_B: Tensor, condition: Condition) -> Tensor:
        """Velocity (B, C, H, W) in the weights' dtype; t (B,) fp32 in 0..1.

        condition: `text` (B, T, D') or `projected` (B, T, D), see `tokens.py`; `pooled` (B, P); where the model has it, `guidance` (B,);
        `text_mask` or `text_read` (B, T), see `attention.py`; `reference_0`, ... (B, C, h, w), and `reference_t` (B,), their own t;
        `masked` (B, C, H, W) and `mask` (B, 64, H, W); `route_scores` and `route_kept` (N,), see `route.py`.
        """
        model, dtype = self.transformer, self.transformer.x_embedder.weight.dtype
        references = list_references(condition)
        picture_BNc = pack(torch.cat([noisy_BCHW, *(condition[name] for name in ("masked", "mask") if name in condition)], dim=1))
        num_tokens = picture_BNc.shape[1]

        image_BND = model.x_embedder(torch.cat([picture_BNc, *map(pack, references)], dim=1).to(dtype))
        text_BTD = embed_text(model, condition, dtype=dtype)
        time_BD = self._embed_time(t_B, condition)
        rotary, mask = self._load_rotary(text_BTD.shape[1], [noisy_BCHW, *references]), build_mask(condition, image_BND)
        passage = Passage(self.routes, condition, num_tokens=num_tokens, rotary=rotary, mask=mask)

        modulate, modulate_reference = self._build_modulate(time_BD), None
        if references and "reference_t" in condition:
            modulate_reference = self._build_modulate(self._embed_time(condition["reference_t"], condition))
        blocks, tokens = self._list_blocks(), build_tokens(text_BTD, image_BND)
        for number, block in enumerate(blocks):
            if passage.turns(number):
                tokens = build_tokens(tokens.text, passage.turn(number, tokens.image))
            is_own = self.is_fused and passage.mask is None and modulate_reference is None
            own = self.own_blocks.find(block, self.attention) if is_own else None
            if isinstance(own, SingleBlock):
                tokens = Tokens(None, self.run(block, own, tokens.join(), modulate(number), passage.read_angles()), tokens.num_text)
            elif own is not None:
                tokens = build_tokens(*self.run(block, own, tokens.image, tokens.text, modulate(number), passage.read_angles()))
            else:
                call: Block = block if modulate_reference is None else ReferenceTime(block, modulate_reference(number), passage.num_tokens)
                attention = None if passage.mask is None else {"attention_mask": passage.mask}
                call = attended(call, self.attention)
                tokens = build_tokens(*self.run(block, call, tokens.image, tokens.text, modulate(number), passage.rotary, attention))
        image_BND = passage.turn(len(blocks), tokens.image)

        velocity_BNc = model.proj_out(model.norm_out(image_BND, time_BD))[:, :num_tokens]
        return unpack(velocity_BNc, *noisy_BCHW.shape[-2:])

    def _list_blocks(self) -> list[nn.Module]:
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]

    def _build_modulate(self, time_BD: Tensor) -> Callable[[int], Tensor]:
        """What each block is told of the noise level: the same for all, or where the modulation is apart, the block's own."""
        if self.modulation is None:
            return lambda number: time_BD
        return partial(self.modulation, vector_BD=self.modulation.encode(time_BD), device=time_BD.device)

    def _embed_time(self, t_B: Tensor, condition: Condition) -> Tensor:
        pooled = condition["pooled"].to(self.transformer.x_embedder.weight.dtype)
        if not self.transformer.config.guidance_embeds:
            embedding: Tensor = self.transformer.time_text_embed(t_B * 1000, pooled)
        else:
            embedding = self.transformer.time_text_embed(t_B * 1000, condition["guidance"] * 1000, pooled)
        return embedding

    def _load_rotary(self, num_text_tokens: int, pictures: list[Tensor]) -> Rotary:
        sizes, device = tuple((one.shape[-2], one.shape[-1]) for one in pictures), pictures[0].device
        key = (num_text_tokens, sizes, device)
        if key not in self._rotary:
            if len(self._rotary) == NUM_ROTARY:
                del self._rotary[next(iter(self._rotary))]
            self._rotary[key] = self.transformer.pos_embed(build_ids(num_text_tokens, sizes).to(device))
        return self._rotary[key]
