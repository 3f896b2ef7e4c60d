"""A FLUX.1-dev transformer of real size, quantized while it is read: peak memory and time of both starts, then a real LoRA step.

    python benchmarks/streaming.py [--precision nf4 int8] [--blocks BLOCKS] [--heads 24] [--text-tokens 512] [--folder FOLDER] [--threads 1]

Writes random weights in bf16 (23.8 GB; deleted afterwards) and, one precision after the other and each start in a process of its own:
the first start packs the model, keeps it on disk and reads it; the second start reads what is kept, and makes one step of a LoRA of rank
4 on the layers of all blocks, of one picture of 64 x 64 pixels (16 image tokens), in bf16, with every block checkpointed. Needs
30 to 36 GB on the disk at a time; fewer blocks of each kind than the published 19 and 38, or fewer heads of width 128, make a smaller
model. `peak` is the most that the process has held in memory; what it held before it loaded anything, Python
and its libraries, is named beside it. Tokenizers, autoencoder and text encoders take no part. The folder is where a temporary one is made,
by default the system's.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
import torch

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.load import build_config
from weber.config.memory import MemoryConfig
from weber.config.run import RunConfig
from weber.families.family import Family, Predictor
from weber.families.table import build_family
from weber.families.tensors import Entry, save_weights
from weber.memory.device import peak_memory_bytes
from weber.memory.formats import FORMATS
from weber.memory.kept import list_kept
from weber.memory.load import load_predictor
from weber.memory.run import build_run
from weber.optim.table import build_optimizer
from weber.pocket.full_size import build_full_size
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.step import train_step

CPU = torch.device("cpu")
VARIANT = "flux1-dev"
PRECISIONS = ("nf4", "int8")
RANK = 4
LATENT_EDGE = 8
_NUM_RANDOM = 2**24
_SPREAD = 0.02


@dataclass(frozen=True)
class Start:
    """What one process has measured; bytes are of the whole process."""

    seconds: float
    before_bytes: int
    peak_bytes: int
    model_bytes: int
    kept_bytes: int
    step_seconds: float = math.nan
    step_peak_bytes: int = 0
    loss: float = math.nan
    grad_norm: float = math.nan


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--precision", nargs="+", choices=list(FORMATS), default=list(PRECISIONS), help="formats, one after the other")
    parser.add_argument("--blocks", type=machine.read_count, help="blocks of each kind")
    parser.add_argument("--heads", type=machine.read_count, default=24, help="attention heads, each 128 wide")
    parser.add_argument("--text-tokens", type=machine.read_count, default=512, help="text tokens of the LoRA step")
    parser.add_argument("--folder", type=Path, help="where the model is written, and deleted again")
    parser.add_argument("--start", choices=("first", "second"), help=argparse.SUPPRESS)
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    if options.start is not None:
        torch.set_num_threads(options.threads)
        step_tokens = options.text_tokens if options.start == "second" else 0
        print(json.dumps(asdict(measure(options.folder, options.precision[0], text_tokens=step_tokens))))
        return
    machine.prepare(options)
    changes = {} if options.blocks is None else {"num_layers": options.blocks, "num_single_layers": options.blocks}
    with tempfile.TemporaryDirectory(prefix="weber-streaming-", dir=options.folder) as name:
        folder = Path(name)
        begin = time.perf_counter()
        num_bytes = write_model(folder / "model", changes | {"num_attention_heads": options.heads})
        print(f"{num_bytes / 1e9:.1f} GB of weights written in {time.perf_counter() - begin:.0f} s\n")
        print("precision | start  | seconds | before GiB | peak GiB | model GiB | kept GiB | step s | peak GiB | loss  | gradient norm")
        for precision in options.precision:
            for start in ("first", "second"):
                print(describe(precision, start, run(folder, precision, start, options)), flush=True)
            shutil.rmtree(folder / "cache")


def write_model(folder: Path, changes: dict[str, int]) -> int:
    """Write the model with random weights, one tensor in memory at a time; returns their bytes."""
    build_full_size(folder, VARIANT, changes=changes)
    noise = torch.randn(_NUM_RANDOM, generator=torch.Generator().manual_seed(0)).bfloat16()
    skeleton = build_family(build_settings(folder, "nf4").model).load_skeleton()
    entries = {name: build_entry(name, tuple(tensor.shape), noise) for name, tensor in skeleton.state_dict().items()}
    save_weights(folder / "transformer" / "diffusion_pytorch_model.safetensors", entries, metadata={})
    (folder / "transformer" / "model.safetensors").unlink()
    return sum(entry.num_bytes for entry in entries.values())


def build_entry(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> Entry:
    """The noise again and again, from another place and with another spread in every tensor."""
    count, seed = math.prod(shape), sum(name.encode())

    def read() -> torch.Tensor:
        start = seed * 7919 % _NUM_RANDOM
        repeated = noise.repeat(1 + -(-count // _NUM_RANDOM))[start : start + count]
        return repeated.mul(_SPREAD * (1 + seed % 5 / 10)).view(shape)

    return Entry(shape, torch.bfloat16, read)


def run(folder: Path, precision: str, start: str, options: argparse.Namespace) -> Start:
    """One start in a process of its own."""
    words = ["--folder", str(folder), "--precision", precision, "--start", start]
    words += ["--text-tokens", str(options.text_tokens), "--threads", str(options.threads)]
    return Start(**machine.run_alone(__file__, words))


def measure(folder: Path, precision: str, *, text_tokens: int) -> Start:
    """Load the model; with text tokens make a step too."""
    config = build_settings(folder / "model", precision)
    family = build_family(config.model)
    before_bytes = peak_memory_bytes(CPU)
    begin = time.perf_counter()
    predictor = load_predictor(family, device=CPU, dtype=torch.bfloat16, memory=config.memory, folder=folder / "cache")
    seconds, peak_bytes = time.perf_counter() - begin, peak_memory_bytes(CPU)
    assert before_bytes is not None and peak_bytes is not None, "peaks are not known on Windows"
    model_bytes = sum(tensor.nbytes for tensor in predictor.transformer.state_dict().values())
    (kept,) = list_kept(folder / "cache").values()
    loaded = Start(seconds, before_bytes, peak_bytes, model_bytes, kept.stat().st_size)
    if not text_tokens:
        return loaded
    learner = build_learner(config, family, predictor)
    begin = time.perf_counter()
    made = train_step(learner, [draw_batch(text_tokens)], step=0)
    assert math.isfinite(made["loss"]) and math.isfinite(made["grad_norm"])
    step = {"step_seconds": time.perf_counter() - begin, "step_peak_bytes": peak_memory_bytes(CPU)}
    return Start(**{**asdict(loaded), **step, **made})


def build_settings(model: Path, precision: str) -> RunConfig:
    """The settings of the run."""
    memory = MemoryConfig.model_validate({"device": "cpu", "dtype": "bf16", "quantize": precision})
    sections = {"model": {"path": str(model), "variant": VARIANT}, "data": [{"path": "unused"}], "adapter": {"rank": RANK}}
    return build_config({**sections, "memory": memory.model_dump(), "optim": {"lr": 1e-4}, "objective": {"timesteps": "sigmoid"}})


def build_learner(config: RunConfig, family: Family, predictor: Predictor) -> Learner:
    """A LoRA on all blocks, as `weber.training.assemble` puts it together."""
    modules = list_targets(predictor.transformer, "blocks", sets=family.adapter_targets)
    parameters = build_lora(predictor.transformer, config.adapter, modules=modules, seed=0)
    predictor.run = build_run(config.memory, predictor, family=family)
    predictor.transformer.train()
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=0)
    return Learner(config, family, predictor, parameters, optimizer, family.sample_defaults.training_guidance)


def draw_batch(text_tokens: int) -> Batch:
    """One picture and its text, as the cache would give them."""
    generator = torch.Generator().manual_seed(0)
    condition = {"text": torch.randn(1, text_tokens, 4096, generator=generator), "pooled": torch.randn(1, 768, generator=generator)}
    return Batch(torch.randn(1, 16, LATENT_EDGE, LATENT_EDGE, generator=generator), condition, (0,), ("picture",))


def describe(precision: str, start: str, made: Start) -> str:
    """A line of the table."""
    sizes = [f"{number / 2**30:9.2f}" for number in (made.before_bytes, made.peak_bytes, made.model_bytes, made.kept_bytes)]
    step = ""
    if made.step_peak_bytes:
        step = f" | {made.step_seconds:6.0f} | {made.step_peak_bytes / 2**30:8.2f} | {made.loss:.3f} | {made.grad_norm:.2e}"
    return f"{precision:9} | {start:6} | {made.seconds:7.1f} | " + " | ".join(sizes) + step


if __name__ == "__main__":
    main()
