"""The network read tensor by tensor: the same numbers as the library's own loading, packed where that is asked for, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, ModelMixin
from safetensors.torch import load_file, save_file
from torch import nn

from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.errors import ConfigError, ModelError
from weber.families.family import Family, Predictor
from weber.families.flux1.keys import PAIRINGS
from weber.families.pairing import build_original_weights
from weber.families.table import build_family
from weber.families.tensors import build_entry, save_weights
from weber.memory.formats import FORMATS
from weber.memory.load import choose_formats, list_blocks, load_predictor
from weber.memory.packed import PackedLinear
from weber.memory.swap import choose_swapped
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3

CPU, META = torch.device("cpu"), torch.device("meta")
MODULATION = ("norm.linear", "norm1.linear", "norm1_context.linear")
MEASURE = Path(__file__).with_name("measure_load.py")


@pytest.fixture(scope="session")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of every family."""
    folder = tmp_path_factory.mktemp("families")
    return {
        "flux1": tiny_model,
        "flux2": build_random_flux2(folder / "flux2", "klein-base"),
        "flux3": build_random_flux3(folder / "flux3"),
    }


@pytest.fixture
def load(folders: dict[str, Path]) -> Callable[..., nn.Module]:
    """A function that loads the transformer of a family, `quantize` and others as in `[memory]`."""

    def load(name: str, *, dtype: torch.dtype = torch.bfloat16, **settings: object) -> nn.Module:
        memory = MemoryConfig.model_validate(settings)
        return load_predictor(_build(folders[name]), device=CPU, dtype=dtype, memory=memory).transformer

    return load


def _build(folder: Path) -> Family:
    return build_family(ModelConfig(path=str(folder)))


def _load_reference(folder: Path, dtype: torch.dtype) -> nn.Module:
    kind = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))["_class_name"]
    library = __import__("diffusers")
    module: ModelMixin = getattr(library, kind).from_pretrained(folder / "transformer", torch_dtype=dtype)
    return module


def _list_packed(module: nn.Module) -> dict[str, PackedLinear]:
    return {name: one for name, one in module.named_modules() if isinstance(one, PackedLinear)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["flux1", "flux2", "flux3"])
def test_plain_weights_are_those_of_the_library(
    name: str, dtype: torch.dtype, load: Callable[..., nn.Module], folders: dict[str, Path]
) -> None:
    transformer, reference = load(name, dtype=dtype), _load_reference(folders[name], dtype)
    ours, theirs = transformer.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not transformer.training
    assert not any(parameter.requires_grad for parameter in transformer.parameters())


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("name", ["flux1", "flux2", "flux3"])
def test_quantized_weights_are_the_plain_ones_packed(name: str, precision: str, load: Callable[..., nn.Module]) -> None:
    plain, quantized = load(name), load(name, quantize=precision)
    packed = _list_packed(quantized)
    for key, layer in packed.items():
        weight = plain.get_parameter(f"{key}.weight")
        assert (layer.format.name, layer.dtype) == (precision, torch.bfloat16)
        for leaf, tensor in FORMATS[precision].pack(weight).items():
            assert torch.equal(layer.get_buffer(leaf), tensor)
    ours, theirs = quantized.state_dict(), plain.state_dict()
    rest = [key for key in theirs if not any(key == f"{layer}.weight" for layer in packed)]
    assert all(torch.equal(ours[key], theirs[key]) for key in rest)
    assert any(key.endswith(".bias") and key.removesuffix(".bias") in packed for key in rest) == (name == "flux1")


@pytest.mark.parametrize("name", ["flux1", "flux2", "flux3"])
def test_what_is_packed_are_the_linear_layers_in_the_blocks(name: str, folders: dict[str, Path]) -> None:
    family = _build(folders[name])
    skeleton = family.load_skeleton()
    blocks = list_blocks(family, skeleton)
    inside = {
        key for key, one in skeleton.named_modules() if isinstance(one, nn.Linear) and any(key.startswith(f"{block}.") for block in blocks)
    }
    assert set(choose_formats(family, skeleton, memory=MemoryConfig(quantize="int4"))) == inside
    assert choose_formats(family, skeleton, memory=MemoryConfig()) == {}
    assert len(blocks) == len(family.blocks(family.build_predictor(skeleton)))


