"""Command lines with parts that the script itself does not say: variables that are set elsewhere, and lists that are built on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from weber.config.importers.shell import Command, parse_notebook
from weber.config.importers.texts import read_text, read_tree
from weber.config.importers.tool import Source
from weber.errors import ConfigError

_SH = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_CMD = re.compile(r"%([A-Za-z_]\w*)%")
_POWERSHELL = re.compile(r"\$(?:env:)?\{?([A-Za-z_]\w*)", re.IGNORECASE)
_USES: Mapping[str, re.Pattern[str]] = {".bat": _CMD, ".cmd": _CMD, ".ps1": _POWERSHELL}
_GOES_ON = ("\\", "^", "`")
_CONSTANTS = ("true", "false", "null")


def check_variables(source: Source, command: Command) -> None:
    """Raise ConfigError for a command with variables that nothing in its file sets, or with a list of flags that the file builds."""
    assert source.script is not None
    added = any(re.search(r"\.Add\(\s*-", word) for one in source.script.commands for word in one.words)
    if added or any("[@]" in word for word in command.words):
        raise ConfigError(
            f"{source.path} builds a list of flags on the way, which only running it would show.",
            got="a list that grows by .Add(...) or +=(...)",
            expected="the flags behind the command itself",
            fix="let the script print the whole command, and put that into a file",
        )
    known = {name.casefold() for name in source.script.variables}
    text = "\n".join(_list_lines(source, command))
    uses = _USES.get(source.path.suffix.lower(), _SH).finditer(text)
    names = dict.fromkeys(name for use in uses for name in use.groups() if name)
    unknown = [name for name in names if name.casefold() not in known and name.casefold() not in _CONSTANTS]
    if unknown:
        raise ConfigError(
            f"The command in {source.name}, line {command.line}, uses {', '.join(unknown)}, and nothing in the file says what that is.",
            got=", ".join(unknown),
            expected="values that stand in the file",
            fix=f"write the value in place of {unknown[0]}, or set it in a line above the command",
        )


def _list_lines(source: Source, command: Command) -> Iterator[str]:
    """The lines of a command, as they stand in the file."""
    text = parse_notebook(read_tree(source.path)) if source.path.suffix.lower() == ".ipynb" else read_text(source.path)
    lines = text.splitlines()[command.line - 1 :]
    for number, line in enumerate(lines):
        yield line
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if not line.rstrip().endswith(_GOES_ON) and not following.startswith(("--", "^--")):
            return
