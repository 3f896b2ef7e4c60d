"""A machine that SkyPilot rents for one run: what it costs before it is rented, then the run on it, and its end.

The run there is that of `weber remote`: the same folder, the same words, the same fetching. What is other is who makes the machine, brings
the files and counts its idle minutes: SkyPilot, from a task file. A machine on which nothing runs for those minutes is given back by
itself, with all that is on it.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weber.checkpoint.resume import load_latest
from weber.config.run import RunConfig
from weber.config.toml import write_toml
from weber.data.words import describe_count
from weber.errors import CheckpointError, ConfigError, RemoteError
from weber.memory.cards import read_wish
from weber.planning.budget import build_estimate
from weber.planning.costs import describe_lack, list_seconds, write_seconds
from weber.planning.places import check_places
from weber.planning.plan import build_plan
from weber.planning.resolve import build_absolute
from weber.planning.sizes import describe_size
from weber.remote.attend import forget, take
from weber.remote.away import HOME
from weber.remote.link import HOSTS, Host, Link
from weber.remote.parcel import Parcel, build_key, build_name, build_parcel, list_packages
from weber.remote.rented import Rented, find_rented
from weber.remote.sky import Offer, Sky
from weber.remote.task import HUB_TOKEN, Wish, build_stage, build_task, choose_disk
from weber.remote.there import PLACE, PYTHON
from weber.results.runs import is_run
from weber.track.progress import Watcher

FOLDER, TASK = ".cloud", "task.yaml"
"""In the run's folder here: the task file, and while it is sent what goes there."""
_BEGIN_SECONDS = 1200.0
"""To be given a machine and to install what is needed: what is counted for it."""
_HOUR = 3600.0
_TRIES, _PAUSE = 240, 0.5
"""How often is asked whether a run that was begun is at work."""
_NUM_LETTERS = 24


@dataclass(frozen=True)
class Order:
    """What would be rented for a run, and what it costs. `seconds`: those of the run, as planned; `rented`: where it would be; `is_there`:
    the machine has been rented before."""

    wish: Wish
    rented: Rented
    parcel: Parcel
    seconds: float
    offers: tuple[Offer, ...]
    disk_gb: int
    notes: tuple[str, ...]
    resume: bool
    is_there: bool

    @property
    def lowest(self) -> float:
        """Dollars for the run, if it is the cheapest offer."""
        return self.offers[0].price * (self.seconds + _BEGIN_SECONDS) / _HOUR

    def describe(self) -> list[str]:
        """What it is and costs, in words."""
        wish, first, last = self.wish, self.offers[0], self.offers[-1]
        hours = (self.seconds + _BEGIN_SECONDS) / _HOUR
        kind = " (spot: it may be taken away at any time)" if wish.is_spot else ""
        parts = (f"{wish.count} x {wish.gpu}{kind}", f"{self.disk_gb} GB of disk", f"{first.cloud} {first.machine}".strip())
        lines = [f"{', '.join(part for part in parts if part)}: ${first.price:.2f} an hour"]
        if last.price > first.price:
            lines.append(
                f"  the dearest cloud: {last.cloud}, ${last.price:.2f} an hour; SkyPilot takes the cheapest of those that are set up"
            )
        high = f" to ${last.price * hours:.2f}" if last.price > first.price else ""
        about = f"about {write_seconds(self.seconds)} as planned, and {write_seconds(_BEGIN_SECONDS)} to begin"
        lines.append(f"the run: {about}: ${self.lowest:.2f}{high}, without the disk and what is sent")
        lines.append(f"{wish.idle_minutes} minutes after the last work on it the machine is given back, with all that was not fetched")
        return [*lines, f"sent: {describe_count(self.parcel.num_files, 'file')}, {describe_size(self.parcel.num_bytes)}", *self.notes]


