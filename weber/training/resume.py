"""Which checkpoint a run goes on from, and what is said of it before anything is loaded."""

from __future__ import annotations

import difflib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

from weber.checkpoint.resume import Found, check_checkpoint, load_latest
from weber.checkpoint.retention import RUINED
from weber.checkpoint.save import CONFIG_NAME, MANIFEST, build_name, list_checkpoints
from weber.config.load import build_config, load_config
from weber.config.run import RunConfig
from weber.errors import CheckpointError, ConfigError
from weber.optim.schedules import build_schedule
from weber.planning.plan import Plan
from weber.results.runs import is_run
from weber.sampling.validate import find_free
from weber.track.jsonl import METRICS_NAME, READINGS_NAME, read_metrics, read_readings
from weber.track.progress import Watcher
from weber.training.pictures import put_later_away
from weber.training.state import STATE_NAME, check_state

Resume = bool | int | str | Path
"""Whether to go on from the newest good checkpoint; or a step, or the folder of a checkpoint, to go on from that."""

_STEP = re.compile(r"checkpoint-(\d{6,})(?:-.+)?")
_WORDS = {"latest": True, "last": True, "true": True, "yes": True, "auto": True, "false": False, "no": False}
"""What other trainers and shells say."""
_NEAR = 0.8
_NOTICEABLE = 0.01


def find_start(folder: Path, resume: Resume, *, watcher: Watcher) -> Found:
    """The checkpoint to go on from, whose files are as they were written. Raises CheckpointError where none can be meant."""
    resume = _WORDS.get(resume.strip().lower(), resume) if isinstance(resume, str) else resume
    if resume is False:
        if is_run(folder):
            raise CheckpointError(
                "The run folder already holds a run.",
                got=f"output.folder = {folder}",
                expected="an empty or new folder, or --resume",
                fix="add --resume to go on with that run, or set output.folder to another folder",
            )
        return Found(0, None, {})
    return _find_latest(folder, watcher) if resume is True else _find_chosen(folder, str(resume))


def check_start(plan: Plan, start: Found, *, watcher: Watcher) -> bool:
    """Refuse what a checkpoint cannot be gone on with, and say what is otherwise than it was; whether the run is still the same."""
    if start.folder is None:
        return True
    length = _name_length(plan)
    if start.step > plan.num_steps:
        raise CheckpointError(
            "The run has gone further than it is now asked to.",
            got=f"{start.folder.name}, and {plan.num_steps} steps in all",
            fix=f"set {length} to {_count_length(plan, start.step)} or more",
        )
    changed = check_state(start.folder, plan)
    watcher.write(f"Resuming {start.folder.name}: {plan.num_steps - start.step} of {plan.num_steps} steps are left.")
    if changed and start.step == plan.num_steps:
        raise CheckpointError(
            "Nothing is left to train, so changed settings would have no effect.",
            got="; ".join(changed),
            fix=f"raise {length} above {_count_length(plan, plan.num_steps)}, or take the changes back",
        )
    if changed:
        watcher.write("Changed since that checkpoint, so not bit for bit the same run: " + "; ".join(changed))
    jump = _describe_rates(plan, start)
    if jump is not None:
        watcher.write(jump)
    return not changed and not start.is_chosen


def read_previous(folder: Path) -> RunConfig | None:
    """The settings of the run in a folder, as they were until now; None where there are none that can be read."""
    file = folder / CONFIG_NAME
    with suppress(ConfigError):
        return load_config(file) if file.is_file() else None
    return None


def leave_branch(folder: Path, start: Found, *, watcher: Watcher) -> None:
    """Put away the pictures and numbers of later steps, where these will be other steps now."""
    pictures = put_later_away(folder, step=start.step)
    if pictures is not None:
        watcher.write(f"Pictures of later steps than {start.step} are now in {pictures}.")
    for name, lines in ((METRICS_NAME, read_metrics(folder)), (READINGS_NAME, read_readings(folder))):
        file, last = folder / name, max((int(line["step"]) for line in lines), default=0)
        if last > start.step:
            kept = find_free(file.with_stem(f"{file.stem}-{last:06d}"))
            shutil.copyfile(file, kept)
            watcher.write(f"The numbers of later steps than {start.step} are kept in {kept}.")


