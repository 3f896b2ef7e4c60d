"""Loading parts: precision of single files, memory, and what is said where weights cannot be used."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from weber.errors import ModelError
from weber.families.flux1.keys import PAIRINGS as FLUX1
from weber.families.flux1.original import TRANSFORMER
from weber.families.flux2.keys import PAIRINGS as FLUX2
from weber.families.flux2.original import QWEN
from weber.families.flux2.original import TRANSFORMER as TRANSFORMER2
from weber.families.pairing import build_library_weights, build_original_weights
from weber.families.places import Place
from weber.families.singles import list_folder_files, list_pieces, open_single
from weber.families.source import Source
from weber.families.tensors import Entry, Weights, build_entry, save_weights
from weber.families.weights import load_part, open_part, read_part_config

Write = Callable[..., Path]
SIZE: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 20,
    "axes_dims_rope": (4, 6, 6),
    "guidance_embeds": True,
}
FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0


def _place(path: Path) -> Place:
    files = list_pieces(path)
    return Place(files[0], files, True)


def _load(path: Path, dtype: torch.dtype = torch.float32, **changes: object) -> FluxTransformer2DModel:
    module = load_part(FluxTransformer2DModel, _place(path), original=TRANSFORMER, dtype=dtype, changes=changes)
    assert isinstance(module, FluxTransformer2DModel)
    return module


@pytest.fixture(scope="module")
def model() -> FluxTransformer2DModel:
    """A tiny network whose weights no test changes."""
    return FluxTransformer2DModel(**SIZE)


@pytest.fixture(scope="module")
def originals(model: FluxTransformer2DModel) -> dict[str, Entry]:
    """Its tensors under the makers' names."""
    return build_original_weights({name: build_entry(tensor) for name, tensor in model.state_dict().items()}, FLUX1)


def _message(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    return str(caught.value)


def _quantize(tensor: Tensor, *, per_row: bool = False) -> tuple[Tensor, Tensor]:
    peak = tensor.abs().amax(dim=1) if per_row else tensor.abs().amax()
    scale = peak / LARGEST
    return (tensor / (scale[:, None] if per_row else scale)).to(FLOAT8), scale


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("layout", ["scaled_fp8", "comfy_quant", "metadata", "bare", "per_row"])
def test_scaled_fp8_becomes_plain(layout: str, prefix: str, originals: Weights, tmp_path: Path) -> None:
    entries: dict[str, Entry] = {}
    layers: dict[str, object] = {}
    expected: dict[str, Tensor] = {}
    for name, entry in originals.items():
        if not name.endswith(".weight") or len(entry.shape) != 2:
            entries[prefix + name] = entry
            expected[name] = entry.read()
            continue
        weight, scale = _quantize(entry.read(), per_row=layout == "per_row")
        expected[name] = weight.float() * (scale[:, None] if layout == "per_row" else scale)
        stem = prefix + name.removesuffix(".weight")
        entries[f"{stem}.weight"] = build_entry(weight)
        entries[f"{stem}.{'scale_weight' if layout == 'scaled_fp8' else 'weight_scale'}"] = build_entry(scale)
        entries[f"{stem}.{'scale_input' if layout == 'scaled_fp8' else 'input_scale'}"] = build_entry(torch.ones(()))
        layers[stem] = {"format": "float8_e4m3fn"}
        if layout == "comfy_quant":
            entries[f"{stem}.comfy_quant"] = build_entry(torch.tensor(list(json.dumps(layers[stem]).encode()), dtype=torch.uint8))
    if layout == "scaled_fp8":
        entries[f"{prefix}scaled_fp8"] = build_entry(torch.zeros(0, dtype=FLOAT8))
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if layout == "metadata" else {}
    path = tmp_path / "fp8.safetensors"
    save_weights(path, entries, metadata=metadata)
    stripped = {name.removeprefix(prefix): entry for name, entry in open_single((path,)).items()}
    assert set(stripped) == set(originals)
    assert {name for name, entry in stripped.items() if entry.is_quantized} == {name for name in expected if expected[name].ndim == 2}
    library, _ = build_library_weights(stripped, FLUX1)
    assert library["transformer_blocks.0.attn.to_q.weight"].is_quantized
    assert build_original_weights(library, FLUX1)["double_blocks.0.img_attn.qkv.weight"].is_quantized
    assert not library["transformer_blocks.0.attn.to_q.bias"].is_quantized
    assert all(torch.equal(stripped[name].read(), expected[name]) for name in expected)
    assert all(stripped[name].shape == originals[name].shape for name in originals)
    loaded = build_original_weights({name: build_entry(tensor) for name, tensor in _load(path).state_dict().items()}, FLUX1)
    assert all(torch.equal(loaded[name].read(), expected[name]) for name in expected)


def test_plain_fp8_is_cast(model: FluxTransformer2DModel, originals: Weights, tmp_path: Path) -> None:
    entries = {name: build_entry(entry.read().to(FLOAT8)) for name, entry in originals.items()}
    save_weights(tmp_path / "fp8.safetensors", entries, metadata={})
    loaded = _load(tmp_path / "fp8.safetensors", torch.bfloat16)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, model.state_dict()[name].to(FLOAT8).to(torch.bfloat16)), name


