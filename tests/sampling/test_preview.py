"""Previews: a fit that finds what is linear, and small pictures that can be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from weber.sampling.preview import build_preview, fit_projection, save_preview


def test_what_is_linear_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, bias = 0.02 * torch.randn(16, 3, generator=generator), torch.tensor([0.5, 0.4, 0.6])
    pairs = []
    for _ in range(3):
        latents = torch.randn(16, 12, 10, generator=generator)
        colors = (torch.einsum("chw,cd->hwd", latents, weights) + bias).clamp(0, 1)
        pixels = np.repeat(np.repeat((255 * colors).round().to(torch.uint8).numpy(), 8, 0), 8, 1)
        pairs.append((latents, pixels))
    projection = fit_projection(pairs)
    assert (projection.weights_D3[:-1] - weights).abs().max() < 0.003 and (projection.weights_D3[-1] - bias).abs().max() < 0.003
    found = (255 * projection(pairs[0][0][None])[0].permute(1, 2, 0)).numpy()
    assert np.abs(found - pairs[0][1][::8, ::8]).max() < 3


def test_latents_that_never_differ_are_no_trouble() -> None:
    latents = torch.zeros(16, 4, 4)
    projection = fit_projection([(latents, np.full((32, 32, 3), 51, np.uint8))])
    assert (projection(latents[None]) - 0.2).abs().max() < 1e-5


def test_a_preview_is_large_enough_to_be_seen(tmp_path: Path) -> None:
    picture = build_preview(lambda latents: torch.full((1, 3, 8, 12), 0.5), torch.zeros(1, 16, 8, 12))
    assert picture.size == (384, 256)
    large = build_preview(lambda latents: torch.full((1, 3, 512, 256), 1.0), torch.zeros(1, 16, 64, 32))
    assert large.size == (256, 512) and large.getpixel((3, 3)) == (255, 255, 255)
    save_preview(picture, tmp_path / "run" / "preview.webp")
    with Image.open(tmp_path / "run" / "preview.webp") as found:
        assert found.size == (384, 256) and found.format == "WEBP"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["preview.webp"]
