"""Computed, not measured: what a step of a full-size model needs beside its computing on 8, 64 and 1,024 GPUs, and what limits first.

    python benchmarks/scale.py [--model VARIANT] [--card NAME] [--gpus COUNT ...] [--pixels 1024] \
        [--saves 1000] [--network 400] [--disk 10] [--threads 1]

Every GPU has one picture of a step. Bytes follow from the code that sends them (`weber/planning/traffic.py`), seconds of computing from
`weber plan`'s estimate for the card, and the rest from the rates in the first lines: of NVLink within a machine of 8, of the network for
each GPU (--network, GBit/s), of the disk that all machines see (--disk, GB/s). `--saves` are steps between checkpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
import torch

from weber.config.load import build_config
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.families.table import build_family
from weber.kinds.table import KINDS
from weber.memory.rates import build_rates
from weber.optim.table import count_state_bytes
from weber.planning.budget import Workload, build_estimate
from weber.planning.rehearsal import Sample
from weber.planning.spread import find_limit
from weber.planning.traffic import Links, list_demands
from weber.pocket.full_size import build_full_size

NVLINK = 450e9
"""Bytes in a second and direction between two H100 of a machine, by the datasheet (900 GB/s both ways)."""
KINDS_OF_RUN: Mapping[str, tuple[dict[str, Any], bool]] = {
    "LoRA of rank 16, ddp": ({}, False),
    "LoRA of rank 16, fsdp": ({}, True),
    "full, 8-bit AdamW, fsdp": ({"adapter": {"kind": "full"}, "optim": {"name": "adamw_8bit"}}, True),
}


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--model", default="flux1-dev", help="whose sizes")
    parser.add_argument("--card", default="H100", help="which GPU")
    parser.add_argument("--gpus", type=machine.read_count, nargs="+", default=[8, 64, 1024], help="how many")
    parser.add_argument("--pixels", type=machine.read_count, default=1024, help="edge of the pictures")
    parser.add_argument("--saves", type=machine.read_count, default=1000, help="steps between checkpoints")
    parser.add_argument("--network", type=machine.read_count, default=400, help="GBit in a second for each GPU")
    parser.add_argument("--disk", type=machine.read_count, default=10, help="GB in a second, for all")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    links = Links(NVLINK, network=options.network * 1e9 / 8, disk=options.disk * 1e9)
    print(f"{options.model} at {options.pixels} pixels on {options.card}: {links}\n")
    with TemporaryDirectory() as folder:
        build_full_size(Path(folder), options.model)
        for title, (sections, is_sharded) in KINDS_OF_RUN.items():
            print(f"{title}\n  GPUs  computing  gradients    weights      words      cache  checkpoints  what limits first")
            for num in options.gpus:
                config = build_config({"data": [{"path": "pictures"}], "train": {"accumulation": num}, **sections})
                workload = replace(build_workload(Path(folder), options, config), num_processes=num, is_sharded=is_sharded and num > 1)
                print(write_row(config, workload, links, save_every=options.saves), flush=True)
            print()


def build_workload(folder: Path, options: argparse.Namespace, config: RunConfig) -> Workload:
    """A run of a model of full size on a card that need not be there."""
    family = build_family(ModelConfig(path=str(folder), variant=options.model))
    trained = KINDS[config.adapter.kind].choose(config, family, skeleton=family.load_skeleton(), dtype=torch.bfloat16)
    sample = Sample(options.pixels, options.pixels)
    rates = build_rates(options.card)
    assert rates is not None
    return Workload(family, torch.device("cuda"), torch.bfloat16, trained, {sample: 1}, rates=rates, host_bytes=None)


def write_row(config: RunConfig, workload: Workload, links: Links, *, save_every: int) -> str:
    """Seconds of a step, by what takes them."""
    state = count_state_bytes(config.optim, workload.trained.shapes.values(), dtype=workload.trained.dtype)
    alone = replace(workload, num_processes=1, is_sharded=False)
    computing = build_estimate(config.model_copy(update={"train": config.train.model_copy(update={"accumulation": 1})}), alone).time.seconds
    demands = list_demands(config, workload, links=links, save_bytes=workload.trained.num_bytes + state, save_every=save_every)
    found = find_limit(demands, computing)
    cells = [f"{one.seconds:9.4f}" for one in demands]
    limit = "computing" if found is None else found.name
    return f"{workload.num_processes:6d}  {computing:9.4f}  {'  '.join(cells)}    {limit}"


if __name__ == "__main__":
    main()
