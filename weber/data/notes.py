"""What a person should know of the sets and would not look for, in sentences: nothing here is wrong for certain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from weber.config.data import DataConfig
from weber.data.beside import cut_suffix
from weber.data.buckets import Bucket
from weber.data.captions import CaptionFile, read_folder_name, read_repeat_name
from weber.data.changes import names_a_side
from weber.data.files import find_last
from weber.data.found import find_home
from weber.data.geometry import choose_aspect, place_picture
from weber.data.index import FileFacts
from weber.data.packing import ROWS
from weber.data.pictures import Part
from weber.data.words import describe_count, describe_some

_MASK_NAME = re.compile(r"(.+?)[-_. ]?mask(?:label)?", re.IGNORECASE)
_NUM_NAMED = 4  # more than are shown
_SQUEEZED = 0.05  # of the logarithm of an aspect


def describe_problems(set_name: str, facts: Mapping[Path, FileFacts]) -> list[str]:
    """A line for each kind of problem that pictures have and that does not keep them out."""
    kinds: dict[str, list[str]] = {}
    for path, one in facts.items():
        if one.problem:
            kinds.setdefault(one.problem.partition(":")[0], []).append(path.name)
    return [f"{set_name}: {kind}: {_name(paths, 'picture')}" for kind, paths in kinds.items()]


def describe_json(config: DataConfig, captions: Mapping[str, CaptionFile]) -> list[str]:
    """A line where caption files are JSON as a whole, and what became of them."""
    found = [name for name, one in captions.items() if one.is_json]
    if not found or config.caption_per == "file":
        return []
    how = "each is one caption" if config.caption_per is None else 'each of their lines is a caption: set caption_per = "file"'
    return [f"{config.set_name}: {_name(found, 'caption file')} in several lines that are JSON as a whole; {how}"]


def find_repeat_names(config: DataConfig, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The folders of a set whose names say how often they repeat and what they show, as kohya's trainer reads them (`10_word class`).

    `names` are those of pictures, as seen from the set's folder or whole.
    """
    top = find_home(config)
    homes = [top / home for home in dict.fromkeys(name.rpartition("/")[0] for name in names)]
    folders = dict.fromkeys(one for home in homes for one in (home, *home.parents) if one == top or one.is_relative_to(top))
    return {folder.name: said for folder in folders if (said := read_repeat_name(folder.name)) is not None}


def describe_repeat_names(config: DataConfig, names: Iterable[str], *, key: str) -> list[str]:
    """A line for each such folder whose number is not what the set says."""
    if config.hub is not None or config.evaluation == 1:
        return []
    lines = []
    for name, said in find_repeat_names(config, names).items():
        if said[0] != config.repeats:
            lines.append(f"{config.set_name}: {explain_repeat_name(name, said, config=config, key=key)}")
    return lines


def explain_repeat_name(name: str, said: tuple[int, str], *, config: DataConfig, key: str) -> str:
    """What such a name does not do, and what does."""
    is_read = "foldername" in config.caption_sources
    line = f'the folder "{name}" is named as kohya\'s trainer wants it, but here its {"number" if is_read else "name"} says nothing'
    line += f": in a set of its own, set {key}.repeats = {said[0]}"
    if is_read:
        return line
    return f'{line}; {key}.captions = ["textfile", "foldername"] takes "{read_folder_name(name)}" where there is no caption file'


def describe_mask_names(config: DataConfig, names: Iterable[str]) -> list[str]:
    """A line where pictures are named like masks of other pictures of the set."""
    stems = {cut_suffix(name): name for name in names}
    masks = [name for stem, name in stems.items() if "mask" in stem.lower() and (found := _MASK_NAME.fullmatch(stem)) and found[1] in stems]
    if not masks:
        return []
    advice = "move them into a folder of their own, under the names of their pictures, and set loss_masks"
    return [f"{config.set_name}: {_name(masks, 'picture')} named as a mask of another one, but trained as a picture: {advice}"]


def describe_own_references(config: DataConfig, part: Part) -> list[str]:
    """A line where a reference is the picture itself, so that all there is to learn is to copy it."""
    if "reference" not in part.columns or config.reference_own is not None:
        return []
    examples = map(part.build, range(len(part)))
    same = [one.path.name for one in examples if any(reference.content == one.content for reference in one.references)]
    return [f"{config.set_name}: {_name(same, 'picture')} with itself as its reference, byte for byte"] if same else []


