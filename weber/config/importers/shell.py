"""Scripts that start a trainer, read and never executed: POSIX shells, Windows' cmd and PowerShell, and cells of notebooks."""

from __future__ import annotations

import ast
import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weber.errors import ConfigError

Dialect = Literal["sh", "cmd", "powershell"]

UNREAD = "\ue000"
"""Stands in a text where only running a program would say what."""

_ENDS = {"sh": "\\", "cmd": "^", "powershell": "`"}
_NAME = r"[A-Za-z_]\w*"
_ASSIGNMENT = re.compile(rf"({_NAME})(\+?=)(.*)", re.DOTALL)
_CONTROL = ("then", "do", "done", "fi", "else", "{", "}", "in", "esac")
_BETWEEN = (";", "&&", "||", "|", "&", ";;")


@dataclass(frozen=True)
class Command:
    """The words of a command, and the line of the file where it begins."""

    words: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Script:
    """Variables with the line where each was set last, and commands, in order."""

    variables: Mapping[str, str]
    lines: Mapping[str, int]
    commands: Sequence[Command]


def parse_script(text: str, *, dialect: Dialect) -> Script:
    """What a script sets and calls. What stands behind a condition that cannot be known without running it is left out."""
    if dialect == "cmd":
        return _parse_cmd(text)
    return _parse_powershell(text) if dialect == "powershell" else _parse_sh(text)


def check_read(text: str, *, name: str, where: str) -> str:
    """A text that is known without running anything. Raises ConfigError."""
    if UNREAD in text:
        raise ConfigError(
            f"{name} in {where} is what another program would say.",
            got=text.replace(UNREAD, "$(...)"),
            expected="a value; weber reads scripts and never runs them",
            fix=f"write the value of {name} itself",
        )
    return text


def read_flags(words: Sequence[str]) -> list[tuple[str, str | bool | list[str]]]:
    """`--flag value`, `--flag=value`, `--flag a b c` and `--flag` of a command, in order; what stands before the first flag is left out."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if re.match(r"--?[A-Za-z]", word) and not re.fullmatch(r"-\d.*", word):
            name, equals, value = word.lstrip("-").partition("=")
            found.append((name.strip(), [value] if equals else []))
        elif found and word.strip():
            found[-1][1].append(word)
    return [(name, True if not values else values[0] if len(values) == 1 else values) for name, values in found]


def parse_notebook(tree: Mapping[str, Any]) -> str:
    """The code cells of a notebook as one shell script: `!command` lines, `%%bash` cells, and `name = value` lines as variables."""
    lines: list[str] = []
    for cell in tree.get("cells", []):
        source = "".join(cell.get("source", [])) if cell.get("cell_type") == "code" else ""
        is_shell = source.lstrip().startswith(("%%bash", "%%sh", "%%shell"))
        is_open = False
        for line in source.splitlines():
            stripped = line.strip()
            assigned = re.match(rf"({_NAME})\s*=\s*(.+?)\s*(#.*)?$", stripped)
            if is_shell or is_open or stripped.startswith("!"):
                lines.append(re.sub(rf"\{{({_NAME})\}}", r"${\1}", stripped.removeprefix("!")))
                is_open = stripped.endswith("\\")
            elif assigned and _read_literal(assigned[2]) is not None:
                lines.append(f"{assigned[1]}={shlex.quote(str(_read_literal(assigned[2])))}")
        lines.append("")
    return "\n".join(lines)


def _read_literal(text: str) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, str | int | float | bool) else None


# ---- POSIX


def _parse_sh(text: str) -> Script:
    script = _Building({}, {}, [], [])
    for number, line in _join_lines(text, "sh"):
        words = _split_sh(line, script.variables)
        for part in _split_commands(words):
            script.take(part, number)
    return Script(script.variables, script.lines, script.commands)


@dataclass
class _Building:
    variables: dict[str, str]
    lines: dict[str, int]
    commands: list[Command]
    tests: list[bool | None]
    """Of the conditions that the next command stands behind: whether they hold, if that is known."""

    def take(self, words: list[str], line: int) -> None:
        if words[0] in ("if", "elif"):
            if words[0] == "elif" and self.tests:
                self.tests[-1] = None if self.tests[-1] is not False else _test(words[1:])
            elif words[0] == "if":
                self.tests.append(_test(words[1:]))
            return
        if words[0] == "else" and self.tests:
            self.tests[-1] = None if self.tests[-1] is None else not self.tests[-1]
        if words[0] == "fi" and self.tests:
            self.tests.pop()
        words = words[1:] if words[0] in _CONTROL else words
        if words and all(self.tests):
            self._take_plain(words, line)

    def _take_plain(self, words: list[str], line: int) -> None:
        words = words[1:] if words[0] in ("export", "declare", "local", "readonly", "set", "typeset") else words
        while words and (found := _ASSIGNMENT.fullmatch(words[0])):
            name, sign, value = found.groups()
            self.variables[name] = self.variables.get(name, "") + value if sign == "+=" else value
            self.lines[name] = line
            words = words[1:]
        if words:
            self.commands.append(Command(tuple(words), line))


def _test(words: Sequence[str]) -> bool | None:
    """Whether `[[ -z X ]]`, `-n` or a comparison of texts holds; None for all else."""
    inner = [word for word in words if word not in ("[", "[[", "]", "]]", "then")]
    is_not = inner[:1] == ["!"]
    inner = inner[1:] if is_not else inner
    result: bool | None = None
    if len(inner) in (1, 2) and inner[0] in ("-z", "-n"):
        result = (len(inner) == 1 or not inner[1]) == (inner[0] == "-z")
    elif len(inner) == 3 and inner[1] in ("=", "==", "!=") and not any(UNREAD in one for one in inner):
        result = (inner[0] == inner[2]) == (inner[1] != "!=")
    return result if result is None or not is_not else not result


def _split_commands(words: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, ";"]:
        if word in _BETWEEN:
            if part:
                yield part
            part = []
        else:
            part.append(word)


def _split_sh(line: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a line, with variables in their places. A comparison within `[[ ]]` keeps empty texts."""
    words: list[str] = []
    word, quote, is_word, place = "", "", False, 0
    while place < len(line):
        one = line[place]
        if one == quote:
            quote = ""
        elif not quote and one in "'\"":
            quote, is_word = one, True
        elif one == "\\" and quote != "'" and place + 1 < len(line):
            escapes = not quote or line[place + 1] in '"\\$`'
            word, is_word, place = word + ("" if escapes else one) + line[place + 1], True, place + 1
        elif one == "$" and quote != "'":
            value, place = _expand(line, place, variables)
            parts = [value] if quote else re.split(r"\s+", value)
            for number, part in enumerate(parts):
                if number:
                    words, word = words + ([word] if word else []), ""
                word, is_word = word + part, is_word or bool(part)
        elif one == "`" and quote != "'":
            end = line.find("`", place + 1)
            word, is_word, place = word + UNREAD, True, len(line) if end < 0 else end
        elif not quote and one.isspace():
            words, word, is_word = words + ([word] if is_word else []), "", False
        elif not quote and one == "#" and not is_word:
            break
        elif not quote and one in ";|&":
            words, word, is_word = words + ([word] if is_word else []), "", False
            double = line[place : place + 2] in ("&&", "||", ";;")
            words.append(line[place : place + 2] if double else one)
            place += double
        else:
            word, is_word = word + one, True
        place += 1
    return words + ([word] if is_word else [])


