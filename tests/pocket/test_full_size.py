from __future__ import annotations

from pathlib import Path

import pytest

from weber.config.model import ModelConfig
from weber.families.table import FAMILIES, build_family
from weber.pocket.full_size import build_full_size
from weber.pocket.published import TRANSFORMERS, build_encoders

PARAMETERS = {
    "flux1-dev": 11_901_408_320,
    "flux1-krea": 11_901_408_320,
    "flux1-kontext": 11_901_408_320,
    "flux1-schnell": 11_891_178_560,
    "flux1-fill": 11_902_391_360,
    "flux2-dev": 32_223_281_152,
    "flux2-klein-4b": 3_875_544_576,
    "flux2-klein-base-9b": 9_078_581_248,
    "flux3-klein-base": 5_538_458_368,
}
"""ecosystem.md 1.2, counted on the published configurations."""


def test_every_published_variant_has_a_size() -> None:
    known = {name for row in FAMILIES for name in row.variants}
    assert known - set(TRANSFORMERS) == {"pocket"}


@pytest.mark.parametrize("variant", list(PARAMETERS))
def test_the_transformer_is_as_large_as_the_published_one(variant: str, tmp_path: Path) -> None:
    family = build_family(ModelConfig(path=str(build_full_size(tmp_path, variant)), variant=variant))
    assert family.variant == variant and family.is_local
    assert sum(parameter.numel() for parameter in family.load_skeleton().parameters()) == PARAMETERS[variant]


def test_a_variant_can_be_recognized_from_its_files(tmp_path: Path) -> None:
    for variant in ("flux1-kontext", "flux1-schnell", "flux2-klein-9b", "flux2-klein-base-4b"):
        assert build_family(ModelConfig(path=str(build_full_size(tmp_path / variant, variant)))).variant == variant


def test_encoders_are_as_large_as_the_published_ones() -> None:
    """CLIP-L 123 M, T5-XXL 4.76 B, autoencoders 83.8 M and 84.0 M; of the language models the layers that are read."""
    sizes = {
        name: {part: sum(one.numel() for one in module.parameters()) / 1e6 for part, module in build_encoders(name, {}).items()}
        for name in ("flux1-dev", "flux2-dev", "flux2-klein-4b", "flux2-klein-9b", "flux3-klein-base")
    }
    assert sizes["flux1-dev"] == pytest.approx({"vae": 83.8, "clip": 123.1, "t5": 4762.3}, abs=0.1)
    assert sizes["flux2-dev"] == pytest.approx({"vae": 84.0, "mistral": 17899.5}, abs=0.1)
    # 4.02 B and 8.19 B less 8 of 36 layers, and less a head where it is not the embedding.
    assert sizes["flux2-klein-4b"] == pytest.approx({"vae": 84.0, "qwen": 4022.5 - 8 * 100.9}, abs=1.0)
    assert sizes["flux2-klein-9b"] == pytest.approx({"vae": 84.0, "qwen": 8190.7 - 8 * 192.9 - 622.3}, abs=1.0)
    assert set(sizes["flux3-klein-base"]) == {"vae", "qwen"}


def test_parts_of_another_width_are_not_taken_for_the_published_ones() -> None:
    assert build_encoders("flux1-dev", {"joint_attention_dim": 32}) == {}
    assert build_encoders("pocket", {}) == {}
