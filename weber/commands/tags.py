"""`weber tags`: the tags in caption files, for all pictures of a folder at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import say

if TYPE_CHECKING:
    from weber.tending.tag_changes import Change

app = App(name="tags", help="Change or count the tags in the caption files of a folder.")


@dataclass(frozen=True)
class Files:
    """Which files, and how their tags are separated."""

    ending: Annotated[
        str | None, Parameter(help="Ending of the caption files; those that training reads (.txt, else .caption) if left out.")
    ] = None
    separator: Annotated[str, Parameter(help="What stands between tags.")] = ","
    recursive: Annotated[bool, Parameter(help="Look into subfolders too.")] = True


@dataclass(frozen=True)
class Asked(Files):
    """The same where files are changed."""

    dry_run: Annotated[bool, Parameter(help="Show what would change, and change nothing.", negative="")] = False
    create: Annotated[bool, Parameter(help="Write a file for pictures that have none.", negative="")] = False


_Given = Annotated[Asked | None, Parameter(name="*")]


@app.command
def add(folder: Path, /, *tags: str, start: bool = False, asked: _Given = None) -> None:
    """Add tags to every caption that lacks them.

    Parameters
    ----------
    folder
        The folder of pictures.
    tags
        The tags, each in quotes of its own.
    start
        At the start of captions, not at their end.
    """
    from weber.tending.tag_changes import add_tags

    _change(folder, tags, add_tags(tags, is_first=start), asked)


@app.command
def first(folder: Path, /, *tags: str, asked: _Given = None) -> None:
    """Put tags before all others, such as the name of what is to be learned; where they are missing they are added.

    Parameters
    ----------
    folder
        The folder of pictures.
    tags
        The tags in their order, each in quotes of its own.
    """
    from weber.tending.tag_changes import put_first

    _change(folder, tags, put_first(tags), asked)


@app.command
def remove(folder: Path, /, *tags: str, asked: _Given = None) -> None:
    """Remove tags from every caption.

    Parameters
    ----------
    folder
        The folder of pictures.
    tags
        The tags, each in quotes of its own; `*` stands for any text.
    """
    from weber.tending.tag_changes import remove_tags

    _change(folder, tags, remove_tags(tags), asked)


@app.command
def replace(folder: Path, pair: tuple[str, str], /, *, asked: _Given = None) -> None:
    """Write one tag in the place of another.

    Parameters
    ----------
    folder
        The folder of pictures.
    pair
        The tag that goes, and the tag that comes.
    """
    from weber.tending.tag_changes import replace_tag

    _change(folder, pair, replace_tag(*pair), asked)


@app.command
def count(folder: Path, /, *, files: Annotated[Files | None, Parameter(name="*")] = None, most: int | None = None) -> None:
    """Count in how many captions each tag is, the most frequent first.

    Parameters
    ----------
    folder
        The folder of pictures.
    most
        List only so many.
    """
    from weber.tending.caption_texts import read_texts
    from weber.tending.tag_changes import check_separator, count_tags

    given = files or Files()
    check_separator(given.separator)
    texts = read_texts(folder, ending=given.ending, recursive=given.recursive)
    for tag, number in count_tags(texts, separator=given.separator).most_common(most):
        say(f"{number:7} {tag}")
    for line in texts.left:
        say(f"left out: {line}")


def _change(folder: Path, tags: tuple[str, ...], change: Change, asked: Asked | None) -> None:
    from weber.tending.caption_texts import read_texts
    from weber.tending.tag_changes import change_texts, check_separator, check_tags, save_changes

    given = asked or Asked()
    check_separator(given.separator)
    check_tags(tags, separator=given.separator)
    texts = read_texts(folder, ending=given.ending, recursive=given.recursive)
    changed = change_texts(texts, change, separator=given.separator, creates=given.create)
    for line in texts.left:
        say(f"left as it is: {line}")
    if given.dry_run:
        for line in changed.describe(folder):
            say(line)
        say(f"{len(changed.texts)} of {changed.num_files} caption files would change.")
        return
    if changed.texts:
        record = save_changes(changed, folder)
        say(f"`weber data undo {record}` takes it back.")
    say(f"{len(changed.texts)} of {changed.num_files} caption files changed.")
