"""`weber cloud`: runs on machines that SkyPilot rents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from weber.commands.remote import fetch, read_token
from weber.commands.terminal import build_watcher, confirm, read_environment, read_settings, say
from weber.errors import ConfigError

if TYPE_CHECKING:
    from weber.remote.rented import Rented

app = App(name="cloud", help="Train on a machine that SkyPilot rents (RunPod, Vast, Lambda, AWS, GCP, Kubernetes) and gives back.")
app.command(fetch)  # what has come of a run elsewhere is fetched in the same way, whoever made the machine
_Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Asked:
    """What is rented, and what it may cost."""

    count: int = 1
    """How many GPUs."""

    cloud: str | None = None
    """runpod, aws/us-east-1 or k8s, as SkyPilot calls them. Left out: the cheapest of those that are set up."""

    spot: _Flag = False
    """A cheaper machine that may be taken away at any time."""

    idle_minutes: int = 15
    """So long after the last work on it the machine is given back, with all that is on it. It always is."""

    price: float | None = None
    """Dollars an hour, where SkyPilot does not know them."""

    disk: int | None = None
    """GB. Left out: what the plan needs, and a quarter more."""

    hub_token: _Flag = False
    """Give the machine the hub's token too (that of `hf auth login` here), for models with a license to agree to."""


@app.command
def up(config: Path, /, *overrides: str, gpu: str, asked: Asked | None = None, resume: _Flag = False, yes: _Flag = False) -> None:
    """Rent a machine, bring all there that the run needs, and install the packages; begin nothing.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    overrides
        `section.key=value`, for example `optim.lr=2e-4`.
    gpu
        The GPU, as `sky gpus list` calls it: H100, A100-80GB, RTX4090.
    resume
        Bring the checkpoints that are here too.
    yes
        Do not ask whether it may cost that.
    """
    rented = _rent(config, overrides, gpu=gpu, asked=asked or Asked(), resume=resume, yes=yes, is_trained=False)
    say(f"The machine {rented.cluster} is ready: weber cloud train {config} --gpu {gpu}. It costs until: weber cloud down {rented.folder}")


@app.command
def train(
    config: Path,
    /,
    *overrides: str,
    gpu: str,
    asked: Asked | None = None,
    resume: _Flag = False,
    detach: _Flag = False,
    yes: _Flag = False,
) -> None:
    """Rent a machine and train a run there; what it makes comes here while it trains. Ctrl-C then leaves it at work.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    overrides
        `section.key=value`, for example `optim.lr=2e-4`.
    gpu
        The GPU, as `sky gpus list` calls it: H100, A100-80GB, RTX4090.
    resume
        Go on from the latest checkpoint that is here.
    detach
        Begin the run, and leave; what it makes has to be fetched (`weber cloud logs`) before the machine is given back.
    yes
        Do not ask whether it may cost that.
    """
    from weber.remote.cloud import await_begin

    rented = _rent(config, overrides, gpu=gpu, asked=asked or Asked(), resume=resume, yes=yes, is_trained=True)
    if detach:
        say(f"The run has begun. Fetch what it makes before the machine is given back: weber cloud logs {rented.folder}")
        return
    await_begin(rented)
    _follow(rented, is_new=True)


@app.command
def logs(run: Path, /) -> None:
    """Show what a run on a rented machine says, and fetch what it makes. Ctrl-C leaves it at work.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    """
    from weber.remote.rented import read_rented

    _follow(read_rented(run), is_new=False)


@app.command
def down(run: Path, /, *, lose: _Flag = False, yes: _Flag = False) -> None:
    """Fetch what is not here yet, then give the machine back, with all that is on it.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    lose
        Fetch nothing, and end what is at work: for a machine that cannot be reached.
    yes
        Do not ask.
    """
    from weber.remote.cloud import take_back
    from weber.remote.rented import read_rented
    from weber.remote.sky import Sky

    rented = read_rented(run)
    what = "Nothing is fetched, and" if lose else "What is not here yet is fetched, then"
    if not yes and not confirm(f"{what} the machine {rented.cluster} is given back with all that is on it."):
        raise ConfigError("Nothing was given back.", got=str(rented.cluster), fix=f"weber cloud down {run} --yes")
    watcher = build_watcher()
    with watcher.shown():
        told = take_back(rented, sky=Sky(read_environment()), is_lost=lose, watcher=watcher)
    say(f"{told} What came here is in {rented.folder}")


def _rent(config: Path, overrides: Sequence[str], *, gpu: str, asked: Asked, resume: bool, yes: bool, is_trained: bool) -> Rented:
    """Say what it costs, ask, and rent it. Raises ConfigError where nobody has said yes."""
    settings = read_settings(config, overrides)
    token = read_token() if asked.hub_token else None
    from weber.remote.cloud import build_order, rent
    from weber.remote.sky import Sky
    from weber.remote.task import HUB_TOKEN, Wish

    sky = Sky(read_environment() | ({} if token is None else {HUB_TOKEN: token}))
    wish = Wish(gpu, asked.count, asked.cloud, asked.spot, asked.idle_minutes, asked.price, asked.disk, token)
    watcher = build_watcher()
    with watcher.shown():
        order = build_order(settings, wish, sky=sky, resume=resume, watcher=watcher)
    for line in order.describe():
        say(line)
    if not yes and not confirm("This costs money from now on."):
        raise ConfigError("Nothing was rented.", got=f"about ${order.lowest:.2f}", expected="your yes", fix="add --yes")
    with watcher.shown():
        return rent(order, sky=sky, is_trained=is_trained, watcher=watcher)


def _follow(rented: Rented, *, is_new: bool) -> None:
    from weber.remote.attend import attach

    watcher = build_watcher()
    with watcher.shown():
        is_finished = attach(rented, watcher=watcher, is_new=is_new)
    end = "finished" if is_finished else "stopped there, and has saved (`weber cloud train ... --resume` goes on)"
    say(f"The run is {end}, and in {rented.folder}. Give the machine back: weber cloud down {rented.folder}")
