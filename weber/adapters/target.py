"""From the name of a set, or from patterns, to the linear layers that get an adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from weber.config.foreign import find_value
from weber.config.foreign_values import FOREIGN_VALUES
from weber.config.near import find_near
from weber.errors import AdapterError
from weber.families.pattern import is_any, is_named, list_meant, list_near


def list_targets(
    model: nn.Module,
    targets: str | Sequence[str],
    *,
    sets: Mapping[str, Sequence[str]],
    exclude: Sequence[str] = (),
    blocks: Sequence[str] = (),
) -> list[str]:
    """Names of the linear layers of `model` that `targets` means, in the model's order: those in `blocks`, if any are named, without those
    that `exclude` means.

    A string is the name of a set; a list holds patterns: the end of a module's name, at a dot, in which `*` stands for any text. Every
    pattern and every block must match something. Raises AdapterError with near matches.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    patterns = list_patterns(targets, sets) if isinstance(targets, str) else list(targets)
    absent = [pattern for pattern in patterns if not any(is_named(name, pattern) for name in linears)]
    if absent or not patterns:
        raise build_absent(targets, absent, names=linears, what="linear layer")
    names = list_meant(linears, patterns)
    if blocks:
        names = _list_in_blocks(names, blocks, sizes=_count_blocks(model))
    check_meant(exclude, names, key="adapter.exclude")
    left = [name for name in names if not is_any(name, exclude)]
    if not left:
        raise AdapterError("No layer is left to get an adapter.", got=f"adapter.exclude = {list(exclude)}", fix="exclude fewer layers")
    return left


def check_meant(patterns: Sequence[str], names: Sequence[str], *, key: str) -> None:
    """Raise AdapterError, with near matches, for patterns of a setting that mean none of the targets."""
    absent = [pattern for pattern in patterns if not any(is_named(name, pattern) for name in names)]
    if absent:
        raise AdapterError(
            f"{key} means no layer that gets an adapter.",
            got=f"{key} with {', '.join(absent[:3])}",
            expected="the end of a target's name, at a dot, such as " + ", ".join(list_near(absent, names)),
            fix=f"correct {key}, or choose other targets",
        )


def _count_blocks(model: nn.Module) -> dict[str, int]:
    """The lists of blocks of a model, with the number of blocks; lists inside of blocks are not meant."""
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    return {name: count for name, count in lists.items() if not any(name.startswith(f"{other}.") for other in lists)}


def _list_in_blocks(names: Sequence[str], blocks: Sequence[str], *, sizes: Mapping[str, int]) -> list[str]:
    """Those layers that are in one of the blocks."""
    chosen: set[str] = set()
    for block in blocks:
        own = _list_numbered(block, sizes)
        inside = {name for name in names if any(name.startswith(f"{one}.") for one in own)}
        if not inside:
            raise AdapterError(
                "adapter.blocks means no layer that gets an adapter.",
                got=f"adapter.blocks with {block}, in which no target is",
                expected="blocks that hold targets, such as " + ", ".join(dict.fromkeys(_shorten(name) for name in names)),
                fix="correct adapter.blocks, or choose other targets",
            )
        chosen |= inside
    return [name for name in names if name in chosen]


def _list_numbered(block: str, sizes: Mapping[str, int]) -> list[str]:
    """The blocks that one entry of `adapter.blocks` means: all of a name, or those with some numbers."""
    name, _, numbers = block.strip().rpartition(".")
    if block.strip() in sizes:
        return [block.strip()]
    ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", one.strip()) for one in numbers.split(",")]
    bounds = [(int(one[1]), int(one[2] or one[1])) for one in ranges if one is not None]
    if name not in sizes or None in ranges or not all(first <= last < sizes[name] for first, last in bounds):
        near = None if name in sizes else find_near(name or numbers, sizes)
        raise AdapterError(
            "The model has no such blocks.",
            got=f"adapter.blocks with {block!r}",
            expected="some of " + " and ".join(f"{one}.0-{size - 1}" for one, size in sizes.items()) + ", or a name alone",
            fix=(f"did you mean {near!r}? " if near else "") + "Correct adapter.blocks",
        )
    return [f"{name}.{number}" for first, last in bounds for number in range(first, last + 1)]


def _shorten(name: str) -> str:
    """`blocks.3.attn.to_q` is in `blocks.3`."""
    match = re.match(r"[^.]+\.\d+", name)
    return match[0] if match else name


def list_patterns(name: str, sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Patterns of a named set. Raises AdapterError for an unknown name; needs no model."""
    if name not in sets:
        meant = find_value(FOREIGN_VALUES, "adapter.targets", value=name) or find_near(name, sets)
        raise AdapterError(
            "There is no such set of targets.",
            got=f"adapter.targets = {name!r}",
            expected=", ".join(sets),
            fix=(f"did you mean {meant!r}? " if meant in sets else "") + f"A pattern goes into a list: targets = [{name!r}]",
        )
    return list(sets[name])


def find_set(modules: Sequence[str], linears: Sequence[str], *, sets: Mapping[str, Sequence[str]]) -> str | None:
    """The set that means exactly these modules, of all linear layers of a model; None where none does."""
    for name, patterns in sets.items():
        if set(list_meant(linears, patterns)) == set(modules):
            return name
    return None


def build_absent(targets: str | Sequence[str], absent: Sequence[str], *, names: Sequence[str], what: str) -> AdapterError:
    """The error for targets that mean nothing; `names` are those that there are, each of them a `what`."""
    return AdapterError(
        f"The target set {targets!r} is not for this model." if isinstance(targets, str) else "The targets do not fit this model.",
        got=f"adapter.targets = {targets!r}; no {what} is named {', '.join(absent[:3])}" if absent else "adapter.targets = []",
        expected="the end of a module's name, at a dot, such as " + ", ".join(list_near(absent, names)),
        fix="correct adapter.targets, or choose a set (`weber variants` lists them)",
    )
