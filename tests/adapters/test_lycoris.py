"""Changes of LyCORIS on layers: they start at nothing, and what they do is what LyCORIS makes of their files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
from diffusers.utils.peft_utils import _create_lokr_config
from lycoris.functional import factorization
from lycoris.wrapper import LycorisNetwork, create_lycoris_from_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.adapters.conftest import DrawFactors
from weber.adapters.lora import add_frozen, write_frozen_strength
from weber.adapters.lycoris import CHANGE, build_changes, list_changes, write_strength
from weber.adapters.lycoris_files import list_layer_changes, load_changes, load_lycoris, save_lycoris
from weber.adapters.lycoris_forms import build_delta, list_shapes
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.lycoris_targets import list_layers
from weber.config.lycoris import LycorisConfig
from weber.errors import AdapterError
from weber.families.flux1.keys import PAIRINGS
from weber.families.tensors import build_entry, read_metadata
from weber.memory.formats import FORMATS
from weber.memory.packed import build_packed

Load = Callable[..., nn.Module]
Predict = Callable[[nn.Module], Tensor]

FORMS: dict[str, dict[str, Any]] = {
    "lora": {"algo": "lora", "linear_dim": 4, "linear_alpha": 2},
    "loha": {"algo": "loha", "linear_dim": 4, "linear_alpha": 2},
    "lokr": {"algo": "lokr", "linear_dim": 2, "linear_alpha": 1, "factor": 4},
    "lokr, both cut": {"algo": "lokr", "linear_dim": 1, "linear_alpha": 2, "factor": 8, "decompose_both": True},
    "lokr, both whole": {"algo": "lokr", "linear_dim": 10000, "factor": 4},
    "lokr, full_matrix": {"algo": "lokr", "full_matrix": True, "factor": 8},
    "lokr, built": {"algo": "lokr", "linear_dim": 2, "factor": 4, "bypass_mode": False},
    "full": {"algo": "full"},
    "diag-oft": {"algo": "diag-oft", "linear_dim": 8},
    "diag-oft, rescaled and bound": {"algo": "diag-oft", "linear_dim": 4, "rescaled": True, "constraint": 1e-3},
    "boft": {"algo": "boft", "linear_dim": 18},
    "boft, rescaled": {"algo": "boft", "linear_dim": 18, "rescaled": True},
    "glora": {"algo": "glora", "linear_dim": 4, "linear_alpha": 2},
    "dora of lora": {"algo": "locon", "linear_dim": 4, "linear_alpha": 2, "dora_wd": True},
    "dora of loha": {"algo": "loha", "linear_dim": 4, "dora_wd": True},
    "dora of lokr": {"algo": "lokr", "linear_dim": 2, "factor": 4, "dora_wd": True},
}
LYCORIS_CANNOT_READ = {
    "unbalanced": {"algo": "lokr", "linear_dim": 2, "factor": 4, "unbalanced_factorization": True},
    "dora over inputs": {"algo": "lokr", "linear_dim": 2, "factor": 4, "dora_wd": True, "wd_on_output": False},
}
EVERY = {**FORMS, **LYCORIS_CANNOT_READ}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """LyCORIS says what it does on the terminal."""
    logger = logging.getLogger("LyCORIS")
    logger.disabled = True
    yield
    logger.disabled = False


def put(
    network: nn.Module, table: Mapping[str, Any], *, names: Sequence[str] | None = None, seed: int = 0
) -> list[tuple[str, nn.Parameter]]:
    """Changes on all linear layers of the blocks, on those that are named, or on those of a preset."""
    config = LycorisConfig.model_validate(table)
    inside = [name for name, one in network.named_modules() if isinstance(one, nn.Linear) and "transformer_blocks" in name]
    names = inside if names is None else list(names)
    settings = list_layers(network, config, names=names)
    shapes = {}
    for name, one in settings.items():
        layer = network.get_submodule(name)
        own = list_shapes(one, (layer.in_features, layer.out_features), has_bias=layer.bias is not None)
        shapes |= {f"{name}.{CHANGE}.{part}": shape for part, shape in own.items()}
    parameters = build_changes(
        network, settings, shapes=shapes, config=config, seed=seed, read=lambda name, layer: layer.weight.detach()
    )
    assert {name: tuple(parameter.shape) for name, parameter in parameters} == shapes
    return parameters


def shake(parameters: list[tuple[str, nn.Parameter]], *, by: float = 0.1) -> None:
    """Move the numbers from where they start."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in parameters:
        factor = parameter.detach() if name.endswith("dora_scale") else 1
        parameter.data = parameter.data + by * factor * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", EVERY)
