"""What is this file? Every kind is recognized, and nothing ends in a traceback."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.adapters.inspect import inspect_file
from weber.adapters.metadata import build_metadata
from weber.adapters.model import save_model_file
from weber.adapters.target import list_targets
from weber.errors import AdapterError
from weber.families.flux1 import keys as flux1
from weber.families.flux2 import keys as flux2
from weber.families.tensors import open_weights

Draw = Callable[..., dict[str, Factors]]
ONE = torch.ones(2, 2)
MODULE = "transformer_blocks.0.attn.to_q"


def _lines(path: Path) -> dict[str, str]:
    return dict(inspect_file(path).lines)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
def test_an_adapter_of_ours(layout: str, tmp_path: Path, build_second: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = build_second()
    modules = draw_factors(network, list_targets(network, "all+ffs", sets=flux2.ADAPTER_TARGETS), ranks=(4,), alphas=(8.0,))
    facts: dict[str, object] = {"steps": 800, "num_pictures": 12, "model": "owner/name"}
    metadata = build_metadata(modules, architecture="flux-2-dev", title="fluent", facts=facts)
    path = tmp_path / "fluent.safetensors"
    save_adapter(path, modules, layout=layout, facts=facts, metadata=metadata, pairings=flux2.PAIRINGS)
    report = inspect_file(path)
    lines = dict(report.lines)
    assert (report.kind, report.notes) == ("LoRA", ())
    assert (lines["layout"], lines["fits"], lines["layers"]) == (layout, "Flux2Transformer2DModel", str(len(modules)))
    assert lines["targets"] == "the set 'blocks'"
    assert (lines["rank"], lines["alpha"]) == ("4", "4")
    assert (lines["steps"], lines["num pictures"], lines["dtype"]) == ("800", "12", "float32")
    assert report.uses[1] == "start from it (adapter.start_from)"
    text = str(report)
    assert text.splitlines()[0] == f"{path}: LoRA"
    assert "\n  rank          4\n" in text
    assert "\n  use:  convert it (`weber export`) to diffusers, kohya, comfyui" in text


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ("all+ffs", "the set 'all+ffs'"),
        ("mmdit", "the set 'mmdit'"),
        ("ai-toolkit", "the set 'ai-toolkit'"),
        ("all+ffs+modulation", "the set 'all+ffs+modulation'"),
        ("context", "the set 'context'"),
        (["attn.to_q", "proj_mlp"], "no set; layers such as single_transformer_blocks.0.attn.to_q"),
    ],
)
def test_which_targets(
    targets: str | list[str], shown: str, tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw
) -> None:
    network = load_network()
    modules = draw_factors(network, list_targets(network, targets, sets=flux1.ADAPTER_TARGETS))
    save_adapter(tmp_path / "a.safetensors", modules, layout="diffusers", facts={}, metadata={}, pairings=())
    assert _lines(tmp_path / "a.safetensors")["targets"].startswith(shown)


def test_layouts_that_cannot_carry_it_are_not_offered(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    path = tmp_path / "a.safetensors"
    for names, dora, uses in (
        (["proj_out"], False, "convert it (`weber export`) to diffusers, comfyui"),
        (["norm_out.linear"], False, "convert it (`weber export`) to diffusers"),
        (["x_embedder"], True, "merge it into its model (`weber merge`)"),
    ):
        modules = draw_factors(load_network(), names, dora=dora)
        save_adapter(path, modules, layout="diffusers", facts={}, metadata={}, pairings=())
        report = inspect_file(path)
        assert report.uses[-1] == uses
        assert report.kind == ("DoRA" if dora else "LoRA")


def test_a_file_of_kohyas_tools(tmp_path: Path) -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {f"{stem}.lora_down.weight": ONE.half(), f"{stem}.lora_up.weight": ONE.half(), f"{stem}.alpha": torch.tensor(1.0).half()}
    metadata = {
        "ss_network_module": "networks.lora_flux",
        "ss_steps": "1600",
        "ss_unet_lr": "0.0001",
        "ss_learning_rate": "None",
        "ss_tag_frequency": json.dumps({"10_a": {"red apple": 7, "tree": 1}, "5_b": {"tree": 8}}),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    lines = _lines(tmp_path / "a.safetensors")
    assert (lines["layout"], lines["rank"], lines["alpha"], lines["dtype"]) == ("kohya", "2", "1", "float16")
    assert (lines["network"], lines["steps"], lines["learning rate"]) == ("networks.lora_flux", "1600", "0.0001")
    assert lines["most frequent words"] == "tree, red apple"
    assert lines["fits"] == "FluxTransformer2DModel or Flux2Transformer2DModel"


def test_a_file_of_ai_toolkit(tmp_path: Path) -> None:
    tensors = {f"diffusion_model.double_blocks.0.img_attn.proj.lora_{which}.weight": ONE.bfloat16() for which in "AB"}
    metadata = {"software": '{"name": "ai-toolkit"}', "training_info": '{"step": 2000}', "ss_base_model_version": "flux2", "name": "x"}
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    lines = _lines(tmp_path / "a.safetensors")
    assert (lines["layout"], lines["made by"], lines["training"]) == ("comfyui", '{"name": "ai-toolkit"}', '{"step": 2000}')


OTHERS: dict[str, tuple[list[str], str]] = {
    "LoKr": ([f"lycoris_{MODULE}.lokr_w1"], "LoKr that weber cannot read"),
    "LoHa": ([f"lycoris_{MODULE}.hada_w1_a"], "LoHa that weber cannot read"),
    "OFT": (["lora_unet_double_blocks_0_img_attn_proj.oft_blocks"], "OFT or BOFT that weber cannot read"),
    "XLabs": (["double_blocks.0.processor.qkv_lora1.down.weight"], "LoRA in XLabs layout"),
    "text encoder too": (
        ["text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"],
        "LoRA that also changes a text encoder other than CLIP-L",
    ),
    "control": (["double_blocks.0.img_attn.norm.query_norm.scale", "img_in.lora_A.weight"], "LoRA that also changes biases or norms"),
    "T5": (["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"], "text encoder (T5)"),
    "CLIP": (["text_model.encoder.layers.0.self_attn.q_proj.weight"], "text encoder (CLIP)"),
    "Qwen": (["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"], "text encoder (a language model)"),
    "autoencoder": (["decoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight"], "autoencoder"),
    "ControlNet": (["controlnet_blocks.0.weight", f"{MODULE}.weight"], "ControlNet"),
    "all in one": (
        ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "text_encoders.t5xxl.transformer.shared.weight", "vae.x"],
        "checkpoint with all parts of a model in one file",
    ),
    "stranger": (["a", "b"], "file of a kind that weber does not know"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(name: str, tmp_path: Path) -> None:
    names, kind = OTHERS[name]
    save_file({one: ONE.clone() for one in names}, tmp_path / "a.safetensors")
    report = inspect_file(tmp_path / "a.safetensors")
    assert report.kind == kind
    assert dict(report.lines)["tensors"].startswith(f"{len(names)} with")
    assert kind in str(report)


def test_a_transformer_in_either_layout(tiny_model: Path, tmp_path: Path) -> None:
    file = next((tiny_model / "transformer").glob("*.safetensors"))
    report = inspect_file(file)
    assert (report.kind, dict(report.lines)["layout"]) == ("transformer", "the library's names")
    assert dict(report.lines)["class"] == "FluxTransformer2DModel"
    save_model_file(tmp_path / "m.safetensors", open_weights([file]), pairings=flux1.PAIRINGS, config={}, metadata={})
    report = inspect_file(tmp_path / "m.safetensors")
    assert (report.kind, dict(report.lines)["layout"]) == ("transformer", "the makers' names")
    assert dict(report.lines)["class"] == "FluxTransformer2DModel"
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in load_file(tmp_path / "m.safetensors").items()}
    save_file(prefixed, tmp_path / "p.safetensors")
    assert _lines(tmp_path / "p.safetensors")["class"] == "FluxTransformer2DModel"


def test_folders(tiny_model: Path, tmp_path: Path) -> None:
    assert inspect_file(tiny_model).kind == "model in the library's layout"
    report = inspect_file(tiny_model / "transformer")
    assert report.kind == "part of a model in the library's layout"
    assert dict(report.lines)["class"] == "FluxTransformer2DModel"
    run = tmp_path / "run"
    (run / "checkpoint-000002").mkdir(parents=True)
    assert inspect_file(run).kind == "folder"
    (run / "config.toml").write_text("")
    assert inspect_file(run).kind == "run folder of weber"
    save_file({"transformer.x.lora_A.weight": ONE}, run / "checkpoint-000002" / "adapter.safetensors")
    assert inspect_file(run / "checkpoint-000002").kind == "checkpoint of weber"
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model / "transformer", broken)
    (broken / "config.json").write_text("{")
    assert inspect_file(broken).notes[0].startswith("Not all of it can be read")
    (tmp_path / "empty").mkdir()
    assert _lines(tmp_path / "empty") == {"holds": "nothing"}


def test_a_lora_that_cannot_be_read_is_said_to_be_one(tmp_path: Path) -> None:
    save_file({f"transformer.{MODULE}.lora_A.weight": ONE}, tmp_path / "a.safetensors", metadata={"ss_steps": "3"})
    report = inspect_file(tmp_path / "a.safetensors")
    assert report.kind == "LoRA that weber cannot read"
    assert "The factors of a layer do not fit each other" in report.notes[0]
    assert dict(report.lines)["steps"] == "3"


@pytest.mark.parametrize(("name", "kind"), [("a.ckpt", "a checkpoint in pickle format"), ("a.gguf", "quantized weights in GGUF format")])
def test_files_that_are_not_opened(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    report = inspect_file(tmp_path / name)
    assert (report.kind, report.notes) == (kind, ("weber reads *.safetensors only.",))


@pytest.mark.parametrize("code", ["U16", "F8_E8M0"])
def test_tensors_of_other_types_are_told_as_such(code: str, tmp_path: Path) -> None:
    header = json.dumps({"a.weight": {"dtype": code, "shape": [0], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    report = inspect_file(tmp_path / "a.safetensors")
    assert report.kind == "file that weber cannot read"
    assert report.notes[0].endswith(f"holds tensors of a type that weber does not read. a.weight is {code}")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="There is no such file"):
        inspect_file(tmp_path / "missing")


headers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["__metadata__", "dtype", "a"]), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(header=headers, tail=st.binary(max_size=20), raw=st.booleans())
def test_any_bytes_are_answered(header: object, tail: bytes, raw: bool, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(tail if raw else struct.pack("<Q", len(text)) + text + tail)
    assert str(path) in str(inspect_file(path))


@pytest.mark.parametrize("words", ["[]", "{", '{"a": 3}', '{"a": {"b": "c"}}', '{"a": {"b": null}}'])
def test_odd_metadata_is_passed_over(words: str, tmp_path: Path) -> None:
    metadata = {"ss_tag_frequency": words, "weber": words, "lora_adapter_metadata": words}
    save_file({f"transformer.{MODULE}.lora_{which}.weight": ONE.clone() for which in "AB"}, tmp_path / "a.safetensors", metadata=metadata)
    assert "most frequent words" not in _lines(tmp_path / "a.safetensors")
