"""`weber data`: what is done to pictures before a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import Texts, build_watcher, end, read_run, say

app = App(name="data", help="Check, convert and complete pictures before a run.")


@dataclass(frozen=True)
class Asked:
    """What is looked for, and who is told."""

    trigger: Annotated[str | None, Parameter(help="A word that captions should have; that of the run's caption steps if left out.")] = None
    skip: Annotated[list[str], Parameter(help="A kind of finding that is not looked for, such as blurred; may be given several times.", negative="")] = field(
        default_factory=list
    )
    json: Annotated[Path | None, Parameter(help="Write all that was found as JSON.")] = None
    html: Annotated[Path | None, Parameter(help="Write one HTML page with thumbnails.")] = None


@app.command
def check(
    place: Path,
    /,
    *overrides: str,
    asked: Annotated[Asked | None, Parameter(name="*")] = None,
    fix: bool = False,
    apply: bool = False,
    set_aside: Path | None = None,
) -> None:
    """Look for what spoils a run: broken files, near-duplicates, missing captions, blur, compression, borders, marks. Exit code 1 if any.

    Parameters
    ----------
    place
        A folder of pictures, or the settings of a run, whose sets are then compared with each other and with what is held out.
    overrides
        Settings, such as `data.0.resolution=768`; of a folder its set is `data.0`.
    fix
        Propose moves of pictures with problems, and of what belongs to them, into a folder; nothing is moved.
    apply
        Do what `--fix` proposes. An undo file is written first; nothing is deleted or written over.
    set_aside
        The folder that pictures are moved to; `set-aside` beside the folder of their set if left out.
    """
    from weber.commands.looking import look_at_place

    given, watcher = asked or Asked(), build_watcher()
    with watcher.shown():
        seen, limits, triggers = look_at_place(place, overrides, has_thumbs=given.html is not None, progress=watcher.report)
        from weber.tending.check import check_pictures, describe_check, write_json
        from weber.tending.check_page import write_page

        if given.trigger is not None:
            triggers = {one.set_name: given.trigger for one in seen}
        watcher.report("comparing the pictures", 0, 1)
        checked = check_pictures(seen, limits, triggers=triggers, skip=given.skip)
        watcher.report("comparing the pictures", 1, 1)
    say(describe_check(checked))
    if given.json is not None:
        write_json(checked, given.json)
    if given.html is not None:
        write_page(checked, given.html, title=f"Check of {place}")
        say(f"\nOpen {given.html} in a browser.")
    if fix or apply:
        from weber.tending.aside import move_all, propose_moves

        proposal = propose_moves(checked, set_aside)
        say("\n" + ("Moved:" if apply else "Would move (--apply does it):"))
        records = move_all(proposal.moves) if apply else []
        for line in [*(f"{move.source} -> {move.target}" for move in proposal.moves), *(f"left: {one}" for one in proposal.left)]:
            say(f"  {line}")
        for record in records:
            say(f"`weber data undo {record}` puts them back.")
    if checked.found.num_problems:
        end(1)


@app.command
def undo(record: Path, /) -> None:
    """Put files back as they were before a change of weber's: pictures that were set aside, captions that were rewritten.

    Parameters
    ----------
    record
        The undo file that the command has named.
    """
    from weber.tending.undo import undo as put_back

    undone = put_back(record)
    say(f"{undone.num_files} files are as they were.")
    for line in undone.left:
        say(f"left as it is: {line}")
    if undone.left:
        end(1)
