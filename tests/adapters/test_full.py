"""Weights of a model as what learns: which, in which precision, and back into a whole model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from weber.adapters.full import build_full, build_whole_weights, check_tensors, check_whole, list_trained, load_tensors
from weber.adapters.model import save_model_folder
from weber.config.model import ModelConfig
from weber.errors import AdapterError
from weber.families.flux1.keys import ADAPTER_TARGETS
from weber.families.table import build_family
from weber.families.tensors import Entry, Weights, build_entry, open_weights
from weber.memory.load import load_predictor
from weber.pocket.random import build_random_model
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_model: Path) -> dict[str, Entry]:
    """The weights of the tiny transformer, as files."""
    return open_weights(sorted((tiny_model / "transformer").glob("*.safetensors")))


def _list(model: nn.Module, targets: str | list[str]) -> list[str]:
    return list_trained(model, targets, sets=ADAPTER_TARGETS)


def test_all_are_all(load_network: Callable[[], nn.Module]) -> None:
    model = load_network()
    assert _list(model, "all") == [name for name, _ in model.named_parameters()]
    assert _list(model, ["*"]) == _list(model, "all")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["single_transformer_blocks.*"], lambda name: name.startswith("single_transformer_blocks.")),
        (["transformer_blocks.0"], lambda name: name.startswith("transformer_blocks.0.")),
        (["transformer_blocks.*.attn"], lambda name: name.startswith("transformer_blocks.") and ".attn." in name),
        (["single_transformer_blocks.1.norm"], lambda name: name.startswith("single_transformer_blocks.1.norm.linear.")),
        (["norm_q", "x_embedder"], lambda name: name.endswith("norm_q.weight") or name.startswith("x_embedder.")),
        ("context", lambda name: any(f".{part}." in name for part in ADAPTER_TARGETS["context"])),
    ],
)
def test_modules_of_any_size(
    targets: str | list[str], expected: Callable[[str], bool], load_network: Callable[[], nn.Module]
) -> None:
    model = load_network()
    names = _list(model, targets)
    assert names == [name for name, _ in model.named_parameters() if expected(name)]
    assert names and any(name.endswith(".weight") for name in names)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["single_blocks.0"], "no module with weights is named single_blocks.0(.|\n)*such as .*single_transformer_blocks.0"),
        (["x_embedder", "pos_embed"], "is named pos_embed"),
        ([], r"adapter\.targets = \[\]"),
        ("singles", "no such set of targets"),
        ("controlnet", "'controlnet' is not for this model"),
    ],
)
def test_patterns_that_match_nothing(targets: str | list[str], message: str, load_network: Callable[[], nn.Module]) -> None:
    with pytest.raises(AdapterError, match=message):
        _list(load_network(), targets)


def test_the_rest_is_frozen(load_network: Callable[[], nn.Module], base: Weights) -> None:
    model = load_network()
    names = _list(model, ["transformer_blocks.0"])
    parameters = build_full(model, names, precision=torch.float32, base=base)
    assert [name for name, _ in parameters] == names
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == names
    assert all(parameter is model.get_parameter(name) for name, parameter in parameters)


def test_weights_with_more_bits_than_the_model_was_loaded_with_are_read_again(
    load_network: Callable[[torch.dtype], nn.Module], base: Weights
) -> None:
    model = load_network(torch.bfloat16)
    fine = {name: replace(entry, dtype=torch.float32, read=lambda entry=entry: entry.read().float() + 1e-6) for name, entry in base.items()}
    parameters = build_full(model, _list(model, ["x_embedder"]), precision=torch.float32, base=fine)
    for name, parameter in parameters:
        assert torch.equal(parameter.detach(), fine[name].read())
    assert model.get_parameter("proj_out.weight").dtype == torch.bfloat16


BUILDERS = {
    "first": build_random_model,
    "second": lambda folder: build_random_flux2(folder, "dev"),
    "third": build_random_flux3,
}


@pytest.mark.parametrize("targets", [["*"], ["*.attn.*", "*norm*"], ["*x_embedder*"], ["proj_out"]])
@pytest.mark.parametrize("name", BUILDERS)
def test_weights_in_fp32_are_rounded_for_each_use(name: str, targets: list[str], tmp_path: Path) -> None:
    """The network computes what one in bf16 does, whichever of its weights learn, and gradients arrive in fp32."""
    family = build_family(ModelConfig(path=str(BUILDERS[name](tmp_path / "model"))))
    generator = torch.Generator().manual_seed(3)
    shapes = {key: shape for part in family.text_parts for key, shape in family.text_shapes(part).items()}
    shapes = {key: (min(8, shape[0]), *shape[1:]) if len(shape) > 1 else shape for key, shape in shapes.items()}
    condition = {key: torch.randn(1, *shape, generator=generator).bfloat16() for key, shape in shapes.items()}
    condition |= {"guidance": torch.tensor([3.0])}
    inputs = torch.randn(1, *family.latent_shape(64, 64), generator=generator), torch.tensor([0.3]), condition
    plain = load_predictor(family, device=CPU, dtype=torch.bfloat16)
    rounded = load_predictor(family, device=CPU, dtype=torch.bfloat16)
    names = [one for one in list_trained(rounded.transformer, targets, sets={}) if "image_cond" not in one and "target_time" not in one]
    parameters = build_full(rounded.transformer, names, precision=torch.float32, base=family.open_transformer())
    for parameter, _ in zip((one for _, one in parameters), range(3), strict=False):
        parameter.data += 1e-5 * torch.randn(parameter.shape, generator=generator)
    for one, parameter in parameters:
        theirs = plain.transformer.get_parameter(one)
        theirs.data = parameter.detach().to(theirs.dtype)
    with torch.no_grad():
        expected = plain(*inputs)
    got = rounded(*inputs)
    assert got.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(rounded(*inputs), expected)
    got.float().square().mean().backward()
    assert parameters
    for one, parameter in parameters:
        assert parameter.dtype == torch.float32, one
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_model_of_trained_and_other_weights(
    dtype: torch.dtype,
    load_network: Callable[[], nn.Module],
    base: dict[str, Entry],
    predict: Callable[[nn.Module], Tensor],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """In the precision of the base's files, whatever it was trained in; what was not trained is the base's, bit for bit."""
    model = load_network()
    names = _list(model, ["single_transformer_blocks.0", "norm_k"])
    parameters = build_full(model, names, precision=dtype, base=base)
    for _, parameter in parameters:
        parameter.data += 0.1
    whole = build_whole_weights(base, {name: build_entry(parameter.detach()) for name, parameter in parameters})
    config = FluxTransformer2DModel.load_config(tiny_model / "transformer")
    save_model_folder(tmp_path / "t", whole, config=config, metadata={})
    saved = open_weights([tmp_path / "t" / "diffusion_pytorch_model.safetensors"])
    assert set(saved) == set(base)
    for name, entry in saved.items():
        assert entry.dtype == base[name].dtype
        expected = model.get_parameter(name).detach().to(entry.dtype) if name in names else base[name].read()
        assert torch.equal(entry.read(), expected), name
    if dtype == torch.float32:
        theirs = FluxTransformer2DModel.from_pretrained(tmp_path / "t")
        with torch.no_grad():
            assert torch.equal(predict(theirs.requires_grad_(False)), predict(model.requires_grad_(False)))


def test_a_quantized_base_and_strange_tensors_are_refused(load_network: Callable[[], nn.Module], base: dict[str, Entry]) -> None:
    model = load_network()
    names = _list(model, ["x_embedder"])
    scaled = base | {"proj_out.weight": replace(base["proj_out.weight"], is_quantized=True)}
    plain = base | {"x_embedder.weight": replace(base["x_embedder.weight"], dtype=torch.float8_e4m3fn)}
    for weights, message in ((scaled, r"proj_out\.weight in fp8 with a scale"), (plain, r"x_embedder\.weight in torch\.float8_e4m3fn")):
        with pytest.raises(AdapterError, match=message):
            check_whole(weights, names)
        with pytest.raises(AdapterError, match="not trained themselves"):
            build_full(model, names, precision=torch.float32, base=weights)
    check_whole(plain, ["proj_out.weight"])
    narrow = base | {"x_embedder.weight": build_entry(torch.ones(2, 2))}
    with pytest.raises(AdapterError, match=r"weights in here are not those(.|\n)*x_embedder\.weight \[2, 2\]"):
        check_tensors({name: base[name].shape for name in names}, narrow, where="here")
    parameters = [(name, model.get_parameter(name)) for name in names]
    load_tensors(parameters, base, where="here")
    with pytest.raises(AdapterError, match=r"no x_embedder\.bias"):
        load_tensors(parameters, {"x_embedder.weight": base["x_embedder.weight"]}, where="here")
