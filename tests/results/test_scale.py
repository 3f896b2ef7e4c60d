"""Adapters made weaker, in their files, block by block in a merge, and while painting: equal to scaling by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import weber
from tests.runs import write_pocket_lora
from weber.adapters.blocks import read_strengths
from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.lycoris_files import load_lycoris
from weber.adapters.lycoris_forms import build_delta
from weber.api import OpenRun
from weber.errors import AdapterError, ConfigError
from weber.families.flux1.keys import PAIRINGS as FLUX1
from weber.families.flux1.variants import POCKET
from weber.families.flux2.keys import PAIRINGS as FLUX2
from weber.families.flux3.keys import PAIRINGS as FLUX3
from weber.progress import ignore_progress

DOUBLE, SINGLE = "transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp"


def save_in(path: Path, source: Path, *, layout: str, precision: str | None = None) -> Path:
    adapter = load_adapter(source)
    save_adapter(path, adapter.modules, layout=layout, facts={}, metadata=adapter.metadata, pairings=FLUX1, precision=precision)
    return path


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
@pytest.mark.parametrize(
    ("precision", "factor", "wider"), [("fp32", 0.3, False), ("bf16", 0.5, False), ("bf16", 0.3, True), ("fp16", -2, True)]
)
def test_the_change_in_a_file_is_so_much_weaker(layout: str, precision: str, factor: float, wider: bool, tmp_path: Path) -> None:
    file = save_in(tmp_path / "a.safetensors", write_pocket_lora(tmp_path / "lora.safetensors"), layout=layout, precision=precision)
    scaled = weber.scale(file, tmp_path / "b.safetensors", factor=factor, progress=ignore_progress)
    before, after, tensors = load_adapter(file), load_adapter(scaled), load_file(file)
    for name, one in before.modules.items():
        assert torch.equal(after.modules[name].up.float() * after.modules[name].scale, factor * one.up.float() * one.scale)
        assert torch.equal(after.modules[name].down, one.down)
    changed = {name for name, tensor in load_file(scaled).items() if not torch.equal(tensor, tensors[name])}
    assert {name.rsplit(".", 2)[1] for name in changed} <= {"lora_B", "lora_up"}
    assert {load_file(scaled)[name].dtype != tensors[name].dtype for name in changed} == {wider}
    told = dict(before.metadata), dict(after.metadata)
    assert {key for key in {**told[0], **told[1]} if told[0].get(key) != told[1].get(key)} <= {"weber", "modelspec.hash_sha256"}
    assert weber.check(scaled, original=file, progress=ignore_progress).readings == weber.check(file, progress=ignore_progress).readings


def write_lycoris(path: Path, algo: str) -> Path:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    rows, columns = load_file(next((POCKET / "transformer").glob("*.safetensors")))[f"{DOUBLE}.weight"].shape
    forms = {
        "lokr": {"lokr_w1": draw(4, 4), "lokr_w2_a": draw(rows // 4, 2), "lokr_w2_b": draw(2, columns // 4)},
        "loha": {"hada_w1_a": draw(rows, 2), "hada_w1_b": draw(2, columns), "hada_w2_a": draw(rows, 2), "hada_w2_b": draw(2, columns)},
        "full": {"diff": draw(rows, columns), "diff_b": draw(rows)},
        "glora": {"a1.weight": draw(columns, 2), "a2.weight": draw(2, columns), "b1.weight": draw(rows, 2), "b2.weight": draw(2, columns)},
        "diag-oft": {"oft_blocks": draw(4, rows // 4, rows // 4)},
    }
    tensors = {f"lycoris_{DOUBLE.replace('.', '_')}.{name}": tensor for name, tensor in forms[algo].items()}
    save_file({**tensors, f"lycoris_{DOUBLE.replace('.', '_')}.alpha": torch.tensor(1.0)}, path)
    return path


@pytest.mark.parametrize("algo", ["lokr", "loha", "full", "glora"])
def test_other_forms_are_so_much_weaker(algo: str, tmp_path: Path) -> None:
    file = write_lycoris(tmp_path / "a.safetensors", algo)
    scaled = weber.scale(file, tmp_path / "b.safetensors", factor=0.5, progress=ignore_progress)
    before, after = (load_lycoris(path).changes[DOUBLE] for path in (file, scaled))
    assert before.num_inputs is not None and after.algo == algo
    weight = torch.randn(before.num_outputs, before.num_inputs, generator=torch.Generator().manual_seed(0))
    old, new = (build_delta(algo, one.read(), alpha=one.alpha, weight=weight) for one in (before, after))
    assert torch.allclose(new, 0.5 * old, rtol=1e-4, atol=1e-8) and float(old.abs().max()) > 1e-3
    if algo == "full":
        assert torch.equal(after.read()["diff_b"], 0.5 * before.read()["diff_b"])


@pytest.mark.parametrize("kind", ["dora", "diag-oft"])
def test_what_follows_no_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    file = write_pocket_lora(path, dora=True) if kind == "dora" else write_lycoris(path, kind)
    with pytest.raises(AdapterError, match="does not follow one tensor"):
        weber.scale(file, tmp_path / "b.safetensors", factor=0.5, progress=ignore_progress)
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("factor", [0, 1, float("nan"), float("inf")])
def test_a_factor_that_does_nothing_is_refused(factor: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leaves everything or nothing"):
        weber.scale(write_pocket_lora(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", factor=factor, progress=ignore_progress)


LAYERS = {
    "flux1": (FLUX1, ["transformer_blocks.3.attn.to_q", "single_transformer_blocks.3.proj_mlp", "single_transformer_blocks.12.attn.to_k"]),
    "flux2": (FLUX2, ["transformer_blocks.3.attn.to_q", "single_transformer_blocks.3.attn.to_out", "context_embedder"]),
    "flux3": (FLUX3, ["mode_blocks.image.3.attn.to_q", "txt_mode_blocks.3.attn.to_q", "single_transformer_blocks.3.attn.to_q"]),
}


@pytest.mark.parametrize(
    ("family", "text", "strengths"),
    [
        ("flux1", "single:0.5", [None, 0.5, 0.5]),
        ("flux1", "double.3:0, single.0-9:0.5", [0.0, 0.5, None]),
        ("flux1", "single:0.5, single_blocks.12:-1", [None, 0.5, -1.0]),
        ("flux1", "*.3:2", [2.0, 2.0, None]),
        ("flux1", "single_transformer_blocks.*.attn.to_k:0", [None, None, 0.0]),
        ("flux2", "double:0.2", [0.2, None, None]),
        ("flux2", "context_embedder:0", [None, None, 0.0]),
        ("flux3", "mode_blocks.image.3:0.5", [0.5, None, None]),
        ("flux3", "single.3:0.5", [None, None, 0.5]),
    ],
)
def test_names_of_blocks(family: str, text: str, strengths: list[float | None]) -> None:
    pairings, layers = LAYERS[family]
    expected = {layer: one for layer, one in zip(layers, strengths, strict=True) if one is not None}
    assert read_strengths(text, layers, pairings=pairings) == expected


@pytest.mark.parametrize("text", ["triple:1", "single.99:1", "single", "single:strong", ":1", "single:1,,", "sing:1", "single:nan"])
def test_names_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="means no layer|not understood"):
        read_strengths(text, LAYERS["flux1"][1], pairings=FLUX1)


@pytest.mark.parametrize("dora", [False, True])
def test_blocks_of_a_merge_are_as_scaled_by_hand(dora: bool, tmp_path: Path) -> None:
    file = write_pocket_lora(tmp_path / "a.safetensors", dora=dora)
    options = {"base": "pocket", "progress": ignore_progress}
    merged = read_weights(weber.merge({file: 0.8}, tmp_path / "m.safetensors", blocks="single:0.5, double.0:0", **options))
    half = read_weights(weber.merge({file: 0.4}, tmp_path / "h.safetensors", **options))
    base = read_weights(weber.merge({file: 0.0}, tmp_path / "z.safetensors", **options))
    single = {name for name in half if name.startswith("single_blocks")}
    assert all(torch.equal(merged[name], half[name] if name in single else base[name]) for name in merged)
    assert any(not torch.equal(half[name], base[name]) for name in single)
    with pytest.raises(ConfigError, match="means no layer"):
        weber.merge({file: 0.8}, tmp_path / "n.safetensors", blocks="single.7:0.5", **options)


def test_blocks_of_a_sum_and_of_other_forms(tmp_path: Path) -> None:
    file = write_pocket_lora(tmp_path / "a.safetensors")
    total = load_adapter(weber.merge([file], tmp_path / "s.safetensors", blocks="single:0.5", progress=ignore_progress))
    before = load_adapter(file)
    for name, factor in ((SINGLE, 0.5), (DOUBLE, 1.0)):
        assert torch.allclose(total.modules[name].build_delta(), factor * before.modules[name].build_delta(), rtol=1e-5, atol=1e-7)
    lokr = write_lycoris(tmp_path / "k.safetensors", "lokr")
    options = {"base": "pocket", "progress": ignore_progress}
    merged = weber.merge([lokr], tmp_path / "m.safetensors", blocks="double:0.5", **options)
    by_hand = read_weights(weber.merge({lokr: 0.5}, tmp_path / "h.safetensors", **options))
    assert all(torch.equal(one, by_hand[name]) for name, one in read_weights(merged).items())


@pytest.mark.parametrize("form", ["lora", "lokr"])
def test_blocks_while_painting_are_as_scaled_by_hand(form: str, tmp_path: Path) -> None:
    def paint(opened: OpenRun, **asked: Any) -> np.ndarray:
        [picture] = opened.sample("a dog", steps=1, seed=3, size=(64, 64), **asked)
        assert ("blocks" in picture.info["weber"]) == ("blocks" in asked) == ("workflow" not in picture.info)
        return np.asarray(picture)

    path = tmp_path / "a.safetensors"
    file = write_pocket_lora(path, scale=0.6) if form == "lora" else write_lycoris(path, "lokr")
    with weber.open_run(file, base="pocket", progress=ignore_progress) as opened:
        weaker = paint(opened, blocks="single:0" if form == "lora" else "double:0.5")
        whole, half = paint(opened), paint(opened, strength=0.5)
        for text in ("triple:0.5", "single.99:1"):
            with pytest.raises(ConfigError, match="means no layer"):
                paint(opened, blocks=text)
    if form == "lora":
        modules = {name: one for name, one in load_adapter(file).modules.items() if name == DOUBLE}
        save_adapter(path, modules, layout="comfyui", facts={}, metadata={}, pairings=FLUX1)
        with weber.open_run(file, base="pocket", progress=ignore_progress) as opened:
            half = paint(opened)
    assert np.array_equal(weaker, half) and not np.array_equal(weaker, whole)


def test_a_model_has_no_blocks_that_could_be_weaker() -> None:
    with pytest.raises(ConfigError, match="no adapter whose blocks"):
        weber.sample("pocket", "a dog", blocks="single:0.5", progress=ignore_progress)
