"""`weber launch`: one run on several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import prepare_launch, read_settings


def launch(
    config: Path,
    /,
    *overrides: str,
    nodes: str = "1",
    at: str | None = None,
    address: str | None = None,
    restarts: int = 3,
    name: str = "weber",
    resume: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train on several machines, with a process for each device of each: the same command on each of them. If a process or a machine is
    gone, all others go on from the newest valid checkpoint.

    Parameters
    ----------
    config
        A TOML file of settings, the same on each machine.
    overrides
        `section.key=value`, for example `parallel.devices=4`: so many on this machine.
    nodes
        How many machines: 2; or 1:4, as many of them as are there.
    at
        HOST:PORT of one of them, where all meet.
    address
        The address under which the others reach this machine, where its name is not known to them.
    restarts
        How often all may be started again.
    name
        What this run is called among others that meet in the same place.
    resume
        Go on from the newest valid checkpoint, if there is one.
    """
    settings = read_settings(config, overrides)
    from weber.parallel.devices import list_devices
    from weber.parallel.elastic import launch_elastic, read_meeting
    from weber.planning.resolve import build_absolute
    from weber.results.runs import is_run

    meeting, devices = read_meeting(nodes, at=at, name=name, address=address), list_devices(settings)
    prepare_launch(devices)
    goes_on = resume or not is_run(build_absolute(settings.output.folder))  # a new run is gone on with too, if it has to start again
    words = ["train", str(config), *overrides, *(["--resume"] if goes_on else [])]
    launch_elastic(words, meeting, num_processes=len(devices), restarts=restarts)