def test_it_starts_as_the_base_and_at_strength_0_it_is_it(form: str, dtype: torch.dtype, load_network: Load, predict: Predict) -> None:
    network = load_network(dtype)
    base = predict(network)
    parameters = put(network, EVERY[form])
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for _, parameter in parameters)
    assert torch.equal(predict(network), base)
    shake(parameters)
    assert not torch.allclose(predict(network), base, atol=1e-3)
    write_strength(network, 0.0)
    assert torch.equal(predict(network), base)


@pytest.mark.parametrize("is_second", [False, True], ids=["with biases", "without"])
@pytest.mark.parametrize("form", FORMS)
def test_lycoris_makes_the_same_of_the_file(
    form: str, is_second: bool, load_network: Load, build_second: Load, predict: Predict, tmp_path: Path
) -> None:
    build = build_second if is_second else load_network
    network = build()
    shake(put(network, FORMS[form]))
    ours = predict(network)
    file = tmp_path / "adapter.safetensors"
    save_lycoris(file, network, architecture="", title="", facts={}, pairings=PAIRINGS)
    theirs = build()
    base = predict(theirs)
    changes, _ = create_lycoris_from_weights(1.0, str(file), theirs)
    assert len(changes.loras) == len(list(list_changes(network)))
    changes.apply_to()
    assert (ours - base).abs().max() > 1e-3
    torch.testing.assert_close(predict(theirs), ours, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", EVERY)
def test_in_the_weights_it_does_the_same(form: str, load_network: Load, predict: Predict, tmp_path: Path) -> None:
    """From the network itself, and from its file."""
    network, plain = load_network(), load_network()
    base = {name: build_entry(tensor.clone()) for name, tensor in plain.state_dict().items()}
    shake(put(network, EVERY[form]))
    ours = predict(network)
    file = tmp_path / "adapter.safetensors"
    save_lycoris(file, network, architecture="", title="", facts={}, pairings=PAIRINGS)
    for changes in (list_layer_changes(network), load_lycoris(file).changes):
        merged = build_changed_weights(base, changes)
        plain.load_state_dict({name: entry.read() for name, entry in merged.items()})
        torch.testing.assert_close(predict(plain), ours, atol=2e-5, rtol=1e-4)


def test_a_file_is_read_back_to_the_bit(load_network: Load, tmp_path: Path) -> None:
    network, other = load_network(), load_network()
    parameters = put(network, FORMS["lokr"])
    shake(parameters)
    for name in ("one", "two"):
        facts = {"lycoris": {"algo": "lokr", "factor": 4}, "steps": 3}
        save_lycoris(tmp_path / name, network, architecture="flux-1-dev", title="cat", facts=facts, pairings=PAIRINGS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    others = put(other, FORMS["lokr"], seed=1)
    load_changes(others, tmp_path / "one")
    assert all(torch.equal(one, two) for (_, one), (_, two) in zip(parameters, others, strict=True))
    metadata = read_metadata(tmp_path / "one")
    assert json.loads(metadata["ss_network_args"]) == {"algo": "lokr", "factor": 4}
    shown = {"ss_network_module": "lycoris.kohya", "ss_network_dim": "2", "ss_network_alpha": "1.0", "modelspec.title": "cat"}
    assert shown.items() <= metadata.items()
    assert "lycoris_transformer_blocks_0_attn_to_q.lokr_w1" in load_file(tmp_path / "one")


def test_a_kronecker_product_written_out(load_network: Load) -> None:
    network = load_network()
    shake(put(network, FORMS["lokr"]))
    layer = network.get_submodule("transformer_blocks.0.attn.to_q")
    change = next(one for one in list_changes(network) if one.name == "transformer_blocks.0.attn.to_q")
    first, second = change.lokr_w1, change.lokr_w2_a @ change.lokr_w2_b
    product = torch.zeros(layer.weight.shape)
    for row in range(product.shape[0]):
        for column in range(product.shape[1]):
            (a, c), (b, d) = divmod(row, second.shape[0]), divmod(column, second.shape[1])
            product[row, column] = first[a, b] * second[c, d] * (1 / 2)  # alpha / rank
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight + product, layer.bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", EVERY)
def test_strengths_between(form: str, load_network: Load) -> None:
    """What a layer adds grows with the strength."""
    network = load_network()
    shake(put(network, EVERY[form]))
    layer = network.get_submodule("transformer_blocks.0.attn.to_q")
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
    outputs = []
    for strength in (0.0, 1.0, 0.5, -2.0):
        write_strength(network, strength)
        outputs.append(layer(x))
    none, whole, half, minus = outputs
    torch.testing.assert_close(half - none, (whole - none) / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(minus - none, -2 * (whole - none), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", EVERY)
def test_gradients_are_those_of_the_changed_weight(form: str, load_network: Load) -> None:
    """Of the numbers and of the input; written with the change of the weight and plain autograd."""
    network = load_network()
    parameters = put(network, EVERY[form])
    shake(parameters)
    name = "transformer_blocks.0.ff.net.0.proj"
    layer = network.get_submodule(name)
    change = next(one for one in list_changes(network) if one.name == name)
    x = torch.randn(2, 3, layer.in_features, generator=torch.Generator().manual_seed(1)).requires_grad_()
    pull = torch.randn(2, 3, layer.out_features, generator=torch.Generator().manual_seed(2))
    own = list(change.tensors.values())
    found = torch.autograd.grad((layer(x) * pull).sum(), [x, *own])
    delta = build_delta(change.settings.algo, change.tensors, alpha=change.alpha, weight=layer.weight)
    bias = layer.bias + change.tensors.get("diff_b", 0)
    expected = torch.autograd.grad((functional.linear(x, layer.weight + delta, bias) * pull).sum(), [x, *own])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_only_the_input_is_kept_for_the_backward_pass(load_network: Load) -> None:
    """And what learns; not what a Kronecker product goes through, and no built change."""
    network = load_network()
    put(network, {"algo": "loha", "linear_dim": 4})
    layer = network.get_submodule("transformer_blocks.0.attn.to_q")
    change = next(one for one in list_changes(network) if one.name == "transformer_blocks.0.attn.to_q")
    x = torch.randn(2, 3, layer.in_features).requires_grad_()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda tensor: tensor):
        layer(x)
    own = {tensor.data_ptr() for tensor in (x, layer.weight, *change.tensors.values())}
    assert set(kept) <= own


@pytest.mark.parametrize("form", EVERY)
def test_on_packed_layers(form: str, load_network: Load, predict: Predict) -> None:
    """The same as on plain layers with the weights that the packed ones stand for."""
    packed, plain = load_network(torch.bfloat16), load_network(torch.bfloat16)
    for name, layer in list(packed.named_modules()):
        if isinstance(layer, nn.Linear) and name.startswith("transformer_blocks"):
            one = build_packed(layer.weight.detach(), layer.bias, format=FORMATS["int8"])
            packed.set_submodule(name, one)
            plain.get_submodule(name).weight.data = one.weight
    predictions, gradients = [], []
    for network in (packed, plain):
        parameters = put(network, EVERY[form])
        shake(parameters)
        predictions.append(predict(network))
        predictions[-1].float().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for _, parameter in parameters]))
    torch.testing.assert_close(*predictions, atol=2e-2, rtol=2e-2)
    assert functional.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize("key", ["dropout", "rank_dropout", "module_dropout"])
