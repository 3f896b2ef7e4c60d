"""From a prompt, references and noise to a picture: our parts in a row paint what the library's modular pipeline paints."""

from __future__ import annotations

import pytest
import torch
from diffusers import Flux3ModularPipeline
from PIL import Image
from torch import Tensor, nn

from weber.families.family import Predictor
from weber.families.flux3.components import Flux3

CPU = torch.device("cpu")
NUM_STEPS = 3
PROMPT, NEGATIVE = "a red apple", "blue" + 80 * " very big"  # of two lengths


def _draw_picture(width: int, height: int) -> Image.Image:
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(width))
    return Image.fromarray(noise.numpy())


def _read_pixels(picture: Image.Image) -> Tensor:
    """In the memory layout that the library's processor makes, on which the last bits of a convolution depend."""
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, picture.height, picture.width, 3)
    return (pixels.permute(0, 3, 1, 2).float() / 255) * 2 - 1


@torch.no_grad()
def _paint(family: Flux3, predictor: Predictor, encoder: nn.Module, *, start: Tensor, references: list[Image.Image]) -> Tensor:
    vae = family.load("vae", device=CPU, dtype=torch.float32)
    pictures = {
        f"reference_{number}": family.encode_images(vae, _read_pixels(picture))["latents"] for number, picture in enumerate(references)
    }
    toward, away = (family.encode_prompts("qwen", encoder, [prompt]) | pictures for prompt in (PROMPT, NEGATIVE))
    latents, sigmas = start, family.sigmas(NUM_STEPS, family.num_tokens(*start.shape[-2:]))
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        t = torch.tensor([sigma])
        velocity, negative = predictor(latents, t, toward), predictor(latents, t, away)
        velocity = negative + family.sample_defaults.cfg * (velocity - negative)
        latents = latents + (following - sigma) * velocity
    return family.decode_latents(vae, latents)


@pytest.mark.parametrize("sizes", [(), ((80, 64),), ((64, 32), (32, 48))])
def test_a_picture_is_the_pipelines(
    family: Flux3, predictor: Predictor, encoder: nn.Module, pipeline: Flux3ModularPipeline, sizes: tuple[tuple[int, int], ...]
) -> None:
    start = torch.randn(1, *family.latent_shape(64, 96), generator=torch.Generator().manual_seed(1))
    references = [_draw_picture(*size) for size in sizes]
    theirs = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=64,
        width=96,
        num_inference_steps=NUM_STEPS,
        latents=start,
        output_type="pt",
        output="images",
        **({"image": references} if references else {}),
    )
    ours = _paint(family, predictor, encoder, start=start, references=references)
    assert ours.shape == (1, 3, 64, 96)
    assert ours.std() > 0.05
    assert torch.equal(ours / 2 + 0.5, theirs)


def test_noise_is_drawn_as_the_pipeline_draws_it(family: Flux3, pipeline: Flux3ModularPipeline) -> None:
    start = torch.randn(1, *family.latent_shape(32, 32), generator=torch.Generator().manual_seed(7))
    settings = {"prompt": PROMPT, "height": 32, "width": 32, "num_inference_steps": 1, "output_type": "pt", "output": "images"}
    drawn = pipeline(generator=torch.Generator().manual_seed(7), **settings)
    assert torch.equal(drawn, pipeline(latents=start, **settings))
