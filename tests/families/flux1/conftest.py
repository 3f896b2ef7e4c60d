"""What the tests of FLUX.1 share: the variants that look at pictures or mask their text, as tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from weber.config.model import ModelConfig
from weber.families.flux1.components import Flux1
from weber.families.table import build_family
from weber.pocket.random import build_random_model


def _build(folder: Path, variant: str | None = None) -> Flux1:
    family = build_family(ModelConfig(path=str(folder), variant=variant))
    assert isinstance(family, Flux1)
    return family


@pytest.fixture(scope="session")
def tiny_kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as FLUX.1-Kontext. Copy what you change."""
    return build_random_model(tmp_path_factory.mktemp("models") / "tiny-kontext", variant="kontext")


@pytest.fixture(scope="session")
def tiny_fill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as FLUX.1-Fill. Copy what you change."""
    return build_random_model(tmp_path_factory.mktemp("models") / "tiny-fill", variant="fill")


@pytest.fixture(scope="session")
def kontext(tiny_kontext: Path) -> Flux1:
    """A tiny model as FLUX.1-Kontext."""
    return _build(tiny_kontext)


@pytest.fixture(scope="session")
def fill(tiny_fill: Path) -> Flux1:
    """A tiny model as FLUX.1-Fill."""
    return _build(tiny_fill)


@pytest.fixture(scope="session")
def booru(tiny_model: Path) -> Flux1:
    """A tiny model as FluxBooru."""
    return _build(tiny_model, "fluxbooru")


@pytest.fixture(scope="session")
def libre(tiny_schnell: Path) -> Flux1:
    """A tiny model as LibreFLUX."""
    return _build(tiny_schnell, "libreflux")
