"""What goes to another machine."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from weber.remote.parcel import list_packages


def test_packages_are_those_that_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not copies of others that a library has put at the end of the path, as setuptools does."""
    before = list_packages()
    assert f"numpy=={importlib.metadata.version('numpy').partition('+')[0]}" in before
    (tmp_path / "numpy-0.1.dist-info").mkdir()
    (tmp_path / "numpy-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert list_packages() == before
