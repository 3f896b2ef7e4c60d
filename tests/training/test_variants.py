"""One run per kind of model: the loss falls on one sample, and the library's own pipeline paints the same picture with the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux3AutoBlocks,
    Flux3Transformer2DModel,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
)
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from tests.families.flux3.conftest import Processor
from tests.runs import BuildRun, build_watcher, write_lora
from weber.adapters.files import load_adapter
from weber.families.flux1.latents import pack
from weber.pocket.random import build_random_model
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.training.assemble import train
from weber.training.paint import Wish, sample

EDGE, NUM_STEPS, SEED = 64, 3, 11
PROMPT = "red apple, 3d fluent style"
NUM_TRAIN_STEPS = 30


@dataclass(frozen=True)
class Kind:
    """A kind of model: its tiny folder, what the run says of it, and the library's pipeline with its own arguments."""

    build: Callable[[Path], Path]
    paint: Callable[[Path, Path, dict[str, Any]], Image.Image]
    variant: str
    model: dict[str, Any] = field(default_factory=dict)
    takes: str = ""
    num_steps: int = NUM_TRAIN_STEPS


def _paint_classic(kind: Any, **own: Any) -> Callable[[Path, Path, dict[str, Any]], Image.Image]:
    def paint(folder: Path, adapter: Path, pictures: dict[str, Any]) -> Image.Image:
        pipeline = kind.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name)
        picture: Image.Image = pipeline(
            prompt=PROMPT,
            height=EDGE,
            width=EDGE,
            num_inference_steps=NUM_STEPS,
            generator=torch.Generator().manual_seed(SEED),
            **own,
            **pictures,
        ).images[0]
        return picture

    return paint


