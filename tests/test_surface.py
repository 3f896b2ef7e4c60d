"""What others build upon, frozen: a change here is a decision, not an accident."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import weber


def test_exported_names() -> None:
    assert sorted(weber.__all__) == ["RunConfig", "WeberError", "__version__", "load_config", "plan", "sample", "train"]


def test_signatures() -> None:
    assert list(inspect.signature(weber.plan).parameters) == ["config"]
    assert list(inspect.signature(weber.train).parameters) == ["config", "resume"]
    assert list(inspect.signature(weber.sample).parameters) == ["run", "prompts", "strength", "seed", "steps", "guidance", "size"]


def test_the_example_of_the_readme_runs(run_toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(weber.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(run_toml.parent)
    names: dict[str, object] = {}
    exec(example.replace("train.steps=500", "train.steps=2"), names)
    assert Path(str(names["adapter"])).is_file()
    assert names["picture"].size == (64, 64)  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    code = "import sys, weber; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'PIL')))"
    root = Path(weber.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
