"""What becomes of the tags in caption files: added, removed, replaced, put first; each line is a caption of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from weber.data.tags import Tags, build_joiner, build_matcher, split_tags
from weber.errors import ConfigError
from weber.tending.caption_texts import RECORDS, Texts
from weber.tending.undo import write_texts

_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # not str.splitlines, which cuts at signs that stand in captions

Change = Callable[[Tags], Sequence[str]]
"""The tags of a caption as they shall be."""


@dataclass(frozen=True)
class Changed:
    """New texts by file, and how many there were to be changed."""

    texts: Mapping[Path, str]
    before: Mapping[Path, str | None]
    num_files: int

    def describe(self, folder: Path) -> list[str]:
        """Every change as a line that goes and one that comes."""
        lines = []
        for file, text in self.texts.items():
            lines.append(str(file.relative_to(folder)))
            for one, two in zip_longest((self.before[file] or "").split("\n"), text.split("\n"), fillvalue=""):
                lines += [f"  {sign} {line.rstrip()}" for sign, line in (("-", one), ("+", two)) if one != two and line]
        return lines


def add_tags(tags: Sequence[str], *, is_first: bool) -> Change:
    """At the end or the start, those that are not there."""

    def change(found: Tags) -> Sequence[str]:
        there = {tag.lower() for tag in found.all}
        new = [tag for tag in tags if tag.lower() not in there]
        return [*new, *found.all] if is_first else [*found.all, *new]

    return change


def put_first(tags: Sequence[str]) -> Change:
    """Before all others, in that order, wherever they were; also where they were not."""

    def change(found: Tags) -> Sequence[str]:
        wanted = {tag.lower() for tag in tags}
        return [*tags, *(tag for tag in found.all if tag.lower() not in wanted)]

    return change


def remove_tags(patterns: Sequence[str]) -> Change:
    """All that match; `*` stands for any text."""
    matches = build_matcher(patterns, ignore_case=True)
    return lambda found: [tag for tag in found.all if not matches(tag)]


def replace_tag(old: str, new: str) -> Change:
    """One tag by another, once where the other is there already."""

    def change(found: Tags) -> Sequence[str]:
        return list(dict.fromkeys(new if tag.lower() == old.lower() else tag for tag in found.all))

    def keep(found: Tags) -> Sequence[str]:
        return change(found) if any(tag.lower() == old.lower() for tag in found.all) else found.all

    return keep


def change_texts(texts: Texts, change: Change, *, separator: str, creates: bool = False) -> Changed:
    """The files whose tags change. Lines whose tags do not are left as they are; `creates` files where pictures have none."""
    new: dict[Path, str] = {}
    for one in texts.files:
        if one.text is None and not creates:
            continue
        lines = _LINE.findall(one.text or "") or [""]
        changed = "".join(_change_line(line, change, separator) for line in lines)
        if changed != (one.text or ""):
            new[one.file] = changed
    before = {one.file: one.text for one in texts.files}
    return Changed(new, before, len(texts.files))


def save_changes(changed: Changed, folder: Path) -> Path:
    """Write the files; returns what undoes it."""
    return write_texts(folder / RECORDS, changed.texts)


def count_tags(texts: Texts, *, separator: str) -> Counter[str]:
    """In how many captions each tag is."""
    lines = [line.strip() for one in texts.files for line in (one.text or "").split("\n")]
    return Counter(tag for line in lines for tag in dict.fromkeys(split_tags(line, separator).all))


def check_tags(tags: Sequence[str], *, separator: str) -> None:
    """Refuse tags that would be read as several, and none at all. Raises ConfigError."""
    wrong = next((tag for tag in tags if separator in tag or "\n" in tag or not tag.strip()), None)
    if not tags or wrong is not None:
        raise ConfigError(
            "This is no tag.",
            got=repr(wrong) if wrong is not None else "no tag",
            expected=f"one tag for each word of the command, without {separator!r}",
            fix='write each in quotes of its own: "red hair" "smiling"',
        )


def check_separator(separator: str) -> None:
    """Refuse what separates nothing. Raises ConfigError."""
    if not separator.strip(" ") and separator != " ":
        raise ConfigError("Tags are separated by a sign.", got=f"--separator {separator!r}", expected="such as ,", fix="name one")


def _change_line(line: str, change: Change, separator: str) -> str:
    content = line.rstrip("\r\n")
    ending, mark = line[len(content) :], "\ufeff" if content.startswith("\ufeff") else ""
    tags = split_tags(content.removeprefix(mark), separator)
    if not tags.all and ending:  # an empty line of several
        return line
    new = change(tags)
    if list(new) == list(tags.all):
        return line
    if not new and ending:
        return ""  # an empty line would say nothing
    return mark + build_joiner(separator).join(new) + (tags.end if new else "") + ending