def _paint_masked(folder: Path, adapter: Path, pictures: dict[str, Any]) -> Image.Image:
    """The library's pipeline has one mask for both passes of its guidance: each pass is given its own here."""
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name)
    texts = pipeline.tokenizer_2([PROMPT, ""], padding="max_length", max_length=512, truncation=True, return_tensors="pt")
    masks = iter([one[None].float() for _ in range(NUM_STEPS) for one in texts.attention_mask])
    forward = pipeline.transformer.forward

    def forward_masked(**inputs: Any) -> Any:
        mask = torch.cat([next(masks), torch.ones(1, EDGE * EDGE // 256)], dim=1)[:, None, None]
        return forward(**inputs | {"joint_attention_kwargs": {"attention_mask": mask}})

    pipeline.transformer.forward = forward_masked
    picture: Image.Image = pipeline(
        prompt=PROMPT,
        negative_prompt="",
        true_cfg_scale=6.0,
        height=EDGE,
        width=EDGE,
        num_inference_steps=NUM_STEPS,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    return picture


def _draw_packed_noise() -> torch.Tensor:
    """What the pipeline would draw, had it not drawn the posterior of the masked picture before."""
    return pack(torch.randn(1, 16, EDGE // 8, EDGE // 8, generator=torch.Generator().manual_seed(SEED)))


def _paint_modular(folder: Path, adapter: Path, pictures: dict[str, Any]) -> Image.Image:
    blocks = Flux3AutoBlocks()
    blocks.sub_blocks.pop("prompt_upsampler")
    pipeline = blocks.init_pipeline()
    pipeline.update_components(
        transformer=Flux3Transformer2DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLFlux2.from_pretrained(folder / "vae"),
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder").eval(),
        tokenizer=Processor(AutoTokenizer.from_pretrained(folder / "tokenizer")),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name)
    made: list[Image.Image] = pipeline(
        prompt=PROMPT,
        height=EDGE,
        width=EDGE,
        num_inference_steps=NUM_STEPS,
        generator=torch.Generator().manual_seed(SEED),
        output="images",
        **pictures,
    )
    return made[0]


KINDS = {
    "dev": Kind(build_random_model, _paint_classic(FluxPipeline, guidance_scale=3.5), "flux1-dev"),
    "krea": Kind(build_random_model, _paint_classic(FluxPipeline, guidance_scale=4.5), "flux1-krea"),
    "fluxbooru": Kind(
        build_random_model, _paint_classic(FluxPipeline, guidance_scale=3.5, true_cfg_scale=6.0, negative_prompt=""), "fluxbooru"
    ),
    "schnell": Kind(
        lambda folder: build_random_model(folder, variant="schnell"),
        _paint_classic(FluxPipeline, max_sequence_length=256),
        "flux1-schnell",
    ),
    "libreflux": Kind(lambda folder: build_random_model(folder, variant="schnell"), _paint_masked, "libreflux"),
    "kontext": Kind(
        lambda folder: build_random_model(folder, variant="kontext"),
        _paint_classic(FluxKontextPipeline, guidance_scale=2.5, max_area=EDGE * EDGE),
        "flux1-kontext",
        takes="image",
    ),
    "fill": Kind(
        lambda folder: build_random_model(folder, variant="fill"),
        _paint_classic(FluxFillPipeline, guidance_scale=30.0, latents=_draw_packed_noise()),
        "flux1-fill",
        takes="mask",
    ),
    "flux2 dev": Kind(lambda folder: build_random_flux2(folder, "dev"), _paint_classic(Flux2Pipeline, guidance_scale=4.0), "flux2-dev"),
    "klein base": Kind(
        lambda folder: build_random_flux2(folder, "klein-base"),
        _paint_classic(Flux2KleinPipeline, guidance_scale=4.0),
        "flux2-klein-base-4b",
        takes="image",
    ),
    "klein": Kind(lambda folder: build_random_flux2(folder, "klein"), _paint_classic(Flux2KleinPipeline), "flux2-klein-4b", takes="image"),
    "flux3": Kind(build_random_flux3, _paint_modular, "flux3-klein-base", num_steps=2 * NUM_TRAIN_STEPS),  # it learns more slowly
}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_learns_and_the_library_paints_the_same(name: str, tmp_path: Path, pictures: Path, build_run: BuildRun) -> None:
    kind = KINDS[name]
    folder = kind.build(tmp_path / "model")
    target, reference, mask = _write_pictures(tmp_path, pictures)
    data: dict[str, Any] = {"path": str(target.parent), "resolution": EDGE, "upscale": True, "repeats": 4}
    data |= {"conditioning": [str(reference.parent)]} if kind.takes == "image" else {}
    data |= {"masks": str(mask.parent)} if kind.takes == "mask" else {}
    assistant = {"assistant": str(write_lora(tmp_path / "assistant.safetensors"))} if name == "schnell" else {}
    config = build_run(
        model={"path": str(folder), "variant": kind.variant} | assistant,
        data=[data],
        objective={"timesteps": "uniform"},
        optim={"lr": 1e-2},
        train={"steps": kind.num_steps, "batch_size": 4, "accumulation": 1},
        output={"save_every": kind.num_steps},
    )
    adapter = train(config, resume=False, watcher=build_watcher()[0])
    losses = _read_losses(config.output.folder / "metrics.jsonl")
    assert sum(losses[-12:]) < 0.95 * sum(losses[:12])
    assert all(factors.up.abs().max() > 0 for factors in load_adapter(adapter).modules.values())

    given, wish = _build_inputs(kind.takes, target, reference, mask)
    [ours] = sample(config.output.folder, Wish([PROMPT], seed=SEED, steps=NUM_STEPS, **wish), watcher=build_watcher()[0])
    [base] = sample(config.output.folder, Wish([PROMPT], seed=SEED, steps=NUM_STEPS, strength=0.0, **wish), watcher=build_watcher()[0])
    theirs = kind.paint(folder, adapter, given)
    assert _compare(ours, base) > 3, "an adapter without effect would show nothing"
    assert _compare(ours, theirs) <= 1


def _write_pictures(place: Path, pictures: Path) -> tuple[Path, Path, Path]:
    """One picture with its caption, another as its reference, and a mask, each in its own folder."""
    sources = sorted(pictures.glob("*.png"))[:2]
    files = [place / folder / sources[0].name for folder in ("target", "reference", "mask")]
    for file in files:
        file.parent.mkdir()
    for source, file in zip(sources, files, strict=False):
        with Image.open(source) as picture:
            picture.resize((EDGE, EDGE), Image.Resampling.LANCZOS).save(file)
    shutil.copyfile(sources[0].with_suffix(".txt"), files[0].with_suffix(".txt"))
    mask = np.zeros((EDGE, EDGE), np.uint8)
    mask[16:48, 8:40] = 255
    Image.fromarray(mask).save(files[2])
    return files[0], files[1], files[2]


def _build_inputs(takes: str, target: Path, reference: Path, mask: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same pictures for the library's pipeline and for weber."""
    if takes == "image":
        return {"image": Image.open(reference).convert("RGB")}, {"conditioning": [reference]}
    if takes == "mask":
        return {"image": Image.open(target).convert("RGB"), "mask_image": Image.open(mask)}, {"conditioning": [target], "mask": mask}
    return {}, {}


def _read_losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def _compare(one: Image.Image, other: Image.Image) -> int:
    """The largest difference, in levels of 255."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())
