"""The run: step, watch, save, paint, until it is done or asked to stop."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import torch

from weber.checkpoint.save import CONFIG_NAME, build_name
from weber.config.elsewhere import hide_logins
from weber.errors import CacheError, CheckpointError, TrainingError, WeberError
from weber.optim.libraries import evaluated
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.planning.plan import Plan
from weber.planning.report import build_summary
from weber.results.finished import clear_staged, publish
from weber.track.metrics import Trackers, open_trackers
from weber.track.progress import Watcher
from weber.training.batch import Batch
from weber.training.follow import Follower, Started, explain, warn_of_collapse
from weber.training.judge import Judge
from weber.training.prepared import Training
from weber.training.state import build_learned
from weber.training.step import start_step
from weber.training.stop import Stop, Stopped
from weber.training.together import start_step_together


def run(training: Training, watcher: Watcher, *, stop: Stop) -> Path:
    """Train to the end; returns the finished adapter or model. A stop leaves a checkpoint and says how to go on.

    Raises TrainingError at a loss that is not finite, or CacheError at a damaged sample, after saving what is good; KeyboardInterrupt
    after a stop that was asked for.
    """
    plan, learner, saver, num_steps = training.plan, training.learner, training.saver, training.plan.num_steps
    learning_rate = build_schedule(plan.resolved.optim, num_steps=num_steps)
    first = training.start.step
    _greet(training, watcher)
    training.messages.start(first, num_steps, count=plan.count_steps)
    with _open_trackers(training, watcher) as trackers, training.loader:
        judge = Judge(training, trackers, watcher=watcher, stop=stop)
        if plan.is_painted(first):
            _paint(training, first, watcher, trackers=trackers, judge=judge, stop=stop)
        if judge.is_due(first) and not stop.asked:
            judge.judge(first)
        follower = Follower(training, trackers, signals=judge.signals, watcher=watcher, learning_rate=learning_rate)
        for step in range(first, num_steps):
            if stop.asked:
                follower.read()
                _leave(training, step, watcher)
            write_learning_rate(learner.optimizer, learning_rate(step))
            judge.watch(step)
            follower.add(_start_step(training, step, watcher, stop=stop))
            with _kept(training, step + 1):
                judge.note(step + 1, lr=learning_rate(step))
            for news in () if learner.compiling is None else learner.compiling.list_news():
                watcher.write(news)
            done = step + 1
            is_saved, is_painted, is_judged = saver.is_due(done) or stop.asked, plan.is_painted(done), judge.is_due(done)
            if is_saved or is_painted or is_judged or done == num_steps:
                follower.read()
            if is_saved:
                _save(training, done)
            if is_painted and not stop.asked:
                _paint(training, done, watcher, trackers=trackers, judge=judge, stop=stop)
            if is_judged and not stop.asked:
                with _kept(training, done):
                    judge.judge(done)
            if is_saved or is_painted or is_judged:
                follower.start_clock()
    saver.prove()
    return _finish(training, watcher)


def build_command(plan: Plan) -> str:
    """What goes on with a run."""
    return f"weber train {shlex.quote(str(plan.resolved.output.folder / CONFIG_NAME))} --resume"


def _open_trackers(training: Training, watcher: Watcher) -> AbstractContextManager[Trackers]:
    """Those of the run, which are told its settings, but for what is secret, and its plan."""
    plan = training.plan
    return open_trackers(
        plan.resolved.output,
        settings=json.loads(hide_logins(plan.resolved.model_dump_json(exclude={"output": {"webhooks"}}))),
        summary=build_summary(plan) if plan.resolved.output.trackers else "",
        done_steps=training.start.step,
        say=watcher.write,
    )


def _greet(training: Training, watcher: Watcher) -> None:
    """What a person should know of the pictures before the first step."""
    away = training.painter.put_away_others()
    if away is not None:
        watcher.write(f"The pictures until now are of other prompts or settings; they are now in {away}.")
    if training.painter.lacks_base and training.start.step > 0:
        watcher.write("Sheets will lack the base model's pictures of these prompts, because it has been trained itself since.")


def _start_step(training: Training, step: int, watcher: Watcher, *, stop: Stop) -> Started:
    """One step; what is good of the state before it is kept where its samples cannot be read, or its numbers are not finite."""
    batches: list[Batch] = []
    crew = training.learner.crew
    try:
        if crew is not None:
            with crew.world.leading("step", step=step):
                return start_step_together(training.learner, training.loader, step=step, stop=stop)
        batches += training.loader.load(step)
        ahead = partial(training.loader.read_ahead, step + 1)
        return Started(batches, start_step(training.learner, batches, step=step, meanwhile=ahead))
    except CacheError:
        training.saver.save(step)
        watcher.write(f"Saved the state after step {step} in {training.folder}.")
        raise
    except TrainingError as error:
        raise explain(error, training, step=step, batches=batches, watcher=watcher) from error


def _save(training: Training, step: int) -> None:
    """Save the state; a checkpoint on the way is shown to others, if that is wanted."""
    training.saver.save(step)
    if training.publisher is not None and step < training.plan.num_steps:
        training.publisher.add(training.folder / build_name(step))


def _paint(training: Training, step: int, watcher: Watcher, *, trackers: Trackers, judge: Judge, stop: Stop) -> None:
    """Paint the run's prompts. Pictures are not worth a run: it goes on without what cannot be written, and is saved before it ends."""
    try:
        with evaluated(training.learner.optimizer):
            training.painter.paint(step, stop.guard(watcher.report))
        painted = training.painter.list_painted(step)
        judge.look(step, list(painted))
        if painted:
            training.messages.tell_pictures(step, prompts=list(painted.values()), files=list(painted))
            trackers.write_pictures(step, painted)
    except Stopped:
        watcher.write(f"Stopped while painting: the pictures of step {step} are left out, and painted if the run goes on from there.")
    except OSError as error:
        reason = error.strerror or str(error)
        watcher.write(f"The pictures of step {step} could not be written ({reason}); the run goes on without them.")
    except (torch.OutOfMemoryError, WeberError):
        if step > training.start.step:
            training.saver.save(step)
        raise


