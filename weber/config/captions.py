"""`[[data.caption_steps]]`: what becomes of captions before they are encoded, one step after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from weber.config.regexes import check_regex
from weber.config.section import FolderPath, Section

StepKind = Literal[
    "prefix", "suffix", "trigger", "replace", "regex", "wildcards", "shuffle", "drop", "filter", "deduplicate", "limit"
]

MOST_VARIANTS = 1024


@dataclass(frozen=True)
class StepRow:
    """What a kind of step needs, what else it takes, whether chance has a part in it, and whether it makes text of nothing."""

    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    is_random: bool = False
    adds: bool = False


_KEEP = ("keep", "keep_tags", "keep_separator")

STEP_ROWS: Mapping[StepKind, StepRow] = {
    "prefix": StepRow(("text",), adds=True),
    "suffix": StepRow(("text",), adds=True),
    "trigger": StepRow(("text",), ("place", "separator", "ignore_case"), adds=True),
    "replace": StepRow(("find",), ("replace_with", "ignore_case", "whole_words")),
    "regex": StepRow(("find",), ("replace_with", "ignore_case")),
    "wildcards": StepRow((), ("folder",), is_random=True),
    "shuffle": StepRow((), ("separator", *_KEEP), is_random=True),
    "drop": StepRow(("rate",), ("separator", *_KEEP), is_random=True),
    "filter": StepRow(("tags",), ("separator", "ignore_case")),
    "deduplicate": StepRow((), ("separator", "ignore_case")),
    "limit": StepRow(("most",), ("separator", "unit")),
}
"""A further kind is a row here, its name in `StepKind`, and a function in `data/caption_steps.py`."""


class CaptionStepConfig(Section):
    """What is done to every caption of the set before it is encoded; steps are done in the order in which they stand. Captions are kept
    in the cache as they come out of the last one."""

    kind: StepKind
    """What is done. `prefix`, `suffix`: `text` before or behind; `trigger`: `text` where the caption lacks it; `replace`, `regex`:
    `replace_with` in place of `find`; `wildcards`: one of `{a|b|c}`, and a line of NAME.txt for `__NAME__`; `shuffle`: tags in another
    order; `drop`: tags left out with probability `rate`; `filter`: without `tags`; `deduplicate`: each tag once; `limit`: no more than
    `most` tags, words or tokens."""

    text: str | None = None
    """What `prefix`, `suffix` and `trigger` add. Between a prefix or a suffix and the caption comes a space, where neither has one and
    the suffix begins with no punctuation. A caption may say `[trigger]` where the trigger goes."""

    place: Literal["start", "end"] | None = None
    """Where `trigger` goes in captions that lack it. Left out: `start`."""

    find: str | None = None
    """What `replace` looks for, as it is written; for `regex` a regular expression as Python has them, best in single quotes."""

    replace_with: str | None = None
    """What takes the place of `find`; `regex` knows `\\1` for the first group. Left out: nothing, so that it is taken out."""

    ignore_case: bool | None = None
    """Whether `Cat` is `cat`. Left out: yes for `trigger`, which is then spelled as `text`, `filter` and `deduplicate`; no for `replace`
    and `regex`."""

    whole_words: bool | None = None
    """`replace` finds `cat`, but not in `category`. Left out: no."""

    folder: FolderPath | None = None
    """Folder of the lists that `__NAME__` means: NAME.txt with one text per line, `#` before remarks. Left out: only `{a|b|c}`."""

    separator: str | None = None
    """What stands between tags, and between a trigger and the caption. What is in brackets is one tag. Left out: `,`."""

    keep: Annotated[int, Field(ge=1)] | None = None
    """So many tags at the start stay where they are, in captions without `keep_separator`."""

    keep_tags: list[str] = []
    """Tags that stay where they are, whatever their case; `*` stands for any text."""

    keep_separator: str | None = None
    """A mark such as `|||`: what is before the first and behind the second one stays; the marks are taken out. It holds for all steps of
    the set."""

    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """How likely `drop` leaves out each tag."""

    tags: list[str] = []
    """The tags that `filter` takes out; `*` stands for any text."""

    most: Annotated[int, Field(ge=1)] | None = None
    """How many tags, words or tokens `limit` leaves."""

    unit: Literal["tags", "words", "tokens"] | None = None
    """What `limit` counts; `tokens` are those of the last text encoder (T5, not CLIP), and whole tags are left of them, or else whole
    words. Left out: `tags`."""

    may_be_blank = ("replace_with", "find", "separator")

    @field_validator("find", "separator", "tags", "keep_tags", mode="before")
    @classmethod
    def _refuse_nothing(cls, value: object) -> object:
        items = value if isinstance(value, list) else [value]
        if "" in items or (isinstance(value, list) and any(isinstance(one, str) and not one.strip() for one in items)):
            raise ValueError("an empty text is not a value; set it or remove the line")
        return value

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> CaptionStepConfig:
        row, given = STEP_ROWS[self.kind], [name for name in self.model_fields_set if self._is_given(name)]
        for name in row.needs:
            if name not in given:
                raise ValueError(f'kind = "{self.kind}" needs {name}; set it')
        for name in type(self).model_fields:
            if name in given and name != "kind" and name not in (*row.needs, *row.takes):
                kinds = " or ".join(f'"{kind}"' for kind, other in STEP_ROWS.items() if name in (*other.needs, *other.takes))
                raise ValueError(f'{name} has no effect with kind = "{self.kind}"; remove it, or set kind to {kinds}')
        escaped = next((name for name in ("find", "replace_with") if set("\b\f\0") & set(self.model_dump()[name] or "")), None)
        if escaped is not None:
            raise ValueError(f"{escaped} holds a sign that TOML makes of \\b or \\f in double quotes; write it in single quotes")
        if self.kind == "regex":
            problem = check_regex(self.find or "", self.replace_with or "")
            if problem:
                raise ValueError(problem)
        if self.kind == "limit" and self.unit == "words" and self.separator is not None:
            raise ValueError('separator has no effect with unit = "words"; remove one of them')
        self._check_tags()
        return self

    def _is_given(self, name: str) -> bool:
        """A saved config has each setting, also those that are left out."""
        value = self.model_dump(include={name})[name]
        return value is not None and value != []

    def _check_tags(self) -> None:
        separator = self.separator or ","
        for name, tags in (("tags", self.tags), ("keep_tags", self.keep_tags)):
            joined = next((tag for tag in tags if separator.strip() and separator in tag), None)
            if joined is not None:
                listed = ", ".join(f'"{part.strip()}"' for part in joined.split(separator))
                raise ValueError(f'{name} has several tags in one text; write each as a text of its own: [{listed}]')
        if self.keep_separator is not None and self.keep_separator.strip() == separator.strip():
            raise ValueError(f'keep_separator = "{self.keep_separator}" is what stands between tags; choose a mark such as "|||"')

    @property
    def is_random(self) -> bool:
        """Has chance a part in it?"""
        return STEP_ROWS[self.kind].is_random


def list_step_problems(steps: Sequence[CaptionStepConfig], *, variants: int | None, is_empty: bool) -> Iterator[str]:
    """What cannot act in the steps of a set, as `what; fix`. `is_empty`: all captions of the set are empty."""
    if variants is not None and not any(step.is_random for step in steps):
        kinds = ", ".join(f'"{kind}"' for kind, row in STEP_ROWS.items() if row.is_random)
        what = "no step that draws" if steps else "no caption_steps"
        yield f"caption_variants has no effect, because there is {what}; remove it, or add a step of kind {kinds}"
    marks = list(dict.fromkeys(step.keep_separator for step in steps if step.keep_separator is not None))
    if len(marks) > 1:
        yield f'keep_separator is "{marks[0]}" in one of the caption_steps and "{marks[1]}" in another; write the same in both'
    if is_empty and steps and not any(STEP_ROWS[step.kind].adds for step in steps):
        yield 'caption_steps have no effect with captions = "none", which are empty; remove them, or add a step of kind "prefix"'
