"""Pictures painted by our Euler loop are those of the library's own pipelines, for every kind of FLUX.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxFillPipeline, FluxKontextPipeline, FluxPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from weber.families.flux1.components import Flux1
from weber.families.flux1.latents import pack
from weber.memory.load import load_predictor
from weber.sampling.euler import Painting, draw_start, predict_latents
from weber.sampling.guidance import build_guided

CPU = torch.device("cpu")
HEIGHT, WIDTH, STEPS, SEED = 32, 48, 3, 11
PROMPT, NEGATIVE = "red apple, 3d fluent style", "a black and white photo"
SAME, OTHER = 1e-4, 1e-3  # in 0..1, where a level of a picture is 4e-3: a tiny random model hardly looks at what it is told


def _open(folder: Path, kind: type[DiffusionPipeline]) -> Any:
    pipeline = kind.from_pretrained(folder)
    assert DiffusionPipeline.from_pretrained(folder).__class__ is kind  # the class that the folder itself names
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _draw_picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _read(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) fp32 in -1..1."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


@torch.no_grad()
def _encode(family: Flux1, prompt: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for part in family.text_parts:
        tensors |= family.encode_prompts(part, family.load(part, device=CPU, dtype=torch.float32), [prompt])
    return tensors


@torch.no_grad()
def _encode_images(family: Flux1, pixels: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
    return family.encode_images(family.load("vae", device=CPU, dtype=torch.float32), pixels, masks=masks)


@torch.no_grad()
def _paint(family: Flux1, pictures: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """(H, W, 3) in 0..1, with the variant's own guidance."""
    defaults = family.sample_defaults
    given = dict(pictures) | ({} if defaults.guidance is None else {"guidance": torch.tensor([defaults.guidance])})
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    predict: Any = predictor
    if defaults.cfg != 1:
        predict = build_guided(predictor, _encode(family, NEGATIVE) | given, scale=defaults.cfg)
    start, sigmas = _draw_start(family), family.sigmas(STEPS, family.num_tokens(HEIGHT // 8, WIDTH // 8))
    latents = predict_latents(predict, start, sigmas, _encode(family, PROMPT) | given)
    pixels = family.decode_latents(family.load("vae", device=CPU, dtype=torch.float32), latents)
    array: NDArray[np.float32] = ((pixels[0].permute(1, 2, 0) + 1) / 2).numpy()
    return array


def _draw_start(family: Flux1) -> Tensor:
    return draw_start(Painting(family.latent_shape(HEIGHT, WIDTH), SEED, {}), CPU)


def _paint_by_library(pipeline: Any, family: Flux1, **inputs: object) -> NDArray[np.float32]:
    array: NDArray[np.float32] = pipeline(
        prompt=PROMPT,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=family.sample_defaults.guidance,
        max_sequence_length=family.row.text_tokens,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **inputs,
    ).images[0]
    return array


def _check(ours: NDArray[np.float32], theirs: NDArray[np.float32], *others: NDArray[np.float32]) -> None:
    """The same picture; and others, painted from other inputs, are not."""
    assert ours.shape == theirs.shape == (HEIGHT, WIDTH, 3)
    assert ours.std() > 0.05
    assert np.abs(ours - theirs).max() < SAME
    assert all(np.abs(ours - other).max() > OTHER for other in others)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (64, 32)])
def test_kontext(kontext: Flux1, tiny_kontext: Path, size: tuple[int, int]) -> None:
    references = [_draw_picture(seed, *size) for seed in (1, 2)]
    pipeline = _open(tiny_kontext, FluxKontextPipeline)
    theirs = _paint_by_library(pipeline, kontext, image=references[0], max_area=HEIGHT * WIDTH, _auto_resize=False)
    ours, other = (_paint(kontext, {"reference_0": _encode_images(kontext, _read(one))["latents"]}) for one in references)
    _check(ours, theirs, other, _paint(kontext, {}))


def test_kontext_without_references(kontext: Flux1, tiny_kontext: Path) -> None:
    theirs = _paint_by_library(_open(tiny_kontext, FluxKontextPipeline), kontext, max_area=HEIGHT * WIDTH)
    _check(_paint(kontext, {}), theirs)


@pytest.mark.parametrize("soft", [False, True])
def test_fill(fill: Flux1, tiny_fill: Path, soft: bool) -> None:
    picture, mask = _draw_picture(1), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:20, 12:44] = 128 if soft else 255
    theirs = _paint_by_library(
        _open(tiny_fill, FluxFillPipeline),
        fill,
        image=picture,
        mask_image=Image.fromarray(mask),
        latents=pack(_draw_start(fill)),  # the pipeline would draw the posterior of the picture first
    )
    masks = torch.from_numpy(mask)[None, None].float() / 255
    ours, other = (_paint(fill, _encode_images(fill, _read(picture), one)) for one in (masks, masks.flip(-1)))
    _check(ours, theirs, other)


def test_classifier_free_guidance(booru: Flux1, tiny_model: Path, dev: Flux1) -> None:
    theirs = _paint_by_library(_open(tiny_model, FluxPipeline), booru, true_cfg_scale=6.0, negative_prompt=NEGATIVE)
    _check(_paint(booru, {}), theirs, _paint(dev, {}))


def test_masked_text(libre: Flux1, tiny_schnell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's pipeline has one mask for both of its passes: each is asked for alone, and the paths are joined as it joins them."""
    pipeline = _open(tiny_schnell, FluxPipeline)
    forward = pipeline.transformer.forward
    masks = iter([_encode(libre, prompt)["text_mask"] for _ in range(STEPS) for prompt in (PROMPT, NEGATIVE)])

    def forward_masked(**inputs: Any) -> Sequence[Tensor]:
        mask = torch.cat([next(masks), torch.ones(1, HEIGHT * WIDTH // 256)], dim=1)[:, None, None]
        out: Sequence[Tensor] = forward(**inputs | {"joint_attention_kwargs": {"attention_mask": mask}})
        return out

    monkeypatch.setattr(pipeline.transformer, "forward", forward_masked)
    theirs = _paint_by_library(pipeline, libre, true_cfg_scale=6.0, negative_prompt=NEGATIVE)
    monkeypatch.undo()
    assert next(masks, None) is None
    _check(_paint(libre, {}), theirs, _paint_by_library(pipeline, libre, true_cfg_scale=6.0, negative_prompt=NEGATIVE))
