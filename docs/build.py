"""Writes the pages that are made from the settings. Run it with `make docs`."""

from __future__ import annotations

import json
from pathlib import Path

from weber.config.surface import build_docs, build_schema

if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "config.md").write_text(build_docs(), encoding="utf-8", newline="\n")
    (folder / "config.schema.json").write_text(json.dumps(build_schema(), indent=2) + "\n", encoding="utf-8", newline="\n")
