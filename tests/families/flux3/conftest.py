"""What the tests of FLUX.3 share: a tiny model, as a folder, as our family and as the library's modular pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux3AutoBlocks, Flux3ModularPipeline, Flux3Transformer2DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from weber.families.family import Predictor
from weber.families.flux3.components import Flux3, build_flux3
from weber.families.source import Source
from weber.memory.load import load_predictor
from weber.pocket.random_flux3 import build_random_flux3

CPU = torch.device("cpu")
TEXT_WIDTH = 128
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


class Processor:
    """What the library's processor of Qwen3-VL does with texts. The real one needs torchvision for its pictures."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.apply_chat_template = tokenizer.apply_chat_template


@pytest.fixture(scope="session")
def flux3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model. Copy what you change."""
    return build_random_flux3(tmp_path_factory.mktemp("models") / "tiny-flux3")


@pytest.fixture(scope="session")
def family(flux3_folder: Path) -> Flux3:
    """The tiny model as ours."""
    return build_flux3(Source(str(flux3_folder), None), None)


@pytest.fixture(scope="session")
def encoder(family: Flux3) -> nn.Module:
    """The tiny text encoder in fp32."""
    return family.load("qwen", device=CPU, dtype=torch.float32)


@pytest.fixture(scope="session")
def predictor(family: Flux3) -> Predictor:
    """The tiny network in fp32, of the library's blocks."""
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    predictor.is_fused = False
    return predictor


@pytest.fixture(scope="session")
def pipeline(flux3_folder: Path) -> Flux3ModularPipeline:
    """The tiny model as the library's, without its prompt upsampler, which writes another prompt than it gets."""
    blocks = Flux3AutoBlocks()
    blocks.sub_blocks.pop("prompt_upsampler")
    pipeline = blocks.init_pipeline()
    pipeline.update_components(
        transformer=Flux3Transformer2DModel.from_pretrained(flux3_folder / "transformer").eval(),
        vae=AutoencoderKLFlux2.from_pretrained(flux3_folder / "vae").eval().requires_grad_(False),
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(flux3_folder / "text_encoder").eval(),
        tokenizer=Processor(AutoTokenizer.from_pretrained(flux3_folder / "tokenizer")),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def draw_inputs() -> Draw:
    """A function that draws noisy latents, t and a condition for the tiny model; `references` are latent sizes (height, width)."""

    def draw(
        batch: int, height: int, width: int, *, references: tuple[tuple[int, int], ...] = (), num_text_tokens: int = 8
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * batch + 10 * height + width)
        condition = {"text": torch.randn(batch, num_text_tokens, TEXT_WIDTH, generator=generator)}
        for number, size in enumerate(references):
            condition[f"reference_{number}"] = torch.randn(batch, 128, *size, generator=generator)
        return torch.randn(batch, 128, height, width, generator=generator), torch.rand(batch, generator=generator), condition

    return draw
