"""What other programs write, read; and what is none of it, refused with one clear message each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.fuse import build_fused
from weber.adapters.inspect import inspect_file
from weber.errors import AdapterError

GENERATOR = torch.Generator().manual_seed(0)
WIDTH = 32
DOWN, UP = torch.randn(2, WIDTH, generator=GENERATOR), torch.randn(WIDTH, 2, generator=GENERATOR)
MODULE, ORIGINAL = "transformer_blocks.3.attn.to_out.0", "double_blocks.3.img_attn.proj"


def _load(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> AdapterFile:
    path = folder / "adapter.safetensors"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata=metadata)
    return load_adapter(path)


def _factor(stem: str, down: str = "lora_A", up: str = "lora_B", **more: Tensor) -> dict[str, Tensor]:
    return {f"{stem}.{down}.weight": DOWN, f"{stem}.{up}.weight": UP, **{f"{stem}.{key}": value for key, value in more.items()}}


@pytest.mark.parametrize(
    ("tensors", "layout", "alpha"),
    [
        (_factor(f"transformer.{MODULE}"), "diffusers", 2.0),
        (_factor(f"transformer.{MODULE}", alpha=torch.tensor(5.0)), "diffusers", 5.0),
        (_factor(f"transformer.{MODULE}", "lora_down", "lora_up"), "diffusers", 2.0),
        (_factor(f"transformer.{ORIGINAL}"), "diffusers", 2.0),
        (_factor(f"base_model.model.{MODULE}"), "peft", 2.0),
        (_factor(f"base_model.model.{ORIGINAL}"), "peft", 2.0),
        (_factor(f"base_model.model.transformer.{MODULE}", "lora_A.default", "lora_B.default"), "peft", 2.0),
        (_factor(f"diffusion_model.{ORIGINAL}"), "comfyui", 2.0),
        (_factor(f"diffusion_model.{ORIGINAL}", alpha=torch.tensor(1.0)), "comfyui", 1.0),
        (_factor(f"diffusion_model.{ORIGINAL}", "lora_down", "lora_up"), "comfyui", 2.0),
        (_factor(f"diffusion_model.{MODULE}"), "comfyui", 2.0),
        (_factor("lora_unet_" + ORIGINAL.replace(".", "_"), "lora_down", "lora_up", alpha=torch.tensor(1.0)), "kohya", 1.0),
        (_factor("lora_unet_" + MODULE.replace(".", "_"), "lora_down", "lora_up", alpha=torch.tensor([0.5])), "kohya", 0.5),
        (_factor("lora_transformer_" + MODULE.replace(".", "_"), "lora_down", "lora_up"), "kohya, with the library's names", 2.0),
        (_factor("lycoris_" + MODULE.replace(".", "_"), "lora_down", "lora_up", alpha=torch.tensor(1.0)), "lycoris", 1.0),
        (_factor(MODULE), "without a prefix", 2.0),
        (_factor(ORIGINAL, "lora_down", "lora_up", alpha=torch.tensor(6.0)), "without a prefix", 6.0),
    ],
)
def test_names_that_others_give(tensors: dict[str, Tensor], layout: str, alpha: float, tmp_path: Path) -> None:
    adapter = _load(tmp_path, tensors)
    assert (adapter.layout, list(adapter.modules)) == (layout, [MODULE])
    factors = adapter.modules[MODULE]
    assert factors.alpha == alpha
    assert torch.equal(factors.down, DOWN) and torch.equal(factors.up, UP)
    is_said = any(name.endswith(".alpha") for name in tensors) or layout == "comfyui"
    assert adapter.notes == (() if is_said else ("The file does not say the alpha of 1 layers: taken to be their rank.",))


def test_a_fused_layer_trained_as_a_whole(tmp_path: Path) -> None:
    """kohya without split_qkv: one pair of matrices for queries, keys and values."""
    up = torch.randn(3 * WIDTH, 2, generator=torch.Generator().manual_seed(1))
    stem = "lora_unet_double_blocks_0_txt_attn_qkv"
    adapter = _load(tmp_path, {f"{stem}.lora_down.weight": DOWN, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(3.0)})
    names = [f"transformer_blocks.0.attn.add_{which}_proj" for which in "qkv"]
    assert list(adapter.modules) == names
    assert torch.equal(torch.cat([adapter.modules[name].build_delta() for name in names]), Factors(DOWN, up, 3.0).build_delta())


def test_a_fused_layer_trained_in_parts(tmp_path: Path) -> None:
    """kohya with split_qkv, where keys and the feed-forward were not trained."""
    parts = [Factors(DOWN, UP, 4.0), None, Factors(2 * DOWN, UP, 4.0), None]
    fused = build_fused(parts, [WIDTH, WIDTH, WIDTH, 4 * WIDTH])
    stem = "lora_unet_single_blocks_7_linear1"
    tensors = {f"{stem}.lora_down.weight": fused.down, f"{stem}.lora_up.weight": fused.up, f"{stem}.alpha": torch.tensor(fused.alpha)}
    adapter = _load(tmp_path, tensors)
    assert {name: (one.rank, one.alpha) for name, one in adapter.modules.items()} == {
        f"single_transformer_blocks.7.attn.{name}": (2, 4.0) for name in ("to_q", "to_v")
    }
    assert torch.equal(adapter.modules["single_transformer_blocks.7.attn.to_v"].down, 2 * DOWN)


def test_the_last_modulation_has_its_halves_turned(tmp_path: Path) -> None:
    """In the makers' files shift comes before scale, in the library's after it."""
    up = torch.arange(4.0 * WIDTH).view(2 * WIDTH, 2)
    stem = "diffusion_model.final_layer.adaLN_modulation.1"
    adapter = _load(tmp_path, {f"{stem}.lora_A.weight": DOWN, f"{stem}.lora_B.weight": up})
    assert torch.equal(adapter.modules["norm_out.linear"].up, torch.cat([up[WIDTH:], up[:WIDTH]]))


@pytest.mark.parametrize(
    ("original", "rows", "columns", "module", "transformer"),
    [
        ("single_blocks.1.linear2", 1, 5, "single_transformer_blocks.1.proj_out", "FluxTransformer2DModel"),
        ("single_blocks.1.linear2", 1, 4, "single_transformer_blocks.1.attn.to_out", "Flux2Transformer2DModel"),
        ("single_blocks.1.linear1", 9, 1, "single_transformer_blocks.1.attn.to_qkv_mlp_proj", "Flux2Transformer2DModel"),
        ("single_blocks.1.linear1", 7, 1, "single_transformer_blocks.1.attn.to_q", "FluxTransformer2DModel"),
        ("double_blocks.1.img_mlp.0", 4, 1, "transformer_blocks.1.ff.net.0.proj", "FluxTransformer2DModel"),
        ("double_blocks.1.img_mlp.0", 6, 1, "transformer_blocks.1.ff.linear_in", "Flux2Transformer2DModel"),
        ("double_blocks.1.txt_mlp.2", 1, 4, "transformer_blocks.1.ff_context.net.2", "FluxTransformer2DModel"),
        ("double_blocks.1.txt_mlp.2", 1, 3, "transformer_blocks.1.ff_context.linear_out", "Flux2Transformer2DModel"),
    ],
)
def test_shapes_tell_the_families_apart(original: str, rows: int, columns: int, module: str, transformer: str, tmp_path: Path) -> None:
    shapes = {"lora_A": (2, columns * WIDTH), "lora_B": (rows * WIDTH, 2)}
    adapter = _load(tmp_path, {f"diffusion_model.{original}.{key}.weight": torch.ones(*shape) for key, shape in shapes.items()})
    assert module in adapter.modules
    assert adapter.classes == (transformer,)


def test_attention_alone_fits_both_families_and_means_the_same(tmp_path: Path) -> None:
    adapter = _load(tmp_path, _factor(f"diffusion_model.{ORIGINAL}"))
    assert adapter.classes == ("FluxTransformer2DModel", "Flux2Transformer2DModel")


def test_a_library_layout_of_a_model_that_nobody_knows(tmp_path: Path) -> None:
    adapter = _load(tmp_path, _factor("transformer.some.other.layer"))
    assert (list(adapter.modules), adapter.classes) == (["some.other.layer"], ())


def _build_peft(load_network: Callable[[], nn.Module], **settings: object) -> tuple[nn.Module, LoraConfig, dict[str, Tensor]]:
    network = load_network()
    config = LoraConfig(target_modules=["to_q", "to_k", "proj_out"], **settings)  # type: ignore[arg-type]
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return network, config, get_peft_model_state_dict(network, adapter_name="default")


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 10},
        {"r": 4, "lora_alpha": 10, "use_rslora": True},
        {"r": 2, "rank_pattern": {"to_q": 5, "^proj_out": 3}, "alpha_pattern": {"attn.to_k": 7, r"single_.*\.\d.proj_out": 1}},
        {"r": 4, "lora_alpha": 3, "use_dora": True},
    ],
)
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_settings_mean_what_they_mean_to_peft(
    settings: dict[str, object], prefix: str, tmp_path: Path, load_network: Callable[[], nn.Module]
) -> None:
    """Ranks, alphas and patterns of a file that PEFT wrote: our change is what PEFT merges into the weights."""
    network, config, tensors = _build_peft(load_network, **settings)
    said = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    metadata = {"lora_adapter_metadata": json.dumps({prefix + key: value for key, value in said.items()}, default=str)}
    adapter = _load(tmp_path, {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    base = load_network()
    assert len(adapter.modules) == 4 + 2 * 3 + 1 - 2  # queries and keys of three blocks, and three outputs
    for name, factors in adapter.modules.items():
        layer = network.get_submodule(name)
        layer.merge()  # type: ignore[operator]
        ours = factors.build_weight(base.get_submodule(name).weight)
        assert torch.allclose(ours, layer.base_layer.weight, atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_a_folder_that_peft_wrote(tmp_path: Path, load_network: Callable[[], nn.Module]) -> None:
    get_peft_model(load_network(), LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "to_k", "proj_out"])).save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors")
    assert (adapter.layout, adapter.notes) == ("peft", ())
    assert {(factors.rank, factors.alpha) for factors in adapter.modules.values()} == {(4, 10.0)}
    assert len(adapter.modules) == 9


BAD: dict[str, tuple[dict[str, Tensor], dict[str, str], str]] = {
    "LoKr": ({f"lycoris_{MODULE}.lokr_w1": UP, f"lycoris_{MODULE}.lokr_w2": UP}, {}, "no LoRA that weber reads, but a LoKr."),
    "LoHa": ({f"lycoris_{MODULE}.hada_w1_a": UP, f"lycoris_{MODULE}.hada_w1_b": DOWN}, {}, "no LoRA that weber reads, but a LoHa."),
    "XLabs": (
        {"double_blocks.0.processor.qkv_lora1.down.weight": DOWN, "double_blocks.0.processor.qkv_lora1.up.weight": UP},
        {},
        "a LoRA in XLabs layout",
    ),
    "text encoder": (
        _factor("lora_unet_" + ORIGINAL.replace(".", "_"), "lora_down", "lora_up")
        | _factor("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "lora_down", "lora_up"),
        {},
        "a LoRA that also changes a text encoder other than CLIP-L",
    ),
    "biases": (_factor(f"transformer.{MODULE}") | {f"transformer.{MODULE}.lora_B.bias": UP[:, 0]}, {}, "also changes biases or norms"),
    "dora_scale": (_factor(f"diffusion_model.{ORIGINAL}", dora_scale=torch.ones(WIDTH, 1)), {}, "a DoRA with dora_scale"),
    "whole model": ({f"{MODULE}.weight": UP}, {}, "no LoRA that weber reads, but a transformer."),
    "nothing known": ({"something": UP}, {}, "a file of a kind that weber does not know"),
    "strangers of its layers": (_factor(f"transformer.{MODULE}", **{"lora_C.weight": UP}), {}, "tensors that are none of a LoRA"),
    "strangers of CLIP": (
        _factor(f"transformer.{MODULE}") | {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_C.weight": UP},
        {},
        "tensors that are none of a LoRA",
    ),
    "half of a layer": ({f"transformer.{MODULE}.lora_A.weight": DOWN}, {}, "The factors of a layer do not fit each other."),
    "ranks that differ": (
        {f"transformer.{MODULE}.lora_A.weight": DOWN, f"transformer.{MODULE}.lora_B.weight": torch.ones(WIDTH, 3)},
        {},
        "The factors of a layer do not fit each other.",
    ),
    "convolution": (
        {f"transformer.{MODULE}.lora_A.weight": torch.ones(2, 3, 3, 3), f"transformer.{MODULE}.lora_B.weight": torch.ones(8, 2, 1, 1)},
        {},
        "The factors of a layer do not fit each other.",
    ),
    "other model": (_factor("lora_unet_down_blocks_0_attentions_0_proj_in", "lora_down", "lora_up"), {}, "no model that weber knows"),
    "other shapes": (_factor("diffusion_model.double_blocks.0.img_attn.qkv"), {}, "no model that weber knows"),
    "one layer twice": (_factor(f"transformer.{MODULE}") | _factor(f"diffusion_model.{ORIGINAL}"), {}, "changes one layer twice"),
    "alpha of two numbers": (_factor(f"transformer.{MODULE}", alpha=torch.ones(2)), {}, "The alpha of a layer is not a number."),
    "alpha not finite": (_factor(f"transformer.{MODULE}", alpha=torch.tensor(torch.nan)), {}, "The alpha of a layer is not a number."),
    "a pattern that is none": (
        _factor(f"transformer.{MODULE}"),
        {"lora_adapter_metadata": '{"transformer.lora_alpha": 2, "transformer.alpha_pattern": {"*.to_q": 4}}'},
        "whose patterns are regular expressions",
    ),
    "settings without end": (
        _factor(f"transformer.{MODULE}"),
        {"lora_adapter_metadata": '{"transformer.lora_alpha": Infinity}'},
        "does not say its alpha",
    ),
    "a factor not finite": (
        {f"transformer.{MODULE}.lora_A.weight": DOWN, f"transformer.{MODULE}.lora_B.weight": torch.full((WIDTH, 2), torch.inf)},
        {},
        f"{MODULE}, up",
    ),
    "settings not JSON": (_factor(f"transformer.{MODULE}"), {"lora_adapter_metadata": "{"}, "does not say its alpha"),
    "settings a list": (_factor(f"transformer.{MODULE}"), {"lora_adapter_metadata": "[]"}, "does not say its alpha"),
    "settings without alpha": (_factor(f"transformer.{MODULE}"), {"lora_adapter_metadata": '{"r": 2}'}, "does not say its alpha"),
    "settings without a number": (
        _factor(f"transformer.{MODULE}"),
        {"lora_adapter_metadata": '{"transformer.lora_alpha": null}'},
        "does not say its alpha",
    ),
    "integers": (
        {f"transformer.{MODULE}.lora_A.weight": DOWN.to(torch.int8), f"transformer.{MODULE}.lora_B.weight": UP.to(torch.int8)},
        {},
        "The factors of a layer are quantized.",
    ),
    "a DoRA of the makers' names": (
        _factor(f"diffusion_model.{ORIGINAL}", lora_magnitude_vector=torch.ones(WIDTH)),
        {},
        "A DoRA is read in the library's layout only.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(name: str, tmp_path: Path) -> None:
    tensors, metadata, message = BAD[name]
    with pytest.raises(AdapterError) as caught:
        _load(tmp_path, tensors, metadata)
    text = str(caught.value)
    assert message in text
    assert f"got: {tmp_path / 'adapter.safetensors'}: " in text
    assert "fix: " in text
    assert len(text.splitlines()) <= 4


def test_fp8_is_read_as_bf16(tmp_path: Path) -> None:
    tensors = {f"transformer.{MODULE}.lora_{which}.weight": one.to(torch.float8_e4m3fn) for which, one in (("A", DOWN), ("B", UP))}
    factors = _load(tmp_path, tensors).modules[MODULE]
    assert factors.down.dtype == torch.bfloat16
    assert torch.equal(factors.down.float(), DOWN.to(torch.float8_e4m3fn).float())


def test_further_tensors_are_left_out_and_named(tmp_path: Path) -> None:
    """As OneTrainer's embeddings beside a LoRA."""
    further = {"bundle_emb.word.t5_out": UP, "bundle_emb.word.clip_l": UP}
    adapter = _load(tmp_path, _factor(f"diffusion_model.{ORIGINAL}") | further)
    assert list(adapter.modules) == [MODULE]
    assert adapter.notes[0].startswith("2 further tensors are no part of an adapter of the model, and are left out: bundle_emb.word.")
    assert inspect_file(tmp_path / "adapter.safetensors").notes == adapter.notes


def test_a_pattern_that_means_no_layer_is_told(tmp_path: Path) -> None:
    settings = {"transformer.lora_alpha": 2, "transformer.alpha_pattern": {"attn.to_q": 4, "attn.to_out.0": 6}}
    adapter = _load(tmp_path, _factor(f"transformer.{MODULE}"), {"lora_adapter_metadata": json.dumps(settings)})
    assert adapter.modules[MODULE].alpha == 6
    assert adapter.notes == ("alpha_pattern in its header means no layer of the file: attn.to_q.",)
    of_text = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    tensors = _factor(f"base_model.model.transformer.{MODULE}") | _factor(of_text)
    plain = {"lora_alpha": 2, "alpha_pattern": {"fc1": 4, "to_out.0": 6}}
    assert _load(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(plain)}).notes == ()
