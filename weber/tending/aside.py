"""Pictures with problems moved out of the way; nothing is ever deleted, and a file says how to undo it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.config.elsewhere import find_scheme
from weber.data.backends.tars import ENDING
from weber.data.left_out import ASIDE_FOLDER
from weber.tending.check import Checked
from weber.tending.findings import KINDS
from weber.tending.undo import Move, write_moves


@dataclass(frozen=True)
class Proposal:
    """What would be moved where, and pictures that cannot be moved, with the reason."""

    moves: tuple[Move, ...]
    left: tuple[str, ...]


def propose_moves(checked: Checked, folder: Path | None) -> Proposal:
    """For each picture with a problem that moving solves: itself and what belongs to it, under the first of its problems.

    Left out, the folder is `set-aside` in the one that the pictures of a set lie in: no set has it in it.
    """
    reasons: dict[int, str] = {}
    for finding in checked.found.findings:
        for item in finding.items if KINDS[finding.kind].moves else ():
            if item.is_spare:
                reasons.setdefault(item.place, finding.kind)
    moves, left, taken = list[Move](), list[str](), set[Path]()
    for place, kind in sorted(reasons.items()):
        one = checked.seen[place]
        home = find_home(one.path, one.name)
        if home is None or not one.path.is_file():
            left.append(f"{one.name}: it lies in no folder of this machine; take it out of its archive, table or dataset")
            continue
        target = (home / ASIDE_FOLDER if folder is None else folder / home.name) / kind
        for file in dict.fromkeys([one.path, *one.beside]):
            if file in taken or not file.is_file():
                continue
            taken.add(file)
            inside = file.relative_to(home) if file.is_relative_to(home) else Path("beside") / file.name
            moves.append(Move(file, find_free(target / inside, {move.target for move in moves})))
    return Proposal(tuple(moves), tuple(left))


def move_all(moves: Sequence[Move]) -> list[Path]:
    """Move files, and write what undoes it beforehand: returns those files, one in each folder that files were moved to."""
    by_home: dict[Path, list[Move]] = {}
    for move in moves:
        home = next(one for one in move.target.parents if one.name in KINDS).parent
        by_home.setdefault(home, []).append(move)
    return [write_moves(home, some) for home, some in by_home.items()]


def find_home(path: Path, name: str) -> Path | None:
    """The folder of a set on this machine, of a picture that it calls by that name; None for what lies in an archive or elsewhere."""
    if find_scheme(path) or f"{ENDING}/" in path.as_posix().lower():
        return None
    depth = len(Path(name).parts)
    return path.parents[depth - 1] if not Path(name).is_absolute() and depth <= len(path.parents) else path.parent


def find_free(path: Path, taken: set[Path]) -> Path:
    """The path, with a number where there is such a file."""
    number, free = 1, path
    while free in taken or free.exists():
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free
