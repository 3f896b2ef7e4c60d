"""What is told of a run on its page: facts, settings, pictures and files, and nothing of where its data lies or what captions say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from PIL import Image

from weber.config.load import list_changes
from weber.config.run import RunConfig
from weber.config.toml import write_value
from weber.families.table import FAMILIES, FamilyRow
from weber.sampling.stamp import OURS, build_info

IMAGES = "images"
"""Subfolder of what is shown for pictures."""
MOST_PICTURES = 12
_PICTURES = "pictures"
_STEP = re.compile(r"step-(\d{6,})")
_TOLD = ("adapter.", "memory.", "objective.", "optim.", "train.", "output.precision")
_TOLD_OF_SETS = re.compile(r"data\.\d+\.(?:resolution|crop|aspect|repeats|upscale|regularization|caption_dropout)")
_OF_SETS = re.compile(r"data-\d+")
"""What pictures are called that are painted after a set's own (`sampling.from_data`)."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Picture:
    """A picture that a run has painted, as a file of what is shown."""

    file: Path
    prompt: str
    negative: str


@dataclass(frozen=True)
class Base:
    """The model that was trained on. `hub_id`: where everyone finds it, if it is known; `row` and `variant`: of our table."""

    hub_id: str | None
    row: FamilyRow | None
    variant: str | None


def find_base(config: RunConfig) -> Base:
    """The base of a run: what its settings name on the hub, else the home of its variant."""
    row = next((one for one in FAMILIES if config.model.variant in one.variants), None)
    home = None if row is None or config.model.variant is None else row.variants[config.model.variant][0]
    named = next((one for one in (config.model.path, home) if one is not None and _is_hub_id(one)), None)
    return Base(named, row, config.model.variant)


def list_settings(config: RunConfig) -> list[tuple[str, str, str]]:
    """Key, value and default of what differs. Of sets their sizes alone are told, and of files on this machine their names."""
    told = []
    for key, value, default in list_changes(config):
        if value is not None and (key.startswith(_TOLD) or _TOLD_OF_SETS.fullmatch(key)):
            told.append((key, write_value(_hide_places(value)), "" if default is None else write_value(default)))
    return told


def list_pictures(run_folder: Path, *, step: int | None) -> list[Path]:
    """The pictures of the latest step that was painted, but of none after `step`; without those whose prompts are captions."""
    found = {int(match[1]): one for one in (run_folder / _PICTURES).glob("step-*") if (match := _STEP.fullmatch(one.name))}
    steps = [one for one in sorted(found) if found[one].is_dir() and one > 0 and (step is None or one <= step)]
    files = sorted(found[steps[-1]].glob("*.png")) if steps else []
    return [file for file in files if not _OF_SETS.match(file.name)][:MOST_PICTURES]


def save_pictures(files: Sequence[Path], folder: Path) -> list[Picture]:
    """Put pictures into what is shown. What made them stays in them, unless that names files of other pictures."""
    return list(_save_pictures(files, folder))


def _save_pictures(files: Sequence[Path], folder: Path) -> Iterator[Picture]:
    for number, file in enumerate(files):
        target = folder / IMAGES / f"{number:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            made = _read_made(image)
            if any(made.get(name) for name in ("references", "masked", "mask")):
                image.info.clear()
            image.save(target, pnginfo=build_info(image))
        yield Picture(target, str(made.get("prompt", "")), str(made.get("negative") or ""))


def _read_made(image: Image.Image) -> Mapping[str, object]:
    try:
        made = json.loads(str(image.info.get(OURS, "{}")))
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _is_hub_id(place: str) -> bool:
    return _HUB_ID.fullmatch(place) is not None and not Path(place).exists()


def _hide_places(value: object) -> object:
    """Of a place on this machine its name."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str) and (Path(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~")):
        return PureWindowsPath(value).name
    if isinstance(value, list):
        return [_hide_places(one) for one in value]
    return {key: _hide_places(one) for key, one in value.items()} if isinstance(value, dict) else value
