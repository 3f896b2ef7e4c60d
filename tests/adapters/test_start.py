"""An adapter to start from: what must be true of it is said before the model is read, and then it is where training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, save_adapter
from weber.adapters.lora import build_lora, list_factors
from weber.adapters.start import check_form, load_start
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError
from weber.families.flux1.keys import ADAPTER_TARGETS, PAIRINGS

Draw = Callable[..., dict[str, Factors]]
Apply = Callable[[nn.Module, Mapping[str, Factors]], nn.Module]
TARGETS = ["transformer_blocks.*"]


def _save(path: Path, modules: dict[str, Factors], layout: str = "diffusers") -> str:
    save_adapter(path, modules, layout=layout, facts={}, metadata={}, pairings=PAIRINGS)
    return str(path)


def _shapes(network: nn.Module, targets: list[str]) -> dict[str, tuple[int, int]]:
    layers = {name: network.get_submodule(name) for name in list_targets(network, targets, sets=ADAPTER_TARGETS)}
    return {name: (layer.in_features, layer.out_features) for name, layer in layers.items()}


def _start(network: nn.Module, path: str, *, rank: int = 4, alpha: float | None = None, targets: list[str] = TARGETS) -> AdapterFile:
    found = load_start(AdapterConfig(rank=rank, alpha=alpha, targets=targets, start_from=path), _shapes(network, targets))
    assert found is not None
    return found


def test_nothing_to_start_from() -> None:
    assert load_start(AdapterConfig(), {}) is None


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfyui"])
@pytest.mark.parametrize(("rank", "alpha"), [(4, None), (8, 3.0)])
def test_training_starts_where_the_file_is(
    layout: str,
    rank: int,
    alpha: float | None,
    tmp_path: Path,
    load_network: Callable[[], nn.Module],
    draw_factors: Draw,
    apply_factors: Apply,
    predict: Callable[[nn.Module], Tensor],
) -> None:
    """Lower ranks, other scales and missing layers in the file; equal or higher rank in the settings."""
    network = load_network()
    names = list_targets(network, TARGETS, sets={})
    modules = draw_factors(network, names[::2], ranks=(4, 1, 3), alphas=(5.0, 1.0))
    start = _start(network, _save(tmp_path / "a", modules, layout), rank=rank, alpha=alpha)
    config = AdapterConfig(rank=rank, alpha=alpha, targets=TARGETS)
    fresh = load_network()
    build_lora(fresh, config, modules=names, seed=3)
    parameters = build_lora(network, config, modules=names, seed=3, start=start)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for _, parameter in parameters)
    with torch.no_grad():
        assert torch.allclose(predict(network), predict(apply_factors(load_network(), modules)), atol=1e-5)
    for name, drawn in list_factors(fresh).items():
        now = list_factors(network)[name]
        assert (now.rank, now.alpha) == (rank, float(alpha or rank))
        used = modules[name].rank if name in modules else 0
        assert torch.equal(now.down[used:], drawn.down[used:]), "what the file does not fill is as in a fresh adapter"
        assert not now.up[:, used:].any()
        assert name not in modules or torch.allclose(now.build_delta(), modules[name].build_delta(), atol=1e-6)


def test_scales_that_are_powers_of_two_lose_nothing(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    names = list_targets(network, TARGETS, sets={})
    modules = draw_factors(network, names, ranks=(2,), alphas=(8.0,))
    start = _start(network, _save(tmp_path / "a", modules), alpha=2.0)
    build_lora(network, AdapterConfig(rank=4, alpha=2.0), modules=names, seed=0, start=start)
    for name, factors in list_factors(network).items():
        assert torch.equal(factors.down[:2], modules[name].down)
        assert torch.equal(factors.up[:, :2] * 0.5, modules[name].up * 4.0)


def test_what_does_not_fit_is_refused(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    one = "transformer_blocks.0.attn.to_q"
    narrow = {one: Factors(torch.ones(2, 16), torch.ones(16, 2), 2.0)}
    refused = {
        "has layers that the settings do not train": draw_factors(network, [one, "x_embedder"]),
        "is for a model with other shapes": narrow,
        "is a DoRA, and adapter.kind is lora": draw_factors(network, [one], dora=True),
        "has a higher rank than the settings": draw_factors(network, [one], ranks=(5,)),
    }
    for number, (message, modules) in enumerate(refused.items()):
        with pytest.raises(AdapterError) as caught:
            _start(network, _save(tmp_path / str(number), modules))
        text = str(caught.value)
        assert message in text
        assert str(tmp_path / str(number)) in text
        assert "fix: " in text
    with pytest.raises(AdapterError, match="with x_embedder\n"):
        _start(network, str(tmp_path / "0"))
    with pytest.raises(AdapterError, match="There is no adapter file"):
        _start(network, str(tmp_path / "missing"))


def test_a_start_of_another_width_shows_both(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    names = list_targets(network, TARGETS, sets={})
    path = _save(tmp_path / "a", draw_factors(network, names[:1], ranks=(4,), alphas=(4.0,)))
    name, shapes = names[0], _shapes(network, TARGETS)
    inputs, outputs = shapes[name]
    config = AdapterConfig(rank=4, targets=TARGETS, start_from=path)
    with pytest.raises(AdapterError, match="for a model with other shapes") as caught:
        load_start(config, shapes | {name: (3072, 9216)}, linears=shapes | {name: (3072, 9216)})
    assert f"{inputs} inputs and {outputs} outputs in {name}" in caught.value.got
    assert "3072 inputs and 9216 outputs" in caught.value.expected


def _save_names(path: Path, *names: str) -> str:
    save_file({f"lycoris_transformer_blocks_0_attn_to_q.{name}": torch.ones(2, 2) for name in names}, path)
    return str(path)


def test_a_start_of_another_form_is_told_by_its_name(tmp_path: Path, load_network: Callable[[], nn.Module], draw_factors: Draw) -> None:
    network = load_network()
    lora = _save(tmp_path / "lora", draw_factors(network, list_targets(network, TARGETS, sets={})[:1], ranks=(4,), alphas=(4.0,)))
    lokr = _save_names(tmp_path / "lokr", "lokr_w1", "lokr_w2", "alpha")
    loha = _save_names(tmp_path / "loha", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha")
    trains = {
        algo: AdapterConfig.model_validate({"kind": "lycoris", "lycoris": {"algo": algo, "linear_dim": 4, "linear_alpha": 1}})
        for algo in ("lokr", "loha", "lora")
    } | {"": AdapterConfig()}
    for path, algo, words, fix in (
        (lora, "lokr", "is a LoRA, and the run trains a LoKr", 'adapter.kind = "lora"'),
        (lokr, "", "is a LoKr, and the run trains a LoRA", 'adapter.kind = "lycoris" with algo = "lokr"'),
        (loha, "lokr", "is a LoHa, and the run trains a LoKr", 'algo = "loha"'),
        (lokr, "lora", "is a LoKr, and the run trains a LoRA", 'algo = "lokr"'),
    ):
        with pytest.raises(AdapterError, match=words) as caught:
            check_form(trains[algo].model_copy(update={"start_from": path}))
        assert path in caught.value.got and fix in caught.value.fix
    for path, algo in ((lora, ""), (lora, "lora"), (lokr, "lokr"), (loha, "loha"), (str(tmp_path / "none"), "")):
        check_form(trains[algo].model_copy(update={"start_from": path}))
