"""What `weber data check` says: findings, statistics and shapes, as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weber.data.whole import write_whole
from weber.data.words import describe_count
from weber.errors import ConfigError
from weber.tending.caption_facts import CaptionFacts, count_facts
from weber.tending.findings import NAMES, Found, Limits, find_all
from weber.tending.looking import Seen

_NUM_SHOWN = 5
_NUM_WORDS = 12
_ASPECTS = (0.25, 0.5, 0.625, 0.75, 0.9, 1.1, 1.333, 1.6, 2.0, 4.0)
_BAR = 30


@dataclass(frozen=True)
class Checked:
    """All that was seen and found."""

    seen: tuple[Seen, ...]
    found: Found
    captions: Mapping[str, CaptionFacts]
    triggers: Mapping[str, str]

    @property
    def sets(self) -> dict[str, list[Seen]]:
        """The pictures by the name of their set."""
        sets: dict[str, list[Seen]] = defaultdict(list)
        for one in self.seen:
            sets[one.set_name].append(one)
        return dict(sets)


def check_pictures(seen: Sequence[Seen], limits: Limits, *, triggers: Mapping[str, str], skip: Sequence[str] = ()) -> Checked:
    """What there is to say. `triggers`: by set the word that captions should have."""
    found = find_all(seen, limits, skip=skip)
    texts: dict[str, list[str]] = {one.set_name: [] for one in seen}
    for one in seen:
        texts[one.set_name] += one.captions
    captions = {name: count_facts(some, triggers.get(name)) for name, some in texts.items()}
    return Checked(tuple(seen), found, captions, triggers)


def check_wish(skip: Sequence[str], *, report: Path | None, page: Path | None) -> None:
    """Refuse kinds that there are not, and files that cannot be written, before anything is looked at. Raises ConfigError."""
    unknown = [kind for kind in skip if kind not in NAMES]
    if unknown:
        raise ConfigError(
            f"Nothing is looked for under the name {unknown[0]!r}.",
            got=f"--skip {unknown[0]}",
            expected=", ".join(NAMES),
            fix="name one of them",
        )
    if report is not None and report.is_dir():
        raise ConfigError("The report is a file.", got=f"--json {report}, which is a folder", fix="name a file")
    if page is not None and (page.is_dir() or page.suffix.lower() not in (".html", ".htm")):
        raise ConfigError("The page is an HTML file.", got=f"--html {page}", expected="a file name", fix="write --html check.html")


def describe_check(checked: Checked) -> str:
    """The summary for a terminal."""
    lines = []
    for name, seen in checked.sets.items():
        lines += _describe_set(name, seen, checked)
    findings = [one for one in checked.found.findings if one.row.is_problem]
    notes = [one for one in checked.found.findings if not one.row.is_problem]
    for title, some in (("Problems", findings), ("Worth a look", notes)):
        if some:
            lines += ["", title]
        for finding in some:
            lines.append(f"  {describe_count(len(finding.items), 'picture')} {finding.row.title} ({finding.kind}): {finding.row.advice}")
            lines += [f"      {_describe_item(checked.seen[item.place], item.detail)}" for item in finding.items[:_NUM_SHOWN]]
            if len(finding.items) > _NUM_SHOWN:
                lines.append(f"      and {len(finding.items) - _NUM_SHOWN} more")
    if not findings:
        lines += ["", "No problems were found."]
    return "\n".join(lines)


def write_json(checked: Checked, file: Path) -> None:
    """The same as numbers and names, for programs."""
    write_whole(file, (json.dumps(build_record(checked), indent=1, ensure_ascii=False) + "\n").encode(errors="replace"))


def build_record(checked: Checked) -> dict[str, Any]:
    """What `write_json` writes."""
    return {
        "pictures": [_build_picture(one) for one in checked.seen],
        "findings": [
            {
                "kind": finding.kind,
                "title": finding.row.title,
                "advice": finding.row.advice,
                "problem": finding.row.is_problem,
                "moves": finding.row.moves,
                "pictures": [
                    {"picture": item.place, "detail": item.detail, "others": list(item.others), "spare": item.is_spare}
                    for item in finding.items
                ],
            }
            for finding in checked.found.findings
        ],
        "captions": {name: asdict(facts) for name, facts in checked.captions.items()},
        "marks": {name: {"box": mark.box, "pictures": len(mark.places)} for name, mark in checked.found.marks.items()},
    }


def _build_picture(one: Seen) -> dict[str, Any]:
    measures = one.measures
    return {
        "path": _show(str(one.path)),
        "set": one.set_name,
        "held_out": one.is_held_out,
        "size": one.size,
        "bucket": one.bucket,
        "cut": round(one.lost, 4),
        "captions": one.captions,
        "sharpness": None if measures is None or measures.sharpness is None else round(measures.sharpness, 3),
        "blocks": None if measures is None else round(measures.blocks, 3),
        "quality": None if measures is None else measures.quality,
        "border": None if measures is None else [round(share, 3) for share in measures.border],
    }


def _describe_set(name: str, seen: Sequence[Seen], checked: Checked) -> list[str]:
    held = sum(one.is_held_out for one in seen)
    lines = [f"{name}: {describe_count(len(seen), 'picture')}{f', {held} of them held out' if held else ''}"]
    sizes = [one.size for one in seen if one.size[0]]
    if sizes:
        edges = sorted(min(size) for size in sizes)
        lines.append(f"  shorter edge {edges[0]} to {edges[-1]} pixels, median {edges[len(edges) // 2]}")
        lines += ["  width / height:", *(f"    {line}" for line in _draw_aspects(sizes))]
    lost = [one.lost for one in seen if one.bucket[0]]
    if lost:
        lines.append(f"  crops cut off {sum(lost) / len(lost):.1%} of a picture in the mean, {max(lost):.0%} at most")
    facts = checked.captions[name]
    if facts.num_captions:
        least, middle, most = facts.num_words
        lines.append(
            f"  {describe_count(facts.num_captions, 'caption')}, {facts.num_distinct} different, {least} to {most} words, median {middle:g}"
        )
        lines.append("  most frequent words: " + ", ".join(f"{word} {number}" for word, number in facts.words[:_NUM_WORDS]))
        if facts.tags:
            lines.append("  most frequent tags: " + ", ".join(f"{tag} {number}" for tag, number in facts.tags[:_NUM_WORDS]))
    if facts.num_with_trigger is not None:
        share = facts.num_with_trigger / max(1, facts.num_captions)
        lines.append(
            f'  "{checked.triggers[name]}" is in {facts.num_with_trigger} of {describe_count(facts.num_captions, "caption")} ({share:.0%})'
        )
    return lines


def list_aspects(sizes: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """How many pictures have which width divided by height."""
    counts, rows = Counter(sum(width / height > bound for bound in _ASPECTS) for width, height in sizes), []
    for place in range(min(counts), max(counts) + 1):
        low = _ASPECTS[place - 1] if place else 0
        rows.append((f"{low:.2f} to {_ASPECTS[place]:.2f}" if place < len(_ASPECTS) else f"above {low:.2f}", counts[place]))
    return rows


def _draw_aspects(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A histogram in signs."""
    rows = list_aspects(sizes)
    most = max(number for _, number in rows)
    return [f"{what:14} {number:6} {'#' * max(number > 0, round(_BAR * number / most))}".rstrip() for what, number in rows]


def _describe_item(one: Seen, detail: str) -> str:
    return _show(f"{one.name}: {detail}" if detail else one.name)


def _show(text: str) -> str:
    """With ? for what is not Unicode."""
    return text.encode(errors="replace").decode()
