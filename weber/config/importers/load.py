"""From a file of another trainer to a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weber.config.importers.draft import Draft
from weber.config.importers.outcome import Imported
from weber.config.importers.table import TOOLS
from weber.config.importers.tool import Source, Tool, open_source
from weber.config.load import build_config, load_config, write_overrides
from weber.config.run import RunConfig
from weber.errors import ConfigError


def import_run(path: Path, overrides: Sequence[str] = (), *, tool: str | None = None, weber_defaults: bool = False) -> Imported:
    """A file, or a folder, of another trainer as a run of weber, with what became of each key.

    `overrides`: `section.key=value` texts for the settings that came out. `tool`: whose file it is; left out: as it looks.
    `weber_defaults`: where the file leaves a key out, take weber's default, not that of the other trainer.
    ConfigError: it is of no known trainer, of another model, or broken.
    """
    source = open_source(find_start(path))
    known = find_tool(source, tool)
    draft = Draft(weber_defaults=weber_defaults)
    draft.files.append(str(source.path))
    known.translate(source, draft)
    write_overrides(draft.tree, overrides)
    draft.origins |= {key: f"{override} (command line)" for override in overrides for key in [override.partition("=")[0]]}
    config = _build(draft, known)
    return Imported(known.name, known.title, config, draft.tree, draft.origins, draft.outcomes, draft.faults, draft.files)


def load_any(path: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, Imported | None]:
    """The run that a file describes: one of weber's own, or of another trainer, with what became of its keys. Raises ConfigError."""
    if path.is_dir() or path.suffix.lower() in _OTHERS or _is_known(path):
        imported = import_run(path, overrides)
        return imported.config, imported
    return load_config(path, overrides), None


def _is_known(path: Path) -> bool:
    """Whether another trainer knows a TOML file; what is wrong with one that cannot be read is said by the reader of our own."""
    if path.suffix.lower() != ".toml" or not path.is_file():
        return False
    source = open_source(path)
    return not set(source.top) <= set(RunConfig.model_fields) and any(tool.recognize(source) for tool in TOOLS)


_OTHERS = (".json", ".yaml", ".yml", ".ipynb", ".sh", ".bash", ".env", ".txt", ".bat", ".cmd", ".ps1")


def find_start(path: Path) -> Path:
    """The file itself, or that with which the settings in a folder begin."""
    if not path.is_dir():
        return path
    names = [name for tool in TOOLS for name in tool.files]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        inside = sorted(one.name for one in path.iterdir() if one.is_file() and one.suffix.lower() in (*_OTHERS, ".toml"))
        likely = [name for name in inside if not name.endswith(".txt")]
        raise ConfigError(
            f"{path} is a folder without a file that any known trainer begins with.",
            got=", ".join(inside[:5]) or "no file of settings",
            expected=f"one of {', '.join(dict.fromkeys(names))}",
            fix=f"name the file, such as {path / likely[0]}" if likely else "name the file of settings, or the script",
        )
    return found


def find_tool(source: Source, name: str | None) -> Tool:
    """The trainer that a file is of: by name, else the one that knows it. Raises ConfigError."""
    titles = ", ".join(f"{tool.name} ({tool.title})" for tool in TOOLS)
    if name is not None:
        found = next((tool for tool in TOOLS if tool.name == name.lower()), None)
        if found is None:
            raise ConfigError(f"weber reads no files of {name}.", got=name, expected=titles, fix="name one of these, or leave it out")
        return found
    found = next((tool for tool in TOOLS if tool.recognize(source)), None)
    if found is None and source.top and set(source.top) <= set(RunConfig.model_fields):
        raise ConfigError(
            f"{source.path} has the settings of weber already.",
            got=_describe(source),
            expected=f"a file of {titles}",
            fix=f"train with it as it is: weber train {source.path}",
        )
    if found is None:
        raise ConfigError(
            f"{source.path} is of no trainer that weber knows.",
            got=_describe(source),
            expected=f"a file of {titles}",
            fix="name the file that the trainer itself is started with; --tool NAME says whose it is",
        )
    return found


def _describe(source: Source) -> str:
    if source.script is not None:
        called = ", ".join(dict.fromkeys(source.programs)) or "no Python program"
        return f"a script that calls {called}"
    keys: list[Any] = list(source.top)
    return f"the keys {', '.join(map(str, keys[:6]))}" if keys else "a list, or no keys at all"


def _build(draft: Draft, tool: Tool) -> RunConfig:
    """The run of a draft; what is refused is said with the key of the other trainer that it came from."""
    try:
        return build_config(draft.tree)
    except ConfigError as error:
        said = str(error)
        if any(key in said and origin.endswith("(command line)") for key, origin in draft.origins.items()):
            raise
        named = [f"{key} comes from {origin}" for key, origin in draft.origins.items() if key in said]
        error.what = f"The settings of {tool.title} make no run of weber: {error.what}"
        error.fix = "; ".join(one for one in (error.fix, *named[:4]) if one) + '; or say it behind the file, such as "section.key=value"'
        error.rewrite(lambda text: text)
        raise
