"""Missing, misshaped and unknown tensors are named from the headers alone, wherever a transformer is used as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weber.config.model import ModelConfig
from weber.errors import ModelError
from weber.families.table import open_transformer
from weber.pocket.random import build_random_model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("proj_out.bias"), "missing: proj_out.bias"),
        (lambda weights: weights.update({"proj_out.bias": torch.zeros(3)}), "of another shape: proj_out.bias"),
        (lambda weights: weights.update({"extra.weight": torch.zeros(3)}), "not of the model: extra.weight"),
    ],
)
def test_a_transformer_that_is_not_its_configuration(tmp_path: Path, change: object, words: str) -> None:
    folder = build_random_model(tmp_path / "model")
    assert len(open_transformer(ModelConfig(path=str(folder))).weights) > 50
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    change(weights)  # type: ignore[operator]
    save_file(weights, file)
    with pytest.raises(ModelError, match=words):
        open_transformer(ModelConfig(path=str(folder)))
