"""Peak memory of three ways to load a quantized model, in a process of its own: `measure_load.py FOLDER`. Prints JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

import psutil
import torch
from diffusers import FluxTransformer2DModel

from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.families.family import Family
from weber.families.table import build_family
from weber.families.tensors import Entry, save_weights
from weber.memory.load import load_predictor
from weber.pocket.random import build_random_model

CPU = torch.device("cpu")
NF4 = MemoryConfig(quantize="nf4")
CONFIG = {"num_layers": 2, "num_single_layers": 4, "attention_head_dim": 64, "num_attention_heads": 12}


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    build_random_model(folder / "tiny")
    load_predictor(build_family(ModelConfig(path=str(folder / "tiny"))), device=CPU, dtype=torch.float32, memory=NF4)  # its imports
    family, sizes = build_large(folder)
    peaks = {}
    for name, cache in (("packed at once", None), ("written and read", folder), ("read", folder)):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is counted anew
        predictor = load_predictor(family, device=CPU, dtype=torch.float32, memory=NF4, folder=cache)
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peaks[name] = 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1]) - before
        packed_bytes = sum(tensor.nbytes for tensor in predictor.transformer.state_dict().values())
        del predictor
    print(json.dumps({"plain_bytes": sum(sizes), "largest_bytes": max(sizes), "packed_bytes": packed_bytes, "peaks": peaks}))


def build_large(folder: Path) -> tuple[Family, list[int]]:
    """A network of 81 M parameters with the tiny model's other parts, and the bytes of its tensors in fp32."""
    with torch.device("meta"):
        network = FluxTransformer2DModel(
            **CONFIG, joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(16, 24, 24)
        )
    transformer = folder / "large"
    network.save_config(transformer)
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()

    def build(shape: tuple[int, ...]) -> Entry:
        count = torch.Size(shape).numel()
        return Entry(shape, torch.bfloat16, lambda: noise.repeat(-(-count // len(noise)))[:count].view(shape))

    entries = {name: build(tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    save_weights(transformer / "diffusion_pytorch_model.safetensors", entries, metadata={})
    family = build_family(ModelConfig(path=str(folder / "tiny"), transformer=str(transformer)))
    return family, [2 * entry.num_bytes for entry in entries.values()]


if __name__ == "__main__":
    main()
