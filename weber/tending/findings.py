"""What is wrong with sets of pictures, as findings: a row for each kind, with its pictures and what is to be said of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weber.tending.likeness import Pair, find_alike, group_pairs
from weber.tending.looking import Seen
from weber.tending.marks import Mark, find_mark
from weber.tending.measures import Gray

LEAST_SHARPNESS = 0.25
"""An edge of which one pixel makes less than this is soft: a blur of 2 pixels at 1024 and more."""

MOST_BLOCKS, MOST_OF_GOOD = 0.1, 0.2
"""The share of borders of blocks that can be seen; the latter in JPEG files that say that they are good: they were bad before."""

LEAST_QUALITY, GOOD_QUALITY = 40, 60
"""A JPEG file of less shows its blocks, whatever the picture; one of more only where it is all slopes."""

MOST_LOST = 0.25
"""A crop that cuts off more is worth a look."""


_MEANT_SHARE = 0.5  # of the pictures of a set that have the same caption


@dataclass(frozen=True)
class Item:
    """A picture by its place, what is said of it, and the others it has to do with. `is_spare`: it may go."""

    place: int
    detail: str = ""
    others: tuple[int, ...] = ()
    is_spare: bool = True


@dataclass(frozen=True)
class Finding:
    """What is wrong with some pictures, or worth a look. `advice`: what helps."""

    kind: str
    items: tuple[Item, ...]

    @property
    def row(self) -> Kind:
        """What there is to say of the kind."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Kind:
    """A kind of finding. `is_problem`: scripts are told; `moves`: `--fix` proposes to set such pictures aside."""

    title: str
    advice: str
    is_problem: bool = True
    moves: bool = False


KINDS: Mapping[str, Kind] = {
    "broken": Kind("cannot be read", "mend or remove the files", moves=True),
    "refused": Kind("not taken by the settings of their set", "change the setting that is named, or remove the pictures", moves=True),
    "leaked": Kind("held out and learned all the same", "remove one of each, or what is held out says nothing", moves=True),
    "copies": Kind("there more than once, byte for byte", "keep one of each; set repeats where that is meant", moves=True),
    "alike": Kind("the same to the eye", "keep the best of each group", moves=True),
    "silent": Kind("without a usable caption", "write one (`weber caption`), or set caption_fallback"),
    "long": Kind("with captions longer than the model reads", "shorten them: what is behind is never learned"),
    "blurred": Kind("blurred", "remove them, unless the blur is what is to be learned", moves=True),
    "artifacts": Kind("with the blocks of strong compression", "find better copies, or remove them", moves=True),
    "borders": Kind("with plain bars at their edges", "cut them off: the model would learn to paint them", moves=True),
    "marked": Kind("with the same mark at the same place", "find copies without it, or hide it with loss_masks", moves=True),
    "cut": Kind(f"of which the crop cuts off more than {MOST_LOST:.0%}", "look at their windows; masks or another aspect may help", False),
    "odd": Kind("with something that is read otherwise than it may be meant", "see each", False),
    "cut-short": Kind("with captions that one text encoder reads in part", "another one reads them whole", False),
    "said-twice": Kind(
        "with a caption that other pictures have too", "say what is different, if there is more to learn than a name", False
    ),
}
"""In the order in which they are told."""

NAMES = tuple(KINDS)


@dataclass(frozen=True)
class Limits:
    """How captions are counted: for each part of the model that reads them how much that is, and a function that counts tokens.
    `is_least`: there are at least so many."""

    parts: Mapping[str, tuple[int, Callable[[Sequence[str]], list[int]]]] = field(default_factory=dict)
    is_least: bool = False


@dataclass(frozen=True)
class Found:
    """All findings, those of them that are none left out, and the pairs of pictures that are alike; `marks` by the name of their set."""

    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...]
    marks: Mapping[str, Mark]

    @property
    def num_problems(self) -> int:
        """How many kinds of problems there are."""
        return sum(one.row.is_problem for one in self.findings)


