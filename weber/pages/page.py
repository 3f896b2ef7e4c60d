"""The page: one file without network access, for one run or for two beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from weber.checkpoint.save import CONFIG_NAME
from weber.config.load import load_config
from weber.errors import ConfigError
from weber.pages.facts import read_run
from weber.pages.planned import describe_plan
from weber.progress import Progress, ignore_progress

PAGE_NAME = "report.html"


def write_report(run: Path, other: Path | None = None, *, out: Path | None = None, progress: Progress = ignore_progress) -> Path:
    """Write the page of a run, or of two; returns it. Left out, `out` is report.html in the folder of the first run.

    Raises CheckpointError for what is no run, ConfigError for a file that cannot be written.
    """
    places = [run] if other is None else [run, other]
    runs = [read_run(place) for place in places]
    for one in runs:
        one["planned"] = describe_plan(load_config(Path(one["folder"]) / CONFIG_NAME), progress)
    target = Path(runs[0]["folder"]) / PAGE_NAME if out is None else out
    if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("The page is an HTML file.", got=f"--out {target}", expected="a file name", fix="write --out report.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".tmp")
    unfinished.write_text(build_page(runs), encoding="utf-8")
    unfinished.replace(target)
    return target


def build_page(runs: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of one run, or of two."""
    folder = files("weber.pages")
    page, style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js"))
    data = json.dumps(runs, allow_nan=False, default=str).replace("</", "<\\/")
    title = " and ".join(str(run["name"]) for run in runs)
    parts = {"TITLE": _escape(title), "STYLE": style, "DATA": data, "SCRIPT": script}
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
