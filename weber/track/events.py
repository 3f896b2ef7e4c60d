"""What happens in a run, as those who are told of it hear it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Level = Literal["error", "warning", "info", "debug"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info", "debug")
"""From what everybody is told to what few want to hear."""


@dataclass(frozen=True)
class Event:
    """Something that has happened. `type`, `title` and `fields`: as programs are told of it; `text`: as people are, with `pictures`.

    `is_for_people`: people are told too. `is_passing`: a later one says more, so that it may be left out where too many wait.
    """

    type: str
    level: Level
    text: str
    title: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    pictures: Sequence[Path] = ()
    is_for_people: bool = True
    is_passing: bool = False
    time: float = field(default_factory=time.time)


def build_status(status: str, text: str, *, level: Level = "info") -> Event:
    """The run starts, has ended, was stopped or has failed."""
    return Event("training.status", level, text, title=f"Training {status}", fields={"data": {"status": status}})


def build_error(text: str) -> Event:
    """What ended the run."""
    return Event("error", "error", text, title="The run has failed", fields={"data": {"status": "error"}})


def build_notice(text: str, *, level: Level) -> Event:
    """A line that the run says."""
    return Event("notification", level, text, title=text.partition("\n")[0])


def build_stage(what: str, *, done: int, total: int) -> Event:
    """How far long work is that is no training, such as encoding."""
    is_done = done >= total
    progress = {"label": what, "current": done, "total": total, "percent": _percent(done, total)}
    stage = {"key": what.replace(" ", "_"), "label": what, "status": "completed" if is_done else "running", "progress": progress}
    text = f"{what}: {done}/{total}"
    return Event("lifecycle.stage", "info", text, title=what, fields={"stage": stage}, is_for_people=False, is_passing=not is_done)


def build_step(done: int, total: int, *, numbers: Mapping[str, object], seconds: float | None) -> Event:
    """How far training is, and what the last step measured. `seconds`: what a step takes."""
    eta = None if seconds is None else round((total - done) * seconds, 1)
    progress = {"label": "training", "current": done, "total": total, "percent": _percent(done, total), "eta_seconds": eta}
    loss = numbers.get("loss")
    text = f"step {done}/{total}" + (f", loss {loss:.4f}" if isinstance(loss, float) else "") + _describe_rest(eta)
    fields = {"progress": progress | {"metrics": dict(numbers)}}
    return Event("training.progress", "info", text, title="training", fields=fields, is_passing=done < total)


def build_checkpoint(path: Path, *, is_final: bool = False) -> Event:
    """The state of the run was saved, or its result."""
    label = f"The result is {path.name}" if is_final else f"Saved {path.name}"
    checkpoint = {"path": str(path), "label": label, "is_final": is_final}
    return Event("training.checkpoint", "info", label, title=label, fields={"checkpoint": checkpoint})


def build_pictures(step: int, *, prompts: Sequence[str], files: Sequence[Path]) -> Event:
    """Pictures of the run's prompts."""
    lines = [f"Pictures after step {step}:", *(f"{number}. {prompt}" for number, prompt in enumerate(prompts, 1))]
    data = {"step": step, "prompts": list(prompts)}
    return Event("validation.image", "info", "\n".join(lines), title=lines[0].rstrip(":"), fields={"data": data}, pictures=tuple(files))


def build_preview(file: Path, prompt: str, *, step: int, done: int, total: int) -> Event:
    """What a picture will be, after so many steps of the sampler."""
    text = f"Preview of step {step}, {done}/{total}: {prompt}"
    data = {"step": step, "prompt": prompt, "progress": {"current": done, "total": total, "percent": _percent(done, total)}}
    fields = {"data": data}
    return Event("validation.preview", "debug", text, title=text, fields=fields, pictures=(file,), is_for_people=False, is_passing=True)


def build_scores(step: int, text: str, *, numbers: Mapping[str, object]) -> Event:
    """What pictures that are held out say of the run."""
    return Event("evaluation", "info", text, title=f"Evaluation after step {step}", fields={"data": {"step": step, **numbers}})


def build_finding(step: int, text: str, *, name: str) -> Event:
    """Something goes wrong with the run."""
    title = f"The run doctor, after step {step}"
    return Event("finding", "warning", f"{title}: {text}", title=title, fields={"data": {"step": step, "finding": name, "text": text}})


def _percent(done: int, total: int) -> float:
    return round(100 * done / total, 2) if total > 0 else 100.0


def _describe_rest(eta: float | None) -> str:
    if not eta:
        return ""
    minutes = round(eta / 60)
    return f", {minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f", {max(1, minutes)} min left"
