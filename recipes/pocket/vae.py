"""Train the pocket model's autoencoder: FLUX.1's shape (16 channels, factor 8), 2.8 M parameters.

Legend: B pictures, 3 colors, H W pixels, C latent channels, h w latent size.

Besides reconstruction it is taught that half a latent is half a picture (Kouzelis et al. 2025, EQ-VAE, arXiv:2502.09509), which makes
latents smooth and so easier to paint, and that slightly wrong latents still are pictures, since those of a small network are.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from recipes.pocket.progress import Checkpoint, report
from weber.config.optim import OptimConfig
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.optim.table import build_optimizer
from weber.pocket.networks import TRAINED, build_vae


@dataclass(frozen=True)
class VaeRecipe:
    """How the autoencoder is trained."""

    steps: int = 7000
    batch: int = 8
    crop: int = 64
    lr: float = 8e-4
    kl_weight: float = 2e-3
    noise: float = 0.15
    half_share: float = 0.25
    seed: int = 1


def draw_pixels(pictures: Tensor, *, recipe: VaeRecipe, generator: torch.Generator) -> Tensor:
    """Pixels (B, 3, 64, 64) in -1..1: whole pictures at half size, or windows of them at full size, recolored at random.

    `pictures` (N, 3, 128, 128) uint8. A third of the batch gets another background than white, so that none is taken for granted.
    """
    crops = []
    for index in torch.randint(len(pictures), (recipe.batch,), generator=generator).tolist():
        picture = pictures[index].float() / 255
        whole, flip, mix = torch.rand(3, generator=generator).tolist()
        if whole < 0.6:
            crop = F.avg_pool2d(picture[None], 2)[0]
        else:
            top, left = torch.randint(128 - recipe.crop + 1, (2,), generator=generator).tolist()
            crop = picture[:, top : top + recipe.crop, left : left + recipe.crop]
        if flip < 0.5:
            crop = crop.flip(-1)
        if mix < 0.3:
            crop = _recolor(crop, generator)
        crops.append(crop)
    return torch.stack(crops) * 2 - 1


def _recolor(crop: Tensor, generator: torch.Generator) -> Tensor:
    """Channels shuffled, multiplied by a smooth random shade, at times negated: gradients and colors that the pictures lack."""
    crop = crop[torch.randperm(3, generator=generator)]
    corners = 0.4 + 0.6 * torch.rand(1, 3, 2, 2, generator=generator)
    crop = crop * F.interpolate(corners, size=crop.shape[-2:], mode="bilinear", align_corners=True)[0]
    return 1 - crop if torch.rand((), generator=generator) < 0.3 else crop


def predict_loss(vae: AutoencoderKL, pixels_B3HW: Tensor, *, recipe: VaeRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Reconstruction plus divergence from the standard normal, and the mean absolute error of the pixels alone."""
    posterior = vae.encode(pixels_B3HW).latent_dist
    latents = posterior.mean + (posterior.std**2 + recipe.noise**2).sqrt() * torch.randn(posterior.mean.shape, generator=generator)
    halved = bool(torch.rand((), generator=generator) < recipe.half_share)
    if halved:
        latents, pixels_B3HW = F.avg_pool2d(latents, 2), F.avg_pool2d(pixels_B3HW, 2)
    painted = vae.decode(latents).sample
    difference = painted - pixels_B3HW
    error = difference.abs().mean()
    divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    loss = error + 4 * difference.square().mean() + 0.3 * _predict_edge_error(difference) + recipe.kl_weight * divergence
    return loss, error.detach()


def _predict_edge_error(difference: Tensor) -> Tensor:
    """Mean absolute error of the steps between neighbors, at three sizes: keeps outlines sharp."""
    total = torch.zeros(())
    for _ in range(3):
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        difference = F.avg_pool2d(difference, 2)
    return total / 2


def train_vae(pictures: Tensor, *, folder: Path, recipe: VaeRecipe) -> AutoencoderKL:
    """Train, or go on from the last checkpoint in `folder`."""
    torch.manual_seed(recipe.seed)
    vae = build_vae(TRAINED)
    config = OptimConfig(lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0, schedule="cosine", warmup_steps=100)
    optimizer = build_optimizer(list(vae.parameters()), config, seed=recipe.seed)
    schedule = build_schedule(config, num_steps=recipe.steps)
    checkpoint = Checkpoint(folder / "vae.pt", {"vae": vae}, optimizer=optimizer, made_of=asdict(recipe))
    errors: list[float] = []
    started = time.monotonic()
    for step in range(checkpoint.load(), recipe.steps):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        write_learning_rate(optimizer, schedule(step))
        loss, pixel_error = predict_loss(
            vae, draw_pixels(pictures, recipe=recipe, generator=generator), recipe=recipe, generator=generator
        )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        errors.append(pixel_error.item())
        error = sum(errors[-100:]) / len(errors[-100:])
        if (step + 1) % 100 == 0:
            report("vae", step + 1, steps=recipe.steps, error=error, norm=float(norm), seconds=time.monotonic() - started)
        if (step + 1) % 250 == 0 or step + 1 == recipe.steps:
            checkpoint.save(step + 1, error=error)
    return vae.eval()


def build_pixels(pictures: Tensor) -> Tensor:
    """Whole pictures (N, 3, 128, 128) uint8 at half size: (N, 3, 64, 64) in -1..1."""
    return F.avg_pool2d(pictures.float() / 255, 2) * 2 - 1


@torch.no_grad()
def write_scale(vae: AutoencoderKL, pixels_B3HW: Tensor) -> None:
    """Set shift and scale so that the latents of these pictures have mean 0 and deviation 1, as the painter expects."""
    latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in pixels_B3HW.split(64)])
    vae.register_to_config(shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1 / latents.std().item(), 4))
