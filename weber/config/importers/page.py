"""The page of a trainer for people who come from it: what becomes of each of its keys."""

from __future__ import annotations

from textwrap import wrap

from weber.config.importers.answers import Answer, Table
from weber.config.importers.tool import Tool

_WIDTH = 140
_KINDS = {"used": "the same", "translated": "said otherwise", "refused": "cannot be had", "no effect": "no effect"}


def build_page(tool: Tool) -> str:
    """Markdown: what the trainer's files are, then a table for each of its tables of keys."""
    lines = [
        f"# Coming from {tool.title}",
        "",
        "<!-- Made by docs/build.py from weber/config/importers: change it there. -->",
        "",
        *wrap(tool.about.strip(), _WIDTH),
        "",
        "`weber import FILE` says what becomes of each key, with the values of your file, and `weber import FILE -o run.toml` writes it as",
        "settings of weber. `weber train FILE` trains with it as it is, and leaves the same list as `import.md` in the run folder.",
        f"Nothing in a file is run. What a file leaves out is as {tool.title} has it; `--weber-defaults` takes weber's own.",
    ]
    for title, table in tool.tables.items():
        lines += ["", f"## {title}", "", "| there | becomes | here |", "|---|---|---|"]
        lines += [f"| {_write_names(names)} | {_KINDS[answer.kind]} | {_describe(answer)} |" for names, answer in _fold(table).items()]
    return "\n".join(lines) + "\n"


def _fold(table: Table) -> dict[str, Answer]:
    """Rows with the same answer as one."""
    rows: dict[tuple[object, ...], list[str]] = {}
    answers: dict[tuple[object, ...], Answer] = {}
    for names, answer in table.items():
        key = (answer.kind, answer.key, answer.why, answer.call if answer.kind == "translated" and not answer.why else None)
        rows.setdefault(key, []).append(names)
        answers[key] = answer
    return {" ".join(names): answers[key] for key, names in rows.items()}


def _write_names(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())


def _describe(answer: Answer) -> str:
    key = f"`{answer.key.removeprefix('.')}`" if answer.key else ""
    return ": ".join(part for part in (key, answer.why.replace("|", "\\|")) if part)
