"""Pictures that cannot be used: why, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.data.formats import KINDS

_ADVICE = {
    "no caption file": 'write one; or set captions = "instance" and instance_prompt for the whole set, caption_fallback for these alone',
    "another size than its row says": "correct the columns width and height, or rename them if they mean something else",
    "size is no number of pixels": "write whole numbers into the columns width and height, or nothing",
    "address of an unknown kind": "write http:// or https://, or s3:// and the like; or download the picture, and name its file",
    "cannot be had from the web": "correct the address, or take the row out of the table",
    "not to be had from the web today": "start again later; what came is not asked for again",
    "archive in an archive": "unpack the outer one",
    "archive that is cut off": "fetch or pack it again",
    "archive without files": "remove it, or fetch it again",
    "damaged archive": "fetch or pack it again",
    "file outside of its archive": "pack it again, from the folder that the files are in",
    "link that leads nowhere": "pack the file itself (tar --dereference)",
    "no plain file in an archive": "pack the file itself",
    "caption file is empty": "write a caption, or set caption_fallback",
    "caption file has no caption": "set caption_key to the name that it is under, or set caption_fallback",
    "caption file has no text under its name": "set caption_key to the name of a text, or of a list of texts",
    "caption file is no JSON": "mend it",
    "caption file is no table of names": "write the caption under a name",
    "caption file is broken JSON": 'mend it, or set caption_per = "file" to take it as it is',
    "caption is empty after its steps": "take a step out, or let it leave more; or set caption_fallback",
    "caption is too long for a regular expression": "shorten it, or use kind = \"replace\"",
    "unknown wildcard": "write such a list, or correct the name; without the step of kind wildcards it is text like any other",
    "wildcards without end": "take the name out of the list that it means",
    "caption is empty": "fill the cell, or set caption_fallback",
    "caption file is not UTF-8 text": "save it again with the encoding UTF-8",
    "another aspect": "widen aspect_range, or cut the picture",
    "too large": "raise maximum_edge or maximum_megapixels, or scale the picture down",
    "too small": "lower resolution or minimum_edge, or what else is named there",
    "too long": "raise max_aspect, or cut the picture",
    "caption mentions left or right": 'set mirror_sides = "keep" to leave such pictures as they are, or reword the caption',
    "no mask": "draw one, or move these pictures out of the set",
    "no other window": 'set downsample_to, or reference_own = "color"',
    "no reference": "add one of the same name, set reference_optional = true, or move these pictures out of the set",
    "no row": "add rows for them, or move them out of the set",
    "too many references": "shorten the list of these pictures",
    "unusable loss mask": "mend it: white is learned, black and transparent are not, and it has the shape of its picture",
    "unusable mask": "mend it: white is painted anew, black and transparent are not, and it has the shape of its picture",
    "unusable reference": "mend the file, or move the picture out of the set",
    "several loss masks": "keep one of them",
    "several masks": "keep one of them",
    "several references": "keep one of them",
    "unreadable file": "check that it is there under that name, as seen from path, and may be read",
}
"""What helps, by kind of reason; the reasons of `formats.py` say it themselves."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A picture that cannot be used. The reason is one line: a kind, often with `: details`."""

    set_name: str
    path: Path
    reason: str


def list_reasons(set_aside: Iterable[SetAside]) -> list[tuple[str, list[SetAside]]]:
    """Pictures set aside by kind of reason, the most frequent kind first."""
    kinds: dict[str, list[SetAside]] = {}
    for item in set_aside:
        kinds.setdefault(item.reason.partition(":")[0], []).append(item)
    return sorted(kinds.items(), key=lambda kind: -len(kind[1]))


def find_advice(kind: str) -> str:
    """What helps against a kind of reason; empty where each reason says it, or nobody knows."""
    return _ADVICE.get(kind, "")


def list_advice(set_aside: Iterable[SetAside]) -> list[str]:
    """What helps against each kind of reason, those that say it themselves included."""
    lines = []
    for kind, items in list_reasons(set_aside):
        details = {item.reason.partition(": ")[2] for item in items}
        advice = find_advice(kind) or (details.pop() if kind in KINDS and len(details) == 1 else "")
        lines += [f"{kind}: {advice}"] if advice else []
    return lines


def describe_items(items: Sequence[SetAside], *, most: int) -> list[str]:
    """A line for each of the first."""
    return [f"{item.path}: {item.reason}" for item in items[:most]]
