"""Composed and decomposed letters: archives from macOS find their captions, masks, references and rows."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.names import find_spelled
from weber.data.sets import PictureLimits
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems compare names so themselves")


def _config(folder: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=folder, **{"resolution": 64, "bucket_step": 16, **keys})


def _write_mask(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[:32] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(("here", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_what_belongs_to_a_picture_is_found(tmp_path: Path, write_picture: Write, read_sets: Read, here: str, there: str) -> None:
    write_picture(tmp_path / "set" / here / f"{here}.png", caption=None)
    (tmp_path / "set" / here / f"{there}.txt").write_text("a caption")
    mask = _write_mask(tmp_path / "masks" / there / f"{there}.png")
    config = _config(tmp_path / "set", loss_masks=tmp_path / "masks", conditioning=[tmp_path / "masks"])
    dataset = read_sets(config, inputs=PictureLimits(max_references=1))
    (example,) = dataset.examples
    assert example.captions == ("a caption",) and example.references[0].path == mask
    assert example.loss_mask is not None and example.loss_mask.path == mask
    assert not dataset.notes


def test_the_same_name_goes_first(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate((COMPOSED, DECOMPOSED)):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number, caption=str(number))
    assert sorted(example.captions for example in read_sets(_config(tmp_path / "set")).examples) == [("0",), ("1",)]


@pytest.mark.parametrize(("here", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_tables_name_files(tmp_path: Path, write_picture: Write, read_sets: Read, here: str, there: str) -> None:
    picture = write_picture(tmp_path / "set" / f"{here}.png", caption=None)
    source = write_picture(tmp_path / "elsewhere" / here / "source.png", seed=1, caption=None)
    table = tmp_path / "set" / "table.jsonl"
    table.write_text(json.dumps({"image": f"{there}.png", "source": f"../elsewhere/{there}/source.png", "text": "x"}))
    config = _config(tmp_path / "set", metadata=table, conditioning_columns=["source"])
    dataset = read_sets(config, inputs=PictureLimits(max_references=1))
    (example,) = dataset.examples
    assert (example.path, example.references[0].path, dataset.set_aside) == (picture, source, ())


def test_folders_of_settings(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / DECOMPOSED / "a.png")
    (example,) = read_sets(_config(tmp_path / COMPOSED)).examples
    assert example.set_name == COMPOSED  # as the settings say it, so that reports find their set
    with pytest.raises(DataError, match="is not a folder"):
        read_sets(_config(tmp_path / f"{COMPOSED}s"))


def test_find_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DECOMPOSED / "in").mkdir(parents=True)
    assert find_spelled(tmp_path / COMPOSED / "in") == tmp_path / DECOMPOSED / "in"
    monkeypatch.chdir(tmp_path)
    assert find_spelled(Path(COMPOSED)) == Path(DECOMPOSED)
    for path in (Path("nowhere"), tmp_path / COMPOSED / "out", Path("a\0b")):
        assert find_spelled(path) == path
