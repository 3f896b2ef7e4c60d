"""Runs in several processes against the same run in one: equal bytes, seconds of a step; and two machines of which one is killed.

    python benchmarks/parallel.py [--processes 4] [--steps 12] [--only RUN ...] [--nodes 1] [--loss killed] [--threads 1]

Each row is a run of the pocket model by `weber train` (LoRA with the whole model in each process, the same with packed blocks that are
sharded, and the weights themselves, sharded: over all processes, in groups of two, and with blocks that stay whole in a step), compared
with one process: losses and all tensors of the last checkpoint. Processes share the machine's cores, so seconds say what the exchange costs
and not what more devices give.

With `--nodes 2` two network namespaces with addresses of their own, joined by a pair of virtual interfaces, are two machines: `weber
launch` on each, all processes of one killed at once; the other goes on alone from the newest checkpoint to the same bytes. With `--loss
cut` nobody is killed, and the cable is cut: one side goes on alone, the other ends in words. Needs root and iproute2. Exit code 1 if any
byte differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from safetensors.torch import load_file

from weber.checkpoint.save import list_checkpoints
from weber.config.load import build_config, save_config

ROOT = Path(__file__).absolute().parents[1]
COMMAND = (sys.executable, "-c", "from weber.cli import main; main()")
MAX_SECONDS = 600.0
_FULL: dict[str, Any] = {"adapter": {"kind": "full"}, "optim": {"name": "adamw_8bit"}}
KINDS: dict[str, dict[str, Any]] = {
    "lora, ddp": {"parallel": {"strategy": "ddp"}},
    "lora on nf4, fsdp": {"parallel": {"strategy": "fsdp"}, "memory": {"quantize": "nf4"}},
    "full, fsdp": {**_FULL, "parallel": {"strategy": "fsdp"}},
    "full, groups of 2": {**_FULL, "parallel": {"strategy": "fsdp", "group": 2}},
    "full, reshard off": {**_FULL, "parallel": {"strategy": "fsdp", "reshard": False}},
}
NAMES = ("weber-node-1", "weber-node-2")
PORT = 29400


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--processes", type=machine.read_count, default=4, help="most processes of a run")
    parser.add_argument("--steps", type=machine.read_count, default=12, help="training steps of a run")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="runs")
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=1, help="2: two machines, of which one is killed")
    parser.add_argument("--loss", choices=("killed", "cut"), default="killed", help="of a machine: its processes, or the cable to it")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory(prefix="weber-parallel-") as name:
        folder = Path(name)
        if options.nodes > 1:
            differences = lose_a_node(folder, num_steps=options.steps, is_cut=options.loss == "cut")
        else:
            differences = compare_all(folder, kinds=options.only, most=options.processes, num_steps=options.steps)
    print(f"{'FAIL' if differences else 'PASS'}: {len(differences)} differences")
    if differences:
        sys.exit(1)


def compare_all(folder: Path, *, kinds: Sequence[str], most: int, num_steps: int) -> list[str]:
    """A row for each kind and number of processes; what differs from one."""
    differences: list[str] = []
    print("run                   processes  s/step  of one  bytes")
    for kind in kinds:
        alone = train(folder, kind, 1, num_steps=num_steps, group=most)
        group = KINDS[kind]["parallel"].get("group", 1)
        for size in [1, *(size for size in range(2, most + 1) if size % group == 0)]:
            run = alone if size == 1 else train(folder, kind, size, num_steps=num_steps, group=most)
            differing = compare(alone, run)
            differences += [f"{kind}, {size} processes: {one}" for one in differing]
            seconds, whole = (statistics.median(read(one, "seconds")[1:] or [0.0]) for one in (run, alone))
            share = f"{seconds / whole:6.2f}" if whole else "   n/a"
            print(f"{kind:<21} {size:9d}  {seconds:6.3f}  {share}  {'DIFFER' if differing else 'equal'}", flush=True)
    for line in differences:
        print(f"differs: {line}")
    return differences


def train(folder: Path, kind: str, size: int, *, num_steps: int, group: int) -> Path:
    """A run by its command; its folder."""
    run = folder / str(size) / kind.replace(", ", "-").replace(" ", "-")
    file = write_run(folder, run, KINDS[kind], size=size, num_steps=num_steps, group=group)
    done = subprocess.run([*COMMAND, "train", str(file)], capture_output=True, text=True, env=_build_environment(), timeout=MAX_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{kind} in {size} processes ended with {done.returncode}:\n{done.stderr}")
    return run


def write_run(folder: Path, run: Path, sections: Mapping[str, Any], *, size: int, num_steps: int, group: int) -> Path:
    """The settings of a run as a file."""
    parallel = {"devices": size} | (sections["parallel"] if size > 1 else {})
    tree = {
        "model": {"variant": "pocket"},
        "data": [{"path": str(ROOT / "examples" / "fluent"), "resolution": 64}],
        **sections,
        "memory": {"device": "cpu", **sections.get("memory", {})},
        "parallel": parallel,
        "train": {"steps": num_steps, "accumulation": group},
        "output": {"folder": str(run), "cache": str(folder / "cache"), "save_every": max(1, num_steps // 4)},
    }
    file = run.parent / f"{run.name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_config(build_config(tree), file)
    return file


def read(run: Path, key: str) -> list[float]:
    """A number of all steps of a run."""
    return [json.loads(line)[key] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def compare(one: Path, other: Path) -> list[str]:
    """What differs between two runs."""
    found = [] if read(one, "loss") == read(other, "loss") else ["losses"]
    last, theirs = (list_checkpoints(run)[-1][1] for run in (one, other))
    for file in sorted(last.glob("*.safetensors")):
        mine, yours = load_file(file), load_file(theirs / file.name)
        found += [f"{file.name}: {name}" for name in mine if name not in yours or not mine[name].equal(yours[name])]
    return found


def lose_a_node(folder: Path, *, num_steps: int, is_cut: bool) -> list[str]:
    """Two machines, of which the second is killed or cut off after the first checkpoint; what differs from one process at the end."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        print("skipped: network namespaces need root and iproute2")
        return []
    sections = KINDS["lora, ddp"]
    whole = folder / "alone" / "run"
    file = write_run(folder, whole, sections, size=1, num_steps=num_steps, group=2)
    subprocess.run([*COMMAND, "train", str(file)], check=True, capture_output=True, env=_build_environment(), timeout=MAX_SECONDS)
    run = folder / "nodes" / "run"
    file = write_run(folder, run, {**sections, "parallel": {}}, size=1, num_steps=num_steps, group=2)
    with joined_namespaces() as addresses:
        nodes = [start_node(name, address, addresses[0], file, folder) for name, address in zip(NAMES, addresses, strict=True)]
        try:
            _wait(lambda: bool(list_checkpoints(run)), nodes)
            lost = list_checkpoints(run)[-1][0]
            began = time.monotonic()
            if is_cut:
                subprocess.run(["ip", "-n", NAMES[1], "link", "set", NAMES[1][-8:], "down"], check=True)
            else:
                kill_all(NAMES[1])
                nodes[1].wait()
            _wait(lambda: nodes[0].poll() is not None or len(list_checkpoints(run)) > 0 and list_checkpoints(run)[-1][0] > lost, nodes[:1])
            what = "cut off" if is_cut else "killed"
            print(f"{what} after checkpoint {lost}; the next one came {time.monotonic() - began:.1f} s later, of one machine alone")
            code = nodes[0].wait(MAX_SECONDS)
            if is_cut:
                print(f"the machine that was cut off ended with {nodes[1].wait(MAX_SECONDS)}, {time.monotonic() - began:.1f} s after")
                print((folder / f"{NAMES[1]}.txt").read_text(encoding="utf-8")[-800:])
        except RuntimeError as error:
            said = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.txt"))]
            raise RuntimeError("\n".join([str(error), *said])) from error
        finally:
            for name in NAMES:
                kill_all(name)
            for node in nodes:
                node.wait()
    said = (folder / f"{NAMES[0]}.txt").read_text(encoding="utf-8")
    if code != 0:
        raise RuntimeError(f"the machine that was left ended with {code}:\n{said}")
    print(f"resumed by itself: {'Resuming checkpoint-' in said}")
    return compare(whole, run)