def test_the_forward_of_a_single_file_is_the_models_own(model: FluxTransformer2DModel, write_single: Write, tmp_path: Path) -> None:
    loaded = _load(write_single(tmp_path / "model.safetensors", model, pairings=FLUX1))
    inputs = {
        "hidden_states": torch.randn(1, 4, 64),
        "encoder_hidden_states": torch.randn(1, 3, 24),
        "pooled_projections": torch.randn(1, 20),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.rand(4, 3),
        "txt_ids": torch.zeros(3, 3),
        "guidance": torch.tensor([3.5]),
        "return_dict": False,
    }
    with torch.no_grad():
        assert torch.equal(loaded(**inputs)[0], model.eval()(**inputs)[0])
    assert not loaded.training


@pytest.mark.skipif(not hasattr(psutil.Process().memory_info(), "shared"), reason="only Linux tells pages of files from others")
def test_the_peak_is_the_model_in_its_dtype(tmp_path: Path) -> None:
    """A file of 0.3 GB in fp32, loaded as bf16: the process grows by half of it and the largest tensor, never by all of it."""
    size = {"num_layers": 1, "num_single_layers": 6, "attention_head_dim": 64, "num_attention_heads": 12, "joint_attention_dim": 96}
    with torch.device("meta"):
        empty = Flux2Transformer2DModel(**size, axes_dims_rope=(16, 16, 16, 16))
    weights: Weights = {name: Entry(tuple(t.shape), t.dtype, _fill(tuple(t.shape))) for name, t in empty.state_dict().items()}
    weights = build_original_weights(weights, FLUX2)
    save_weights(tmp_path / "model.safetensors", weights, metadata={})
    num_bytes = (tmp_path / "model.safetensors").stat().st_size
    largest = max(entry.num_bytes for entry in weights.values())
    del weights
    gc.collect()
    process, peak, is_done = psutil.Process(), [0], threading.Event()
    # Private memory: pages of the file itself can be dropped by the system at any time.
    start = _private_bytes(process)

    def watch() -> None:
        while not is_done.is_set():
            peak[0] = max(peak[0], _private_bytes(process) - start)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    loaded = load_part(Flux2Transformer2DModel, _place(tmp_path / "model.safetensors"), original=TRANSFORMER2, dtype=torch.bfloat16)
    is_done.set()
    watcher.join()
    assert num_bytes > 250e6
    assert num_bytes / 4 < peak[0] < num_bytes / 2 + largest + 40e6 < num_bytes
    assert next(loaded.parameters()).dtype == torch.bfloat16


def test_a_piece_of_a_tensor_does_not_keep_the_whole(model: FluxTransformer2DModel, write_single: Write, tmp_path: Path) -> None:
    for tensor in _load(write_single(tmp_path / "model.safetensors", model, pairings=FLUX1)).state_dict().values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def _fill(shape: tuple[int, ...]) -> Callable[[], Tensor]:
    return lambda: torch.full(shape, 0.5)


def _private_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def _edit(originals: Weights, change: Callable[[dict[str, Entry]], None]) -> dict[str, Entry]:
    entries = dict(originals)
    change(entries)
    return entries


FP8 = build_entry(torch.zeros(32, 64, dtype=FLOAT8))
BYTES = build_entry(torch.zeros(8, dtype=torch.uint8))


def _mark(text: str) -> Entry:
    return build_entry(torch.tensor(list(text.encode()), dtype=torch.uint8))