@pytest.mark.parametrize("form", ["lora", "loha", "lokr", "full"])
def test_dropout_is_drawn_in_training_and_by_the_seed(form: str, key: str, load_network: Load, predict: Predict) -> None:
    network = load_network()
    shake(put(network, {**FORMS[form], key: 0.5}))
    whole = predict(network.eval())
    network.train()

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return predict(network)

    assert torch.equal(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2), atol=1e-4) and not torch.allclose(draw(1), whole, atol=1e-4)
    assert torch.equal(predict(network.eval()), whole)


def test_on_the_meta_device(load_network: Load, build_second: Load) -> None:
    with torch.device("meta"):
        network = build_second()
    for form in EVERY.values():
        parameters = put(Flux2Transformer2DModel.from_config(network.config).to("meta"), form)
        assert all(parameter.is_meta for _, parameter in parameters)


def test_the_library_reads_kronecker_products_of_the_second_family(build_second: Load, predict: Predict, tmp_path: Path) -> None:
    network, theirs = build_second(), build_second()
    names = [name for name, one in network.named_modules() if isinstance(one, nn.Linear) and ".attn." in name]
    table = {"target_module": [], "target_name": [name.replace(".", r"\.") + "$" for name in names]}
    shake(put(network, {**FORMS["lokr"], "apply_preset": table}))
    ours = predict(network)
    save_lycoris(tmp_path / "adapter.safetensors", network, architecture="", title="", facts={}, pairings=PAIRINGS)
    state = Flux2LoraLoaderMixin.lora_state_dict(str(tmp_path), weight_name="adapter.safetensors", local_files_only=True)
    theirs.load_lora_adapter(state, prefix="transformer")
    torch.testing.assert_close(predict(theirs), ours, atol=2e-5, rtol=1e-4)


