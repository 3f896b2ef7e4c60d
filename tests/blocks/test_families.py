"""Own forwards of all families equal the library's blocks, with their gradients, whatever plain layers are on them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.memory.conftest import FAMILIES
from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.blocks.own import OwnForward
from weber.config.adapter import AdapterConfig
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.objective import RouteConfig
from weber.families.family import run_plainly
from weber.families.route import build_routes
from weber.families.table import build_family
from weber.memory.checkpointing import build_checkpointing
from weber.memory.formats import FORMATS
from weber.memory.joined import join_layers
from weber.memory.load import load_predictor
from weber.memory.packed import build_packed

Inputs = tuple[Tensor, Tensor, dict[str, Tensor]]
TOLERANCE = 1e-5


class Net:
    """A network of few blocks, and what learns in it."""

    def __init__(self, name: str, *, dtype: torch.dtype = torch.float32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            transformer, build, self.family, self.channels, self.text = FAMILIES[name]()
            for path, parameter in transformer.named_parameters():
                if "norm" in path and path.endswith("weight") and parameter.ndim == 1:
                    nn.init.uniform_(parameter, 0.5, 1.5)
        self.model = nn.Module.to(transformer, dtype).requires_grad_(False)
        self.blocks = [module for module in transformer.modules() if type(module).__name__.endswith("TransformerBlock")]
        self.predictor: Any = build(transformer)
        self.num_own, self.num_others = 0, 0
        self.predictor.run = self._run

    def _run(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        if isinstance(call, OwnForward):
            self.num_own += 1
        else:
            self.num_others += 1
        return run_plainly(block, call, *inputs)

    def put_lora(self, targets: Any = "blocks", **settings: Any) -> Net:
        modules = list_targets(self.model, targets, sets=self.family.adapter_targets)
        config = AdapterConfig.model_validate({"rank": 4, **settings})
        for path, one in build_lora(self.model, config, modules=modules, seed=0):
            if "lora_B" in path:
                nn.init.normal_(one, std=0.1, generator=torch.Generator().manual_seed(len(path)))
        return self

    def draw(self, *, batch: int = 2, references: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        condition = {"text": torch.randn(batch, 7, self.text["text"], generator=generator), "guidance": torch.ones(batch)}
        if "pooled" in self.text:
            condition["pooled"] = torch.randn(batch, self.text["pooled"], generator=generator)
        for number in range(references):
            condition[f"reference_{number}"] = torch.randn(batch, self.channels, 6, 4, generator=generator)
        noisy = torch.randn(batch, self.channels, 8, 6, generator=generator)
        return noisy, torch.rand(batch, generator=generator), condition

    def learn(self, inputs: Inputs, *, is_fused: bool) -> dict[str, Tensor]:
        self.predictor.is_fused, self.num_own, self.num_others = is_fused, 0, 0
        velocity = self.predictor(*inputs)
        found = {"velocity": velocity.detach()}
        if velocity.requires_grad:
            velocity.float().square().mean().backward()
        for name, one in self.model.named_parameters():
            if one.grad is not None:
                found[name], one.grad = one.grad, None
        return found


def check_near(net: Net, inputs: Inputs) -> None:
    """Everything is there in both, and differs by less than 1e-5 of its size."""
    own = net.learn(inputs, is_fused=True)
    assert net.num_own >= 4 and net.num_others == 0
    theirs = net.learn(inputs, is_fused=False)
    assert net.num_own == 0 and own.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.linalg.vector_norm(own[name] - tensor) <= TOLERANCE * torch.linalg.vector_norm(tensor), name


@pytest.mark.parametrize("references", [0, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_lora(family: str, batch: int, references: int) -> None:
    net = Net(family).put_lora("all+ffs+references" if family == "third" else "blocks", alpha=7)
    check_near(net, net.draw(batch=batch, references=references))


@pytest.mark.parametrize("is_joined", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights(family: str, is_joined: bool) -> None:
    """Biases, norms of queries and keys, and modulation among them."""
    net = Net(family)
    if is_joined:
        join_layers(net.blocks, net.family.joined_layers)
    net.model.requires_grad_(True)
    check_near(net, net.draw())


PARTS = {
    "queries": ["attn.to_q", "attn.to_qkv_mlp_proj"],
    "modulation": ["norm1.linear", "norm.linear", "modulation"],
    "biases": [],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_some_weights(family: str, part: str) -> None:
    net = Net(family)
    join_layers(net.blocks, net.family.joined_layers)
    for name, one in net.model.named_parameters():
        is_meant = name.endswith("bias") if part == "biases" else any(word in name for word in PARTS[part])
        one.requires_grad_(is_meant)
    if any(one.requires_grad for one in net.model.parameters()):
        check_near(net, net.draw())


SOME = {
    "first": ["attn.to_k", "attn.to_out.0", "ff.net.2", "proj_mlp"],
    "second": ["attn.to_k", "attn.to_out", "attn.to_out.0", "ff.linear_out"],
    "third": ["attn.to_k", "ff.linear_out"],
}


@pytest.mark.parametrize("rules", ["some layers", "ranks", "two adapters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_are_unlike(family: str, rules: str) -> None:
    net = Net(family)
    if rules == "some layers":
        net.put_lora(SOME[family])
    elif rules == "ranks":
        net.put_lora(rules=[{"match": SOME[family][0], "rank": 2}])
    else:
        net.put_lora()
        for module in net.model.modules():
            if hasattr(module, "lora_A"):
                module.update_layer("other", r=3, lora_alpha=6, config=deepcopy(_read_config(net.model)))
                nn.init.normal_(module.lora_B["other"].weight, std=0.1)
                module.set_adapter(["default", "other"])
                module.lora_A["other"].weight.requires_grad_(False)
                module.lora_B["other"].weight.requires_grad_(False)
    check_near(net, net.draw())


def _read_config(model: Any) -> Any:
    return model.peft_config["default"]


def pack(net: Net, form: str, *, multiplies_packed: bool = False) -> Net:
    """Pack all layers of all blocks."""
    for block in net.blocks:
        for name, module in list(block.named_modules()):
            if type(module) is nn.Linear:
                weight, bias = module.weight.detach(), module.bias
                block.set_submodule(name, build_packed(weight, bias, format=FORMATS[form], multiplies_packed=multiplies_packed))
    return net


@pytest.mark.parametrize("form", ["int8", "nf4", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_layers(family: str, form: str) -> None:
    net = pack(Net(family), form).put_lora()
    check_near(net, net.draw())


@pytest.mark.parametrize("form", ["int8", "fp8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_in_8_bits(family: str, form: str) -> None:
    """Rounding adds at most the error that the library's blocks have with it, a few percent of a gradient, and nothing else does."""
    net, inputs = pack(Net(family), form, multiplies_packed=True).put_lora(), Net(family).draw()
    own = net.learn(inputs, is_fused=True)
    assert net.num_own >= 4 and net.num_others == 0
    theirs = net.learn(inputs, is_fused=False)
    exact = pack(Net(family), form).put_lora().learn(inputs, is_fused=False)
    assert own.keys() == theirs.keys() == exact.keys()
    squares = [[float(torch.linalg.vector_norm(one[name] - exact[name]) / exact[name].norm()) for name in exact] for one in (own, theirs)]
    ours, others = (torch.tensor(one).square().mean().sqrt() for one in squares)
    assert 0 < ours <= 1.05 * others and others < 0.1


