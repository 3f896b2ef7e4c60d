"""Whether a LoRA learns as well in bf16: the demo's run of the pocket model in four ways, and what a judge says of its pictures.

    python benchmarks/precision.py [--steps 300] [--painting 20] [--ways fp32 "fp32, another seed" bf16 "bf16, adapters in fp32"] \
        [--threads 1]

The first is the demo itself: everything in fp32. Then the same with another seed, which says how much of a difference is chance; the
network in bf16 with adapters that compute in it, as `adapter.compute = "auto"` does; and the network in bf16 with adapters in fp32. All
masters are fp32. `loss` is the mean of the last third of the steps, whose pictures, noise and noise levels are the same for a seed; `off`
is its distance from the first run's. `style` is how surely the judge of the pocket model sees the style in pictures that were painted with
the adapter (0..1), `subjects` how many of them show what the base model shows. Pictures are painted in the precision of the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import torch
from PIL import Image
from rich.console import Console

from weber.track.progress import Watcher
from weber.training.assemble import train
from weber.training.demo import SUBJECTS, build_demo

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the judge is the recipe's, which is no part of the package

from recipes.pocket.judge import JUDGED_STYLES, build_views, load_judge  # noqa: E402

WAYS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "fp32": {"memory": {"dtype": "fp32"}},
    "fp32, another seed": {"memory": {"dtype": "fp32"}, "train": {"seed": 7}},
    "bf16": {"memory": {"dtype": "bf16"}},
    "bf16, adapters in fp32": {"memory": {"dtype": "bf16"}, "adapter": {"compute": "fp32"}},
}
FLUENT = JUDGED_STYLES.index("fluent")


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=machine.read_count, default=300, help="training steps of each run")
    parser.add_argument("--painting", type=machine.read_count, default=20, help="steps of the sampler")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="runs")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    print("\n| network | loss | off | style | subjects | s per step |\n|---|---:|---:|---:|---:|---:|")
    first = None
    with tempfile.TemporaryDirectory(prefix="weber-precision-") as name:
        for number, way in enumerate(options.ways):
            folder = Path(name) / str(number)
            loss, style, subjects, seconds = measure(folder, WAYS[way], num_steps=options.steps, painting=options.painting)
            first = loss if first is None else first
            off = f"{100 * (loss / first - 1):+.2f} %"
            print(f"| {way} | {loss:.5f} | {off} | {style:.3f} | {subjects} of {len(SUBJECTS)} | {seconds:.3f} |", flush=True)


def measure(
    folder: Path, settings: Mapping[str, Mapping[str, Any]], *, num_steps: int, painting: int
) -> tuple[float, float, int, float]:
    """Loss, style, number of subjects, and seconds per step."""
    demo = build_demo(folder)
    config = demo.model_copy(
        update={
            "memory": demo.memory.model_copy(update=settings.get("memory")),
            "adapter": demo.adapter.model_copy(update=settings.get("adapter")),
            "train": demo.train.model_copy(update={**settings.get("train", {}), "steps": num_steps}),
            "sampling": demo.sampling.model_copy(update={"every": num_steps, "steps": painting}),
            "output": demo.output.model_copy(update={"save_every": num_steps}),
        }
    )
    with (folder.parent / f"{folder.name}.txt").open("w", encoding="utf-8") as log:
        train(config, resume=False, watcher=Watcher(Console(file=log)))
    lines = (config.output.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses, seconds = zip(*((one["loss"], one["seconds"]) for one in map(json.loads, lines)), strict=True)
    before, after = (load_views(config.output.folder, step) for step in (0, num_steps))
    judge = load_judge()
    with torch.no_grad():
        (_, base), (style, shown) = judge(before), judge(after)
    num_last = max(1, num_steps // 3)
    loss, seconds_per_step = sum(losses[-num_last:]) / num_last, sum(seconds) / num_steps
    num_same = int(((shown @ base.T).argmax(dim=1) == torch.arange(len(SUBJECTS))).sum())
    return loss, float(style.softmax(dim=1)[:, FLUENT].mean()), num_same, seconds_per_step


def load_views(folder: Path, step: int) -> torch.Tensor:
    """Pictures of a step, as the judge sees them."""
    files = [folder / "pictures" / f"step-{step:06d}" / f"{number:02d}.png" for number in range(len(SUBJECTS))]
    return build_views([Image.open(file) for file in files])


if __name__ == "__main__":
    main()
