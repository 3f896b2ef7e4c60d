"""`weber metadata`: captions, tags and sizes in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import build_watcher, say

app = App(name="metadata", help="Build, merge or split tables of captions, tags and sizes.")


@app.command
def build(
    folder: Path,
    out: Path,
    /,
    *,
    captions: str | None = None,
    tags: str | None = None,
    join: Annotated[bool, Parameter(negative="")] = False,
    full_path: bool | None = None,
    recursive: bool = True,
) -> None:
    """Write what the caption files of a folder say into one table, which `data.metadata` reads.

    Parameters
    ----------
    folder
        The folder of pictures.
    out
        The table: *.jsonl or *.parquet for training, *.json as kohya's meta_data.json.
    captions
        Ending of the files with captions. Left out: .caption, or .txt where there are none of these.
    tags
        Ending of the files with tags. Left out: .txt, where captions are in .caption.
    join
        Write captions with their tags behind them, as kohya's trainer reads both.
    full_path
        Name pictures by their whole paths. Left out: in *.json, where kohya's trainer opens nothing else.
    recursive
        Look into subfolders too.
    """
    from weber.tending.metadata import Sources, build_metadata, write_entries

    watcher, sources = build_watcher(), Sources(captions, tags, join, recursive)
    with watcher.shown():
        entries, left = build_metadata(folder, sources, progress=watcher.report)
    is_full = out.suffix.lower() == ".json" if full_path is None else full_path
    write_entries(entries, out, folder=folder if is_full else None)
    for line in left:
        say(f"left out: {line}")
    num_captions, num_tags = sum(bool(one.captions) for one in entries.values()), sum(bool(one.tags) for one in entries.values())
    say(f"{out}: {len(entries)} pictures, {num_captions} with a caption, {num_tags} with tags")


@app.command
def merge(*tables: Path, out: Path, folder: Path | None = None) -> None:
    """Write several tables as one: what a later one says of a picture takes the place of what an earlier one says.

    Parameters
    ----------
    tables
        Tables of training (JSON Lines, CSV, Parquet) or of kohya's scripts (JSON).
    out
        The table: *.jsonl, *.parquet or *.json.
    folder
        The folder of pictures, for tables that name them without their endings, as kohya's do.
    """
    from weber.errors import ConfigError
    from weber.tending.metadata import merge_entries, read_entries, write_entries

    if not tables:
        raise ConfigError("There is nothing to merge.", got="no table", fix="weber metadata merge a.jsonl b.json --out all.jsonl")
    merged = merge_entries([read_entries(table, folder) for table in tables])
    write_entries(merged, out)
    say(f"{out}: {len(merged)} pictures of {len(tables)} tables")


@app.command
def split(
    table: Path,
    folder: Path,
    /,
    *,
    captions: str = ".caption",
    tags: str = ".txt",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write what a table says as caption files beside the pictures.

    Parameters
    ----------
    table
        A table of training or of kohya's scripts.
    folder
        The folder of pictures.
    captions
        Ending of the files with captions.
    tags
        Ending of the files with tags.
    overwrite
        Replace files that say something else.
    """
    from weber.errors import ConfigError
    from weber.tending.metadata import read_entries, split_entries

    if captions == tags:
        raise ConfigError("Captions and tags would be written into one file.", got=f"--tags {tags}", fix="name two endings")
    entries = read_entries(table, folder)
    record, number, left = split_entries(entries, folder, captions=captions, tags=tags, overwrites=overwrite)
    for line in left:
        say(f"left as it is: {line}")
    if record is not None:
        say(f"`weber data undo {record}` takes it back.")
    say(f"{number} files written")