def find_all(seen: Sequence[Seen], limits: Limits, *, skip: Sequence[str] = ()) -> Found:
    """What there is to say of some pictures, but for the kinds that are skipped."""
    firsts = {(one.path, one.is_held_out): place for place, one in reversed(list(enumerate(seen)))}
    places = sorted(firsts.values())
    pairs = [] if {"alike", "leaked", "copies"} <= {*skip} else _find_pairs(seen, places)
    marks = {} if "marked" in skip else _find_marks(seen)
    lengths = _count_lengths(seen, limits)
    found: dict[str, list[Item]] = defaultdict(list)
    for place, one in enumerate(seen):
        for kind, detail in [*_list_own(one), *_list_long(one, lengths)]:
            found[kind].append(Item(place, detail))
    for kind, item in _list_alike(seen, pairs, places):
        found[kind].append(item)
    for name, mark in marks.items():
        framed = [place for place, _ in _list_frames(seen, name)]
        found["marked"] += [Item(framed[number], f"at {_say_place(mark)}") for number in mark.places]
    found["said-twice"] = list(_list_said_twice(seen))
    kinds = [kind for kind in KINDS if found[kind] and kind not in skip]
    return Found(tuple(Finding(kind, _list_once(found[kind], seen)) for kind in kinds), tuple(pairs), marks)


def _find_pairs(seen: Sequence[Seen], places: Sequence[int]) -> list[Pair]:
    """Pictures that are alike, among those at some places."""
    measured = [(place, one) for place in places if (one := seen[place].measures) is not None]
    near = find_alike([one for _, one in measured])
    return [Pair(measured[one.first][0], measured[one.second][0], one.is_mirrored) for one in near]


def _list_once(items: Sequence[Item], seen: Sequence[Seen]) -> tuple[Item, ...]:
    """Without what is said of the same file twice: sets of several resolutions have the same pictures."""
    first: dict[tuple[Path, str], Item] = {}
    for item in items:
        first.setdefault((seen[item.place].path, item.detail), item)
    return tuple(first.values())


def _list_own(one: Seen) -> Iterator[tuple[str, str]]:
    """What is wrong with a picture by itself."""
    if one.broken:
        yield "broken", one.broken
    if one.refusal:
        yield "refused", one.refusal
    if one.silence:
        yield "silent", one.silence
    if one.problem:
        yield "odd", one.problem
    if one.measures is None:
        return
    measures = one.measures
    if measures.sharpness is not None and measures.sharpness < LEAST_SHARPNESS:
        yield "blurred", f"one pixel makes {measures.sharpness:.0%} of its strongest edges"
    if measures.quality is not None and measures.quality < LEAST_QUALITY:
        yield "artifacts", f"JPEG of quality {measures.quality}"
    elif measures.blocks > (MOST_BLOCKS if (measures.quality or 0) < GOOD_QUALITY else MOST_OF_GOOD):
        yield "artifacts", f"{measures.blocks:.0%} of the borders of blocks of 8 pixels stand out"
    if any(measures.border):
        sides = zip(("left", "top", "right", "bottom"), measures.border, strict=True)
        yield "borders", ", ".join(f"{share:.0%} {side}" for side, share in sides if share)
    if one.lost > MOST_LOST:
        yield "cut", f"{one.lost:.0%} of it"


@dataclass(frozen=True)
class _Lengths:
    """Of one part: how much it reads, and how many tokens each caption has, or has at least."""

    part: str
    most: int
    counts: Mapping[str, int]
    words: str


def _count_lengths(seen: Sequence[Seen], limits: Limits) -> list[_Lengths]:
    texts = list(dict.fromkeys(text for one in seen for text in one.captions))
    words = "at least " if limits.is_least else ""
    return [_Lengths(part, most, dict(zip(texts, count(texts), strict=True)), words) for part, (most, count) in limits.parts.items()]


