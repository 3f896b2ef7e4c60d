"""From pictures in an archive to an adapter: what is learned is what is learned from the folder, to the last bit."""

from __future__ import annotations

import tarfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.runs import BuildRun, build_watcher
from weber.training.assemble import train


def test_a_run_from_an_archive(tmp_path: Path, pictures: Path, build_run: BuildRun) -> None:
    with tarfile.open(tmp_path / "pictures.tar", "w") as file:
        for one in sorted(pictures.rglob("*")):
            if one.is_file():
                file.add(one, one.relative_to(pictures).as_posix())
    sections = {
        "adapter": {"rank": 2, "targets": ["single_transformer_blocks.0.attn.to_q"]},
        "train": {"steps": 3, "batch_size": 2},
        "output": {"save_every": 100},
    }
    archive = [{"path": str(tmp_path / "pictures.tar"), "name": pictures.name}]
    found = []
    for name, data in (("first", archive), ("second", archive), ("folder", [{}])):
        watcher, _ = build_watcher()
        found.append(load_file(train(build_run(name, data=data, **sections), resume=False, watcher=watcher)))
    assert found[0]
    for other in found[1:]:
        assert found[0].keys() == other.keys() and all(torch.equal(one, other[name]) for name, one in found[0].items())
