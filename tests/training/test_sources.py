"""From pictures elsewhere to an adapter: what is learned, also in two parts, is what is learned from the folder, to the last bit."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.config import conf
from safetensors.torch import load_file
from torch import Tensor

from tests.data.s3 import serve_s3
from tests.data.servers import fail_first, serve_web
from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses, run_interrupted
from weber.config.run import RunConfig
from weber.training.assemble import train

Place = Callable[[Path, Path], dict[str, Any]]
"""Puts the pictures of a folder somewhere else, below a folder; returns what a set says of that place."""

_SECTIONS: dict[str, Any] = {
    "adapter": {"rank": 2, "targets": ["single_transformer_blocks.0.attn.to_q"]},
    "train": {"steps": 4, "batch_size": 2},
    "output": {"save_every": 2},
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Place]]:
    """Places of every kind: an archive, a real S3, and a server that fails at first."""
    with serve_s3() as s3, serve_web() as web, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setitem(conf, "s3", {"endpoint_url": s3.address, "key": "a", "secret": "b"})

        def put_into_s3(pictures: Path, folder: Path) -> dict[str, Any]:
            system = fsspec.filesystem("s3")
            system.mkdir("whole-runs")  # other tests of this process have the same server's memory
            system.put(f"{pictures}/", "s3://whole-runs/pictures/", recursive=True)
            return {"path": "s3://whole-runs/pictures"}

        def serve(pictures: Path, folder: Path) -> dict[str, Any]:
            rows = []
            for number, one in enumerate(sorted(pictures.glob("*.png"))):
                data, caption = one.read_bytes(), one.with_suffix(".txt").read_text().splitlines()
                web.pages[f"/{one.name}"] = fail_first(data, 1) if number == 0 else data
                rows.append(json.dumps({"url": f"{web.address}/{one.name}", "caption": caption}))
            (folder / "table.jsonl").write_text("\n".join(rows))
            return {"path": None, "metadata": str(folder / "table.jsonl")}

        yield {"archive": _put_into_archive, "s3": put_into_s3, "web": serve}


def _put_into_archive(pictures: Path, folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "pictures.tar", "w") as file:
        for one in sorted(pictures.rglob("*")):
            if one.is_file():
                file.add(one, one.relative_to(pictures).as_posix())
    return {"path": str(folder / "pictures.tar")}


def _train(config: RunConfig, *, resume: bool = False) -> dict[str, Tensor]:
    watcher, _ = build_watcher()
    return load_file(train(config, resume=resume, watcher=watcher))


@pytest.mark.parametrize("place", ["archive", "s3", "web"])
def test_a_run_in_two_parts_from_elsewhere_is_the_run_from_the_folder(
    tmp_path: Path, pictures: Path, build_run: BuildRun, servers: dict[str, Place], place: str
) -> None:
    data = [servers[place](pictures, tmp_path) | {"name": pictures.name}]
    folder = _train(build_run("folder", **_SECTIONS))
    config = build_run("elsewhere", data=data, **_SECTIONS)
    run_interrupted(config, 2)
    found = _train(config, resume=True)
    assert found.keys() == folder.keys() and found
    assert all(torch.equal(tensor, folder[name]) for name, tensor in found.items())

    ones = build_run("ones", data=data, **_SECTIONS | {"train": {"steps": 4, "batch_size": 1, "accumulation": 2}})
    _train(ones)
    for (_, one, _), (_, two, _) in zip(read_losses(ones.output.folder), read_losses(config.output.folder), strict=True):
        assert one == pytest.approx(two, rel=1e-5), "a step of two pictures is a step of batches of one"
