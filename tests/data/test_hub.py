"""Hub datasets: fetched from a small server in place of the hub, unpacked once, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.data.dataset_hub import COMMIT, Hub, build_parquet, build_picture
from weber.config.data import DataConfig
from weber.data import hub
from weber.data.dataset import Dataset
from weber.data.hub import list_split
from weber.data.images import encode_content
from weber.data.sets import PictureLimits
from weber.errors import DataError, MissingExtraError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Read = Callable[..., Dataset]
TAKES = PictureLimits(max_references=2)


def _cell(data: bytes | None, path: str | None = None) -> dict[str, object]:
    return {"bytes": data, "path": path}


def _build_pairs(start: int, num: int) -> bytes:
    """Triplets: target, source, instruction; and columns that nobody asks for."""
    numbers = range(start, start + num)
    return build_parquet(
        {
            "output": [_cell(build_picture(n), f"{n}.png") for n in numbers],
            "cond image": [_cell(build_picture(100 + n, kind="jpeg")) for n in numbers],
            "instruction": [f"make it {n}" for n in numbers],
            "others": [[f"{n} a", f"{n} b"] for n in numbers],
            "score": [float(n) for n in numbers],
            "boxes": [[n, n] for n in numbers],
        }
    )


def _config(**keys: Any) -> DataConfig:
    return DataConfig(**{"hub": "owner/pairs", "resolution": 64, "bucket_step": 16, **keys})


PAIRS = {"image_column": "output", "conditioning_columns": ["cond image"]}


def _serve_pairs(served: Hub) -> None:
    served.files["owner/pairs"] = {
        "README.md": b"# Pairs",
        "data/train-00000-of-00002.parquet": _build_pairs(0, 3),
        "data/train-00001-of-00002.parquet": _build_pairs(3, 2),
        "data/test-00000-of-00001.parquet": _build_pairs(50, 1),
    }


# --- what becomes of a dataset


def test_triplets_from_parquet_files(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    said: list[tuple[str, int, int]] = []
    dataset = read_sets(_config(**PAIRS), inputs=TAKES, progress=lambda what, done, total: said.append((what, done, total)))
    folder = tmp_path / "cache" / "hub" / "owner--pairs" / "main" / "train"
    assert [example.path.relative_to(folder).as_posix() for example in dataset.examples] == [f"0000/{n:07}-0.png" for n in range(5)]
    assert [example.path.read_bytes() for example in dataset.examples] == [build_picture(n) for n in range(5)]
    assert [example.captions for example in dataset.examples] == [(f"make it {n}",) for n in range(5)]
    sources = [build_picture(100 + n, kind="jpeg") for n in range(5)]
    assert [example.references[0].path.read_bytes() for example in dataset.examples] == sources
    assert dataset.examples[2].references[0].path == folder / "0000" / "0000002-1.jpg"
    assert {example.set_name for example in dataset.examples} == {"pairs"}
    assert not dataset.set_aside
    assert [line for line in said if line[0] == "unpacking owner/pairs"] == [("unpacking owner/pairs", n, 5) for n in range(1, 6)]
    first = json.loads((folder / "metadata.jsonl").read_text().splitlines()[0])
    assert set(first) == {"output", "cond image", "instruction", "others"}
    assert not any("test-" in path for path in served.asked if "/resolve/" in path)


def test_the_next_start_asks_nobody_and_opens_nothing(served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    first = read_sets(_config(**PAIRS), inputs=TAKES)
    served.asked.clear()
    served.fails = True
    again = read_sets(_config(**PAIRS), inputs=TAKES)
    assert (again.examples, again.num_opened, served.asked) == (first.examples, 0, [])
    # other columns of the same rows need no other copy
    (one, *_) = read_sets(_config(image_column="output", caption_column="others"), inputs=TAKES).examples
    assert (one.captions, one.references, served.asked) == (("0 a", "0 b"), (), [])


def test_another_split_and_a_commit(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    (example,) = read_sets(_config(hub_split="test", hub_revision=COMMIT, **PAIRS), inputs=TAKES).examples
    assert example.captions == ("make it 50",)
    assert example.path.is_relative_to(tmp_path / "cache" / "hub" / "owner--pairs" / COMMIT / "test")


def test_pictures_as_plain_bytes_and_missing_cells(served: Hub, read_sets: Read) -> None:
    served.files["owner/pairs"] = {
        "all.parquet": build_parquet(
            {"image": [build_picture(1, kind="webp"), None, b"no picture", build_picture(2)], "text": ["one", "two", "three", None]}
        )
    }
    dataset = read_sets(_config(), inputs=TAKES)
    assert [(example.path.name, example.captions) for example in dataset.examples] == [("0000000-0.webp", ("one",))]
    assert [item.reason for item in dataset.set_aside] == [
        "not a picture: no known picture format",
        "caption is empty: line 4",
        "no picture: the column image is empty in line 2",
    ]


@pytest.mark.parametrize("table", ["metadata.jsonl", "train/metadata.jsonl", "train/metadata.csv"])
def test_an_image_folder(served: Hub, read_sets: Read, table: str) -> None:
    folder = table.rpartition("/")[0]
    rows = "file_name,text,edit\ndeep/a.png,an a,b.jpg\nmissing.png,nothing,b.jpg\n"
    if table.endswith("jsonl"):
        names = rows.splitlines()[0].split(",")
        rows = "\n".join(json.dumps({**dict(zip(names, line.split(","), strict=True)), "n": 3}) for line in rows.splitlines()[1:])
    files = {"deep/a.png": build_picture(1), "b.jpg": build_picture(2, kind="jpeg"), table.rpartition("/")[2]: rows.encode()}
    served.files["owner/pairs"] = {f"{folder}/{name}".strip("/"): data for name, data in files.items()}
    served.files["owner/pairs"] |= {"README.md": b"", "secret.txt": b"x"}
    dataset = read_sets(_config(conditioning_columns=["edit"]), inputs=TAKES)
    (example,) = dataset.examples
    assert (example.path.name, example.path.read_bytes(), example.captions) == ("0000000-0.png", build_picture(1), ("an a",))
    assert example.references[0].path.read_bytes() == build_picture(2, kind="jpeg")
    assert [item.reason for item in dataset.set_aside] == ["unreadable file: No such file or directory, named in line 2"]


def test_a_table_names_only_files_of_its_own(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(build_picture(9))
    rows = [{"image": "a.png", "text": "good", "s": name} for name in (str(outside), "../../../../../outside.png", "a.png")]
    rows += [{"image": str(outside), "text": "bad", "s": "a.png"}, {"image": "../x.png", "text": "bad", "s": "a.png"}]
    served.files["owner/pairs"] = {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode(), "a.png": build_picture(1)}
    dataset = read_sets(_config(conditioning_columns=["s"]), inputs=TAKES)
    assert sorted(item.reason for item in dataset.set_aside) == [f"file outside of the dataset: line {number}" for number in (1, 2, 4, 5)]
    assert [example.references[0].content for example in dataset.examples] == [encode_content(build_picture(1))]
    copied = [path.read_bytes() for path in (tmp_path / "cache" / "hub").rglob("*.png")]
    assert copied == [build_picture(1)] * 6


# --- whole or not at all


def test_a_start_that_was_cut_leaves_nothing_that_counts(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)

    def cut(what: str, done: int, total: int) -> None:
        if (what, done) == ("unpacking owner/pairs", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_sets(_config(**PAIRS), inputs=TAKES, progress=cut)
    folder = tmp_path / "cache" / "hub" / "owner--pairs" / "main"
    assert not (folder / "train").exists()
    (folder / "train.unfinished").mkdir()  # what a kill would have left
    (folder / "train.unfinished" / "metadata.jsonl").write_text("half")
    assert len(read_sets(_config(**PAIRS), inputs=TAKES).examples) == 5
    assert sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) == ["train"]


def test_a_damaged_parquet_file_is_one_error(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    files = served.files["owner/pairs"]
    whole = files["data/train-00001-of-00002.parquet"]
    for damaged in (whole[:300], b"PAR1" + bytes(len(whole) - 12) + whole[-8:], whole[:4] + bytes(2000) + whole[2004:]):
        files["data/train-00001-of-00002.parquet"] = damaged
        shutil.rmtree(tmp_path / "hf", ignore_errors=True)
        with pytest.raises(DataError, match="cannot be unpacked") as error:
            read_sets(_config(**PAIRS), inputs=TAKES)
        assert error.value.got and error.value.fix
        assert not (tmp_path / "cache" / "hub" / "owner--pairs" / "main" / "train").exists()


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path: Path, served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hub").write_text("a file where the folder should be")
    _refuse(read_sets, ['hub dataset "owner/pairs" cannot be unpacked', "got: ", "make room in"])


# --- errors


def _refuse(read_sets: Read, words: list[str], **keys: Any) -> None:
    with pytest.raises(DataError) as error:
        read_sets(_config(**keys), inputs=TAKES)
    assert [word for word in words if word not in str(error.value)] == []
    assert error.value.fix and "\n" not in error.value.what


def test_a_gated_dataset_tells_the_steps(served: Hub, read_sets: Read) -> None:
    _serve_pairs(served)
    served.gated.add("owner/pairs")
    _refuse(read_sets, ['"owner/pairs" asks you to accept its terms', f"{served.url}/datasets/owner/pairs", "hf auth login"])


def test_a_missing_dataset_and_a_missing_revision(served: Hub, read_sets: Read) -> None:
    _refuse(read_sets, ["no such dataset on the hub: owner/nothing", "correct hub", "set path"], hub="owner/nothing")
    _serve_pairs(served)
    _refuse(read_sets, ['has no revision "v9"', "remove hub_revision"], hub_revision="v9")


def test_a_hub_that_cannot_be_reached(served: Hub, read_sets: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ['"owner/pairs" is not on this machine and could not be downloaded', "hf download --repo-type dataset owner/pairs"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refuse(read_sets, [*words, "unset HF_HUB_OFFLINE"])
    assert served.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    _refuse(read_sets, [*words, "check the connection to http://127.0.0.1:9"])


def test_what_was_downloaded_before_is_used_offline(served: Hub, read_sets: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve_pairs(served)
    hub.snapshot_download("owner/pairs", repo_type="dataset")
    served.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(read_sets(_config(**PAIRS), inputs=TAKES).examples) == 5
    assert served.asked == []


@pytest.mark.parametrize(
    ("keys", "files", "words"),
    [
        ({"image_column": "target"}, None, ['hub dataset "owner/pairs" has no column "target"', "output, cond image, instruction, others"]),
        ({}, None, ["no column named image, file_name or url", "set data.0.image_column"]),
        ({"image_column": "output", "conditioning_columns": ["x"]}, None, ['no column "x"', "data.0.conditioning_columns"]),
        ({"image_column": "output", "caption_column": "title"}, None, ['no column "title"', "data.0.caption_column"]),
        ({"hub_split": "validation"}, None, ["no Parquet files and no table", 'split "validation"', "train-00000-of-00002"]),
        ({}, {"a.tar": b"", "b.tar": b""}, ["no Parquet files and no table", "a.tar, b.tar"]),
        ({}, {}, ["no Parquet files and no table", "the files none"]),
        ({}, {"a.parquet": build_parquet({"text": ["a", "b"]})}, ["has no pictures", "2 rows"]),
        ({}, {"a.parquet": build_parquet({"image": pyarrow.array([], pyarrow.binary())})}, ["has no pictures"]),
        ({}, {"one/train-0.parquet": b"", "two/train-0.parquet": b""}, ["several configurations", "one, two", 'hub_split = "two/train"']),
        ({}, {"a/one/train/0.parquet": b"", "a/two/train/0.parquet": b""}, ["several configurations", 'hub_split = "two/train"']),
        ({}, {"train.parquet": b"", "two/train.parquet": b""}, ["several configurations", 'hub_split = "two/train"']),
        ({}, {"data/train-00000-of-00003.parquet": b""}, ["are missing", "train-00000-of-00003"]),
        ({}, {"metadata.jsonl": b'{"image": "a.png"'}, ["line 1 is not JSON"]),
    ],
)
def test_what_cannot_be_unpacked_is_said_in_words(
    served: Hub, read_sets: Read, keys: dict[str, Any], files: dict[str, bytes] | None, words: list[str]
) -> None:
    _serve_pairs(served)
    if files is not None:
        served.files["owner/pairs"] = files
    _refuse(read_sets, words, **keys)


def test_a_missing_extra_names_the_command_before_anything_is_downloaded(
    served: Hub, read_sets: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve_pairs(served)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'weber\[hub\]'"):
        read_sets(_config(**PAIRS), inputs=TAKES)
    assert not [path for path in served.asked if "/resolve/" in path]


# --- splits


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (["data/train-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"], "train", ["data/train-00000-of-00001.parquet"]),
        (
            ["data/train-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"],
            "train_sft",
            ["data/train_sft-00000-of-00001.parquet"],
        ),
        (["default/train/0000.parquet", "default/test/0000.parquet"], "train", ["default/train/0000.parquet"]),
        (["b/train.parquet", "a/train.parquet"], "train", ["a/train.parquet", "b/train.parquet"]),
        (["b/train.parquet", "a/train.parquet"], "b/train", ["b/train.parquet"]),
        (["my_train_v2.parquet", "my_test_v2.parquet"], "train", ["my_train_v2.parquet"]),
        (["part-1.parquet", "part-0.parquet"], "train", ["part-0.parquet", "part-1.parquet"]),
        (["part-0.parquet"], "test", []),
        (["data/validation-0.parquet"], "train", []),
        (["constrained.parquet", "test.parquet"], "train", []),
    ],
)
def test_files_of_a_split(names: list[str], split: str, found: list[str]) -> None:
    assert list_split(names, split) == found