@pytest.mark.parametrize(("modulation", "quantize", "expected"), [
    ("model", "nf4", ("nf4", "nf4")),
    ("int8", "nf4", ("nf4", "int8")),
    ("int8", "none", (None, "int8")),
    ("host", "nf4", ("nf4", None)),
])  # fmt: skip
def test_modulation_has_its_own_format(
    modulation: str, quantize: str, expected: tuple[str | None, str | None], folders: dict[str, Path]
) -> None:
    family = _build(folders["flux1"])
    skeleton = family.load_skeleton()
    formats = choose_formats(family, skeleton, memory=MemoryConfig.model_validate({"modulation": modulation, "quantize": quantize}))
    assert formats.get("transformer_blocks.0.attn.to_q") == expected[0]
    modulators = [f"{block}.{leaf}" for block in ("transformer_blocks.0", "single_transformer_blocks.1") for leaf in MODULATION]
    assert {formats.get(name) for name in modulators if name in dict(skeleton.named_modules())} == {expected[1]}
    assert "norm_out.linear" not in formats


def test_trained_layers_are_never_packed(folders: dict[str, Path]) -> None:
    family = _build(folders["flux1"])
    trained = {"transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.proj_mlp.bias"}
    memory = MemoryConfig(quantize="int8")
    transformer = load_predictor(family, device=CPU, dtype=torch.float32, memory=memory, trained=trained).transformer
    every = load_predictor(family, device=CPU, dtype=torch.float32, memory=memory).transformer
    assert set(_list_packed(every)) - set(_list_packed(transformer)) == {name.rpartition(".")[0] for name in trained}


SWAPPED = MemoryConfig(quantize="nf4", quantize_on="cpu", swap_blocks=2)  # of 3


def _list_on_host(transformer: nn.Module) -> set[str]:
    return {key for key, tensor in transformer.state_dict().items() if tensor.device == CPU}


def test_swapped_blocks_stay_on_the_host(folders: dict[str, Path]) -> None:
    family = _build(folders["flux1"])
    transformer = load_predictor(family, device=META, dtype=torch.bfloat16, memory=SWAPPED).transformer
    blocks = list_blocks(family, transformer)
    swapped = tuple(f"{blocks[number]}." for number in choose_swapped(3, 2))
    assert _list_on_host(transformer) == {key for key in transformer.state_dict() if key.startswith(swapped)}
    assert not _list_on_host(load_predictor(family, device=META, dtype=torch.bfloat16).transformer)


