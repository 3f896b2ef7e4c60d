"""What a run folder tells of its run, as plain values for the page."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from weber.checkpoint.save import CONFIG_NAME, list_checkpoints
from weber.config.elsewhere import hide_logins
from weber.config.load import list_changes, load_config
from weber.config.run import RunConfig
from weber.config.toml import write_value
from weber.errors import CheckpointError
from weber.results.runs import find_home
from weber.sampling.scores import CLIP, CLIP_LEAST, CLIP_MOST, NEAREST, PAINTED
from weber.sampling.scores import LEARNED as LEARNED_LIKENESS
from weber.sampling.stamp import OURS
from weber.track.jsonl import read_metrics, read_readings
from weber.track.scores import FINDING, HELD_OUT, LEARNED, start_of_levels
from weber.track.signals import GRADIENT, LOSS_AT, UPDATE

MOST_POINTS = 2000
"""Of longer curves the points are means."""
MOST_EDGE = 512
"""Pictures in the page are no larger; the files stay as they are."""
MOST_STEPS = 12
"""Steps of which pictures are in the page: the first, the last, and others evenly between them."""

_WAYS = re.compile(r"-(?=\d+x\d|seed\d|strength-?\d)")
_NUMBER = re.compile(r"(data-)?\d+")
_STEP = re.compile(r"step-(\d{6,})")
_NUMBERS = ("loss", "loss_regularization", "grad_norm", "lr", "seconds", "peak_memory_bytes")


def read_run(place: Path) -> dict[str, Any]:
    """Settings, curves, pictures, files and commands of a run, given its folder or anything in it. Raises CheckpointError."""
    home = find_home(place.expanduser().absolute())
    if home is None:
        raise CheckpointError(
            "This is not a run folder." if place.exists() else "There is no such run.",
            got=str(place),
            expected=f"a folder with {CONFIG_NAME}",
            fix="give output.folder of a run",
        )
    folder, config = home.folder, load_config(home.folder / CONFIG_NAME)
    lines = read_metrics(folder)
    steps = [int(line["step"]) for line in lines]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return {
        "name": folder.name,
        "folder": str(folder),
        "title": f"{config.model.variant or config.model.path or 'a model'}, {config.adapter.form}",
        "wanted": config.train.steps,
        "done": max(steps, default=0),
        "seconds": sum(seconds),
        "perStep": median(seconds) if seconds else None,
        "memory": max((line["peak_memory_bytes"] for line in lines if line.get("peak_memory_bytes")), default=None),
        "curves": {name: _list_points(lines, name) for name in _NUMBERS if any(name in line for line in lines)},
        "readings": _list_readings(read_readings(folder)),
        "findings": _list_findings(read_readings(folder)),
        "settings": _list_settings(config),
        **_list_painted(folder / "pictures"),
        "checkpoints": [[path.name, step] for step, path in list_checkpoints(folder)],
        "results": _list_results(folder),
        "commands": _list_commands(folder, config),
        "imported": _read_text(folder / "import.md"),
    }


def _list_settings(config: RunConfig) -> list[list[str]]:
    """Key, value and default of what differs, as TOML."""
    changes = [one for one in list_changes(config) if one[1] is not None]
    return [[key, hide_logins(write_value(value)), "" if default is None else write_value(default)] for key, value, default in changes]


def _list_readings(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured now and then, as charts: a title, and lines of points by their names."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    charts = {
        "loss on pictures that are held out, and on some that are learned": {HELD_OUT: "held out", LEARNED: "learned"},
        "loss on pictures that are held out, by noise level": _name_rest(names, start_of_levels(HELD_OUT)),
        "loss in training, by noise level up to": _name_rest(names, LOSS_AT),
        "gradients, by group of blocks": _name_rest(names, GRADIENT),
        "how far a step moves the weights, as a share of their size": _name_rest(names, UPDATE),
        "how well painted pictures fit their prompts (100 x cosine)": {CLIP: "mean", CLIP_LEAST: "least", CLIP_MOST: "most"},
        "likeness of painted pictures (cosine)": {LEARNED_LIKENESS: "to learned ones", NEAREST: "the nearest", PAINTED: "to each other"},
    }
    found = []
    for title, rows in charts.items():
        series = [[label, _list_points(lines, name)] for name, label in rows.items() if name in names]
        found += [{"title": title, "series": series}] if series else []
    return found


def _name_rest(names: Sequence[str], start: str) -> dict[str, str]:
    """Those that begin so, and what they are called behind it."""
    return {name: name.removeprefix(start) for name in names if name.startswith(start)}


def _list_findings(lines: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The first and the last step after which each fault was found, and what was said last."""
    found: dict[str, list[Any]] = {}
    for line in lines:
        if FINDING in line:
            known = found.setdefault(line[FINDING], [line["step"], line["step"], ""])
            known[1:] = line["step"], line["text"]
    return list(found.values())


