"""Pictures from weights: latents by Euler steps, pixels by the decoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from weber.progress import Progress
from weber.sampling.euler import Painting, Predict, draw_start, predict_latents
from weber.sampling.guidance import build_guided
from weber.sampling.stamp import build_info

Decode = Callable[[Tensor], Tensor]
Sigmas = Callable[[tuple[int, int, int]], list[float]]


def predict_paintings(
    predict: Predict, paintings: Sequence[Painting], *, sigmas: Sigmas, device: torch.device, progress: Progress
) -> list[Tensor]:
    """Latents (1, C, H, W) of every painting, one after the other. `progress` is told of each step of the sampler."""
    latents: list[Tensor] = []
    schedules = [sigmas(painting.shape) for painting in paintings]
    total = sum(len(schedule) - 1 for schedule in schedules)
    for number, (painting, schedule) in enumerate(zip(paintings, schedules, strict=True)):
        before = sum(len(one) - 1 for one in schedules[:number])
        condition, asked, num_plain = _move(painting.condition, device), predict, 0
        if painting.negative is not None:
            asked = build_guided(predict, _move(painting.negative, device), scale=painting.cfg)
            num_plain = min(painting.no_cfg_until, len(schedule) - 1)
        found = draw_start(painting, device)
        for ask, part, done in ((predict, schedule[: num_plain + 1], 0), (asked, schedule[num_plain:], num_plain)):
            report = partial(_report_step, progress, before + done, total)
            found = predict_latents(ask, found, part, condition, report=report)
        latents.append(found)
    progress("painting", total, total)
    return latents


@torch.no_grad()
def decode_pictures(decode: Decode, latents: Sequence[Tensor]) -> list[Image.Image]:
    """Latents to pictures, one at a time."""
    pictures = []
    for one in latents:
        pixels = decode(one)[0].permute(1, 2, 0).cpu()
        pictures.append(Image.fromarray(((pixels + 1) * 127.5).round().to(torch.uint8).numpy()))
    return pictures


def _report_step(progress: Progress, before: int, total: int, done: int) -> None:
    progress("painting", before + done, total)


def _move(condition: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in condition.items()}


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all, with what its `info` says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        picture.save(file, format="PNG", pnginfo=build_info(picture))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def find_free(file: Path) -> Path:
    """The file, or with -2, -3, ... before its ending if that name is taken: nothing replaces another."""
    number, free = 1, file
    while free.exists():
        number += 1
        free = file.with_stem(f"{file.stem}-{number}")
    return free
