"""Which variant some files are, and models that are not what they are said to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from weber.config.model import ModelConfig
from weber.errors import ModelError
from weber.families.flux1.recognize import check_transformer, recognize_variant
from weber.families.flux1.variants import POCKET, VARIANTS, Variant
from weber.families.source import Source
from weber.families.table import build_family


@pytest.fixture
def edited(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the tiny model and changes entries of a JSON file in it."""

    def edit(name: str, **changes: object) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / "model", dirs_exist_ok=True)
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
        return folder

    return edit


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        ("tiny_model", "flux1-dev"),
        ("tiny_schnell", "flux1-schnell"),
        ("tiny_kontext", "flux1-kontext"),
        ("tiny_fill", "flux1-fill"),
    ],
)
def test_by_files(model: str, variant: str, request: pytest.FixtureRequest) -> None:
    assert build_family(ModelConfig(path=str(request.getfixturevalue(model)))).variant == variant


def test_the_pocket_model_elsewhere_is_known_by_the_width_of_its_text(tmp_path: Path) -> None:
    folder = shutil.copytree(POCKET, tmp_path / "model")
    assert recognize_variant(Source(str(folder))).name == "pocket"


def test_without_an_index_the_inputs_decide(tiny_kontext: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_kontext, tmp_path / "model")
    (folder / "model_index.json").unlink()
    assert recognize_variant(Source(str(folder))).name == "flux1-dev"


@pytest.mark.parametrize(
    ("model", "row"),
    [("tiny_schnell" if not row.has_guidance else "tiny_fill" if row.in_channels == 384 else "tiny_model", row) for row in VARIANTS],
    ids=lambda value: getattr(value, "name", ""),
)
def test_by_home(model: str, row: Variant, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(request.getfixturevalue(model))
    rows = tuple(replace(one, home=folder.upper()) if one is row else one for one in VARIANTS)
    monkeypatch.setattr("weber.families.flux1.recognize.VARIANTS", rows)
    assert recognize_variant(Source(folder)).name == row.name


def test_a_home_with_another_transformer_is_not_believed(
    tiny_model: Path, tiny_schnell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(replace(one, home=str(tiny_model)) if one.name == "fluxbooru" else one for one in VARIANTS)
    monkeypatch.setattr("weber.families.flux1.recognize.VARIANTS", rows)
    source = Source(str(tiny_model), own={"transformer": str(tiny_schnell / "transformer")})
    assert recognize_variant(source).name == "flux1-schnell"


@pytest.mark.parametrize(("pipeline", "variant"), [("FluxKontextPipeline", "flux1-kontext"), ("FluxImg2ImgPipeline", "flux1-dev")])
def test_by_the_class_of_the_pipeline(edited: Callable[..., Path], pipeline: str, variant: str) -> None:
    assert recognize_variant(Source(str(edited("model_index.json", _class_name=pipeline)))).name == variant


@pytest.mark.parametrize("variant", [None, "flux1-dev"])
def test_other_inputs_are_refused(edited: Callable[..., Path], variant: str | None) -> None:
    with pytest.raises(ModelError) as caught:
        build_family(ModelConfig(path=str(edited("transformer/config.json", in_channels=128)), variant=variant))
    message = str(caught.value)
    assert "got: in_channels = 128, guidance_embeds = True" in message
    assert "384, True (flux1-fill)" in message
    assert "fix: choose such a model as model.path" in message


@pytest.mark.parametrize(
    ("model", "variant", "fitting"),
    [
        ("tiny_model", "flux1-schnell", "flux1-krea, flux1-dev, flux1-kontext, fluxbooru, pocket"),
        ("tiny_schnell", "flux1-krea", "flux1-schnell, libreflux"),
        ("tiny_schnell", "fluxbooru", "flux1-schnell, libreflux"),
        ("tiny_model", "flux1-fill", "flux1-krea, flux1-dev, flux1-kontext, fluxbooru, pocket"),
        ("tiny_fill", "flux1-kontext", "flux1-fill"),
    ],
)
def test_a_variant_with_other_inputs_is_refused(model: str, variant: str, fitting: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(ModelError) as caught:
        build_family(ModelConfig(path=str(request.getfixturevalue(model)), variant=variant))
    message = str(caught.value)
    assert f"model.variant = {variant!r}" in message
    assert f"got: guidance_embeds = {model != 'tiny_schnell'}, in_channels = {384 if model == 'tiny_fill' else 64}" in message
    assert f"fix: set model.variant to one of {fitting}, or leave it out" in message


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_what_a_configuration_leaves_out_is_the_librarys_default(row: Variant) -> None:
    if (row.in_channels, row.has_guidance) == (64, False):
        check_transformer({}, row)
    else:
        with pytest.raises(ModelError):
            check_transformer({}, row)


@pytest.mark.parametrize("variant", ["flux1-dev", "flux1-krea"])
def test_a_variant_that_the_models_own_index_contradicts(tiny_kontext: Path, variant: str) -> None:
    with pytest.raises(ModelError, match=f"not what model.variant = '{variant}' says") as caught:
        build_family(ModelConfig(path=str(tiny_kontext), variant=variant))
    assert "set model.variant to flux1-kontext" in str(caught.value)
