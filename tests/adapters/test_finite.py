"""Numbers that are not finite in a model or an adapter: the tensor and the file are named where it is read, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weber.adapters.extract import build_extraction
from weber.adapters.factors import Factors
from weber.adapters.files import load_adapter
from weber.adapters.full import build_whole_weights
from weber.adapters.lycoris_files import load_lycoris
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.merge import build_merged_weights
from weber.adapters.model import save_model_folder
from weber.errors import AdapterError, ModelError
from weber.families.finite import find_not_finite, is_finite, read_finite
from weber.families.tensors import Weights, build_entry, open_weights

CHANGED, OTHER = "transformer_blocks.0.attn.to_q", "x_embedder"
LORA = {CHANGED: Factors(torch.ones(1, 4), torch.ones(4, 1), 1.0)}


def _open(folder: Path, *, broken: str | None = None, value: float = math.nan, dtype: torch.dtype = torch.float32) -> Weights:
    tensors = {f"{name}.weight": torch.ones(4, 4, dtype=dtype) for name in (CHANGED, OTHER)}
    if broken is not None:
        tensors[f"{broken}.weight"][1, 2] = value
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return open_weights([folder / "model.safetensors"])


def _lokr(path: Path, value: float = 1.0) -> Path:
    stem = "lycoris_" + CHANGED.replace(".", "_")
    save_file({f"{stem}.lokr_w1": torch.ones(2, 2), f"{stem}.lokr_w2": torch.full((2, 2), value)}, path)
    return path


MERGES: dict[str, Callable[[Weights, Path], Weights]] = {
    "lora": lambda base, folder: build_merged_weights(base, [(LORA, 1.0)]),
    "lokr": lambda base, folder: build_changed_weights(base, load_lycoris(_lokr(folder / "a.safetensors")).changes),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", [CHANGED, OTHER])
@pytest.mark.parametrize("kind", MERGES)
def test_a_merged_model_is_not_written(kind: str, broken: str, value: float, tmp_path: Path) -> None:
    """Also where the adapter does not touch the tensor."""
    base = _open(tmp_path / "base", broken=broken, value=value)
    with pytest.raises(ModelError, match="not finite") as caught:
        save_model_folder(tmp_path / "out", MERGES[kind](base, tmp_path), config={}, metadata={})
    assert f"got: {broken}.weight in {tmp_path / 'base' / 'model.safetensors'}" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", MERGES)
def test_a_sum_that_its_precision_has_no_room_for(kind: str, tmp_path: Path) -> None:
    base = _open(tmp_path / "base", broken=CHANGED, value=65504.0, dtype=torch.float16)
    huge = {CHANGED: Factors(torch.ones(1, 4), torch.full((4, 1), 100.0), 1.0)}
    if kind == "lora":
        merged = build_merged_weights(base, [(huge, 1.0)])
    else:
        merged = build_changed_weights(base, load_lycoris(_lokr(tmp_path / "a.safetensors", 100.0)).changes)
    with pytest.raises(AdapterError, match=f"{CHANGED}.weight with numbers up to 6.56e\\+04 in float16"):
        merged[f"{CHANGED}.weight"].read()


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_nothing_is_extracted(which: str, tmp_path: Path) -> None:
    models = {one: _open(tmp_path / one, broken=OTHER if one == which else None) for one in ("base", "tuned")}
    with pytest.raises(ModelError, match="not finite") as caught:
        build_extraction(models["base"], models["tuned"], modules=[CHANGED], rank=1)
    assert f"got: {OTHER}.weight in {tmp_path / which / 'model.safetensors'}" in str(caught.value)


def test_trained_weights_are_not_put_into_their_model(tmp_path: Path) -> None:
    trained = _open(tmp_path / "trained", broken=CHANGED)
    whole = build_whole_weights(_open(tmp_path / "base"), trained)
    with pytest.raises(ModelError, match=f"{CHANGED}.weight in {tmp_path / 'trained' / 'model.safetensors'}"):
        whole[f"{CHANGED}.weight"].read()


def test_adapters_name_their_tensor(tmp_path: Path) -> None:
    tensors = {f"transformer.{CHANGED}.lora_{which}.weight": torch.ones(2, 2) for which in "AB"}
    tensors[f"transformer.{CHANGED}.lora_B.weight"][0, 0] = math.inf
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(AdapterError, match=f"got: {tmp_path / 'lora.safetensors'}: {CHANGED}, up"):
        load_adapter(tmp_path / "lora.safetensors")
    with pytest.raises(AdapterError, match=r"lokr.safetensors: transformer_blocks_0_attn_to_q, lokr_w2"):
        load_lycoris(_lokr(tmp_path / "lokr.safetensors", math.nan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_in_every_precision(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 5).to(dtype)
    assert is_finite(tensor) and is_finite(tensor[:0]) and is_finite(torch.ones(2, dtype=torch.int8))
    tensor[2, 4] = math.nan
    assert not is_finite(tensor)
    with pytest.raises(ModelError, match="got: a\n"):
        read_finite("a", build_entry(tensor))
    assert find_not_finite({"b": build_entry(torch.ones(2)), "a": build_entry(tensor)}) == "a"