@pytest.mark.parametrize("family", ["first", "second"])
def test_routes(family: str) -> None:
    net = Net(family).put_lora()
    net.predictor.routes = build_routes([RouteConfig(ratio=0.5, first=1, last=3)], num_blocks=5)
    noisy, t, condition = net.draw(references=1)
    num_tokens = 12 if family == "first" else 48
    check_near(net, (noisy, t, condition | {"route_scores": torch.rand(num_tokens, generator=torch.Generator().manual_seed(2))}))


@pytest.mark.parametrize("mode", ["all", 2, "lean"])
@pytest.mark.parametrize("kind", ["lora", "8 bits", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_changes_no_bit(family: str, kind: str, mode: Any) -> None:
    net = Net(family)
    if kind == "8 bits":
        pack(net, "int8", multiplies_packed=True)
    net.model.requires_grad_(True) if kind == "full" else net.put_lora()
    inputs = net.draw()
    whole = net.learn(inputs, is_fused=True)
    net.predictor.run = build_checkpointing(mode, blocks=net.blocks, lean_layers=net.family.lean_layers)
    less = net.learn(inputs, is_fused=True)
    assert whole.keys() == less.keys()
    for name, tensor in whole.items():
        assert torch.equal(less[name], tensor), name


@pytest.mark.parametrize("reason", ["dora", "dropout", "hook", "mask", "processor"])
def test_what_the_library_runs(reason: str) -> None:
    """And what is left to it gives what it gives."""
    net = Net("first")
    noisy, t, condition = net.draw()
    if reason == "dora":
        net.put_lora(dora=True)
    elif reason == "dropout":
        net.put_lora(dropout=0.1)
    elif reason == "hook":
        net.blocks[0].attn.to_q.register_forward_hook(lambda module, inputs, output: output + 1)  # type: ignore[union-attr, operator]
        net.blocks[1].register_forward_pre_hook(lambda module, inputs: None)
    elif reason == "mask":
        condition["text_read"] = torch.ones(2, 7, dtype=torch.bool)
    else:
        net.blocks[0].attn.processor = type("Other", (type(net.blocks[0].attn.processor),), {})()  # type: ignore[union-attr]
    with torch.no_grad():
        net.learn((noisy, t, condition), is_fused=True)
    assert net.num_own == {"hook": 3, "processor": 4}.get(reason, 0)


@pytest.mark.parametrize(("settings", "num_own"), [({}, 5), ({"compute": "fp32"}, 0), ({"init": "pissa"}, 0)])
def test_adapters_that_compute_in_fp32_beside_a_model_in_bf16(settings: dict[str, Any], num_own: int) -> None:
    """They are the library's, and PEFT's; in a model in fp32 all are in fp32 anyway."""
    for dtype, count in ((torch.bfloat16, num_own), (torch.float32, 5)):
        net = Net("first", dtype=dtype).put_lora(**settings)
        noisy, t, condition = net.draw()
        with torch.no_grad():
            net.learn((noisy.to(dtype), t, {name: one.to(dtype) for name, one in condition.items()}), is_fused=True)
        assert (net.num_own, net.num_others) == (count, 5 - count)


def test_small_updates_are_not_lost() -> None:
    """Steps of a ten-thousandth of the weights, which bf16 weights would round away, move an adapter as they do in fp32."""
    moved = {}
    for dtype in (torch.bfloat16, torch.float32):
        net = Net("first", dtype=dtype).put_lora()
        noisy, t, condition = net.draw()
        inputs = noisy.to(dtype), t, {name: one.to(dtype) for name, one in condition.items()}
        learning = {name: one for name, one in net.model.named_parameters() if one.requires_grad}
        before = {name: one.detach().clone() for name, one in learning.items()}
        for _ in range(5):
            for name, grad in net.learn(inputs, is_fused=True).items():
                if name in learning:
                    assert grad.dtype == torch.float32
                    step = 1e-4 * torch.linalg.vector_norm(learning[name].detach()) / torch.linalg.vector_norm(grad)
                    learning[name].data -= step * grad
        moved[dtype] = torch.cat([(learning[name].detach() - one).flatten() for name, one in before.items()])
    own, exact = moved.values()
    assert torch.nn.functional.cosine_similarity(own, exact, dim=0) > 0.999
    assert torch.linalg.vector_norm(own) == pytest.approx(float(torch.linalg.vector_norm(exact)), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_as_near_to_the_truth_as_the_library(family: str) -> None:
    """Against fp64, as root mean squares over velocities and over gradients; two ways of rounding differ by their luck, here 2 %."""
    truth = Net(family, dtype=torch.float64).put_lora()
    rounded = Net(family, dtype=torch.bfloat16).put_lora()
    for one, other in zip(truth.model.parameters(), rounded.model.parameters(), strict=True):
        one.data = other.data.double()
    noisy, t, condition = rounded.draw(batch=3)
    exact = truth.learn((noisy.double(), t, {name: one.double() for name, one in condition.items()}), is_fused=False)
    errors = {}
    for is_fused in (True, False):
        found = rounded.learn((noisy.bfloat16(), t, {name: one.bfloat16() for name, one in condition.items()}), is_fused=is_fused)
        assert found.keys() == exact.keys()
        norm = torch.linalg.vector_norm
        relative = {name: float(norm(found[name].double() - one) / norm(one)) for name, one in exact.items()}
        errors[is_fused] = relative.pop("velocity"), (sum(one**2 for one in relative.values()) / len(relative)) ** 0.5
    assert all(own <= 1.02 * theirs for own, theirs in zip(errors[True], errors[False], strict=True)), errors


def test_own_forwards_can_be_left_out() -> None:
    """By a setting; and on devices where nobody has tried them."""
    net = Net("first")
    noisy, t, condition = net.draw()
    net.learn((noisy, t, condition), is_fused=False)
    assert (net.num_own, net.num_others) == (0, 5)
    assert MemoryConfig().fused_blocks
    family = build_family(ModelConfig.model_validate({"variant": "pocket"}))
    for is_fused in (True, False):
        predictor = load_predictor(family, device=torch.device("cpu"), dtype=torch.float32, memory=MemoryConfig(fused_blocks=is_fused))
        assert predictor.is_fused == is_fused


@pytest.mark.parametrize(("device", "is_own"), [("meta", True), ("mps", False)])
def test_devices(device: str, is_own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net("first")
    if device == "meta":
        net.model.to("meta")
    else:
        monkeypatch.setattr("weber.blocks.own.DEVICES", ("cuda", "meta"))  # so that the CPU is one of the others
    assert (net.predictor.own_blocks.find(net.blocks[0]) is not None) == is_own
