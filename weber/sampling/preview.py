"""What a picture will be, seen while it is painted: from the clean latents that a step of the sampler foretells.

Legend: B pictures, c h w latents with a cell for each 8 pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Decode = Callable[[Tensor], Tensor]
"""Latents (B, c, h, w) to pixels (B, 3, H, W) in 0..1."""

NAME = "preview.webp"
_SHORTEST = 256
_RIDGE = 1e-3


def spread(latents_BCHW: Tensor, patch: int) -> Tensor:
    """Latents out of their patches of that many cells on a side, normalized still, as tiny decoders want them."""
    return torch.nn.functional.pixel_shuffle(latents_BCHW, patch)


class Projection:
    """Colors as a sum of latents, fitted to pictures whose latents are known. Blurred, and good enough to see what is where.

    `weights_D3` fp32: of each latent, and last of 1.
    """

    def __init__(self, weights_D3: Tensor) -> None:
        self.weights_D3 = weights_D3

    def __call__(self, latents_Bchw: Tensor) -> Tensor:
        """See `Decode`: a pixel for each cell."""
        pixels = torch.einsum("bchw,cd->bdhw", latents_Bchw.float(), self.weights_D3[:-1].to(latents_Bchw.device))
        return (pixels + self.weights_D3[-1].to(pixels.device)[:, None, None]).clamp(0, 1)


def fit_projection(pairs: Iterable[tuple[Tensor, NDArray[np.uint8]]]) -> Projection:
    """By least squares with a little ridge, from latents (c, h, w) and the pixels (H, W, 3) that they were made of."""
    gram, moment = torch.zeros(()), torch.zeros(())
    for latents_chw, pixels in pairs:
        _, height, width = latents_chw.shape
        small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        cells = latents_chw.double().flatten(1).T.cpu()
        cells = torch.cat([cells, torch.ones(len(cells), 1, dtype=cells.dtype)], 1)
        gram = gram + cells.T @ cells
        moment = moment + cells.T @ torch.from_numpy(small.reshape(-1, 3) / 255.0)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    ridge[-1, -1] = 0
    return Projection(torch.linalg.solve(gram + ridge, moment).float())


def build_preview(decode: Decode, latents_1chw: Tensor) -> Image.Image:
    """A picture of latents that are almost clean; a small one is enlarged."""
    pixels = (255 * decode(latents_1chw)[0].permute(1, 2, 0).float()).round().to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(pixels)
    factor = -(-_SHORTEST // min(picture.size))
    return picture if factor <= 1 else picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.BILINEAR)


def save_preview(picture: Image.Image, path: Path) -> None:
    """Whole or not at all, in the place of the last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    picture.save(temporary, format="WEBP", quality=85)
    temporary.replace(path)
