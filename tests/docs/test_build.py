"""The script that writes pages from the settings and the models. The rows of its large tables are checked in tests/planning."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from docs import build
from weber.config.importers.table import TOOLS

PAGES = ("config.md", "config.schema.json", "memory.md", "optimizers.md", *(f"coming-from-{tool.name}.md" for tool in TOOLS))


def test_pages_are_written_anew_and_the_words_around_their_tables_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {name: (build.FOLDER / name).read_text(encoding="utf-8") for name in PAGES}
    for name in PAGES:
        shutil.copyfile(build.FOLDER / name, tmp_path / name)
    for name in ("config.md", "config.schema.json"):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "build_fit_rows", lambda variant, edge: [f"| {variant} at {edge} |"])
    monkeypatch.setattr(build, "build_full_rows", lambda variant: [f"| {variant} in full |"])
    monkeypatch.setattr(build, "build_page", lambda page: page)  # takes 2 seconds and is checked in tests/optim
    build.main()

    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert [name for name in PAGES if made[name] != shipped[name]] == ["memory.md"]
    fit = [f"| {variant} at {edge} |" for variant in build.MODELS for edge in build.EDGES]
    rows = [*fit, *(f"| {variant} in full |" for variant in build.MODELS)]
    lines = made["memory.md"].splitlines()
    assert [line for line in lines if line in rows] == rows
    assert [line for line in lines if line not in rows] == [
        one for one in shipped["memory.md"].splitlines() if not one.startswith("| FLUX")
    ]
