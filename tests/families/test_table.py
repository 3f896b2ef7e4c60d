"""From `[model]` to a family, or to one message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from weber.config.model import ModelConfig
from weber.errors import ConfigError, ModelError
from weber.families.family import Family
from weber.families.flux1.components import Flux1
from weber.families.table import FAMILIES, build_family


@pytest.mark.parametrize(("model", "variant"), [("tiny_model", "flux1-dev"), ("tiny_schnell", "flux1-schnell")])
def test_the_variant_is_recognized(model: str, variant: str, request: pytest.FixtureRequest) -> None:
    family: Family = build_family(ModelConfig(path=str(request.getfixturevalue(model))))
    assert isinstance(family, Flux1)
    assert family.variant == variant


@pytest.mark.parametrize("variant", ["flux1-krea", "pocket"])
def test_a_variant_may_be_named(tiny_model: Path, variant: str) -> None:
    assert build_family(ModelConfig(path=str(tiny_model), variant=variant)).variant == variant


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        build_family(ModelConfig(variant="flux-schnel"))
    message = str(caught.value)
    assert "got: model.variant = 'flux-schnel'" in message
    assert "expected: flux1-dev, flux1-krea, flux1-schnell, pocket" in message
    assert "fix: did you mean 'flux1-schnell'?" in message


def test_an_unknown_variant_far_from_all() -> None:
    with pytest.raises(ConfigError, match="run `weber variants`"):
        build_family(ModelConfig(variant="zzz"))


def test_the_pocket_model_comes_with_weber() -> None:
    family = build_family(ModelConfig(variant="pocket"))
    assert family.is_local and family.native_pixels == 64


@pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(variant="flux1-dev")])
def test_the_default_is_the_first_row_from_the_hub(config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="black-forest-labs/FLUX.1-dev is not on this machine"):
        build_family(config)


@pytest.mark.parametrize("variant", [None, "flux1-dev"])
@pytest.mark.parametrize("class_name", ["SD3Transformer2DModel", None])
def test_a_model_of_another_family(tiny_model: Path, tmp_path: Path, variant: str | None, class_name: str | None) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"_class_name": class_name}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        build_family(ModelConfig(path=str(folder), variant=variant))
    message = str(caught.value)
    assert f"_class_name = {class_name!r}" in message
    assert "expected: FluxTransformer2DModel" in message
    assert "fix: choose another model.path" in message


def test_rows_of_the_table() -> None:
    assert [row.transformer_class for row in FAMILIES] == ["FluxTransformer2DModel"]
    homes = [home for row in FAMILIES for home, _ in row.variants.values()]
    assert all(home.count("/") == 1 or (Path(home) / "model_index.json").is_file() for home in homes)