def _list_points(lines: Sequence[Mapping[str, Any]], name: str) -> list[list[float]]:
    """Step and value; of many the means of portions."""
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    size = -(-len(points) // MOST_POINTS) or 1
    portions = [points[start : start + size] for start in range(0, len(points), size)]
    return [[one[-1][0], sum(value for _, value in one) / len(one)] for one in portions]


def _list_painted(folder: Path) -> dict[str, Any]:
    """Pictures, and the prompt and the seed of each of a step, in their order."""
    pictures = list(_read_pictures(folder))
    files = [folder / f"step-{one['step']:06d}" / f"{name}.png" for one in pictures[-1:] for name in one["names"]]
    painted = [_read_painted(file) for file in files]
    return {"pictures": pictures, "prompts": [prompt for prompt, _ in painted], "seeds": [seed for _, seed in painted]}


def _read_painted(file: Path) -> tuple[str, int | None]:
    """The prompt, with what the file's name says of its ways, and the seed; of a file that says nothing its name."""
    with Image.open(file) as image:
        text = image.info.get(OURS)
    if not isinstance(text, str):
        return file.stem, None
    said = json.loads(text)
    found = _NUMBER.match(file.stem)
    name = said.get("name") or (found[0] if found else file.stem)
    ways = [way for way in _WAYS.split(file.stem.removeprefix(name)) if way]
    return f"{said['prompt']} ({', '.join(ways)})" if ways else said["prompt"], said["seed"]


def _read_pictures(folder: Path) -> Iterator[dict[str, Any]]:
    """The pictures of some steps, as data of the page."""
    found = {int(match[1]): one for one in folder.glob("step-*") if one.is_dir() and (match := _STEP.fullmatch(one.name))}
    steps = sorted(found)
    if len(steps) > MOST_STEPS:
        places = [round(number * (len(steps) - 1) / (MOST_STEPS - 1)) for number in range(MOST_STEPS)]
        steps = [steps[place] for place in dict.fromkeys(places)]
    for step in steps:
        files = sorted(found[step].glob("*.png"))
        yield {"step": step, "names": [file.stem for file in files], "images": [_read_picture(file) for file in files]}


def _read_picture(file: Path) -> str:
    with Image.open(file) as image:
        small = image.convert("RGB")
        small.thumbnail((MOST_EDGE, MOST_EDGE), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def _list_results(folder: Path) -> list[list[Any]]:
    files = [one for one in sorted(folder.glob("*.safetensors")) if one.is_file()]
    return [[one.name, one.stat().st_size] for one in files]


def _list_commands(folder: Path, config: RunConfig) -> list[list[str]]:
    prompt = (config.sampling.prompts or ["..."])[0].replace('"', "'")
    return [
        ["go on", f"weber train {folder / CONFIG_NAME} --resume"],
        ["paint", f'weber sample {folder} --prompt "{prompt}"'],
        ["for ComfyUI", f"weber export {folder} --format comfyui"],
    ]


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