REFUSED: dict[str, tuple[dict[str, Entry], str]] = {
    "nvfp4": ({"img_in.weight_scale_2": build_entry(torch.ones(()))}, "nvfp4"),
    "nvfp4 by its mark": ({"img_in.comfy_quant": _mark('{"format": "nvfp4"}')}, "img_in is kept as nvfp4"),
    "int8 by its mark": ({"img_in.comfy_quant": _mark('{"format": "int8_tensorwise"}')}, "img_in is kept as int8_tensorwise"),
    "rotated": ({"img_in.comfy_quant": _mark('{"format": "float8_e4m3fn", "convrot": true}')}, "kept as float8_e4m3fn, rotated"),
    "int8": (
        {"img_in.weight": build_entry(torch.zeros(32, 64, dtype=torch.int8)), "img_in.weight_scale": build_entry(torch.ones(()))},
        "img_in.weight is kept as torch.int8 with a scale",
    ),
    "whole numbers": ({"img_in.weight": build_entry(torch.zeros(32, 64, dtype=torch.uint8))}, "img_in.weight is kept as torch.uint8"),
    "blocks": (
        {"img_in.weight": FP8, "img_in.weight_scale": build_entry(torch.ones(4, 8))},
        "the scale of img_in.weight has the shape [4, 8]",
    ),
    "bnb 4": ({"img_in.weight.quant_state.bitsandbytes__nf4": BYTES}, "bitsandbytes"),
    "bnb 4 by its map": ({"img_in.weight.absmax": BYTES}, "4-bit weights of bitsandbytes"),
    "bnb 8": ({"img_in.SCB": BYTES}, "8-bit weights of bitsandbytes"),
    "nunchaku": ({"single_blocks.0.linear1.qweight": BYTES}, "GPTQ, AWQ or Nunchaku"),
    "quanto": ({"img_in.weight._data": BYTES}, "quanto"),
    "broken mark": ({"img_in.comfy_quant": _mark("{")}, "how its weights are kept"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_precisions_are_refused_in_words(name: str, originals: Weights, tmp_path: Path) -> None:
    added, said = REFUSED[name]
    path = tmp_path / "model.safetensors"
    save_weights(path, {**originals, **added}, metadata={})
    message = _message(lambda: _load(path))
    assert said in message
    assert str(path) in message
    assert "fix: use the" in message


@pytest.mark.parametrize("text", ["{", "[]", '{"layers": 3}', '{"layers": {"img_in": {"format": "mxfp8"}}}'])
def test_a_header_that_says_what_is_not_known(text: str, originals: Weights, tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", originals, metadata={"_quantization_metadata": text})
    message = _message(lambda: _load(tmp_path / "model.safetensors"))
    assert "mxfp8" in message or "in a way that weber does not know" in message


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_config_in_the_header_that_is_not_an_object(text: str, originals: Weights, tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", originals, metadata={"weber_config": text})
    assert "not as a JSON object" in _message(lambda: _load(tmp_path / "model.safetensors"))


def test_a_missing_tensor_is_named(originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, _edit(originals, lambda entries: entries.pop("single_blocks.0.linear2.bias")), metadata={})
    message = _message(lambda: _load(path))
    assert "1 tensors are missing: single_transformer_blocks.0.proj_out.bias" in message
    assert "fix: download the file again" in message


@pytest.mark.parametrize("name", ["txt_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale", "vector_in.in_layer.weight"])
def test_a_missing_tensor_that_shapes_are_read_from(name: str, originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, _edit(originals, lambda entries: entries.pop(name)), metadata={})
    message = _message(lambda: _load(path))
    assert "are not complete" in message or "is not what is needed there" in message


@pytest.mark.parametrize("name", ["txt_in.weight", "img_in.weight"])
def test_a_tensor_without_axes(name: str, originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, {**originals, name: build_entry(torch.zeros(()))}, metadata={})
    assert "has another shape than it should" in _message(lambda: _load(path))


def test_a_tensor_of_another_shape_is_named(originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, {**originals, "single_blocks.0.linear2.bias": build_entry(torch.zeros(7))}, metadata={})
    message = _message(lambda: _load(path))
    assert "single_transformer_blocks.0.proj_out.bias has the shape [7]" in message
    assert "expected: [32]" in message


def test_shapes_that_make_no_model(originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = json.dumps({**SIZE, "axes_dims_rope": [4, 6], "attention_head_dim": "many"})
    save_weights(path, originals, metadata={"weber_config": config})
    assert "make no FluxTransformer2DModel" in _message(lambda: _load(path))


@pytest.mark.parametrize("content", [b"", b"\x10", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    message = _message(lambda: _load(tmp_path / "model.safetensors"))
    assert "cannot be read as safetensors" in message or "is not what is needed there" in message


def test_a_file_cut_off(originals: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, originals, metadata={})
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read as safetensors" in _message(lambda: _load(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.gguf", "a GGUF file"),
        ("model.ckpt", "a pickle"),
        ("model.pt", "a pickle"),
        ("model.bin", "a pickle"),
        ("model.onnx", "ends in .onnx"),
        ("model", "ends in nothing"),
    ],
)
def test_endings_that_are_not_read(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    message = _message(lambda: list_pieces(tmp_path / name))
    assert said in message
    assert "expected: *.safetensors" in message


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04", "a pickle"),
        (b"\x80\x02", "a pickle"),
        (b"GGUF", "a GGUF file"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git-lfs"),
    ],
)
def test_other_files_that_are_named_safetensors(start: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(start + b" " * 64)
    message = _message(lambda: _load(tmp_path / "model.safetensors"))
    assert said in message
    assert "download the file again" not in message


INDEXES = ["", "{}", "[]", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "x.safetensors"}}']


@pytest.mark.parametrize("text", INDEXES)
def test_a_bad_index(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text, encoding="utf-8")
    message = _message(lambda: list_pieces(path))
    assert "is not an index of pieces" in message or "Pieces of the model are missing" in message


def test_missing_pieces_are_named(originals: Weights, tmp_path: Path) -> None:
    save_weights(tmp_path / "m-00001-of-00003.safetensors", originals, metadata={})
    message = _message(lambda: list_pieces(tmp_path / "m-00001-of-00003.safetensors"))
    assert "without m-00002-of-00003.safetensors, m-00003-of-00003.safetensors" in message


def test_a_folder_with_changes(tmp_path: Path) -> None:
    config = Qwen3Config(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
    )
    whole = Qwen3ForCausalLM(config).eval()
    whole.save_pretrained(tmp_path / "text_encoder")
    place = Source(str(tmp_path)).find("text_encoder")
    changes = {**config.to_dict(), "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    with pytest.raises(AssertionError, match="read whole"):
        load_part(Qwen3Model, place, original=QWEN, dtype=torch.float32, changes=changes)
    by_names = Place(place.path, place.files, True)
    loaded = load_part(Qwen3Model, by_names, original=QWEN, dtype=torch.float32, changes=changes)
    assert len(loaded.layers) == 2
    ids = torch.tensor([[1, 2, 3]])
    mine = loaded(ids, output_hidden_states=True).hidden_states[1]
    assert torch.equal(mine, whole.model(ids, output_hidden_states=True).hidden_states[1])
    assert read_part_config(Source(str(tmp_path)), "text_encoder", original=QWEN)["num_hidden_layers"] == 4


def test_a_folder_opened_tensor_by_tensor(model: FluxTransformer2DModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "transformer", max_shard_size="100KB")
    place = Source(str(tmp_path)).find("transformer")
    assert len(place.files) > 1
    opened = open_part(place, TRANSFORMER)
    assert {name: entry.shape for name, entry in opened.items()} == {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert all(torch.equal(opened[name].read(), tensor) for name, tensor in model.state_dict().items())


def test_of_several_files_in_a_folder_the_library_reads_one(model: FluxTransformer2DModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, variant="fp16")
    (tmp_path / "another.safetensors").write_bytes(b"")
    assert [file.name for file in list_folder_files(tmp_path)] == ["diffusion_pytorch_model.safetensors"]


def test_a_quantized_folder(model: FluxTransformer2DModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "transformer")
    file = tmp_path / "transformer" / "config.json"
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | quantized), encoding="utf-8")
    message = _message(lambda: read_part_config(Source(str(tmp_path)), "transformer", original=TRANSFORMER))
    assert "quant_method = 'bitsandbytes'" in message
    assert "fix: use the same model in bf16" in message


def test_a_part_of_another_kind_in_a_folder(model: FluxTransformer2DModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "transformer")
    message = _message(lambda: read_part_config(Source(str(tmp_path)), "transformer", original=TRANSFORMER2))
    assert "whose config.json says 'FluxTransformer2DModel'" in message
    assert "expected: a FLUX.2 transformer: Flux2Transformer2DModel" in message
