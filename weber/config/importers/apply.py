"""Each key of a file is answered by a table, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weber.config.importers.answers import Answer, Table, find_answer, list_names
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys, is_unset
from weber.config.importers.outcome import Given, OutcomeKind, write_plain
from weber.config.near import find_near
from weber.errors import ConfigError


def apply(draft: Draft, keys: Keys, *, table: Table, example: Mapping[str, Any] | None = None, is_strict: bool = True) -> None:
    """Answer each key by the table: those of the file, then those that the other trainer takes by default.

    `example`: values of the trainer's own example. `is_strict`: unknown keys are errors, as they are there; else they had no effect.
    """
    unknown = [one for one in keys.given.values() if find_answer(table, one.name) is None]
    if unknown and is_strict:
        raise _build_unknown_error(unknown, table)
    for one in unknown:
        near = find_near(one.name, list_names(table))
        draft.note(one, "no effect", line="no such key there, and it was not read" + (f"; was {near} meant?" if near else ""))
    for given in _list_given(keys, table, weber_defaults=draft.weber_defaults):
        answer = find_answer(table, given.name)
        assert answer is not None
        is_example = not given.is_default and given.name in (example or {}) and is_same(given.value, (example or {})[given.name])
        if is_unset(given.value):
            draft.note(given, "no effect", line="empty: left out, here as there", is_example=is_example)
        else:
            kind, line = _answer(draft, keys, answer=answer, given=given)
            draft.note(given, kind, line=line, is_example=is_example)


def _answer(draft: Draft, keys: Keys, *, answer: Answer, given: Given) -> tuple[OutcomeKind, str]:
    if any(is_same(given.value, value) for value in answer.off):
        return "no effect", answer.why if answer.kind == "no effect" else "asks for nothing, here as there"
    if answer.kind == "used":
        key = answer.key if not answer.key.startswith(".") else f"data.{keys.set_number}{answer.key}"
        return "used", draft.set(key, given.value, origin=given)
    if answer.call is not None:
        line = answer.call(draft, keys, given.value)
        return ("no effect", line.removeprefix(NO_EFFECT)) if line.startswith(NO_EFFECT) else _find_kind(answer, line)
    return answer.kind, answer.why


def _find_kind(answer: Answer, line: str) -> tuple[OutcomeKind, str]:
    return ("refused", line.removeprefix(REFUSED)) if line.startswith(REFUSED) else (answer.kind, line)


def _list_given(keys: Keys, table: Table, *, weber_defaults: bool) -> Iterator[Given]:
    yield from (one for one in keys.given.values() if find_answer(table, one.name) is not None)
    if not weber_defaults:
        left_out = [name for name in keys.defaults if name not in keys and find_answer(table, name) is not None]
        yield from (keys.find(name) for name in left_out if not is_unset(keys.defaults[name]))


def is_same(one: object, other: object) -> bool:
    """Whether two values are the same in the eyes of a trainer that reads texts as numbers."""
    if one == other and isinstance(one, bool) == isinstance(other, bool):
        return True
    if one is None or other is None:
        return False
    first, second = write_plain(one).strip().lower(), write_plain(other).strip().lower()
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False


def _build_unknown_error(unknown: Sequence[Given], table: Table) -> ConfigError:
    names = list_names(table)
    near = {one.spelled: find_near(one.name, [name for name in names if "*" not in name]) for one in unknown}
    first = unknown[0]
    listed = ", ".join(f"{spelled} (did you mean {found}?)" if found else spelled for spelled, found in near.items())
    return ConfigError(
        f"{first.where} holds {'keys' if len(unknown) > 1 else 'a key'} that its trainer does not have: {listed}.",
        got=first.text,
        expected="keys of that trainer, as its documentation spells them",
        fix=f"write {near[first.spelled]}, or remove the key" if near[first.spelled] else "remove the key",
    )
