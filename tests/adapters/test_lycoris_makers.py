"""Files of LyCORIS with the makers' names, as ai-toolkit, kohya's tools, musubi-tuner and OneTrainer write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.adapters.comfyui import read_file
from tests.adapters.test_lycoris import put, shake
from weber.adapters.inspect import inspect_file
from weber.adapters.lycoris import list_changes
from weber.adapters.lycoris_files import list_entries, load_lycoris, load_lycoris_start, save_lycoris
from weber.adapters.lycoris_forms import list_shapes
from weber.adapters.lycoris_merge import build_changed_weights
from weber.config.adapter import AdapterConfig
from weber.config.lycoris import LycorisConfig
from weber.errors import AdapterError
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.pairing import build_original_weights
from weber.families.tensors import build_entry

Build = Callable[[], nn.Module]
FORMS: dict[str, dict[str, Any]] = {
    "lokr": {"algo": "lokr", "linear_dim": 2, "linear_alpha": 1, "factor": 4},
    "lokr, whole": {"algo": "lokr", "linear_dim": 10000, "factor": -1},
    "lokr, by outputs of 3": {"algo": "lokr", "linear_dim": 2, "factor": 6},
    "loha": {"algo": "loha", "linear_dim": 3, "linear_alpha": 2},
    "full": {"algo": "full"},
    "glora": {"algo": "glora", "linear_dim": 3, "linear_alpha": 2},
    "diag-oft": {"algo": "diag-oft", "linear_dim": 8},
    "boft": {"algo": "boft", "linear_dim": 18},
}
PREFIXES = {"lora_unet_": "_", "diffusion_model.": "."}
LAYOUTS = {"lora_unet_": "kohya", "diffusion_model.": "comfyui"}
QKV = "double_blocks.0.img_attn.qkv"
WIDTH = 32
"""Of the tiny networks."""


def _write(path: Path, layers: Mapping[str, tuple[int, int]], form: str, *, prefix: str = "diffusion_model.", biases: bool = False) -> Path:
    """Random numbers for layers of (outputs, inputs) under the makers' names."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    [settings] = LycorisConfig.model_validate(FORMS[form]).build_layers().values()
    for original, (outputs, inputs) in layers.items():
        stem = prefix + original.replace(".", PREFIXES[prefix])
        for part, shape in list_shapes(settings, (inputs, outputs), has_bias=biases).items():
            ending = ".weight" if part in ("a1", "a2", "b1", "b2") else ""
            tensors[f"{stem}.{part}{ending}"] = 0.1 * torch.randn(shape, generator=generator)
        if form != "full":
            alpha = 0.0 if "oft" in form else settings.alpha
            tensors[f"{stem}.alpha"] = torch.tensor(alpha if form != "lokr, whole" else torch.inf)  # as ai-toolkit's in fp16
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
def test_every_form_on_every_layer(
    is_second: bool, form: str, prefix: str, load_network: Build, build_second: Build, tmp_path: Path
) -> None:
    """The merged model is ComfyUI's, also where the makers have several layers as one."""
    network, pairings = (build_second(), flux2.PAIRINGS) if is_second else (load_network(), flux1.PAIRINGS)
    base = {name: build_entry(tensor) for name, tensor in network.state_dict().items()}
    originals = {name: entry.read() for name, entry in build_original_weights(base, pairings).items()}
    layers = {name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in originals.items() if tensor.dim() == 2}
    path = _write(tmp_path / "a.safetensors", layers, form, prefix=prefix, biases=not is_second)
    adapter = load_lycoris(path)
    assert (adapter.layout, adapter.notes) == (LAYOUTS[prefix], ())
    merged = build_changed_weights(base, adapter.changes, fused=adapter.fused)
    ours = {name: entry.read() for name, entry in build_original_weights(merged, pairings).items()}
    theirs, lost = read_file(path, originals)
    assert not lost
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-6)
    assert sum(not torch.equal(ours[name], originals[name]) for name in originals) >= len(layers)


@pytest.mark.parametrize(("form", "is_divided"), [("lokr", False), ("lokr, by outputs of 3", True), ("loha", True), ("full", True)])
def test_layers_that_are_several_are_divided_where_the_factors_allow(form: str, is_divided: bool, tmp_path: Path) -> None:
    layers = {QKV: (3 * WIDTH, WIDTH), "double_blocks.0.img_attn.proj": (WIDTH, WIDTH)}
    path = _write(tmp_path / "a.safetensors", layers, form)
    adapter = load_lycoris(path)
    parts = [f"transformer_blocks.0.attn.to_{name}" for name in "qkv"]
    assert set(adapter.changes) == {"transformer_blocks.0.attn.to_out.0", *(parts if is_divided else [])}
    assert list(adapter.fused) == ([] if is_divided else [QKV])
    assert adapter.num_layers == 4
    text = str(inspect_file(path))
    assert ("of which 1 are several in the library's model, and cannot be divided" in text) == (not is_divided)
    if form == "lokr, by outputs of 3":
        first = load_file(path)[f"diffusion_model.{QKV}.lokr_w1"]
        assert first.shape[0] % 3 == 0
        assert torch.equal(torch.cat([adapter.changes[name].read()["lokr_w1"] for name in parts]), first)
    config = AdapterConfig(kind="lycoris", lycoris=LycorisConfig(algo="full"), start_from=str(path))
    shapes = {name: entry.shape for name, entry in list_entries(adapter).items()}
    if is_divided:
        [settings] = LycorisConfig.model_validate(FORMS[form]).build_layers().values()
        assert load_lycoris_start(config, dict.fromkeys(adapter.changes, settings), shapes=shapes) is not None
    else:
        with pytest.raises(AdapterError, match="cannot be divided among them"):
            load_lycoris_start(config, {}, shapes=shapes)


