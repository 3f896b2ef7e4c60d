"""What became of each key, for a person: what matters first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from weber.config.importers.outcome import Imported, Outcome


@dataclass(frozen=True)
class Group:
    """Lines under one title."""

    title: str
    lines: tuple[str, ...]


def list_groups(imported: Imported) -> list[Group]:
    """Refused keys, what the other trainer really did, what is said otherwise, its defaults, what means the same, what had no effect."""
    outcomes = imported.outcomes
    ours = [one for one in outcomes if not one.is_example and not one.given.is_default]
    defaults = [one for one in outcomes if one.given.is_default and one.kind != "no effect"]
    folded = [one for one in outcomes if one.is_example and one.kind != "refused"]
    groups = [
        Group("Cannot be had", tuple(_list_lines(outcomes, "refused"))),
        Group(f"What {imported.title} does with these settings", tuple(imported.faults)),
        Group("Said otherwise", tuple(_list_lines(ours, "translated"))),
        Group("The same", tuple(_list_lines(ours, "used"))),
        Group(f"Left out, so as {imported.title} has it", tuple(_write(one) for one in defaults if one.kind != "refused")),
        Group("No effect", tuple(_fold(one for one in ours if one.kind == "no effect"))),
        Group(f"{len(folded)} values as in the example of {imported.title}", tuple(_fold_example(folded))),
    ]
    return [group for group in groups if group.lines]


def write_report(imported: Imported) -> str:
    """The groups as text for a terminal."""
    head = f"{', '.join(imported.files)}: {imported.title}, {_count(imported.outcomes)}"
    return "\n".join([head, *(line for group in list_groups(imported) for line in _write_group(group))])


def write_summary(imported: Imported) -> str:
    """What cannot be had, and how many keys had which answer, for the start of a run."""
    refused = [one for one in imported.outcomes if one.kind == "refused"]
    head = f"{', '.join(imported.files)}: {imported.title}, {_count(imported.outcomes)}; all of them in import.md in the run folder"
    return "\n".join([head, *(f"  cannot be had: {_write(one)}" for one in refused)])


def write_page(imported: Imported) -> str:
    """The same as Markdown, for the run folder."""
    lines = [f"# What became of the settings of {imported.title}", "", f"Read: {', '.join(f'`{one}`' for one in imported.files)}."]
    for group in list_groups(imported):
        lines += ["", f"## {group.title}", "", *(f"- {line}" for line in group.lines)]
    return "\n".join([*lines, ""])


def _write_group(group: Group) -> list[str]:
    return ["", f"{group.title}:", *(f"  {line}" for line in group.lines)]


def _count(outcomes: Sequence[Outcome]) -> str:
    given = [one for one in outcomes if not one.given.is_default]
    return f"{len(given)} keys, each with an answer" if given else "no keys"


def _list_lines(outcomes: Sequence[Outcome], kind: str) -> Iterator[str]:
    return (_write(one) for one in outcomes if one.kind == kind)


def _write(outcome: Outcome) -> str:
    where = f" ({outcome.given.where})" if outcome.given.where else ""
    return f"{outcome.given.text}{where}: {outcome.line}"


def _fold(outcomes: Iterator[Outcome]) -> list[str]:
    """Keys that have the same reason stand in one line."""
    reasons: dict[str, list[str]] = {}
    for one in outcomes:
        reasons.setdefault(one.line, []).append(one.given.text)
    return [f"{', '.join(texts)}: {reason}" for reason, texts in reasons.items()]


def _fold_example(outcomes: Sequence[Outcome]) -> list[str]:
    acting = [one.line for one in outcomes if one.kind != "no effect"]
    silent = [one.given.spelled for one in outcomes if one.kind == "no effect"]
    lines = ["; ".join(acting)] if acting else []
    return lines + ([f"without effect: {', '.join(silent)}"] if silent else [])