@pytest.mark.parametrize("modulation", ["model", "host"])
def test_swapped_blocks_may_be_taken_one_after_the_other(modulation: str, folders: dict[str, Path]) -> None:
    """Each is whole when it is handed over, those after it have no weights yet, and modulation on the host is not part of it."""
    family = _build(folders["flux1"])
    memory = SWAPPED.model_copy(update={"modulation": modulation})
    taken: list[nn.Module] = []
    order: list[nn.Module] = []

    def swap(predictor: Predictor) -> Callable[[nn.Module], None]:
        order.extend(family.blocks(predictor)[number] for number in choose_swapped(3, 2))

        def take(block: nn.Module) -> None:
            state = [{tensor.device for tensor in other.state_dict().values()} for other in order]
            assert state == [{CPU} if other in (*taken, block) else {META} for other in order]
            taken.append(block)

        return take

    predictor = load_predictor(family, device=META, dtype=torch.bfloat16, memory=memory, swap=swap)
    assert taken == order
    assert len([name for name in predictor.state_dict() if "modulation.layers" in name]) == (8 if modulation == "host" else 0)
    plain = load_predictor(family, device=CPU, dtype=torch.bfloat16, memory=memory.model_copy(update={"swap_blocks": 0}))
    for block, other in zip(order, (family.blocks(plain)[number] for number in choose_swapped(3, 2)), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(block.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_layers_of_8_bits_may_compute_in_them(precision: str, load: Callable[..., nn.Module]) -> None:
    multiplying, plain = (load("flux1", quantize=precision, **more) for more in ({f"{precision}_matmul": True}, {}))
    assert all(layer.multiplies_packed for layer in _list_packed(multiplying).values())
    assert not any(layer.multiplies_packed for layer in _list_packed(plain).values())


def test_layers_that_cannot_be_multiplied_in_8_bits_are_refused(folders: dict[str, Path]) -> None:
    family = _build(folders["flux1"])
    skeleton = family.load_skeleton()
    skeleton.get_submodule("transformer_blocks.0.attn.to_q").in_features = 20
    with pytest.raises(ConfigError, match="cannot be multiplied in 8 bits"):
        choose_formats(family, skeleton, memory=MemoryConfig(quantize="int8", int8_matmul=True))


@pytest.mark.parametrize("precision", ["none", "nf4"])
def test_single_files_give_the_same(precision: str, load: Callable[..., nn.Module], folders: dict[str, Path], tmp_path: Path) -> None:
    """Fused tensors of the makers are cut, each read once for all its layers, and pieces of them hold nothing else in memory."""
    weights = {name: build_entry(tensor) for name, tensor in _load_reference(folders["flux1"], torch.float32).state_dict().items()}
    config = json.loads((folders["flux1"] / "transformer" / "config.json").read_text(encoding="utf-8"))
    metadata = {"weber_config": json.dumps(config)}
    save_weights(tmp_path / "model.safetensors", build_original_weights(weights, PAIRINGS), metadata=metadata)
    family = build_family(ModelConfig(path=str(folders["flux1"]), transformer=str(tmp_path / "model.safetensors")))
    memory = MemoryConfig.model_validate({"quantize": precision})
    single = load_predictor(family, device=CPU, dtype=torch.bfloat16, memory=memory).transformer.state_dict()
    folder = load("flux1", quantize=precision).state_dict()
    assert single.keys() == folder.keys()
    assert all(torch.equal(single[key].view(torch.uint8), folder[key].view(torch.uint8)) for key in folder if folder[key].ndim)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in single.values()}
    assert sum(storages.values()) == sum(tensor.nbytes for tensor in single.values()), "joined layers share what they need, and no more"


@pytest.mark.parametrize(("damage", "said"), [("missing", "1 tensors are missing"), ("shape", "1 tensors are of another shape")])
def test_incomplete_weights_are_refused_in_words(damage: str, said: str, folders: dict[str, Path], tmp_path: Path) -> None:
    transformer = tmp_path / "transformer"
    transformer.mkdir()
    file = next((folders["flux1"] / "transformer").glob("*.safetensors"))
    tensors = load_file(file)
    first = sorted(tensors)[0]
    tensors = {name: tensor for name, tensor in tensors.items() if damage != "missing" or name != first}
    if damage == "shape":
        tensors[first] = torch.zeros(3, 5)
    save_file(tensors, transformer / file.name, metadata={"format": "pt"})
    (transformer / "config.json").write_bytes((folders["flux1"] / "transformer" / "config.json").read_bytes())
    family = build_family(ModelConfig(path=str(folders["flux1"]), transformer=str(transformer)))
    with pytest.raises(ModelError, match=said) as caught:
        load_predictor(family, device=CPU, dtype=torch.float32)
    assert first in str(caught.value)


def test_progress_is_told(folders: dict[str, Path]) -> None:
    seen: list[tuple[str, int, int]] = []
    load_predictor(_build(folders["flux1"]), device=CPU, dtype=torch.float32, progress=lambda *event: seen.append(event))
    total = seen[0][2]
    assert seen == [("loading the model", done, total) for done in range(total + 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of a process are read from /proc")
def test_the_host_never_holds_more_than_what_stays_there(tmp_path: Path) -> None:
    """A model of 326 MB in fp32, packed to 55 MB: the peak lies at most a few of its largest tensors above that."""
    command = [sys.executable, str(MEASURE), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["plain_bytes"] > 320e6
    assert measured["packed_bytes"] < measured["plain_bytes"] / 5
    assert list(measured["peaks"].values())[0] > 0.8 * measured["packed_bytes"]
    assert max(measured["peaks"].values()) < measured["packed_bytes"] + 6 * measured["largest_bytes"]


def test_a_lora_learns_on_a_quantized_model(load: Callable[..., nn.Module]) -> None:
    transformer = load("flux1", dtype=torch.float32, quantize="nf4")
    assert isinstance(transformer, FluxTransformer2DModel)
    layer = transformer.get_submodule("transformer_blocks.0.attn.to_q")
    x = torch.randn(3, layer.in_features, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, layer.weight.sum(dim=0).expand(3, -1), atol=1e-5)