def start_node(name: str, address: str, meeting: str, file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """`weber launch` in a namespace."""
    words = ["launch", str(file), "--nodes", "1:2", "--at", f"{meeting}:{PORT}", "--address", address, "--resume"]
    variables = {**_build_environment(), "GLOO_SOCKET_IFNAME": f"{name[-8:]}"}
    with (folder / f"{name}.txt").open("wb") as said:
        return subprocess.Popen(["ip", "netns", "exec", name, *COMMAND, *words], env=variables, stdout=said, stderr=said)


@contextmanager
def joined_namespaces() -> Iterator[list[str]]:
    """Two namespaces with a cable between them; their addresses."""
    addresses = ["10.77.0.1", "10.77.0.2"]
    links = [name[-8:] for name in NAMES]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", links[0], "netns", NAMES[0], "type", "veth", "peer", "name", links[1], "netns", NAMES[1])
        for name, link, address in zip(NAMES, links, addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield addresses
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def kill_all(name: str) -> None:
    """End all processes of a namespace at once, without a word."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    for number in found:
        try:
            os.kill(int(number), signal.SIGKILL)
        except ProcessLookupError:
            continue


def _wait(is_done: Any, nodes: Sequence[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + MAX_SECONDS
    while not is_done():
        if time.monotonic() > end or any(node.poll() not in (None, 0) for node in nodes):
            raise RuntimeError(f"a machine has ended too early: {[node.poll() for node in nodes]}")
        time.sleep(0.05)


def _build_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
