"""Several processes that do runs together, forked from one that has imported the libraries already."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.processes import CONTEXT
from tests.runs import build_watcher
from weber.config.load import load_config
from weber.errors import WeberError
from weber.parallel.place import Place
from weber.parallel.world import PeerError, World
from weber.training.assemble import train
from weber.training.serve import serve

SECONDS = 240
"""More than anything takes here, on a busy machine."""


def run_together(
    files: Sequence[Path], size: int, *, said: Path, resume: bool = False, prepare: Callable[[], None] | None = None
) -> list[int | None]:
    """Do the runs of these files one after the other in `size` processes; returns their exit codes. What they say is put into `said`.
    `prepare` is called in each of them before."""
    return watch(start_together(files, size, said=said, resume=resume, prepare=prepare))


def start_together(  # type: ignore[type-arg]
    files: Sequence[Path], size: int, *, said: Path, resume: bool = False, prepare: Callable[[], None] | None = None
) -> list:
    """The processes, of which the first leads."""
    said.mkdir(parents=True, exist_ok=True)
    port = find_port()
    processes = [
        CONTEXT.Process(target=_work, args=(rank, size, port, list(files), said, resume, prepare), daemon=True) for rank in range(size)
    ]
    for one in processes:
        one.start()
    return processes


def watch(processes: Sequence) -> list[int | None]:  # type: ignore[type-arg]
    end = time.monotonic() + SECONDS
    for one in processes:
        one.join(max(0.0, end - time.monotonic()))
        if one.exitcode is None:
            one.kill()
            one.join()
    return [one.exitcode for one in processes]


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _work(
    rank: int, size: int, port: int, files: Sequence[Path], said: Path, resume: bool, prepare: Callable[[], None] | None
) -> None:
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    world = World(Place(rank, size, rank, size, f"tcp://127.0.0.1:{port}"), torch.device("cpu"))
    code = 0
    for file in files:
        code = max(code, _run(world, file, said=said, resume=resume))
        if code == 75:
            break
    os._exit(code)


def _run(world: World, file: Path, *, said: Path, resume: bool) -> int:
    watcher, buffer = build_watcher()
    try:
        config = load_config(file)
        if world.is_leader:
            train(config, resume=resume, watcher=watcher, world=world)
        else:
            serve(config, world)
        code = 0
    except PeerError as error:
        watcher.write(str(error))
        code = 75
    except WeberError as error:
        watcher.write(str(error))
        code = 2
    except KeyboardInterrupt:
        code = 130
    if code != 75:
        world.dismiss()
    (said / f"{file.stem}-{world.rank}.txt").write_text(buffer.getvalue())
    return code