def _find_latest(folder: Path, watcher: Watcher) -> Found:
    found = load_latest(folder)
    for damaged, reason in found.damaged.items():
        watcher.write(f"Skipped the damaged checkpoint {damaged.name}: {reason}.")
    if found.folder is not None:
        return found
    if found.damaged:
        raise CheckpointError(
            "No checkpoint of the run can be gone on from, and its files are not to be lost by starting again.",
            got="; ".join(f"{damaged.name}: {reason}" for damaged, reason in found.damaged.items()),
            fix="set output.folder to another folder to start again; copy the checkpoints back, if there is a copy",
        )
    near = None if folder.exists() else _find_near(folder)
    if near is not None:
        raise CheckpointError(
            "There is no such run folder to go on with.",
            got=f"output.folder = {folder}",
            expected=f"perhaps {near}, which holds {list_checkpoints(near)[-1][1].name}",
            fix=f"correct output.folder, or remove --resume to start a new run in {folder.name}",
        )
    what = "is no checkpoint" if folder.exists() else "was no run"
    watcher.write(f"There {what} in {folder} yet: starting at step 0.")
    return found


def _find_near(folder: Path) -> Path | None:
    """A run beside a folder that does not exist, if somebody may have mistyped its name; other numbers are other runs of a series."""
    if not folder.parent.is_dir():
        return None
    word = re.sub(r"\d+", "#", folder.name)
    runs = [one for one in folder.parent.iterdir() if one.is_dir() and re.sub(r"\d+", "#", one.name) != word and list_checkpoints(one)]
    near = difflib.get_close_matches(folder.name, [one.name for one in runs], n=1, cutoff=_NEAR)
    return folder.with_name(near[0]) if near else None


def _find_chosen(folder: Path, text: str) -> Found:
    """`40`, `checkpoint-000040`, or the path of a checkpoint or of a run. A checkpoint of another run is gone on from in a new folder."""
    chosen = folder / build_name(int(text)) if text.isdecimal() else Path(text).expanduser()
    if not text.isdecimal() and not chosen.exists() and (folder / text).is_dir():
        chosen = folder / text
    chosen = chosen.absolute()
    if is_run(chosen):
        chosen = load_latest(chosen).folder or chosen
    match = _STEP.fullmatch(chosen.name)
    home = chosen.parent if is_run(chosen.parent) else folder
    names = [one.name for _, one in list_checkpoints(home)] + [one.name for one in sorted(home.glob(f"checkpoint-*{RUINED}"))]
    listed = f"{', '.join(names)} of {home}" if names else f"none is in {home}"
    if match is None or not (chosen / MANIFEST).is_file():
        fix = "choose one of these, or write --resume alone for the newest"
        if chosen.is_file():
            fix = f"to start a new run from an adapter file set adapter.start_from = '{chosen}'; to go on with a run {fix}"
        raise CheckpointError(
            "There is no such checkpoint.", got=f"--resume {text}", expected=f"the step or the folder of a checkpoint: {listed}", fix=fix
        )
    reason = check_checkpoint(chosen)
    if reason is not None:
        raise CheckpointError(
            "The checkpoint is damaged.", got=f"{chosen}: {reason}", expected="files as they were written", fix=f"choose another: {listed}"
        )
    if chosen.parent != folder and is_run(folder):
        raise CheckpointError(
            "The checkpoint is one of another run, and the run folder holds a run of its own.",
            got=f"--resume {chosen}, output.folder = {folder}",
            fix="set output.folder to a new folder, or choose a checkpoint in it",
        )
    return Found(int(match[1]), chosen, {}, is_chosen=True)


def _name_length(plan: Plan) -> str:
    return "train.steps" if plan.config.train.epochs is None else "train.epochs"


def _count_length(plan: Plan, num_steps: int) -> int:
    """So many steps, as the run counts: in steps or in whole epochs."""
    return num_steps if plan.config.train.epochs is None else -(-num_steps // plan.batches.steps_per_epoch)


def _describe_rates(plan: Plan, start: Found) -> str | None:
    """How the learning rate jumps, because the run is now longer or its schedule another one."""
    assert start.folder is not None
    state = json.loads((start.folder / STATE_NAME).read_text(encoding="utf-8"))
    before: RunConfig = build_config(state["config"])
    num_before = state.get("num_steps", before.train.steps)
    if num_before is None or not 0 < start.step < plan.num_steps:
        return None
    old, new = (build_schedule(one.optim, num_steps=num) for one, num in ((before, num_before), (plan.resolved, plan.num_steps)))
    expected, now = old(start.step), new(start.step)
    if abs(now - expected) <= _NOTICEABLE * max(now, expected):
        return None
    schedules = [_describe_schedule(one, num) for one, num in ((before, num_before), (plan.resolved, plan.num_steps))]
    return f"The learning rate jumps from {old(start.step - 1):.3g} ({schedules[0]}) to {now:.3g} ({schedules[1]})."


def _describe_schedule(config: RunConfig, num_steps: int) -> str:
    return f"{config.optim.schedule} over {num_steps} steps" if config.optim.schedule != "constant" else "constant"


