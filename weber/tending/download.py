"""A dataset of the hub as a folder of pictures with captions beside them, which is then yours to change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from weber.config.data import DataConfig
from weber.data.backends.sources import LOCAL
from weber.data.hub import load_hub_set
from weber.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, read_table
from weber.data.whole import write_whole
from weber.errors import ConfigError
from weber.progress import Progress

TABLE = "metadata.jsonl"


def download_dataset(config: DataConfig, folder: Path, *, progress: Progress) -> tuple[int, int]:
    """Fetch and unpack a dataset into a new folder, which appears whole or not at all; how many pictures and captions there are.

    Columns that are neither the picture nor its caption are in a table beside them. Raises ConfigError where something lies there already;
    DataError and MissingExtraError as training does.
    """
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ConfigError("There is something already.", got=str(folder), expected="a new or empty folder", fix="name another one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as place:
        local = load_hub_set(config, Path(place), progress=progress)
        assert local.path is not None and local.metadata is not None
        num_pictures, num_captions = _write_captions(local, config)
        if folder.exists():
            folder.rmdir()
        os.replace(local.path, folder)
    return num_pictures, num_captions


def _write_captions(local: DataConfig, config: DataConfig) -> tuple[int, int]:
    home, table_file = local.path, local.metadata
    assert home is not None and table_file is not None
    table = read_table(table_file, LOCAL, name=f'the hub dataset "{config.hub}"')
    image = table.check_column(config.image_column, IMAGE_COLUMNS, key="--image-column")
    wanted = config.caption_column if isinstance(config.caption_column, str) else None
    has_captions = wanted is not None or any(one.lower() in CAPTION_COLUMNS for one in table.columns)
    caption = table.check_column(wanted, CAPTION_COLUMNS, key="--caption-column") if has_captions else None
    num_pictures, num_captions, rows = 0, 0, []
    for row in table.rows:
        [name] = table.read_texts(row, image) or ("",)
        if not name or not (home / name).is_file():
            continue
        num_pictures += 1
        texts = table.read_texts(row, caption, several=True) if caption is not None else ()
        if texts:
            write_whole((home / name).with_suffix(".txt"), ("\n".join(" ".join(text.split()) for text in texts) + "\n").encode())
            num_captions += 1
        rows.append(row.cells)
    if any(cells.keys() - {image, caption} for cells in rows):
        write_whole(home / TABLE, "".join(json.dumps(dict(cells), ensure_ascii=False) + "\n" for cells in rows).encode())
    else:
        (home / TABLE).unlink()
    for leftover in home.glob("*.lock"):
        shutil.rmtree(leftover, ignore_errors=True)
    return num_pictures, num_captions
