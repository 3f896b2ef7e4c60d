"""What weber knows of another trainer: how its files are told from others, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Table
from weber.config.importers.draft import Draft
from weber.config.importers.shell import Dialect, Script, parse_notebook, parse_script
from weber.config.importers.texts import parse_tree, read_text
from weber.errors import ConfigError

_TREES = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}
_SCRIPTS: Mapping[str, Dialect] = {
    ".sh": "sh", ".bash": "sh", ".env": "sh", ".txt": "sh", ".md": "sh", "": "sh", ".bat": "cmd", ".cmd": "cmd", ".ps1": "powershell"
}


@dataclass(frozen=True)
class Source:
    """A file of another trainer, as what it is: a tree of values, or a script."""

    path: Path
    tree: Any = None
    script: Script | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.path.name

    @property
    def top(self) -> Mapping[str, Any]:
        """The keys at its top; none for a script or a list."""
        return self.tree if isinstance(self.tree, Mapping) else {}

    @property
    def programs(self) -> list[str]:
        """Names of Python files that a script calls, without their folders."""
        words = [word for command in self.script.commands for word in command.words] if self.script else []
        return [word.replace("\\", "/").rpartition("/")[2] for word in words if word.endswith(".py")]


@dataclass(frozen=True)
class Tool:
    """Another trainer: a row of `table.py`. `files`: names that are looked for in a folder, the first that is there counts; `tables`:
    what becomes of its keys, under the title of each; `translate`: fills a draft from a source, and raises ConfigError; `about`: what its
    page says first."""

    name: str
    title: str
    files: tuple[str, ...]
    recognize: Callable[[Source], bool]
    translate: Callable[[Source, Draft], None]
    tables: Mapping[str, Table]
    about: str


def open_source(path: Path) -> Source:
    """Read a file as what it is. Raises ConfigError."""
    suffix, text = path.suffix.lower(), read_text(path)
    if suffix == ".ipynb":
        tree = parse_tree(text, kind="JSON", where=str(path))
        return Source(path, script=parse_script(parse_notebook(tree if isinstance(tree, Mapping) else {}), dialect="sh"))
    if suffix in _TREES:
        return Source(path, tree=parse_tree(text, kind=_TREES[suffix], where=str(path)))
    if suffix not in _SCRIPTS:
        raise ConfigError(
            f"{path} is of no kind that a trainer's settings have.",
            got=f"the ending {suffix}",
            expected=f"one of {', '.join(one for one in (*_TREES, '.ipynb', *_SCRIPTS) if one)}",
            fix="name the file of settings, or the script that starts the trainer",
        )
    return Source(path, script=parse_script(text, dialect=_SCRIPTS[suffix]))


def find_file(name: str, *, beside: Path) -> Path | None:
    """A file that another file names, often as seen from another machine: as it is, beside that file or above it, or by its name alone."""
    named = Path(name.replace("\\", "/")).expanduser()
    folder = beside.parent
    candidates = [named, folder / named, *(above / named for above in folder.parents[:3]), folder / named.name]
    return next((one for one in candidates if one.is_file()), None)