def build_order(config: RunConfig, wish: Wish, *, sky: Sky, resume: bool, watcher: Watcher) -> Order:
    """Plan a run for a GPU that is not here, and ask what it costs. Raises RemoteError, and what `build_plan` raises; spends nothing."""
    folder = build_absolute(config.output.folder)
    _check_wish(wish, config)
    check_places(config)
    read_wish(wish.gpu, key="--gpu")
    _check_folder(folder, resume=resume)
    is_there = _bring_home(folder, sky=sky, resume=resume, watcher=watcher)
    processes = config.parallel.num_devices or min(wish.count, config.train.batch_size * config.train.accumulation)
    plan = build_plan(config, watcher.report, is_resumed=resume, card=wish.gpu, num_processes=processes)
    parcel, estimate = build_parcel(plan, PLACE), build_estimate(plan.config, plan.workload)
    if wish.price is None:
        offers = sky.list_offers(wish.gpu, wish.count, cloud=wish.cloud, is_spot=wish.is_spot)
    else:
        offers = [Offer(wish.cloud or "", "", wish.price)]
    if not offers:
        raise RemoteError(
            "SkyPilot knows no price of such a machine.",
            got=f"{wish.count} x {wish.gpu}" + (f" of {wish.cloud}" if wish.cloud else "") + (" as spot" if wish.is_spot else ""),
            expected="a name and a number as `sky gpus list` has them",
            fix="correct --gpu or --cloud; where the price is known to you alone (a cluster of your own), say it: --price 0",
        )
    name = build_name(folder)
    rented = Rented(
        folder,
        Host(build_cluster(folder)),
        f"{HOME}/{name}",
        name,
        f"{HOME}/{name}/{PYTHON}",
        write_toml(plan.resolved.model_dump()),
        cluster=build_cluster(folder),
    )
    disk_gb, needed_gb = wish.disk_gb, choose_disk(plan, parcel, estimate=estimate)
    if disk_gb is not None and disk_gb < needed_gb / 2:
        raise ConfigError(
            "The disk would be too small.", got=f"--disk {disk_gb}", expected=f"{needed_gb} GB as planned", fix="leave --disk out"
        )
    seconds = sum(list_seconds(plan, estimate).values())
    notes = (*describe_lack(plan, estimate), *_describe_idle(wish.count, processes))
    return Order(wish, rented, parcel, seconds, tuple(offers), disk_gb or needed_gb, notes, resume, is_there)


def rent(order: Order, *, sky: Sky, is_trained: bool, watcher: Watcher) -> Rented:
    """Rent the machine, bring all there and, if asked to, begin the run. Raises RemoteError; then no new machine is left."""
    rented, cluster = order.rented, str(order.rented.cluster)
    folder, packages = rented.folder, list_packages()
    if not order.is_there:
        (folder / HOSTS).unlink(missing_ok=True)  # a new machine has a new key
    stage = folder / FOLDER / "stage"
    build_stage(stage, order.parcel, packages=packages, past=folder if order.resume else None)
    text = build_task(
        order.wish,
        cluster=cluster,
        stage=stage,
        root=rented.root,
        key=build_key(packages),
        disk_gb=order.disk_gb,
        is_trained=is_trained,
    )
    task = folder / FOLDER / TASK
    task.write_text(text, encoding="utf-8")
    rented.save()  # from here on it may cost something
    secrets = () if order.wish.token is None else (HUB_TOKEN,)
    try:
        sky.launch(cluster, task, idle_minutes=order.wish.idle_minutes, secrets=secrets, write=watcher.write)
    except (RemoteError, KeyboardInterrupt):
        if not order.is_there:  # SkyPilot counts idle minutes only when all has been made ready
            watcher.write("Giving the machine back, as it was not made ready.")
            sky.take_down(cluster, write=watcher.write)
            forget(rented)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return _meet(rented, sky=sky)


def await_begin(rented: Rented, *, tries: int = _TRIES, pause: float = _PAUSE) -> None:
    """Wait until a run that was put in the machine's queue is at work. Raises RemoteError."""
    link = rented.open()
    for _ in range(tries):
        if link.ask("tell", rented.root)["state"] != "prepared":
            return
        time.sleep(pause)
    raise RemoteError(
        "The run has not begun there.",
        got=f"{rented.cluster}",
        fix=f"see why: sky logs {rented.cluster}; then: weber cloud down {rented.folder}",
    )