@contextmanager
def _kept(training: Training, step: int) -> Iterator[None]:
    """What is good of the state after `step` finished steps is kept where it cannot be measured."""
    try:
        yield
    except (torch.OutOfMemoryError, WeberError, OSError):
        if step > training.start.step:
            training.saver.save(step)
        raise


def _leave(training: Training, step: int, watcher: Watcher) -> None:
    """Save the state of `step` finished steps and leave, since somebody wants that."""
    if step > training.start.step:
        training.saver.save(step)
    saved = "everything is saved" if step > 0 else "there is nothing to be saved yet"
    watcher.write(f"Stopped after step {step} of {training.plan.num_steps}; {saved}. To go on:")
    watcher.write(f"  {build_command(training.plan)}")
    raise Stopped


def _finish(training: Training, watcher: Watcher) -> Path:
    """Write the finished results, and say where everything is."""
    plan, learner = training.plan, training.learner
    staged = clear_staged(training.folder)
    try:
        with evaluated(learner.optimizer):
            written = plan.kind.finish(staged, build_learned(learner, plan=plan, step=plan.num_steps), progress=watcher.report)
        finished, *others = publish(training.folder, training.saver.configs, written=written)
    except OSError as error:
        raise CheckpointError(
            f"The results could not be written; the checkpoint of step {plan.num_steps} is whole.",
            got=f"{error.strerror or error} in {training.folder}",
            fix=f"free space on that disk, then write them with: {build_command(plan)}",
        ) from error
    for path in others:
        watcher.write(f"Wrote {path}")
    warn_of_collapse(training, watcher)
    sheet = training.painter.find_last_sheet()
    if sheet is not None:
        watcher.write(f"The pictures are in {sheet.parent}; the last sheet is {sheet}")
    return finished
