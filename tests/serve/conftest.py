"""A site of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.browsing import Client, serving
from weber.serve.site import Site, build_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Pages of an empty folder."""
    (tmp_path / "work").mkdir()
    return build_site([tmp_path / "work"], environment=dict(os.environ))


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A browser that knows the token."""
    with serving(site) as client:
        yield client
