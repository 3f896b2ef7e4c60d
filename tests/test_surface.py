"""What others build upon, frozen: a change here is a decision, not an accident."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import weber
from weber.api import Asked, Compared
from weber.config.load import save_config

SIGNATURES = {
    "check": ["source", "original", "base", "progress"],
    "diff": ["first", "second", "base", "progress"],
    "export": ["source", "formats", "base", "out", "progress"],
    "extract": ["tuned", "out", "base", "rank", "energy", "targets", "layout", "progress"],
    "grid": ["place", "prompts", "base", "memory", "progress", "asked"],
    "import_run": ["path", "overrides", "tool", "weber_defaults"],
    "inspect": ["file"],
    "merge": ["adapters", "out", "base", "layout", "rank", "blocks", "progress"],
    "open_run": ["place", "base", "memory", "progress"],
    "plan": ["config", "overrides", "card", "progress"],
    "publish": ["run", "to", "formats", "public", "consent", "trigger", "out", "progress"],
    "resize": ["source", "out", "rank", "energy", "progress"],
    "sample": ["place", "prompts", "base", "memory", "progress", "asked"],
    "report": ["plan", "progress"],
    "scale": ["source", "out", "factor", "progress"],
    "train": ["config", "overrides", "resume", "progress", "stop"],
    "write_report": ["run", "other", "out", "progress"],
}
LOOK = ["steps", "guidance", "cfg", "negative", "size", "conditioning", "mask", "attention", "library", "no_cfg_until"]
ASKED, COMPARED = [*LOOK, "strength", "seed", "num", "blocks"], [*LOOK, "checkpoints", "strengths", "seeds"]


def test_exported_names() -> None:
    assert sorted(weber.__all__) == sorted([*SIGNATURES, "RunConfig", "WeberError", "__version__", "load_config"])
    assert (Path(weber.__file__).parent / "py.typed").is_file()


def test_signatures() -> None:
    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(weber, name)).parameters) == parameters, name
    assert list(Asked.__annotations__) == ASKED and list(Compared.__annotations__) == COMPARED


def test_the_example_of_the_readme_runs(run_toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(weber.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(run_toml.parent)
    names: dict[str, object] = {}
    exec(example.replace("train.steps=500", "train.steps=2"), names)
    assert Path(str(names["adapter"])).is_file()
    assert names["picture"].size == (64, 64)  # type: ignore[attr-defined]


def test_the_page_of_python_runs_as_a_notebook(run_toml: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(weber.__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    monkeypatch.chdir(run_toml.parent)
    shutil.copytree(pictures, "pictures")
    names: dict[str, Any] = {}
    for cell in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(cell, names)
    assert names["plan"].num_steps == 4 and names["seen"][-1] == ("training", 6, 6)
    assert [picture.size for picture in [*names["pictures"], *names["weak"], *names["base"]]] == [(64, 64)] * 6
    assert all(Path(str(names[file])).is_file() for file in ("adapter", "comfyui", "both", "whole"))
    assert names["extraction"].kept


def test_errors_speak_of_arguments(run_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    save_config(weber.load_config(run_toml), tmp_path / "run" / "config.toml")
    with pytest.raises(weber.WeberError, match="add resume=True to go on") as error:
        weber.train(run_toml)
    assert "--" not in str(error.value)


def test_import_is_light() -> None:
    code = "import sys, weber; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'PIL')))"
    root = Path(weber.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
