"""What a person should know of the sets and would not look for, in sentences: nothing here is wrong for certain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.buckets import Bucket, build_bucket
from weber.data.captions import CaptionFile, read_folder_name, read_repeat_name
from weber.data.examples import Example
from weber.data.index import FileFacts
from weber.data.words import describe_count, describe_some

_MASK_NAME = re.compile(r"(.+?)[-_. ]?mask(?:label)?", re.IGNORECASE)


def describe_problems(set_name: str, facts: Mapping[Path, FileFacts]) -> list[str]:
    """A line for each kind of problem that pictures have and that does not keep them out."""
    kinds: dict[str, list[Path]] = {}
    for path, one in facts.items():
        if one.problem:
            kinds.setdefault(one.problem.partition(":")[0], []).append(path)
    return [f"{set_name}: {kind}: {_name(paths, 'picture')}" for kind, paths in kinds.items()]


def describe_json(config: DataConfig, captions: Mapping[Path, CaptionFile]) -> list[str]:
    """A line where caption files are JSON as a whole, and what became of them."""
    found = [path for path, one in captions.items() if one.is_json]
    if not found or config.caption_per == "file":
        return []
    how = "each is one caption" if config.caption_per is None else 'each of their lines is a caption: set caption_per = "file"'
    return [f"{config.set_name}: {_name(found, 'caption file')} in several lines that are JSON as a whole; {how}"]


def find_repeat_names(config: DataConfig, paths: Iterable[Path]) -> dict[str, tuple[int, str]]:
    """The folders of a set whose names say how often they repeat and what they show, as kohya's trainer reads them (`10_word class`)."""
    assert config.path is not None
    top = config.path.absolute()
    folders = dict.fromkeys(folder for path in paths for folder in path.parents if folder == top or folder.is_relative_to(top))
    return {folder.name: said for folder in folders if (said := read_repeat_name(folder.name)) is not None}


def describe_repeat_names(config: DataConfig, paths: Iterable[Path], *, key: str) -> list[str]:
    """A line for each such folder whose number is not what the set says."""
    if config.hub is not None:
        return []
    lines = []
    for name, said in find_repeat_names(config, paths).items():
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


def describe_mask_names(config: DataConfig, paths: Sequence[Path]) -> list[str]:
    """A line where pictures are named like masks of other pictures of the set."""
    stems = {path: path.with_suffix("").as_posix() for path in paths}
    pictures = set(stems.values())
    masks = [path for path, stem in stems.items() if (found := _MASK_NAME.fullmatch(stem)) and found[1] in pictures]
    if not masks:
        return []
    advice = "move them into a folder of their own, under the names of their pictures, and set loss_masks"
    return [f"{config.set_name}: {_name(masks, 'picture')} named as a mask of another one, but trained as a picture: {advice}"]


def describe_own_references(config: DataConfig, examples: Sequence[Example]) -> list[str]:
    """A line where a reference is the picture itself, so that all there is to learn is to copy it."""
    same = [one.path for one in examples if any(reference.content == one.content for reference in one.references)]
    return [f"{config.set_name}: {_name(same, 'picture')} with itself as its reference, byte for byte"] if same else []


def describe_small(config: DataConfig, examples: Sequence[Example], *, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A line where pictures are smaller than asked for, and so are trained smaller."""
    if config.upscale:
        return []
    large = config.model_copy(update={"upscale": True})
    small = [one for one in examples if one.bucket != build_bucket(one.width, one.height, config=large, sizes=sizes)]
    if not small:
        return []
    least = min((one.bucket for one in small), key=_count_pixels)
    return [
        f"{config.set_name}: {len(small)} of {describe_count(len(examples), 'picture')} smaller than asked for, so trained smaller, down to"
        f" {least.width} x {least.height} pixels; upscale = true enlarges, minimum_edge sets aside"
    ]


def describe_doubles(examples: Sequence[Example]) -> list[str]:
    """A line for each set in which pictures are more than once, and for pairs of sets that have the same ones, where that is no plan."""
    sets: dict[str, list[Example]] = {}
    for example in examples:
        sets.setdefault(example.set_name, []).append(example)
    lines = [line for name, members in sets.items() for line in _describe_copies(name, members)]
    for (first, one), (second, other) in combinations(sets.items(), 2):
        is_kept, is_other_kept = one[0].is_regularization, other[0].is_regularization
        if is_kept != is_other_kept:
            learned, kept = ((second, other), (first, one)) if is_kept else ((first, one), (second, other))
            lines += _describe_opposed(learned, kept)
        else:
            lines += _describe_equal((first, one), (second, other))
    return lines


def _describe_copies(set_name: str, members: Sequence[Example]) -> list[str]:
    paths: dict[str, list[Path]] = {}
    for example in members:
        paths.setdefault(example.content, []).append(example.path)
    copies = [found for found in paths.values() if len(found) > 1]
    if not copies:
        return []
    pairs = describe_some([" = ".join(path.name for path in found[:2]) for found in copies])
    extra = sum(len(found) - 1 for found in copies)
    return [f"{set_name}: {describe_count(extra, 'picture')} there once more, byte for byte, and trained as often: {pairs}"]


def _describe_opposed(learned: tuple[str, Sequence[Example]], kept: tuple[str, Sequence[Example]]) -> list[str]:
    contents = {example.content for example in learned[1]}
    both = [example.path for example in kept[1] if example.content in contents]
    if not both:
        return []
    return [
        f"{kept[0]}: {_name(both, 'picture')} for regularization that the set {learned[0]} learns; keep their folders apart, neither inside"
        " of the other"
    ]


def _describe_equal(first: tuple[str, Sequence[Example]], second: tuple[str, Sequence[Example]]) -> list[str]:
    """The same pictures, at the same size and with the same captions."""
    seen = Counter((example.content, example.bucket, example.captions) for example in first[1])
    both = [example for example in second[1] if seen[example.content, example.bucket, example.captions]]
    if not both:
        return []
    names = _name([example.path for example in both], "picture")
    return [f"{second[0]}: {names} that the set {first[0]} has at the same size and with the same captions, so they are trained twice"]


def _name(paths: Sequence[Path], noun: str) -> str:
    return f"{describe_count(len(paths), noun)} ({describe_some([path.name for path in paths])})"


def _count_pixels(bucket: Bucket) -> int:
    return bucket.width * bucket.height
