"""What processes tell each other: problems of one are known to all, and are told once."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.processes import CONTEXT
from tests.ranks import find_port, watch
from weber.errors import CacheError, WeberError
from weber.memory.movers import build_host
from weber.parallel.connections import SECONDS, list_sockets
from weber.parallel.place import Place
from weber.parallel.shards import Sharding, ShardMover
from weber.parallel.world import Dismissed, PeerError, Undone, World, check_equal, check_same


def _list_limits() -> list[int]:
    """How long each connection of this process may be without a sign of life, in milliseconds; 0: for ever."""
    found = []
    for number in list_sockets() if sys.platform == "linux" else ():
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6) and one.getpeername():
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def _work(rank: int, port: int, said: Path) -> None:
    torch.set_num_threads(1)
    world = World(Place(rank, 2, 0, 1, f"tcp://127.0.0.1:{port}"), torch.device("cpu"))  # each on a machine of its own
    found: dict[str, object] = {"counts": world.counts}

    def note(name: str, call: Callable[[], object]) -> None:
        try:
            found[name] = call()
        except WeberError as error:
            found[name] = f"{type(error).__name__}: {error}"
        except (Undone, Dismissed) as error:
            found[name] = type(error).__name__

    note("same", lambda: check_same(world, {"optim.lr": 1e-3}))
    found["heard"] = world.is_heard
    found["limits"] = _list_limits()
    note("settings", lambda: check_same(world, {"optim.lr": 1e-3 * (1 + rank), "train.seed": 42}))
    note("numbers", lambda: check_equal(world, [("weight", torch.full((3,), float(rank)))]))
    problem = CacheError("Nothing can be read.", got="a hole", fix="mend it")
    note("problem of the other", lambda: world.agree(problem if rank == 1 else None))
    note("own problem", lambda: world.agree(problem if rank == 0 else None))

    def agree_within() -> object:
        with world.together():
            return world.agree(problem if rank == 1 else None)

    note("within", agree_within)
    mine = torch.arange(3.0) + 10 * rank
    note("exchanged", lambda: world.exchange(mine, sent=[1, 2], received=[1, 1] if rank == 0 else [2, 2]).tolist())
    note("gathered", lambda: world.gather(mine.view(3, 1)).flatten().tolist())
    note("put together", lambda: [_put_together(world, offloads=offloads) for offloads in (False, True)])
    if rank == 0:
        with world.leading("sing", song=3):
            pass
        world.dismiss()
    else:
        note("order", world.listen)
        note("end", world.listen)
    (said / f"{rank}.json").write_text(json.dumps(found))
    if rank == 1:
        os._exit(0)  # without a word
    try:
        world.agree()
    except PeerError:
        os._exit(75)


def _put_together(world: World, *, offloads: bool) -> bool:
    """Whether blocks of which each process has a part are whole in their slots."""
    cpu = torch.device("cpu")
    mover = ShardMover(Sharding(world, 2), device=cpu, num_trained=[0, 1, 0], host=build_host(cpu) if offloads else None)
    pieces = [[(0, 700), (768, 5)], [(0, 20), (256, 300)], [(0, 40)]]
    blocks = [[(offset, torch.arange(size, dtype=torch.uint8) + number) for offset, size in one] for number, one in enumerate(pieces)]
    for number, block in enumerate(blocks):
        mover.keep(number, block, num_bytes=1024)
    slots, is_leader = mover.allocate(2, 1024), world.is_together
    world.is_together = True
    are_whole = []
    for number, block in enumerate(blocks):
        mover.start(number, number % 2)
        mover.wait(number % 2)
        are_whole += [slots[number % 2][offset : offset + len(data)].equal(data) for offset, data in block]
    world.is_together = is_leader
    mover.close()
    return all(are_whole)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What each of two processes was told."""
    folder, port = tmp_path_factory.mktemp("world"), find_port()
    processes = [CONTEXT.Process(target=_work, args=(rank, port, folder), daemon=True) for rank in range(2)]
    for one in processes:
        one.start()
    assert watch(processes) == [75, 0], "the one that is left knows that the other is gone"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_they_know_how_many_there_are_and_how_many_a_machine_has(said: list[dict[str, object]]) -> None:
    assert said[0]["counts"] == said[1]["counts"] == [2, 1]


def test_different_settings_are_named(said: list[dict[str, object]]) -> None:
    assert said[0]["same"] is said[1]["same"] is None
    assert (said[0]["heard"], said[1]["heard"]) == (True, False)
    limits = [one["limits"] for one in said]
    assert sys.platform != "linux" or all(isinstance(one, list) and 1000 * SECONDS in one for one in limits), limits
    assert "ConfigError" in str(said[0]["settings"]) and said[1]["settings"] == "Undone"
    assert "optim.lr = 0.001 in process 0, 0.002 in process 1" in str(said[0]["settings"]) and "seed" not in str(said[0]["settings"])


def test_different_starts_are_refused(said: list[dict[str, object]]) -> None:
    assert "those of process 1 are not those of process 0" in str(said[0]["numbers"]) and said[1]["numbers"] == "Undone"


def test_a_problem_is_told_once_and_in_its_own_words(said: list[dict[str, object]]) -> None:
    told = str(said[0]["problem of the other"])
    assert told.startswith("CacheError: Nothing can be read. (in process 1, on ") and "got: a hole" in told and "fix: mend it" in told
    assert str(said[0]["own problem"]).startswith("CacheError: Nothing can be read.\n")
    assert said[1]["problem of the other"] == said[1]["own problem"] == "Undone"
    assert said[0]["within"] == told and said[1]["within"] == "Undone", "and no second time by what they are in"


def test_numbers_arrive(said: list[dict[str, object]]) -> None:
    assert said[0]["exchanged"] == [0, 10] and said[1]["exchanged"] == [1, 2, 11, 12]
    assert said[0]["gathered"] == said[1]["gathered"] == [0, 1, 2, 10, 11, 12]


def test_blocks_are_put_together_from_parts_wherever_they_lie(said: list[dict[str, object]]) -> None:
    assert said[0]["put together"] == said[1]["put together"] == [True, True]


def test_the_others_do_what_the_first_says(said: list[dict[str, object]]) -> None:
    assert said[1]["order"] == {"do": "sing", "song": 3} and said[1]["end"] == "Dismissed"
