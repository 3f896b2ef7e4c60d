"""The sheet by which the pocket model is judged: 64 prompts at fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.families.table import build_family
from weber.kinds.table import KINDS
from weber.memory.load import load_predictor
from weber.planning.encoders import build_encoders
from weber.progress import ignore_progress
from weber.training.look import Look, build_painting
from weber.training.pictures import paint_all

SUBJECTS = (
    "grinning face", "red apple", "dog face", "rocket", "sunflower", "soccer ball", "pizza", "tiger face",
    "red heart", "house", "fish", "mushroom", "airplane", "wrapped gift", "owl", "strawberry",
    "crying face", "sailboat", "evergreen tree", "guitar", "frog", "light bulb", "doughnut", "key",
    "cat face", "automobile",
)  # fmt: skip
BACKGROUNDS = ("blue", "pink", "green", "black")
COLUMNS, CELL, GAP, LINE = 8, 128, 10, 42


def list_prompts() -> list[str]:
    """26 subjects in both styles, then 12 that also name a background: 64."""
    both = [f"{subject}, {style} style" for subject in SUBJECTS for style in ("noto", "twemoji")]
    more = [f"{subject}, noto style, on a {BACKGROUNDS[n % 4]} background" for n, subject in enumerate(SUBJECTS[1:24:2])]
    return both + more


def paint_sheet(folder: Path, sheet: Path, *, guidance: float | None = None) -> None:
    """Paint all prompts with seeds 0, 1, 2, ... and write them with their words, enlarged twofold."""
    prompts = list_prompts()
    pictures = paint_prompts(folder, prompts, guidance=guidance)
    rows = -(-len(prompts) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, rows * (CELL + GAP + LINE) + GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        left, top = GAP + number % COLUMNS * (CELL + GAP), GAP + number // COLUMNS * (CELL + GAP + LINE)
        canvas.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
        pen.text((left, top + CELL + 2), prompt.replace(", ", ",\n"), "black", font=font, spacing=1)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(sheet, optimize=True)


def paint_prompts(
    folder: Path, prompts: Sequence[str], *, guidance: float | None = None, first_seed: int = 0
) -> list[Image.Image]:
    """One picture per prompt by weber's own sampler; the seed is the prompt's number, counted from `first_seed`."""
    family = build_family(ModelConfig(variant="pocket", path=str(folder)))
    cpu, dtype = torch.device("cpu"), torch.float32
    texts: list[dict[str, torch.Tensor]] = [{} for _ in prompts]
    for part in family.text_parts:
        encoder = family.load(part, device=cpu, dtype=dtype)
        with torch.no_grad():
            for name, tensor in family.encode_prompts(part, encoder, prompts).items():
                for text, row in zip(texts, tensor, strict=True):
                    text[name] = row
    guidance = family.sample_defaults.guidance if guidance is None else guidance
    look = Look((family.native_pixels, family.native_pixels), guidance)
    return paint_all(
        build_encoders(family, MemoryConfig(), device=cpu, dtype=dtype),
        load_predictor(family, device=cpu, dtype=dtype),
        paintings=[
            build_painting(family, text, look=look, seed=first_seed + number) for number, text in enumerate(texts)
        ],
        kind=KINDS["full"],
        num_steps=family.sample_defaults.steps,
        strength=1.0,
        progress=ignore_progress,
    )
