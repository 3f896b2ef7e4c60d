"""Reading and writing the cache against one safetensors file per sample and against raw writes, in the same run.

    python benchmarks/cache.py [--samples 600] [--rounds 7] [--indexed 1000000] [--folder FOLDER] [--threads 1]

A sample is what one picture of 1024 x 1024 needs: latents 16 x 128 x 128 and a text of 128 x 4096, both bf16, 1.5 MiB in all. Every way of
reading copies random samples from the page cache into a batch buffer. The ways take turns; what is printed is the median over the rounds.
The folder is where a temporary one is made, by default the system's. Goals: reading at least 2.5 times as fast as one file per sample,
writing at least 0.9 times as fast as raw writes with fsync. At the end a store of many small samples, 500 in a shard, is opened with its
index file and without: at most 0.2 s for a million.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import machine
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from weber.cache.catalog import INDEX_NAME, MIN_NEW_SHARDS
from weber.cache.shard import write_shard
from weber.cache.store import MAX_SHARD_BYTES, Store
from weber.cache.writer import Writer

BATCH_SIZE = 8
SAMPLES_PER_SHARD = 500
SHAPES = {"latents": (16, 128, 128), "text": (128, 4096)}

Sample = dict[str, Tensor]


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--samples", type=machine.read_count, default=600, help="samples of 1.5 MiB")
    parser.add_argument("--rounds", type=machine.read_count, default=7, help="rounds, each with every way of reading and writing")
    parser.add_argument("--indexed", type=machine.read_count, default=1_000_000, help="samples of the store that is opened")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    torch.manual_seed(0)
    samples = {
        f"{number:032x}": {name: torch.randn(shape).bfloat16() for name, shape in SHAPES.items()} for number in range(options.samples)
    }
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="weber-cache-") as name:
        folder = Path(name)
        num_bytes = sum(tensor.nbytes for sample in samples.values() for tensor in sample.values())
        print(f"{len(samples)} samples, {num_bytes / 2**20:.0f} MiB, {options.rounds} rounds, folder {folder}")
        measure_writing(samples, folder, options.rounds)
        measure_reading(samples, folder, options.rounds)
        measure_opening(options.indexed, folder / "many", options.rounds)


def measure_writing(samples: dict[str, Sample], folder: Path, rounds: int) -> None:
    """Print samples per second of writing; the store and the raw writes end with their bytes on the disk."""
    ways: dict[str, Callable[[dict[str, Sample], Path], None]] = {
        "raw write + fsync": write_raw,
        "store": write_store,
        "one file per sample, no fsync": write_files,
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in random.sample(list(ways), len(ways)):
            place = folder / "written"
            place.mkdir()
            settle()
            rates[way].append(len(samples) / clock(partial(ways[way], samples, place)))
            shutil.rmtree(place)
    print_table("writing", rates, reference="raw write + fsync", goal="store", at_least=0.9)


def measure_reading(samples: dict[str, Sample], folder: Path, rounds: int) -> None:
    """Print samples per second of reading random samples from the page cache into a batch buffer."""
    for part, write in (("store", write_store), ("files", write_files)):
        (folder / part).mkdir()
        write(samples, folder / part)
    store = Store(folder / "store")

    def read_file(key: str) -> Sample:
        return load_file(folder / "files" / key)

    def read_lazily(key: str) -> Sample:
        with safe_open(folder / "files" / key, framework="pt") as file:
            return {name: file.get_tensor(name) for name in SHAPES}

    for read in (store.read, read_file, read_lazily):
        for key, sample in samples.items():
            assert all(torch.equal(tensor, sample[name]) for name, tensor in read(key).items())
    settle()
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        first = Store(folder / "store")
        ways = {
            "store": store.read,
            "store, first read (with crc32)": first.read,
            "one file per sample, load_file": read_file,
            "one file per sample, safe_open": read_lazily,
            "already in memory (the ceiling)": samples.__getitem__,
        }
        for way, seconds in read_in_turns(ways, list(samples)).items():
            rates.setdefault(way, []).append(len(samples) / seconds)
    print_table("reading", rates, reference="one file per sample, load_file", goal="store", at_least=2.5)
    print(f"opening the store: {median(clock(lambda: Store(folder / 'store')) for _ in range(rounds)) * 1e3:.2f} ms")


def measure_opening(num_samples: int, folder: Path, rounds: int) -> None:
    """Print the time to open a store of small samples with its index file and without, and to ask it for each of its samples."""
    keys = [f"{random.getrandbits(128):032x}" for _ in range(num_samples)]
    folder.mkdir()
    num_each = max(1, min(SAMPLES_PER_SHARD, num_samples // MIN_NEW_SHARDS))
    for start in range(0, num_samples, num_each):  # not by `publish`, which waits for the disk
        name = f"20260101T000000-1-{start:08x}.safetensors"
        write_shard(folder / name, {key: {"latents": torch.zeros(1)} for key in keys[start : start + num_each]})
    Store(folder).catalog.keep_index()
    index = folder / INDEX_NAME
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        seconds[True].append(clock(lambda: Store(folder)))
    store = Store(folder)
    asked = clock(lambda: all(key in store for key in keys))
    data = index.read_bytes()
    index.unlink()
    seconds[False].append(clock(lambda: Store(folder)))
    with_index, without = (median(seconds[way]) for way in (True, False))
    size, verdict = f"{len(data) / 2**20:.1f} MiB", "met" if with_index <= 0.2 else "MISSED"
    print(
        f"\nopening {num_samples} samples: {with_index:.3f} s with an index file of {size}, {without:.1f} s without; goal 0.2 s: {verdict}"
    )
    print(f"asking for each of them: {asked / num_samples * 1e6:.1f} us")


def read_in_turns(ways: Mapping[str, Callable[[str], Sample]], keys: Sequence[str]) -> dict[str, float]:
    """Seconds of each way to copy all samples into the batch buffer. They take turns after each batch, each in its own order."""
    buffer = {name: torch.empty(BATCH_SIZE, *shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()}
    orders = {way: random.sample(keys, len(keys)) for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for start in range(0, len(keys), BATCH_SIZE):
        for way in random.sample(list(ways), len(ways)):
            batch = orders[way][start : start + BATCH_SIZE]
            seconds[way] += clock(partial(copy_batch, ways[way], batch, buffer))
    return seconds


def write_raw(samples: dict[str, Sample], folder: Path) -> None:
    """The same bytes, cut into files of the size of a shard."""
    tensors = [tensor.view(torch.uint8).numpy().data for sample in samples.values() for tensor in sample.values()]
    while tensors:
        with (folder / f"{len(tensors)}").open("wb") as file:
            written = 0
            while tensors and written < MAX_SHARD_BYTES:
                written += file.write(tensors.pop())
            file.flush()
            os.fsync(file.fileno())


def write_store(samples: dict[str, Sample], folder: Path) -> None:
    """Through the cache's writer."""
    with Writer(Store(folder)) as writer:
        for key, sample in samples.items():
            writer.add(key, sample)


def write_files(samples: dict[str, Sample], folder: Path) -> None:
    """One safetensors file per sample, as other trainers do."""
    for key, sample in samples.items():
        save_file(sample, folder / key)


def copy_batch(read: Callable[[str], Sample], keys: Sequence[str], buffer: dict[str, Tensor]) -> None:
    """Read a batch of samples into the rows of the buffer."""
    for row, key in enumerate(keys):
        for name, tensor in read(key).items():
            buffer[name][row].copy_(tensor)


def print_table(title: str, rates: dict[str, list[float]], *, reference: str, goal: str, at_least: float) -> None:
    """Medians, and the median over the rounds of the ratio to the reference."""
    print(f"\n{title:34} samples/s     us each     ratio")
    for way, values in rates.items():
        ratio = median(value / other for value, other in zip(values, rates[reference], strict=True))
        verdict = f"  goal {at_least}: {'met' if ratio >= at_least else 'MISSED'}" if way == goal else ""
        print(f"{way:34} {median(values):9.0f} {1e6 / median(values):11.0f} {ratio:9.2f}{verdict}")


def settle() -> None:
    """Let the system finish its own writing, which would slow down what is measured next."""
    if os.name == "posix":
        os.sync()


def clock(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