def _expand(line: str, place: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """What stands for `$NAME`, `${NAME}`, `${NAME:-other}`, `$((...))` or `$(...)`, and the place of its last character."""
    rest = line[place:]
    if found := re.match(r"\$\(\(([^()]*(?:\([^()]*\)[^()]*)*)\)\)", rest):
        return _calculate(found[1], variables), place + found.end() - 1
    if rest.startswith("$("):
        depth, end = 0, place + 1
        while end < len(line):
            depth += (line[end] == "(") - (line[end] == ")")
            if depth == 0:
                break
            end += 1
        return UNREAD, min(end, len(line) - 1)
    if found := re.match(rf"\$\{{({_NAME})(:?[-=+]|\}})", rest):
        end = _find_brace(rest)
        value, sign = variables.get(found[1], ""), found[2]
        if sign != "}" and (not value) != sign.endswith("+"):
            words = _split_sh(f'"{_unquote(rest[found.end() : end])}"', variables)
            value = words[0] if words else ""
        return value, place + end
    if found := re.match(rf"\$({_NAME})", rest):
        return variables.get(found[1], ""), place + found.end() - 1
    if found := re.match(r"\$([@*#?\d])", rest):
        return "", place + 1
    return "$", place


def _find_brace(text: str) -> int:
    """Where the brace ends that a text begins with, behind its first `$`; at the end of the text where it does not."""
    depth = 0
    for place, one in enumerate(text):
        depth += (one == "{") - (one == "}")
        if place and depth == 0:
            return place
    return len(text) - 1


def _unquote(text: str) -> str:
    """A text without the quotes around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


_OPERATORS: Mapping[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda one, other: int(one / other),
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _calculate(text: str, variables: Mapping[str, str]) -> str:
    """Whole numbers, names and + - * / %; anything else is not known."""
    plain = re.sub(rf"\$?\{{?({_NAME})\}}?", lambda found: variables.get(found[1], "0") or "0", text)
    try:
        return str(_calculate_node(ast.parse(plain.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return UNREAD


def _calculate_node(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) < 2**62:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_calculate_node(node.left), _calculate_node(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_calculate_node(node.operand))
    raise ValueError(ast.unparse(node))


def _join_lines(text: str, dialect: Dialect) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, and the number of the first. A line of flags continues the command above it, though the sign at
    its end was forgotten; so does what stands behind an open quote."""
    end, lines = _ENDS[dialect], text.splitlines()
    joined, first, is_open = "", 0, False
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        is_comment = stripped.startswith(("#", "::")) or re.match(r"rem\b", stripped, re.IGNORECASE) is not None
        is_flag = re.match(r"\^?--[A-Za-z]", stripped) is not None
        is_inside = is_open or (joined != "" and _is_quote_open(joined, dialect))
        if joined and not is_inside and not is_flag and not (is_comment and _is_flag_ahead(lines[number:])):
            yield first, joined
            joined = ""
        if (is_comment and not (joined and _is_quote_open(joined, dialect))) or (not stripped and not joined):
            continue
        first = first if joined else number
        is_open = stripped.endswith(end) and not (dialect == "sh" and stripped.endswith("\\\\"))
        body = line.rstrip()[:-1] if is_open else line
        glue = "\n" if joined and _is_quote_open(joined, dialect) and not is_open else " "
        joined = joined + glue + body if joined else body.strip() or " "
    if joined:
        yield first, joined


def _is_flag_ahead(lines: Sequence[str]) -> bool:
    following = next((line.strip() for line in lines if line.strip() and not line.strip().startswith("#")), "")
    return following.startswith("--")


def _is_quote_open(line: str, dialect: Dialect) -> bool:
    quote, place = "", 0
    while place < len(line):
        one = line[place]
        if one == "\\" and dialect == "sh" and quote != "'":
            place += 1
        elif one == quote:
            quote = ""
        elif not quote and (one == '"' or (one == "'" and dialect != "cmd")):
            quote = one
        elif not quote and dialect == "sh" and one == "#" and (place == 0 or line[place - 1].isspace()):
            return False
        place += 1
    return quote != ""


# ---- Windows


def _parse_cmd(text: str) -> Script:
    variables, places, commands = dict[str, str](), dict[str, int](), list[Command]()
    for number, line in _join_lines(text, "cmd"):
        line = line.replace("^", " ").lstrip("@ ").strip()
        line = re.sub(rf"%({_NAME})%", lambda found: variables.get(found[1].upper(), ""), line)
        set_to = re.match(rf"set\s+(/a\s+)?\"?({_NAME})\s*=(.*?)\"?\s*$", line, re.IGNORECASE)
        if set_to:
            value = set_to[3].strip()
            variables[set_to[2].upper()] = _calculate(value, variables) if set_to[1] else value
            places[set_to[2].upper()] = number
            continue
        words = [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*"?)+', line)]
        for part in _split_commands(words):
            commands.append(Command(tuple(part), number))
    return Script(variables, places, commands)


def _parse_powershell(text: str) -> Script:
    variables, places, commands = dict[str, str](), dict[str, int](), list[Command]()

    def take_text(found: re.Match[str]) -> str:
        variables[found[1]] = found[2]
        places[found[1]] = text.count("\n", 0, found.start()) + 1
        return ""

    text = re.sub(rf"(?ms)^\s*\$({_NAME})\s*=\s*@[\"']\r?\n(.*?)\r?\n[\"']@", take_text, text)
    for number, line in _join_lines(text, "powershell"):
        assigned = re.match(rf"\s*\$(?:env:)?({_NAME})\s*=\s*(.+?)\s*$", line)
        if assigned:
            value = assigned[2].partition(" #")[0].strip()
            quoted = re.fullmatch(r"([\"'])(.*)\1", value, re.DOTALL)
            variables[assigned[1]] = _expand_powershell(quoted[2] if quoted else value.lstrip("$"), variables)
            places[assigned[1]] = number
            continue
        words = re.findall(r"(?:[^\s\"']|\"[^\"]*\"?|'[^']*'?)+", line)
        plain = [_expand_powershell(word.replace('"', "").replace("'", ""), variables) for word in words]
        for part in _split_commands([word for word in plain if word != "&"]):
            commands.append(Command(tuple(part), number))
    return Script(variables, places, commands)


def _expand_powershell(text: str, variables: Mapping[str, str]) -> str:
    text = re.sub(r"\$\([^)]*\)", UNREAD, text)
    return re.sub(rf"\$(?:env:)?\{{?({_NAME})\}}?", lambda found: variables.get(found[1], ""), text)
