"""What has become of runs and jobs, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weber.checkpoint.save import list_checkpoints
from weber.results.condition import Condition, read_condition
from weber.serve.desk import Desk
from weber.serve.paths import shorten
from weber.serve.queue import Job
from weber.serve.words import describe_ago, describe_time
from weber.serve.workers import read_error, read_fetched, read_progress

LABELS = {
    "running": "at work",
    "silent": "silent",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "killed": "killed",
    "unknown": "not known",
    "idle": "not begun",
    "waiting": "waiting",
    "cancelled": "cancelled",
}


@dataclass(frozen=True)
class Row:
    """A run as a list shows it. `at`: its address; `share`: how much is done, 0 to 100, where that is known."""

    name: str
    at: str
    folder: Path
    status: str
    label: str
    sentence: str
    error: str
    share: float | None
    picture: Path | None
    condition: Condition
    checkpoint: int | None
    job: Job | None

    @property
    def is_running(self) -> bool:
        """Whether a process is at it."""
        return self.condition.is_running

    @property
    def can_resume(self) -> bool:
        """Whether it can go on."""
        return not self.is_running and self.status not in ("finished", "waiting") and (self.job is None or not self.job.is_open)


def tell_run(desk: Desk, folder: Path) -> Row:
    """A run, as it is now."""
    found = read_condition(folder)
    job = next((one for one in desk.queue.list_of_run(folder, most=5) if one.kind == "train"), None)
    checkpoints = list_checkpoints(folder)
    last = checkpoints[-1][0] if checkpoints else None
    status = "waiting" if job is not None and job.state == "waiting" and not found.is_running else found.status
    error = found.error
    if job is not None and job.state == "failed" and (job.ended or 0.0) > found.time + 1.0 and not found.is_running:
        status, error = "failed", read_error(desk.workers.read_log(job))  # before it came to say so itself
    share = 100 * found.step / found.steps if found.steps else None
    return Row(
        folder.name,
        shorten(desk.site, folder),
        folder,
        status,
        "stopping" if job is not None and job.asked is not None and found.is_running else LABELS.get(status, status),
        _describe(found, status=status, last=last),
        error,
        share,
        find_last_picture(folder),
        found,
        last,
        job,
    )


def _describe(found: Condition, *, status: str, last: int | None) -> str:
    goes_on = f"it goes on from step {last}" if last else "it begins anew"
    steps = f"step {found.step:,} of {found.steps:,}" if found.steps else ""
    if found.is_running:
        return _describe_work(found, steps=steps) + (f"; nothing was heard since {describe_ago(found.time)}" if status == "silent" else "")
    if status == "finished":
        took = found.time - found.started
        return f"{found.steps:,} steps, {describe_ago(found.time)}, in {describe_time(took)}" if found.steps else "the result is there"
    if status == "killed":
        return f"its process is gone and has not said why ({steps or 'before the first step'}); {goes_on}"
    if status == "waiting":
        return "it is in the queue"
    when = describe_ago(found.time) if found.time else ""
    return ", ".join(part for part in (steps, when, goes_on if status in ("stopped", "failed") else "") if part)


def _describe_work(found: Condition, *, steps: str) -> str:
    if not found.what:
        return "it begins"
    if found.what != "training":
        stage = f"{found.what} {found.done:,} of {found.total:,}"
        return f"{stage}, after {steps}" if steps else stage
    left = f", {describe_time(found.eta_seconds)} left" if found.eta_seconds else ""
    return steps + left


def tell_job(desk: Desk, job: Job) -> str:
    """What a job is at, or how it has ended, as a sentence."""
    log = desk.workers.read_log(job)
    if job.state == "running":
        if fetched := read_fetched(log):
            return fetched
        if job.run and job.kind == "train" and (found := read_condition(Path(job.run))).is_running and found.what:
            return _describe(found, status=found.status, last=None)
        progress = read_progress(log)
        return f"{progress[0]} {progress[1]:,} of {progress[2]:,}" if progress else "it begins"
    if job.state == "waiting":
        return desk.workers.why_waiting() if job.is_heavy else ""
    if job.state == "killed":
        signal = f" (signal {-job.code})" if job.code is not None and job.code < 0 else ""
        return f"its process was killed{signal}; where it took all memory, the system does that"
    if job.state == "failed":
        return read_error(log).partition("\n")[0]
    took = job.ended - job.started if job.ended is not None and job.started is not None else None
    return "" if took is None else f"in {describe_time(took)}"


def find_last_picture(folder: Path) -> Path | None:
    """A picture of the latest step that was painted."""
    steps = sorted((folder / "pictures").glob("step-" + 6 * "[0-9]"), reverse=True)
    for step in steps[:2]:
        first = min(step.glob("*.png"), default=None)
        if first is not None:
            return first
    return None
