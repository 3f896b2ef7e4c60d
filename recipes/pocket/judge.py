"""A small network that looks at pictures of 64 x 64 pixels and says in which style they are, and whether two show the same thing.

It is trained once, on the artwork as the pocket model's autoencoder shows it (with some noise in the latents), and frozen: tests ask it
whether training a LoRA still changes pictures. The pictures and subjects of the demo are kept out of its training.

Legend: B pictures, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.pocket.progress import report
from weber.config.optim import OptimConfig
from weber.families.flux1.latents import decode_pixels, encode_pixels
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.optim.table import build_optimizer

JUDGE = Path(__file__).parents[2] / "tests" / "pocket" / "judge.safetensors"
JUDGED_STYLES = ("noto", "twemoji", "fluent")
_WIDTHS = (32, 64, 128, 192)
_FEATURES = 64
_STEPS, _PAIRS, _SEED = 3000, 32, 3
_NOISE = (0.0, 0.15, 0.3)


class Judge(nn.Module):
    """Four convolutions, a mean over places, one linear layer for the style and one for what is shown."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.style = nn.Linear(_WIDTHS[-1], len(JUDGED_STYLES))
        self.content = nn.Linear(_WIDTHS[-1] * 4, _FEATURES)

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the styles (B, 3) and features of unit length (B, D) of pixels in -1..1."""
        body = self.body(pixels_B3HW)
        content = self.content(F.adaptive_avg_pool2d(body, 2).flatten(1))
        return self.style(body.mean(dim=(2, 3))), F.normalize(content, dim=1)


def build_views(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures as the judge sees them: (B, 3, 64, 64) in -1..1."""
    small = [np.array(picture.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)) for picture in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def load_judge(path: Path = JUDGE) -> Judge:
    """The frozen judge."""
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.eval().requires_grad_(False)


def train_judge(pictures: Sequence[dict[str, Tensor]], vae: AutoencoderKL, *, path: Path) -> Judge:
    """Train on concepts, each a picture (3, 64, 64) in -1..1 per style that has it, and write the weights."""
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    views = [{style: _build_noisy_views(picture, vae, generator) for style, picture in styles.items()} for styles in pictures]
    judge = Judge()
    optim = OptimConfig(lr=2e-3, schedule="cosine", weight_decay=0.05)
    optimizer = build_optimizer(list(judge.parameters()), optim, seed=_SEED)
    schedule = build_schedule(optim, num_steps=_STEPS)
    for step in range(_STEPS):
        chosen = torch.randperm(len(views), generator=generator)[:_PAIRS].tolist()
        pairs = [_draw_pair(views[index], generator) for index in chosen]
        styles = torch.tensor([JUDGED_STYLES.index(style) for pair in pairs for style, _ in pair])
        pixels = _disturb(torch.stack([picture for pair in pairs for _, picture in pair]), generator)
        logits, features = judge(pixels)
        same = features[::2] @ features[1::2].T / 0.1
        target = torch.arange(len(pairs))
        style_loss = F.cross_entropy(logits, styles, label_smoothing=0.05)
        loss = style_loss + 0.5 * (F.cross_entropy(same, target) + F.cross_entropy(same.T, target))
        loss.backward()
        write_learning_rate(optimizer, schedule(step))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            right = (logits.argmax(1) == styles).float().mean().item()
            report("judge", step + 1, steps=_STEPS, loss=loss.item(), styles=right, pairs=(same.argmax(1) == target).float().mean().item())
    save_file({name: tensor.contiguous() for name, tensor in judge.state_dict().items()}, path)
    return judge.eval()


@torch.no_grad()
def _build_noisy_views(picture: Tensor, vae: AutoencoderKL, generator: torch.Generator) -> Tensor:
    """A picture as a painter would show it, (3, 3, 64, 64): through the autoencoder, with more and more noise in the latents."""
    latents = encode_pixels(vae, picture[None])
    noise = torch.tensor(_NOISE).view(-1, 1, 1, 1) * torch.randn(len(_NOISE), *latents.shape[1:], generator=generator)
    return decode_pixels(vae, latents + noise)


def _draw_pair(styles: dict[str, Tensor], generator: torch.Generator) -> list[tuple[str, Tensor]]:
    """Two pictures of one thing, in different styles."""
    names = list(styles)
    chosen = [names[index] for index in torch.randperm(len(names), generator=generator)[:2].tolist()]
    views = torch.randint(len(_NOISE), (2,), generator=generator).tolist()
    return [(style, styles[style][view]) for style, view in zip(chosen, views, strict=True)]


def _disturb(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by a few pixels, half of the batch mirrored (in whole pairs)."""
    top, left = torch.randint(-4, 5, (2,), generator=generator).tolist()
    shifted = pixels.roll((top, left), dims=(2, 3))
    half = len(shifted) // 4 * 2
    return torch.cat([shifted[:half], shifted[half:].flip(-1)])
