"""Files that the file of another trainer names."""

from __future__ import annotations

from pathlib import Path

from weber.config.importers.draft import Draft
from weber.config.importers.tool import find_file
from weber.errors import ConfigError


def find_named(draft: Draft, name: str, *, key: str) -> Path:
    """A file that the settings name, which is then one of those that were read. Raises ConfigError."""
    start = Path(draft.files[0])
    path = find_file(name, beside=start)
    if path is None:
        raise ConfigError(
            f"{key} names a file that is not there.",
            got=name,
            expected=f"the file beside {start.name} or above it, as its trainer has it",
            fix=f"copy {name.replace(chr(92), '/').rpartition('/')[2]} into {start.parent}",
        )
    if str(path) not in draft.files:
        draft.files.append(str(path))
    return path