def test_a_dora_by_inputs_is_read_and_one_by_outputs_is_not(tmp_path: Path) -> None:
    """Of the first all programs mean the same: the columns of the changed weight have these lengths."""
    generator = torch.Generator().manual_seed(0)
    down, up, lengths = (torch.randn(*shape, generator=generator) for shape in ((2, WIDTH), (3 * WIDTH, 2), (1, WIDTH)))
    stem = "lora_unet_" + QKV.replace(".", "_")
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(4.0)}
    save_file(tensors | {f"{stem}.dora_scale": lengths.abs()}, tmp_path / "a.safetensors")
    base = {f"transformer_blocks.0.attn.to_{name}.weight": build_entry(torch.randn(WIDTH, WIDTH, generator=generator)) for name in "qkv"}
    adapter = load_lycoris(tmp_path / "a.safetensors")
    merged = build_changed_weights(base, adapter.changes, fused=adapter.fused)
    changed = torch.cat([entry.read() for entry in base.values()]) + 2 * up @ down
    expected = changed * lengths.abs() / changed.norm(dim=0, keepdim=True)
    torch.testing.assert_close(torch.cat([entry.read() for entry in merged.values()]), expected, atol=1e-5, rtol=1e-5)
    assert inspect_file(tmp_path / "a.safetensors").kind == "DoRA with dora_scale"
    save_file(tensors | {f"{stem}.dora_scale": torch.ones(3 * WIDTH, 1)}, tmp_path / "b.safetensors")
    with pytest.raises(AdapterError, match="a length for each output, which its readers understand differently"):
        load_lycoris(tmp_path / "b.safetensors")


@pytest.mark.parametrize("algo", ["full", "lokr"])
def test_files_of_earlier_versions(algo: str, load_network: Build, build_second: Build, tmp_path: Path) -> None:
    """They have the library's names alone: also for layers and biases that now have the makers'."""
    for build, pairings in ((load_network, flux1.PAIRINGS), (build_second, flux2.PAIRINGS)):
        network = build()
        shake(put(network, FORMS[algo], names=[name for name, one in network.named_modules() if isinstance(one, nn.Linear)]))
        for names, file in (((), "old"), (pairings, "new")):
            save_lycoris(tmp_path / file, network, architecture="", title="", facts={}, pairings=names)
        old, new = (list_entries(load_lycoris(tmp_path / file)) for file in ("old", "new"))
        has_both = algo == "full" or pairings is flux2.PAIRINGS
        assert (set(load_file(tmp_path / "old")) != set(load_file(tmp_path / "new"))) == has_both
        assert all(name.startswith("lycoris_") for name in load_file(tmp_path / "old"))
        assert old.keys() == new.keys() == {f"{one.name}.change.{part}" for one in list_changes(network) for part in one.tensors}
        assert all(torch.equal(entry.read(), new[name].read()) for name, entry in old.items())


@pytest.mark.parametrize(("form", "rank", "alpha"), [("lokr", "2", "1"), ("lokr, whole", "whole", None)])
def test_settings_to_start_from_are_shown(form: str, rank: str, alpha: str | None, tmp_path: Path) -> None:
    """Also a factor that no tensor says, with which LyCORIS cuts all layers as the file has them."""
    layers = {"double_blocks.0.img_attn.proj": (32, 32), "double_blocks.0.img_mlp.0": (128, 32), "double_blocks.0.img_mlp.2": (32, 128)}
    path = _write(tmp_path / "a.safetensors", layers, form)
    lines = dict(inspect_file(path).lines)
    assert (lines["form"], lines["rank"], lines.get("alpha")) == ("lokr", rank, alpha)
    [settings] = LycorisConfig.model_validate(FORMS[form] | {"factor": int(lines["factor"])}).build_layers().values()
    for one in load_lycoris(path).changes.values():
        assert one.num_inputs is not None
        shapes = list_shapes(settings, (one.num_inputs, one.num_outputs), has_bias=False)
        assert shapes == {part: entry.shape for part, entry in one.tensors.items()}


def test_further_tensors_and_clip(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.safetensors", {QKV: (3 * WIDTH, WIDTH)}, "loha")
    tensors = load_file(path)
    save_file(tensors | {"bundle_emb.word": torch.ones(2)}, path)
    assert load_lycoris(path).notes == ("1 further tensors are no part of an adapter of the model, and are left out: bundle_emb.word.",)
    text = {f"lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w{one}_{side}": torch.ones(2, 2) for one in (1, 2) for side in "ab"}
    save_file(tensors | text, path)
    with pytest.raises(AdapterError, match="changes CLIP too"):
        load_lycoris(path)


def _turns(stem: str) -> dict[str, Tensor]:
    return {f"diffusion_model.{stem}.oft_blocks": torch.zeros(4, 8, 8)}


def test_layers_that_two_families_have_with_other_names(tmp_path: Path) -> None:
    """Turns do not say the number of inputs, which tells the families apart."""
    save_file(_turns("double_blocks.0.img_mlp.0"), tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="do not say which model it is for"):
        load_lycoris(tmp_path / "a.safetensors")
    save_file(_turns("double_blocks.0.img_mlp.0") | _turns("double_blocks.0.img_mod.lin"), tmp_path / "a.safetensors")
    assert load_lycoris(tmp_path / "a.safetensors").classes == ("FluxTransformer2DModel",)
