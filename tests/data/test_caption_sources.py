"""Where the captions of a picture come from: places in order, and places by weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.captions import CaptionStepConfig
from weber.config.data import DataConfig
from weber.config.load import build_config
from weber.data.dataset import Dataset
from weber.errors import ConfigError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


@pytest.fixture
def folder(tmp_path: Path, write_picture: Write) -> Path:
    """Pictures with one kind of caption each, but the last, which has all."""
    top = tmp_path / "10_sks dog"
    for number, name in enumerate(("a_text", "b_other", "c_json", "d_none", "e_all")):
        write_picture(top / f"{name}.png", seed=number, caption=None)
    (top / "a_text.txt").write_text("one\ntwo")
    (top / "b_other.caption").write_text("other")
    (top / "c_json.json").write_text('{"caption": "json"}')
    for ending, text in ((".txt", "one"), (".caption", "other"), (".short.txt", "short"), (".json", '{"caption": "json", "tags": "t"}')):
        (top / f"e_all{ending}").write_text(text)
    return top


def _read(read_sets: Read, folder: Path, **keys: Any) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    dataset = read_sets(_config(folder, **keys))
    return {one.path.stem[0]: (one.captions, one.caption_weights) for one in dataset.examples}


def test_each_source(folder: Path, read_sets: Read) -> None:
    read = {name: _read(read_sets, folder, captions=name) for name in ("textfile", "json", "filename", "foldername", "none")}
    assert read["textfile"] == {"a": (("one", "two"), ()), "b": (("other",), ()), "e": (("one",), ())}
    assert read["json"] == {"c": (("json",), ()), "e": (("json",), ())}
    assert read["filename"]["b"] == (("b other",), ())
    assert read["foldername"]["a"] == (("sks dog",), ())
    assert read["none"]["a"] == (("",), ())
    prompts = _read(read_sets, folder, captions="instance", instance_prompt=["x", "y"])
    assert prompts["a"] == (("x", "y"), ())


def test_sources_in_order(folder: Path, read_sets: Read) -> None:
    read = _read(read_sets, folder, captions=["json", "textfile", "foldername"])
    assert [captions for captions, _ in read.values()] == [("one", "two"), ("other",), ("json",), ("sks dog",), ("json",)]
    read = _read(read_sets, folder, captions=["json", "textfile"], caption_fallback="none of its own")
    assert read["d"] == (("none of its own",), ())
    dataset = read_sets(_config(folder, captions=["json", "textfile"]))
    assert [one.reason for one in dataset.set_aside] == ["no caption file: d_none.json"]
    assert {one.caption_file.rpartition("/")[2] for one in dataset.examples} == {
        "a_text.txt", "b_other.caption", "c_json.json", "e_all.json"
    }


def test_sources_by_weights(folder: Path, read_sets: Read) -> None:
    read = _read(read_sets, folder, captions=["textfile", "foldername"], caption_weights=[3.0, 1.0])
    assert read["a"] == (("one", "two", "sks dog"), (1.5, 1.5, 1.0))
    assert read["d"] == (("sks dog",), ())
    steps = [CaptionStepConfig(kind="trigger", text="TOK")]
    read = _read(read_sets, folder, captions=["textfile", "foldername"], caption_weights=[3.0, 1.0], caption_steps=steps)
    assert read["a"] == (("TOK, one", "TOK, two", "TOK, sks dog"), (0.375, 0.375, 0.25))
    read = _read(read_sets, folder, captions="instance", instance_prompt=["x", "y"], caption_weights=[1.0, 4.0])
    assert read["a"] == (("x", "y"), (1.0, 4.0))


def test_endings_of_ones_own(folder: Path, read_sets: Read) -> None:
    read = _read(read_sets, folder, caption_endings=[".short.txt", ".txt", ".caption"])
    assert [captions for captions, _ in read.values()] == [("one", "two"), ("other",), ("short",)]
    read = _read(read_sets, folder, caption_endings=[".txt", ".SHORT.txt"], caption_weights=[2.0, 1.0])
    assert read == {"a": (("one", "two"), ()), "e": (("one", "short"), (2.0, 1.0))}
    notes = read_sets(_config(folder, caption_endings=[".txt"])).notes
    assert any('2 caption files not read, as its ending is none of caption_endings = [".txt"]' in note for note in notes), notes
    read = _read(read_sets, folder, caption_endings=[".json"], caption_per="file")
    assert read["c"] == (('{"caption": "json"}',), ()), "JSON prompts as they are"


def test_names_in_json_files(folder: Path, read_sets: Read) -> None:
    assert _read(read_sets, folder, captions="json", caption_key="tags") == {"e": (("t",), ())}
    assert _read(read_sets, folder, captions="json", caption_key=["tags", "caption"]) == {"c": (("json",), ()), "e": (("t",), ())}
    read = _read(read_sets, folder, captions="json", caption_key=["tags", "caption"], caption_weights=[1.0, 3.0])
    assert read == {"c": (("json",), ()), "e": (("t", "json"), (1.0, 3.0))}
    (folder / "c_json.json").write_text("{")
    dataset = read_sets(_config(folder, captions=["json", "foldername"]))
    assert [one.reason.partition(": line")[0] for one in dataset.set_aside] == ["caption file is no JSON: c_json.json"], "not passed over"
    notes = read_sets(_config(folder, captions="json")).notes
    assert not any(".json" in note for note in notes), "what is read is no file of another kind"


def test_columns(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    rows = [{"image": "a.png", "long": "a long one", "short": "a"}, {"image": "b.png", "long": "", "short": "b"}, {"image": "c.png"}]
    for number, row in enumerate(rows):
        write_picture(tmp_path / "set" / row["image"], seed=number, caption=None)
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    keys: dict[str, Any] = {"metadata": table, "caption_column": ["long", "short"]}
    assert _read(read_sets, tmp_path / "set", **keys) == {"a": (("a long one",), ()), "b": (("b",), ())}
    assert [one.reason for one in read_sets(_config(tmp_path / "set", **keys)).set_aside] == ["caption is empty: line 3"]
    read = _read(read_sets, tmp_path / "set", **keys, caption_weights=[3.0, 1.0], caption_fallback="none")
    assert read == {"a": (("a long one", "a"), (3.0, 1.0)), "b": (("b",), ()), "c": (("none",), ())}
    read = _read(read_sets, tmp_path / "set", **keys, captions=["metadata", "filename"])
    assert read["c"] == (("c",), ())
    (tmp_path / "set" / "c.txt").write_text("from a file")
    assert _read(read_sets, tmp_path / "set", **keys, captions=["metadata", "textfile"])["c"] == (("from a file",), ())


REFUSED = [
    ({"captions": ["filename", "textfile"]}, 'captions asks nothing behind "filename"'),
    ({"captions": ["textfile", "textfile"]}, 'captions has "textfile" twice'),
    ({"captions": []}, "captions is an empty list"),
    ({"caption_key": "a"}, 'caption_key has no effect with captions = "textfile"'),
    ({"captions": "json", "caption_endings": [".txt"]}, 'caption_endings has no effect with captions = "json"'),
    ({"caption_endings": ["txt"]}, 'caption_endings has "txt", which is no ending'),
    ({"caption_weights": [1.0, 2.0]}, "caption_weights has nothing to choose from"),
    ({"captions": ["textfile", "json"], "caption_weights": [1.0]}, "caption_weights has 1 number, but captions has 2 entries"),
    (
        {"captions": ["textfile", "json"], "caption_key": ["a", "b"], "caption_weights": [1.0, 2.0]},
        "caption_weights cannot say which list it is of, captions or caption_key",
    ),
    ({"captions": ["textfile", "json"], "caption_weights": [1.0, 0.0]}, "above 0"),
    ({"captions": ["textfile", "none"], "caption_fallback": "a"}, "caption_fallback has no effect with captions"),
    ({"captions": "metadata"}, 'captions = "metadata" needs metadata or hub'),
    ({"captions": ["textfile", "instance"]}, "needs instance_prompt"),
    ({"path": None, "hub": "a/b", "captions": ["metadata", "foldername"]}, "needs files of your own"),
]


@pytest.mark.parametrize(("keys", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_places_that_cannot_act_are_refused(keys: dict[str, Any], words: str) -> None:
    tree = {"path": "x", **keys}
    with pytest.raises(ConfigError) as caught:
        build_config({"data": [{key: value for key, value in tree.items() if value is not None}]})
    assert words in str(caught.value).replace("\n", " "), str(caught.value)