def find_factor(layers: Mapping[str, tuple[int, int, int, int]]) -> int | None:
    """The library's rule for a LoKr (0.42, `utils/peft_utils.py:_create_lokr_config`): one factor has to cut all layers as they are.

    `layers`: outputs and inputs of the first factor, then of the second.
    """
    for factor in [*sorted({first for first, *_ in layers.values()}), -1]:
        if all(factorization(a * c, factor) == (a, c) and factorization(b * d, factor) == (b, d) for a, b, c, d in layers.values()):
            return factor
    return None


@pytest.mark.parametrize(
    ("preset", "factor"),
    [
        ({"module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}}}, None),
        ({}, 16),
    ],
    ids=["as SimpleTuner comes", "with one factor"],
)
def test_the_library_wants_one_factor(preset: dict[str, Any], factor: int | None) -> None:
    """On the second family at full size. The preset of two factors it does not load."""
    with torch.device("meta"):
        network = Flux2Transformer2DModel(num_layers=1, num_single_layers=1, num_attention_heads=24, joint_attention_dim=7680)
    preset = {"target_module": ["Attention", "FeedForward"], **preset}
    config = LycorisConfig.model_validate({"algo": "lokr", "linear_dim": 10000, "factor": 16, "apply_preset": preset})
    tensors, sizes = {}, {}
    for name, one in list_layers(network, config, names=[]).items():
        layer = network.get_submodule(name)
        shapes = list_shapes(one, (layer.in_features, layer.out_features), has_bias=False)
        tensors |= {f"{name}.{part}": torch.empty(shape, device="meta") for part, shape in shapes.items()}
        sizes[name] = (*shapes["lokr_w1"], *shapes["lokr_w2"])
    assert find_factor(sizes) == factor
    if factor is None:
        with pytest.raises(ValueError, match="decompose_factor"):
            _create_lokr_config(tensors, None)
    else:
        assert _create_lokr_config(tensors, None).decompose_factor == factor


PRESETS: dict[str, tuple[dict[str, Any], dict[int, int]]] = {
    "stock": (
        {"target_module": ["Attention", "FeedForward"], "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}}},
        {16: 1, 8: 1},
    ),
    "names": ({"target_module": [], "target_name": [".*attn.to_q$"]}, {-1: 1}),
    "patterns": ({"target_module": [], "target_name": ["*.attn.to_q"], "use_fnmatch": True}, {-1: 1}),
    "names with settings": (
        {"target_module": [], "target_name": [".*to_q$"], "name_algo_map": {r"transformer_blocks\.0\.attn\.to_q$": {"factor": 4}}},
        {-1: 1, 4: 1},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_mean_what_they_mean_to_lycoris(name: str, load_network: Load) -> None:
    preset, factors = PRESETS[name]
    layers = list_layers(load_network(), LycorisConfig.model_validate({"algo": "lokr", "apply_preset": preset}), names=[])
    assert {one.factor for one in layers.values()} == set(factors)
    if name == "stock":
        assert all(one.factor == (16 if "attn" in path else 8) for path, one in layers.items())
    if name in ("names", "patterns"):
        assert layers and all(path.endswith("attn.to_q") for path in layers)
    if name == "names with settings":
        assert [path for path, one in layers.items() if one.factor == 4] == ["transformer_blocks.0.attn.to_q"]


NOTHING: dict[str, tuple[dict[str, Any], str]] = {
    "class": ({"target_module": ["Attenton"]}, "target_module with Attenton"),
    "class in a map": ({"target_module": ["Attention"], "module_algo_map": {"FedForward": {}}}, "module_algo_map with FedForward"),
    "class without linear layers": ({"target_module": ["Attention", "RMSNorm"]}, "target_module with RMSNorm"),
    "name": ({"target_module": [], "target_name": [".*to_q$", "foo"]}, "target_name with foo"),
    "name alone": ({"target_module": [], "target_name": ["foo"]}, "target_name with foo"),
    "name in a map": ({"target_module": ["Attention"], "name_algo_map": {"foo": {"factor": 4}}}, "name_algo_map with foo"),
    "excluded": ({"target_module": ["Attention"], "exclude_name": ["foo"]}, "exclude_name with foo"),
    "a name inside a class": ({"target_module": ["Attention"], "name_algo_map": {r".*\.to_q$": {"factor": 4}}}, r"name_algo_map..*\.to_q$"),
    "everything excluded": ({"target_module": ["Attention"], "exclude_name": [".*"]}, "apply_preset"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_setting_that_means_no_layer(case: str, load_network: Load) -> None:
    preset, got = NOTHING[case]
    with pytest.raises(AdapterError, match="means n") as caught:
        list_layers(load_network(), LycorisConfig.model_validate({"algo": "lokr", "apply_preset": preset}), names=[])
    assert got in str(caught.value)


def test_presets_leave_nothing_behind_in_lycoris(load_network: Load) -> None:
    before = {name: value for name, value in vars(LycorisNetwork).items() if name.isupper()}
    table = {"algo": "lokr", "apply_preset": PRESETS["names with settings"][0]}
    list_layers(load_network(), LycorisConfig.model_validate(table), names=[])
    assert {name: value for name, value in vars(LycorisNetwork).items() if name.isupper()} == before


def test_layers_that_cannot_be_cut() -> None:
    [settings] = LycorisConfig(algo="boft", linear_dim=4).build_layers().values()
    with pytest.raises(AdapterError, match="linear_dim of 6 or more"):
        list_shapes(settings, (32, 96), has_bias=False)
    with pytest.raises(AdapterError, match="an even number of outputs"):
        list_shapes(settings, (32, 33), has_bias=False)


def test_files_that_are_none(tmp_path: Path, load_network: Load) -> None:
    network = load_network()
    put(network, FORMS["lokr"])
    good = tmp_path / "good.safetensors"
    save_lycoris(good, network, architecture="", title="", facts={}, pairings=PAIRINGS)
    tensors = load_file(good)
    cases = {
        "no model has": {name.replace("transformer_blocks", "blocks"): tensor for name, tensor in tensors.items()},
        "does not know": tensors | {"lycoris_transformer_blocks_0_attn_to_q.lokr_t2": torch.ones(2, 2)},
        "not finite": tensors | {"lycoris_transformer_blocks_0_attn_to_q.lokr_w1": torch.full((4, 4), torch.nan)},
    }
    for message, one in cases.items():
        save_file(one, tmp_path / "bad.safetensors")
        with pytest.raises(AdapterError, match=message):
            load_lycoris(tmp_path / "bad.safetensors")
    with pytest.raises(AdapterError, match="no adapter file"):
        load_lycoris(tmp_path / "absent.safetensors")


@torch.no_grad()
def test_beside_an_assistant(load_network: Load, predict: Predict, draw_factors: DrawFactors) -> None:
    """Put on the same layers afterwards; each with a strength of its own."""
    network, alone = load_network(), load_network()
    parameters = put(network, FORMS["lokr"])
    shake(parameters)
    ours = predict(network)
    factors = draw_factors(network, ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"])
    for one in (network, alone):
        add_frozen(one, factors, name="assistant", strength=1.0)
    for _, parameter in parameters:
        parameter.requires_grad_(True)  # PEFT freezes it, as it does in runs; products of frozen numbers are summed in another order
    assert len(list(list_changes(network))) > 2 and not torch.allclose(predict(network), ours, atol=1e-3)
    write_frozen_strength(network, 0.0, name="assistant")
    assert torch.equal(predict(network), ours)
    write_frozen_strength(network, 1.0, name="assistant")
    write_strength(network, 0.0)
    assert torch.equal(predict(network), predict(alone))