def describe_small(config: DataConfig, part: Part, *, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A line where pictures are smaller than asked for, and so are trained smaller."""
    if config.upscale or config.aspect == "random":  # of a drawn shape the size says nothing
        return []
    large = config.model_copy(update={"upscale": True})

    def build(width: int, height: int) -> Bucket:
        aspect = choose_aspect(width, height, config=config, seed_parts=())
        return place_picture(width, height, config=large, sizes=sizes, aspect=aspect).bucket

    kinds, counts = np.unique(np.column_stack([part.array("size"), part.array("shape")]), axis=0, return_counts=True)
    found = [
        (part.shapes[shape].bucket, count)
        for (width, height, shape), count in zip(kinds.tolist(), counts.tolist(), strict=True)
        if _count_pixels(part.shapes[shape].bucket) < _count_pixels(build(width, height))
    ]
    if not found:
        return []
    least, number = min((bucket for bucket, _ in found), key=_count_pixels), sum(count for _, count in found)
    return [
        f"{config.set_name}: {number} of {describe_count(len(part), 'picture')} smaller than asked for, so trained smaller, down to"
        f" {least.width} x {least.height} pixels; upscale = true enlarges, minimum_edge sets aside"
    ]


def describe_changes(config: DataConfig, part: Part, *, faces: Mapping[Path, FileFacts]) -> list[str]:
    """Lines for what a person should know of mirrored pictures and of faces."""
    lines = []
    if config.mirror and config.mirror_sides != "refuse":
        ends = part.array("caption" + ROWS)
        rows = [row for row, text in enumerate(part.captions) if names_a_side(text)]
        named = [find_last(part.paths[place]) for place in np.unique(np.searchsorted(ends, rows, side="right")).tolist()]
        what = "not mirrored" if config.mirror_sides == "keep" else 'mirrored all the same; mirror_sides = "keep" leaves them as they are'
        lines += [f"{config.set_name}: {_name(named, 'picture')} with captions that mention left or right, {what}"] if named else []
    if config.geometry == "simpletuner":
        lines += _describe_squeezed(config, part)
    if faces:
        missing = [path.name for path, facts in faces.items() if not facts.reason and not facts.text]
        number = describe_count(len(faces) - len(missing), "picture")
        others = f"; of the others the middle is kept: {describe_some(missing[:_NUM_NAMED])}" if missing else ""
        lines.append(f"{config.set_name}: a face was found in {number} of {len(faces)}{others}")
    return lines


def _describe_squeezed(config: DataConfig, part: Part) -> list[str]:
    """A line where another trainer's sizes change the aspect of pictures by more than rounding does."""
    ends, sizes = part.array("crop" + ROWS), part.array("size")
    firsts = part.array("crop")[np.concatenate([[0], ends[:-1]])]
    ratio = (firsts[:, 0] / sizes[:, 0]) / (firsts[:, 1] / sizes[:, 1])
    places = np.flatnonzero(np.abs(np.log(ratio)) > _SQUEEZED).tolist()
    if not places:
        return []
    named = _name_places(places, part)
    return [f'{config.set_name}: {named} squeezed to another aspect, as SimpleTuner does at this size; geometry = "ours" cuts them instead']


def describe_copies(part: Part) -> list[str]:
    """A line for a set in which pictures are more than once."""
    order = np.argsort(part.contents, kind="stable")
    ordered = part.contents[order]
    firsts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff([*firsts, len(ordered)])
    copied = np.flatnonzero(counts > 1)
    if not len(copied):
        return []
    by_place = sorted((int(order[firsts[one]]), int(order[firsts[one] + 1])) for one in copied)
    pairs = describe_some([" = ".join(find_last(part.paths[place]) for place in places) for places in by_place])
    extra = int(counts[copied].sum()) - len(copied)
    return [f"{part.shared.set_name}: {describe_count(extra, 'picture')} there once more, byte for byte, and trained as often: {pairs}"]


def describe_doubles(parts: Sequence[Part]) -> list[str]:
    """A line for pairs of sets that have the same pictures, where that is no plan."""
    lines = []
    for first, second in combinations(parts, 2):
        is_kept, is_other_kept = first.shared.is_regularization, second.shared.is_regularization
        if is_kept != is_other_kept:
            lines += _describe_opposed(*((second, first) if is_kept else (first, second)))
        else:
            lines += _describe_equal(first, second)
    return lines


def describe_known(learned: Sequence[Part], held: Sequence[Part]) -> list[str]:
    """A line where pictures that are held out are learned all the same, as copies or in another set."""
    lines = []
    for other in held:
        for part in learned:
            both = np.flatnonzero(np.isin(other.contents, part.contents)).tolist()
            if both:
                what = f"{_name_places(both, other)} held out that the set {part.shared.set_name} learns too"
                lines.append(f"{other.shared.set_name}: {what}, so they say nothing; remove one of each")
    return lines


def _describe_opposed(learned: Part, kept: Part) -> list[str]:
    both = np.flatnonzero(np.isin(kept.contents, learned.contents)).tolist()
    if not both:
        return []
    return [
        f"{kept.shared.set_name}: {_name_places(both, kept)} for regularization that the set {learned.shared.set_name} learns; keep their"
        " folders apart, neither inside of the other"
    ]


def _describe_equal(first: Part, second: Part) -> list[str]:
    """The same pictures, at the same size and with the same captions."""
    there = set(np.flatnonzero(np.isin(first.contents, second.contents)).tolist())
    seen = {(one.content, one.bucket, one.captions) for one in map(first.build, there)}
    candidates = np.flatnonzero(np.isin(second.contents, first.contents)).tolist() if there else []
    both = [place for place in candidates if ((one := second.build(place)).content, one.bucket, one.captions) in seen]
    if not both:
        return []
    names = _name_places(both, second)
    return [
        f"{second.shared.set_name}: {names} that the set {first.shared.set_name} has at the same size and with the same captions, so they"
        " are trained twice"
    ]


def _name_places(places: Sequence[int], part: Part) -> str:
    return f"{describe_count(len(places), 'picture')} ({describe_some([find_last(part.paths[place]) for place in places[: _NUM_NAMED]])})"


def _name(names: Sequence[str], noun: str) -> str:
    return f"{describe_count(len(names), noun)} ({describe_some([find_last(name) for name in names[: _NUM_NAMED]])})"


def _count_pixels(bucket: Bucket) -> int:
    return bucket.width * bucket.height
