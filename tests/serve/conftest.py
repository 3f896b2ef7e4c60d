"""A site of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.browsing import Client, serving
from weber.serve.site import Site, build_site
from weber.version import VERSION


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Pages of an empty folder."""
    (tmp_path / "work").mkdir()
    site = build_site([tmp_path / "work"], environment=dict(os.environ))
    (site.home / f"models-{VERSION}.txt").write_text("pocket\n", encoding="utf-8")  # so that no test asks for them anew
    return site


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A browser that knows the token."""
    with serving(site) as client:
        yield client
