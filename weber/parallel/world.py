"""The processes of one run: who they are, and what they tell each other.

Process 0 leads: it alone writes, shows and decides, and says to the others what to do next (`lead`), who wait for it (`listen`). What all
do at once they end together (`agree`), so that a problem of one is known to all, and is told once.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from weber import errors
from weber.errors import ConfigError, WeberError
from weber.parallel.connections import list_sockets, watch_connections
from weber.parallel.place import Place

Order = dict[str, Any]
"""What the others are to do: `do` is its name."""
LEAVE = "leave"

PATIENCE = timedelta(days=30)  # others wait while process 0 encodes, paints and saves; one that is gone is noticed by its connection
_NUM_SHOWN = 3


class PeerError(WeberError):
    """Another process of the run is gone. It, or what has started it, says why."""


class Dismissed(Exception):
    """Process 0 has told all others to end."""


class Undone(Exception):
    """What all did at once has failed for one of them: process 0 says so, and the others wait for what it wants next."""


class World:
    """All processes of a run. `device`: where the tensors are that they exchange."""

    def __init__(self, place: Place, device: torch.device) -> None:
        """Meet the others; returns when all are there."""
        self.rank, self.size, self.device = place.rank, place.size, device
        self.num_near = place.size
        """Processes of a machine; all, where machines have different numbers of them."""
        self._told: WeberError | None = None
        self.is_heard = False
        """Whether the others wait for what is next."""
        self.is_together = place.rank > 0
        """Whether all do the same; when not, process 0 does something alone, and the others listen."""
        known = list_sockets()
        with watched("meeting"):
            if place.address:
                dist.init_process_group("gloo", init_method=place.address, rank=place.rank, world_size=place.size, timeout=PATIENCE)
            else:
                dist.init_process_group("gloo", timeout=PATIENCE)
            self.group = dist.new_group(backend="nccl", timeout=PATIENCE) if device.type == "cuda" else None
        watch_connections(known)
        told = {one["near"] for one in self.tell_all({"near": place.local_size})}
        if len(told) == 1 and place.size % place.local_size == 0:
            self.num_near = place.local_size

    @property
    def counts(self) -> tuple[int, int]:
        """Processes of the run, and of a machine."""
        return self.size, self.num_near

    @property
    def is_leader(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @contextmanager
    def leading(self, do: str, **facts: Any) -> Iterator[None]:
        """Say to all others what to do now, and do the same inside. Of what is wrong inside all know (`agree`), or see it themselves."""
        self.is_heard, self.is_together = False, True
        self.pass_on({"do": do, **facts})
        try:
            yield
        except PeerError:
            raise
        except WeberError:
            self.is_heard, self.is_together = True, False
            raise
        self.is_heard, self.is_together = True, False

    def dismiss(self) -> None:
        """Tell all others to end, if they listen; those that are in the middle of something notice that this process is gone."""
        if self.is_heard and self.is_leader:
            self.is_heard = False
            with suppress(PeerError):
                self.pass_on({"do": LEAVE})

    def listen(self) -> Order:
        """What to do now. Raises Dismissed where nothing is left to do."""
        order = self.pass_on({})
        if order["do"] == LEAVE:
            raise Dismissed
        return order

    def pass_on(self, facts: Mapping[str, Any]) -> Order:
        """What process 0 knows, to all."""
        said: list[Any] = [json.dumps(facts) if self.is_leader else None]
        with watched("waiting"):
            dist.broadcast_object_list(said, src=0)
        found: Order = json.loads(said[0])
        return found

    def tell_all(self, facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """What each process knows, to all, in their order."""
        told: list[Any] = [None] * self.size
        with watched("waiting"):
            dist.all_gather_object(told, json.dumps(facts))
        return [json.loads(one) for one in told]

    def agree(self, error: WeberError | None = None, **facts: Any) -> list[Mapping[str, Any]]:
        """All are done with something; what each has to say of it. Raises the error of one of them in process 0, and Undone in others."""
        mine = None if error is None else {"class": type(error).__name__, **_take_apart(error)}
        told = self.tell_all({"error": mine, "host": socket.gethostname(), **facts})
        failed = [(rank, one) for rank, one in enumerate(told) if one["error"] is not None]
        if not failed:
            return told
        if not self.is_leader:
            raise Undone
        rank, one = failed[0]
        self._told = error or _put_together(one["error"], rank=rank, host=one["host"])
        raise self._told

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all do at once: at its end a problem of any of them is one of all. What they have agreed on inside is over."""
        try:
            yield
        except PeerError:
            raise
        except WeberError as error:
            if error is self._told:
                raise
            self.agree(error)
        else:
            self.agree()

    def exchange(self, mine: Tensor, *, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Of `mine` the first `sent[0]` numbers go to process 0, and so on; returns what comes from each, behind each other."""
        found = torch.empty(sum(received), dtype=mine.dtype, device=mine.device)
        with watched("exchanging gradients"):
            dist.all_to_all_single(found, mine, list(received), list(sent), group=self.group)
        return found

    def gather(self, mine: Tensor, found: Tensor | None = None) -> Tensor:
        """The tensors of all, of equal shapes, behind each other; in memory that is there, or else new."""
        if found is None:
            found = torch.empty(self.size * len(mine), *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        with watched("exchanging numbers"):
            dist.all_gather_single(found, mine.contiguous(), group=self.group)
        return found

    def send(self, tensor: Tensor) -> None:
        """Numbers on the host, to process 0."""
        with watched("sending numbers"):
            dist.send(tensor, dst=0)

    def receive(self, tensor: Tensor, *, rank: int) -> None:
        """What a process sends, into memory of the host."""
        with watched("waiting for numbers"):
            dist.recv(tensor, src=rank)

    def close(self) -> None:
        """Part from the others."""
        dist.destroy_process_group()


@contextmanager
def watched(what: str) -> Iterator[None]:
    """What processes exchange inside. A connection that breaks is a process that is gone."""
    try:
        yield
    except RuntimeError as error:  # what PyTorch's groups raise, whatever has happened
        raise PeerError(
            f"Another process of the run was lost while {what}.",
            got=str(error).splitlines()[0].partition(" This is typically")[0],
            fix="see what it has said; then go on with --resume",
        ) from error


def _take_apart(error: WeberError) -> dict[str, str]:
    return {"what": error.what, "got": error.got, "expected": error.expected, "fix": error.fix}


def _put_together(parts: Mapping[str, str], *, rank: int, host: str) -> WeberError:
    kinds: Callable[..., Any] = vars(errors).get(parts["class"], WeberError)
    what = f"{parts['what']} (in process {rank}, on {host})"
    error = kinds(what, got=parts["got"], expected=parts["expected"], fix=parts["fix"])
    assert isinstance(error, WeberError)
    return error


def check_same(world: World, settings: Mapping[str, object]) -> None:
    """Refuse to go on where processes have other settings than process 0."""
    differing: list[str] = []
    for rank, other in enumerate(world.tell_all({"settings": settings})):
        theirs, ours = other["settings"], settings
        if world.is_leader:
            keys = [key for key in sorted({**ours, **theirs}) if ours.get(key) != theirs.get(key)]
            differing += [f"{key} = {ours.get(key)!r} in process 0, {theirs.get(key)!r} in process {rank}" for key in keys]
    error = ConfigError(
        "The processes of the run have different settings.",
        got="; ".join(differing[:_NUM_SHOWN]),
        expected="the same settings on each machine",
        fix="copy one file of settings to all machines, or put it on a disk that all of them see",
    )
    world.agree(error if differing else None)
    world.is_heard = world.is_leader


def check_equal(world: World, parameters: Sequence[tuple[str, Tensor]]) -> None:
    """Refuse to train where processes start with other numbers than process 0."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in parameters:
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    others = [rank for rank, one in enumerate(world.tell_all({"digest": digest.hexdigest()})) if one["digest"] != digest.hexdigest()]
    error = ConfigError(
        "The processes of the run start with different numbers.",
        got=f"those of process {', '.join(map(str, others[:_NUM_SHOWN]))} are not those of process 0",
        expected="machines with the same kind of GPU, the same libraries and the same files",
        fix="install the same versions everywhere, and put model, cache and run folder on a disk that all machines see",
    )
    world.agree(error if others and world.is_leader else None)
