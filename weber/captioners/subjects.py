"""What a picture is about, as a mask: found by the words for it (CLIPSeg), or as what stands out (networks in ONNX files)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from weber.captioners.loaded import find_folder, load_as_told, load_network
from weber.captioners.onnx import open_network
from weber.config.memory import MemoryConfig
from weber.errors import ConfigError, ModelError

See = Callable[[Image.Image], Image.Image]
"""From a picture to how much of each pixel is its subject, as mode L of any size."""

CLIPSEG = "clipseg"
_CLIPSEG_HOME = "CIDAS/clipseg-rd64-refined"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Salient:
    """How a network sees a picture (rembg's sessions have the same numbers). `edge`: of its square, where its file does not say it;
    `is_scaled`: by the brightest pixel, not by 255; `squashes`: its numbers go through a sigmoid."""

    edge: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_scaled: bool = True
    squashes: bool = False


SALIENT: Mapping[str, Salient] = {
    "u2net": Salient(320, *_IMAGENET),
    "isnet": Salient(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "birefnet": Salient(1024, *_IMAGENET, squashes=True),
}
SEERS = (CLIPSEG, *SALIENT)


def build_see(name: str, *, model: str | None, prompt: str | None, memory: MemoryConfig) -> See:
    """A model by its name; CLIPSeg needs words, the others a file. Raises ConfigError, ModelError, MissingExtraError."""
    if name == CLIPSEG:
        if not prompt:
            raise ConfigError(
                "clipseg needs words for what it is to find.", got="no --prompt", expected='such as --prompt "a dog"', fix="add it"
            )
        return _build_clipseg(model or _CLIPSEG_HOME, prompt, memory)
    row = SALIENT.get(name)
    if row is None:
        raise ConfigError("There is no such model for masks.", got=f"--with {name}", expected=", ".join(SEERS), fix="name one of them")
    if prompt is not None:
        raise ConfigError(f"{name} takes no words.", got=f"--prompt {prompt!r}", fix="remove --prompt, or write --with clipseg")
    if model is None or not Path(model).expanduser().is_file():
        raise ConfigError(
            f"{name} needs its ONNX file.", got=f"--model {model}", expected=f"a file such as {name}.onnx", fix="download one, and name it"
        )
    return _build_salient(Path(model).expanduser(), row, memory.device)


def _build_salient(file: Path, row: Salient, device: str) -> See:
    network = open_network(file, device=device)
    edge = next((side for side in network.shape[2:4] if side), row.edge)

    def see(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image.convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS), dtype=np.float32)
        white = max(float(pixels.max()), 1e-6) if row.is_scaled else 255.0
        mean, std = (np.array(one, dtype=np.float32) for one in (row.mean, row.std))
        seen = (pixels / np.float32(white) - mean) / std
        found = network.run(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]))[0]
        if found.ndim != 3:
            raise ModelError("This network makes no mask.", got=f"{file} gives {found.ndim} numbers of sides", fix="name another file")
        levels = 1 / (1 + np.exp(-found[0])) if row.squashes else found[0]
        low, high = float(levels.min()), float(levels.max())
        return Image.fromarray(np.rint((levels - low) / max(high - low, 1e-6) * 255).astype(np.uint8))

    return see


def _build_clipseg(place: str, prompt: str, memory: MemoryConfig) -> See:
    from transformers import AutoProcessor, CLIPSegForImageSegmentation

    folder = find_folder(place)
    load: Any = AutoProcessor
    processor = load_as_told(lambda: load.from_pretrained(str(folder)), folder)
    network: Any = load_network(CLIPSegForImageSegmentation, folder, memory=memory)

    @torch.no_grad()
    def see(image: Image.Image) -> Image.Image:
        inputs = processor(text=[prompt], images=[image], return_tensors="pt", padding=True)
        moved = {
            key: one.to(network.device, network.dtype) if one.is_floating_point() else one.to(network.device) for key, one in inputs.items()
        }
        levels = network(**moved).logits.float().sigmoid().squeeze().cpu().numpy()
        return Image.fromarray(np.rint(levels * 255).astype(np.uint8))

    return see