def take_back(rented: Rented, *, sky: Sky, is_lost: bool, watcher: Watcher) -> str:
    """Fetch what is not here yet, then give the machine back; what was done, in words. With `is_lost` nothing is fetched.

    Raises RemoteError for a run at work, and for a machine that is there and cannot be reached.
    """
    cluster = _name_cluster(rented)
    if sky.find_state(cluster) is None:
        forget(rented)
        return "The machine had been given back already; what was not fetched before is lost."
    if not is_lost:
        try:
            told = rented.open().ask("tell", rented.root)
        except RemoteError as error:
            fix = f"try again; or give it back with all that is on it: weber cloud down {rented.folder} --lose"
            raise RemoteError(error.what, got=error.got, fix=fix) from error
        if told["state"] == "running":
            raise RemoteError(
                "The run is at work.",
                got=f"{cluster}, {rented.root}",
                fix=f"first: weber remote stop {rented.folder}; or --lose ends it as it is",
            )
        if told["state"] not in ("none", "prepared"):
            watcher.write(take(rented))
    sky.take_down(cluster, write=watcher.write)
    forget(rented)
    return "The machine has been given back."


def build_cluster(folder: Path) -> str:
    """What SkyPilot calls the machine of a run's folder: another name for each folder."""
    unique = hashlib.blake2b(str(folder).encode(), digest_size=4).hexdigest()
    return f"weber-{build_name(folder)[:_NUM_LETTERS].strip('.-_')}-{unique}"


def _name_cluster(rented: Rented) -> str:
    if rented.cluster is None:
        raise RemoteError(
            "SkyPilot has not rented the machine of this run.",
            got=f"{rented.folder} with the run on {rented.host.words}",
            fix=f"weber remote down {rented.folder}",
        )
    return rented.cluster


def _check_wish(wish: Wish, config: RunConfig) -> None:
    for what, value, least in (("--idle-minutes", wish.idle_minutes, 1), ("--count", wish.count, 1), ("--price", wish.price, 0)):
        if value is not None and value < least:
            raise ConfigError("There is no such number.", got=f"{what} {value}", expected=f"{least} or more", fix=f"correct {what}")
    if config.memory.device in ("cpu", "mps"):
        raise ConfigError(
            "A GPU would be rented, and not be used.",
            got=f'--gpu {wish.gpu}, and memory.device = "{config.memory.device}"',
            fix="remove memory.device",
        )


def _check_folder(folder: Path, *, resume: bool) -> None:
    rented = find_rented(folder)
    if rented is not None and rented.cluster is None:
        raise CheckpointError(
            "This run is on another machine already.",
            got=f"{folder} with the run on {rented.host.words}",
            fix=f"be done with it there: weber remote down {folder}; or set output.folder",
        )
    if is_run(folder) and not resume:
        raise CheckpointError(
            "The folder here holds a run already.", got=f"output.folder = {folder}", fix="add --resume to go on with it there, or change it"
        )
    if resume and rented is None and load_latest(folder).folder is None:
        raise CheckpointError("There is nothing to go on from.", got=f"{folder} without a whole checkpoint", fix="leave --resume out")


def _describe_idle(count: int, processes: int) -> Sequence[str]:
    if processes >= count:
        return ()
    fix = "ask for fewer, or raise train.accumulation"
    return (f"ONLY {processes} OF {count} GPUS WOULD WORK: a step has no more pictures, or parallel.devices says so; {fix}",)


def _bring_home(folder: Path, *, sky: Sky, resume: bool, watcher: Watcher) -> bool:
    """Whether the machine is there already; what a run on it has made is fetched. Raises RemoteError where it is at work."""
    rented, cluster = find_rented(folder), build_cluster(folder)
    if rented is None or sky.find_state(cluster) != "UP":
        return False
    told = rented.open().ask("tell", rented.root)
    if told["state"] == "running":
        raise RemoteError(
            "The run is at work there already.",
            got=f"{cluster}, {rented.root}",
            fix=f"watch it: weber cloud logs {folder}; or stop it: weber remote stop {folder}",
        )
    if told["state"] in ("ended", "gone"):
        watcher.write(take(rented))
        if not resume:
            raise RemoteError(
                "A run is there already.", got=f"{cluster}, {rented.root}", fix=f"--resume goes on with it; or weber cloud down {folder}"
            )
    return True


def _meet(rented: Rented, *, sky: Sky) -> Rented:
    """The machine as it is reached, and where all lies there; kept in the run's folder."""
    host = Host(str(rented.cluster), file=sky.find_hosts(str(rented.cluster)))
    link = Link(host, folder=rented.folder, python=rented.python)
    facts = link.look(HOME, rented.name, packages=[])
    found = replace(rented, host=link.host, root=str(facts["root"]), python=str(facts["python"]))
    found.save()
    return found
