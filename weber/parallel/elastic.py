"""Processes on several machines, started and watched by torchrun's own machinery: it finds the machines, numbers the processes, and starts
all of them again when one is gone."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from weber.errors import ConfigError, TrainingError
from weber.parallel.connections import watching_connections
from weber.parallel.launch import find_port

_COMMAND = ("-c", "from weber.cli import main; main()")
_LOOK_SECONDS = 0.2
_SAVE_SECONDS = 60
"""What processes that are told to end have for it."""
_NODES = re.compile(r"([1-9]\d*)(?::([1-9]\d*))?")


@dataclass(frozen=True)
class Meeting:
    """Between `fewest` and `most` machines meet `at` host:port, under a `name`. `address`: of this machine, None: by its name."""

    fewest: int
    most: int
    at: str
    name: str
    address: str | None


def read_meeting(nodes: str, *, at: str | None, name: str, address: str | None) -> Meeting:
    """From the flags of a command line. Raises ConfigError."""
    found = _NODES.fullmatch(nodes)
    if found is None or (found[2] is not None and int(found[2]) < int(found[1])):
        raise ConfigError(
            "That is no number of machines.", got=f"--nodes {nodes}", expected="2, or 1:4 for 1 to 4 of them", fix="write --nodes 2"
        )
    fewest, most = int(found[1]), int(found[2] or found[1])
    if at is None and most > 1:
        raise ConfigError(
            "Several machines have to know where they meet.",
            got=f"--nodes {nodes}",
            expected="a machine that all others reach, and a port",
            fix="add --at FIRST_MACHINE:29400 on each of them",
        )
    if at is not None and re.fullmatch(r".+:\d{1,5}", at) is None:
        raise ConfigError("That is no place to meet.", got=f"--at {at}", expected="HOST:PORT", fix="write --at gpu1:29400")
    return Meeting(fewest, most, at or f"127.0.0.1:{find_port()}", name, address)


def launch_elastic(arguments: Sequence[str], meeting: Meeting, *, num_processes: int, restarts: int) -> None:
    """Do what the words of a command line say in so many processes here, and as many on each other machine. When one is gone all are
    started again, at most so often; then TrainingError. KeyboardInterrupt after a signal, when what could be saved was saved."""
    config = LaunchConfig(
        min_nodes=meeting.fewest,
        max_nodes=meeting.most,
        nproc_per_node=num_processes,
        run_id=meeting.name,
        rdzv_backend="c10d",
        rdzv_endpoint=meeting.at,
        max_restarts=restarts,
        monitor_interval=_LOOK_SECONDS,
        local_addr=meeting.address,
        rdzv_configs={} if meeting.address is None else {"is_host": meeting.at.rpartition(":")[0] == meeting.address},
        shutdown_timeout=_SAVE_SECONDS,
    )
    try:
        with watching_connections():
            elastic_launch(config, sys.executable)(*_COMMAND, *arguments)
    except SignalException as error:
        raise KeyboardInterrupt from error
    except RendezvousError as error:
        raise ConfigError(
            "The machines could not meet.",
            got=f"--nodes {meeting.fewest}:{meeting.most} --at {meeting.at}: {str(error).splitlines()[0]}",
            expected="a machine that all others reach, and on which `weber launch` runs too",
            fix="start the same command on that machine, and see that nothing closes the port; --address names this machine to the others",
        ) from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise TrainingError(
            f"The run has ended {restarts + 1} times before its time; the checkpoints are whole.",
            got=f"process {rank} has ended with code {failure.exitcode}; what it has said stands above",
            fix="mend what it says, then start again with --resume",
        ) from error
