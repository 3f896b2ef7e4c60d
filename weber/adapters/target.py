"""From the name of a set, or from patterns, to the linear layers that get an adapter."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from torch import nn

from weber.errors import AdapterError
from weber.families.pattern import is_named, list_meant, list_near


def list_targets(model: nn.Module, targets: str | Sequence[str], *, sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the linear layers of `model` that `targets` means, in the model's order.

    A string is the name of a set; a list holds patterns: the end of a module's name, at a dot, in which `*` stands for any text. Every
    pattern must match something. Raises AdapterError with near matches.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    patterns = list_patterns(targets, sets) if isinstance(targets, str) else list(targets)
    absent = [pattern for pattern in patterns if not any(is_named(name, pattern) for name in linears)]
    if absent or not patterns:
        raise build_absent(targets, absent, linears, what="linear layer")
    return list_meant(linears, patterns)


def list_patterns(name: str, sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Patterns of a named set. Raises AdapterError for an unknown name; needs no model."""
    if name not in sets:
        near = difflib.get_close_matches(name, sets, n=1, cutoff=0.4)
        raise AdapterError(
            "There is no such set of targets.",
            got=f"adapter.targets = {name!r}",
            expected=", ".join(sets),
            fix=(f"did you mean {near[0]!r}? " if near else "") + f"A pattern goes into a list: targets = [{name!r}]",
        )
    return list(sets[name])


def find_set(modules: Sequence[str], linears: Sequence[str], *, sets: Mapping[str, Sequence[str]]) -> str | None:
    """The set that means exactly these modules, of all linear layers of a model; None where none does."""
    for name, patterns in sets.items():
        if set(list_meant(linears, patterns)) == set(modules):
            return name
    return None


def build_absent(targets: str | Sequence[str], absent: Sequence[str], names: Sequence[str], *, what: str) -> AdapterError:
    """The error for targets that mean nothing; `names` are those that there are, each of them a `what`."""
    return AdapterError(
        f"The target set {targets!r} is not for this model." if isinstance(targets, str) else "The targets do not fit this model.",
        got=f"adapter.targets = {targets!r}; no {what} is named {', '.join(absent[:3])}" if absent else "adapter.targets = []",
        expected="the end of a module's name, at a dot, such as " + ", ".join(list_near(absent, names)),
        fix="correct adapter.targets, or choose a set (`weber variants` lists them)",
    )
