"""What all processes of a run do but the one that leads: what it says, until it says that nothing is left."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from weber.cache.live import LiveTexts
from weber.cache.share import Share
from weber.cache.store import Store
from weber.checkpoint.resume import Found, check_checkpoint
from weber.checkpoint.save import NAME
from weber.config.run import RunConfig
from weber.errors import CheckpointError, ConfigError, TrainingError, WeberError
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.parallel.world import Dismissed, PeerError, Undone, World
from weber.planning.attention import choose_attention
from weber.planning.plan import Plan, build_plan
from weber.track.progress import Watcher
from weber.training.assemble import build_learner, build_memory_error, encode_cache
from weber.training.batch import Loader
from weber.training.divided import Divided
from weber.training.gathered import Own, describe_own, list_own
from weber.training.learner import Learner
from weber.training.stop import Stop, stop_signals
from weber.training.together import start_step_together


def serve(config: RunConfig, world: World, *, stop: Stop | None = None) -> None:
    """Take part in a run until process 0 ends it. What is wrong here it says there. A wish to stop is passed on to it."""
    stop, server = stop or Stop(), Server(config, world)
    try:
        with stop_signals(stop, write=_ignore), server.held, suppress(Dismissed):
            while True:
                server.follow(world.listen(), stop=stop)
    except torch.OutOfMemoryError as error:
        raise build_memory_error(error) from error


class Server:
    """What a process has of a run that another one leads."""

    def __init__(self, config: RunConfig, world: World) -> None:
        self._config, self._world = config, world
        self._watcher = Watcher(Console(file=io.StringIO()))
        self._plan: Plan | None = None
        self._start = Found(0, None, {})
        self.held = ExitStack()
        """What is to be let go of in the end."""
        self._learner: Learner | None = None
        self._loader: Loader | None = None
        self._store: Store | None = None
        self._own: Own = {}

    def follow(self, order: dict[str, Any], *, stop: Stop) -> None:
        """Do one thing with all others."""
        try:
            if order["do"] == "plan":
                self._build_plan(order["start"])
            elif order["do"] == "encode":
                self._encode(order["divided"])
            elif order["do"] == "assemble":
                self._assemble(is_sharded=order["is_sharded"], group=order["group"])
            elif order["do"] == "refresh":
                self._refresh()
            elif order["do"] == "step":
                self._step(order["step"], stop)
            else:
                self._give(order)
        except Undone:
            pass  # process 0 knows, and says it

    def _build_plan(self, start: str | None) -> None:
        error: WeberError | None = None
        try:
            num, near = self._world.counts
            self._plan = build_plan(self._config, is_run=True, is_resumed=start is not None, num_processes=num, num_near=near)
            self._start = Found(0, None, {}) if start is None else _find_start(Path(start), self._world.rank)
            choose_attention(self._plan.config, self._plan.workload)
        except PeerError:
            raise
        except WeberError as found:
            error = found
        self._world.agree(error)

    def _encode(self, parts: Sequence[str]) -> None:
        assert self._plan is not None
        share, divided = Share(self._world.rank, self._world.size), Divided(self._world, frozenset(parts))
        with self._world.together():
            encode_cache(self._plan, Store(self._plan.resolved.output.cache), watcher=self._watcher, share=share, divided=divided)

    def _assemble(self, *, is_sharded: bool, group: int) -> None:
        assert self._plan is not None
        plan = self._plan = replace(self._plan, workload=replace(self._plan.workload, is_sharded=is_sharded, group=group))
        store = self._store = Store(plan.resolved.output.cache)
        live = LiveTexts(plan.encoders) if plan.resolved.output.text_cache == "live" else None
        self._learner, self._loader = build_learner(
            plan, store, start=self._start, live=live, watcher=self._watcher, progress=self._watcher.report, world=self._world
        )
        self.held.enter_context(self._loader)

    def _refresh(self) -> None:
        assert self._store is not None
        self._store.refresh()

    def _give(self, order: dict[str, Any]) -> None:
        """What process 0 needs for something that it does alone: a block, or what this process moves."""
        learner = self._learner
        assert learner is not None and learner.crew is not None
        if order["do"] == "gather":
            assert learner.crew.mover is not None
            learner.crew.mover.answer(order["block"])
        elif order["do"] == "list":
            self._own = list_own(learner)
            self._world.tell_all(describe_own(self._own))
        elif order["rank"] == self._world.rank:
            tensor = self._own[order["kind"]][order["name"]]
            self._world.send(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8))

    def _step(self, step: int, stop: Stop) -> None:
        plan, learner, loader = self._plan, self._learner, self._loader
        assert plan is not None and learner is not None and loader is not None
        self._own = {}
        write_learning_rate(learner.optimizer, build_schedule(plan.resolved.optim, num_steps=plan.num_steps)(step))
        with suppress(TrainingError):  # which process 0 has seen too
            start_step_together(learner, loader, step=step, stop=stop)


def _find_start(folder: Path, rank: int) -> Found:
    """The checkpoint that process 0 goes on from, as this machine sees it."""
    match = NAME.match(folder.name)
    if not folder.is_dir():
        raise ConfigError(
            "Not all machines see the run folder.",
            got=f"process {rank} has no {folder}",
            fix="put output.folder and output.cache on a disk that all machines see",
        )
    reason = check_checkpoint(folder)
    if reason is not None or match is None:
        raise CheckpointError("The checkpoint is damaged.", got=f"{folder}: {reason}", fix="see that all machines see the same disk")
    return Found(int(match[1]), folder, {})


def _ignore(line: str) -> None:
    """What a signal would say is said by process 0."""
