"""The scripts of others are those that are pinned."""

from __future__ import annotations

import hashlib
import json

from recipes.vendor import FOLDER, HASHES, PACKAGES


def test_files_are_as_they_were_fetched() -> None:
    known = json.loads((FOLDER / HASHES).read_text(encoding="utf-8"))
    there = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in FOLDER.iterdir() if file.name != HASHES}
    assert there == {name: facts["sha256"] for name, facts in known.items()}
    wanted = {new: f"{one.name}@{one.version}/{old}" for one in PACKAGES for old, new in one.files.items()}
    assert {name: facts["from"] for name, facts in known.items()} == wanted