def _list_long(one: Seen, lengths: Sequence[_Lengths]) -> Iterator[tuple[str, str]]:
    cut = []
    for part in lengths:
        longest = max((part.counts[text] for text in one.captions), default=0)
        if longest > part.most:
            cut.append(f"{part.words}{longest} tokens, {part.part} reads {part.most}")
    if cut:
        yield ("long" if len(cut) == len(lengths) else "cut-short"), "; ".join(cut)


def _list_frames(seen: Sequence[Seen], name: str) -> list[tuple[int, Gray]]:
    """The pictures of a set in which marks are looked for, by their places."""
    return [
        (place, one.measures.frame)
        for place, one in enumerate(seen)
        if one.set_name == name and one.measures is not None and one.measures.frame is not None
    ]


def _find_marks(seen: Sequence[Seen]) -> dict[str, Mark]:
    names = dict.fromkeys(one.set_name for one in seen)
    found = {name: find_mark([frame for _, frame in _list_frames(seen, name)]) for name in names}
    return {name: mark for name, mark in found.items() if mark is not None}


def _list_alike(seen: Sequence[Seen], pairs: Sequence[Pair], places: Sequence[int]) -> Iterator[tuple[str, Item]]:
    """Groups of pictures: the best of each stays, and of those that are held out all. `places`: of each file one."""
    mirrored = {(one.first, one.second): one.is_mirrored for one in pairs}
    by_content = defaultdict(list)
    for place in places:
        if seen[place].content:
            by_content[seen[place].content].append(place)
    doubles = [Pair(places[0], other, False) for places in by_content.values() for other in places[1:]]
    for group in group_pairs([*pairs, *doubles]):
        held = [place for place in group if seen[place].is_held_out]
        learned = [place for place in group if not seen[place].is_held_out]
        if held and learned:
            for place in learned:
                yield "leaked", Item(place, f"as {seen[held[0]].name} of {seen[held[0]].set_name}, which is held out", tuple(held))
        kept = max(held or group, key=lambda place: (_count_pixels(seen[place]), bool(seen[place].captions), -place))
        for place in group:
            if place == kept:
                continue
            one, other = seen[place], seen[kept]
            is_copy = one.content == other.content
            how = " mirrored" if mirrored.get((min(place, kept), max(place, kept))) else ""
            where = "" if one.set_name == other.set_name else f" of {other.set_name}"
            size = "" if is_copy else f", {other.size[0]} x {other.size[1]} pixels to its {one.size[0]} x {one.size[1]}"
            if not (one.is_held_out or other.is_held_out):
                yield ("copies" if is_copy else "alike"), Item(place, f"as {other.name}{where}{how}{size}", (kept,))


def _list_said_twice(seen: Sequence[Seen]) -> Iterator[Item]:
    """But for a caption that most pictures of a set have: that is meant."""
    texts, paths, counts = defaultdict[str, list[int]](list), set[Path](), Counter[str]()
    for place, one in enumerate(seen):
        if one.captions and one.captions[0] and one.path not in paths:
            paths.add(one.path)
            counts[one.set_name] += 1
            texts[one.captions[0]].append(place)
    for places in texts.values():
        shares = [number / counts[name] for name, number in Counter(seen[place].set_name for place in places).items()]
        for place in places if len(places) > 1 and max(shares) <= _MEANT_SHARE else ():
            others = tuple(one for one in places if one != place)[:1]
            yield Item(place, f'"{_shorten(seen[place].captions[0])}"', others, is_spare=False)


def _count_pixels(one: Seen) -> int:
    return one.size[0] * one.size[1]


def _say_place(mark: Mark) -> str:
    left, top, right, bottom = mark.box
    return f"{left:.0%} to {right:.0%} from the left, {top:.0%} to {bottom:.0%} from the top"


def _shorten(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]} ..."
