"""`weber remote`: runs on other machines, through ssh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import build_watcher, confirm, read_settings, say
from weber.errors import ConfigError

app = App(name="remote", help="Train on another machine through ssh and rsync: a rented GPU, or one in the next room.")
_Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """How the machine is reached, and what is used there."""

    port: Annotated[int | None, Parameter(name=["--port", "-p"])] = None
    """Its port of ssh. Left out: as ssh knows it."""

    identity: Annotated[Path | None, Parameter(name=["--identity", "-i"])] = None
    """The private key. Left out: those that ssh tries."""

    host_key: str | None = None
    """The fingerprint that the key of a new machine has, SHA256:..., compared with what the provider shows."""

    there: str | None = None
    """The folder there below which runs lie. Left out: weber-remote in the home folder."""

    python: str | None = None
    """The Python there, 3.11 or newer. Left out: the first that is found. If it lacks packages, they are installed beside it."""


@app.command(help_format="plaintext")
def train(
    config: Path,
    address: str,
    /,
    *overrides: str,
    machine: Machine | None = None,
    resume: _Flag = False,
    detach: _Flag = False,
    hub_token: _Flag = False,
) -> None:
    """Send a run to another machine and train it there; what it makes comes here while it trains. Ctrl-C leaves it at work.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    address
        user@host, or a name of ~/.ssh/config.
    overrides
        `section.key=value`, for example `optim.lr=2e-4`.
    resume
        Go on from the latest checkpoint that is here, on this machine or on another one.
    detach
        Begin the run, and leave; `weber remote attach` shows it.
    hub_token
        Send the hub's token too (that of `hf auth login` here), for models with a license to agree to. It lies there until `down`.
    """
    settings, given = read_settings(config, overrides), machine or Machine()
    from weber.remote.attend import attach as follow
    from weber.remote.away import HOME, Asked, send
    from weber.remote.link import Host

    identity = None if given.identity is None else str(given.identity.expanduser().absolute())
    token = read_token() if hub_token else None
    asked = Asked(given.there or HOME, given.python, given.host_key, resume, token)
    watcher = build_watcher()
    with watcher.shown():
        rented = send(settings, Host(address, given.port, identity), asked=asked, watcher=watcher)
        watcher.write(f"The run has begun there. Ctrl-C leaves it at work; then: weber remote attach {rented.folder}")
        if detach:
            return
        is_finished = follow(rented, watcher=watcher, is_new=True)
    _tell_end(is_finished, rented.folder)


@app.command
def attach(run: Path, /) -> None:
    """Show again what a run on another machine says, and fetch what it makes. Ctrl-C leaves it at work.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    """
    from weber.remote.attend import attach as follow
    from weber.remote.rented import read_rented

    rented, watcher = read_rented(run), build_watcher()
    with watcher.shown():
        is_finished = follow(rented, watcher=watcher)
    _tell_end(is_finished, rented.folder)


@app.command
def fetch(run: Path, /) -> None:
    """Bring here what a run on another machine has made so far: readings, pictures, checkpoints, the result.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    """
    from weber.remote.attend import take
    from weber.remote.rented import read_rented

    rented, watcher = read_rented(run), build_watcher()
    with watcher.shown():
        told = take(rented)
    say(f"{told} It is in {rented.folder}")


@app.command
def stop(run: Path, /) -> None:
    """Ask a run on another machine to save and stop, and fetch what it has made.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    """
    from weber.remote.attend import stop as ask
    from weber.remote.rented import read_rented

    rented, watcher = read_rented(run), build_watcher()
    with watcher.shown():
        ask(rented, watcher=watcher)
    say(f"It is in {rented.folder}")


@app.command
def down(run: Path, /, *, yes: _Flag = False, forget: _Flag = False) -> None:
    """Fetch what is not here yet, then delete the run on the other machine: pictures, settings, checkpoints, packages.

    Parameters
    ----------
    run
        The run's folder here, or its file of settings.
    yes
        Do not ask.
    forget
        The machine is gone: fetch and delete nothing, and forget that the run was there.
    """
    from weber.remote.attend import forget as leave
    from weber.remote.attend import look_down, take_down
    from weber.remote.rented import read_rented

    rented = read_rented(run)
    if rented.cluster is not None:
        got = f"{rented.folder} with {rented.cluster}"
        raise ConfigError("SkyPilot has rented the machine of this run.", got=got, fix=f"weber cloud down {rented.folder}")
    if forget:
        leave(rented)
        say(f"{rented.folder} is on no other machine any more.")
        return
    what = look_down(rented)
    if not yes and not confirm(f"What is not here yet is fetched, then this is deleted: {what}."):
        raise ConfigError("Nothing was deleted.", got=what, fix=f"weber remote down {run} --yes")
    gone = take_down(rented)
    say(f"Deleted there: {', '.join(gone)}. The machine itself runs on, and costs, until you stop it at the provider.")


def read_token() -> str:
    """The hub's token of this machine. Raises ConfigError."""
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise ConfigError("There is no token of the hub here.", got="--hub-token", fix="log in: hf auth login; or leave --hub-token out")
    return token


def _tell_end(is_finished: bool, folder: Path) -> None:
    if not is_finished:
        say(f"The run was stopped there, and has saved; go on with: weber remote train ... --resume. It is in {folder}")
        return
    say(f"The run is finished, and in {folder}. Be done with the machine: weber remote down {folder}")
