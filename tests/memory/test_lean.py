"""What lean checkpointing keeps, what it computes twice, and what it notices. That it changes no result: test_checkpointing.py."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.flux1 import keys
from weber.families.flux1.predict import Flux1Predictor
from weber.memory import lean
from weber.memory.formats import FORMATS
from weber.memory.lean import Lean
from weber.memory.meta import FlashOnMeta
from weber.memory.packed import PackedLinear
from weber.memory.simulate import Meter

Build = Callable[..., Any]
GIB = 2**30


class Gated(nn.Module):
    """A feed-forward with a gate that may learn; `together`: two of them under one gate, as in a parallel block."""

    def __init__(self, *, together: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 8)
        self.other = nn.Linear(8, 8) if together else None
        self.gate = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.last(functional.gelu(self.first(x)))
        if self.other is not None:
            seen = seen + self.other(x)
        return x + self.gate * seen


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.counts[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _count_calls(block: nn.Module) -> Counter[str]:
    """How often the layers of a block compute, from now on."""
    seen: Counter[str] = Counter()
    for name, layer in lean._list_linears(block):
        forward = layer.forward

        def count(x: Tensor, name: str = name, forward: Callable[..., Tensor] = forward) -> Tensor:
            seen[name] += 1
            return forward(x)

        layer.forward = count
    return seen


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_what_is_skipped_is_kept_where_it_is_read(together: bool, learns: bool) -> None:
    torch.manual_seed(0)
    block = Gated(together=together)
    block.gate.requires_grad_(learns)
    run = Lean({"last": "skip", "other": "skip"})
    x = torch.randn(3, 8, requires_grad=True)
    wanted = [x, *(parameter for parameter in block.parameters() if parameter.requires_grad)]
    expected = torch.autograd.grad(block(x).square().sum(), wanted)
    for _ in range(3):
        found = torch.autograd.grad(run(block, block, x).square().sum(), wanted)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    (roles,) = run._roles.values()
    assert {roles[layer] for layer in (block.last, block.other) if layer} == {"keep" if learns else "skip"}


def test_what_goes_into_another_layer_is_kept() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    layers[1].requires_grad_(True)
    x = torch.randn(2, 4, requires_grad=True)
    expected = torch.autograd.grad(layers(x).sum(), [x, layers[1].weight])
    found = torch.autograd.grad(Lean({"0": "skip"})(layers, layers, x).sum(), [x, layers[1].weight])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_mistake_about_skipping_would_be_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean._Watch, "see_saved", lambda self, tensor: None)
    block = Gated()
    (found,) = torch.autograd.grad(Lean({"last": "skip"})(block, block, torch.randn(3, 8)).sum(), [block.gate])
    assert found.isnan().all()


@pytest.mark.parametrize("family", ["first", "second", "third"])
def test_layers_that_compute_twice(build_network: Build, family: str) -> None:
    network = build_network(family)
    network.predictor.is_fused = False
    network.predictor.run = Lean(network.family.lean_layers)
    names = {block: name for name, block in network.predictor.transformer.named_modules() if block in network.blocks}
    counts = {names[block]: _count_calls(block) for block in network.blocks}
    network.learn(*network.draw(references=1))
    times = {f"{name}.{layer}": number for name, count in counts.items() for layer, number in count.items()}
    twice = {f"transformer_blocks.{number}.attn.to_out.0" for number in (0, 1) if family != "third"}
    assert len(times) >= len(network.parameters) / 2, "these have adapters"
    assert {name for name, number in times.items() if number != 1} == twice
    assert all(times[name] == 2 for name in twice)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_computed_once(build_network: Build, masked: bool) -> None:
    network = build_network("first")
    network.predictor.is_fused = False
    noisy, t, condition = network.draw()
    if masked:
        condition["text_mask"] = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]])
    expected = network.learn(noisy, t, condition)
    network.predictor.run = Lean(network.family.lean_layers)
    with Operations() as operations:
        found = network.learn(noisy, t, condition)
    assert [number for name, number in operations.counts.items() if "attention" in name] == [5, 5], "forward and backward, for 5 blocks"
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("number", [0, 3])
def test_bytes_kept_of_a_block(build_network: Build, number: int) -> None:
    """Inputs, the outputs of layers that are neither computed twice nor skipped, and of attention its output and one fp32 per query."""
    network = build_network("first", torch.bfloat16)
    network.predictor.is_fused = False
    transformer = network.predictor.transformer.to("meta")
    block, heads, width, num_image, num_text = network.blocks[number], 2, 32, 48, 7
    image, text = (
        torch.empty(2, length, width, device="meta", dtype=torch.bfloat16, requires_grad=True) for length in (num_image, num_text)
    )
    modulation = torch.empty(2, width, device="meta", dtype=torch.bfloat16)
    rotary = transformer.pos_embed(torch.empty(num_text + num_image, 3, device="meta"))
    run = Lean(network.family.lean_layers)
    outputs: dict[str, Tensor] = {}
    with FlashOnMeta(), Meter(grain_bytes=1) as meter:
        outputs = dict(enumerate(run(block, block, image * 1, text * 1, modulation, rotary)))
        del outputs[1 if number else 0]
        found = meter.read_stretch().left_bytes - outputs.popitem()[1].untyped_storage().nbytes()
        assert not outputs
    tokens = 2 * (num_image + num_text)
    of_layers = 3 * width + 4 * width  # queries, keys, values, and what goes into the activation
    expected = 2 * tokens * (width + of_layers + width) + 4 * heads * tokens
    expected += 2 * 2 * 3 * width if number else 2 * (2 * num_text * width + 2 * 2 * 6 * width)  # modulation; the text's attention output
    random_state, stand_ins = 3 * 8, 2 * (1 if number else 2)
    assert found == expected + random_state + stand_ins


def test_bytes_and_work_at_full_size() -> None:
    """A network of 12 billion weights at 1024 x 1024 pixels, with a LoRA of rank 16 on every layer of its blocks."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
    predictor = Flux1Predictor(nn.Module.to(transformer, torch.bfloat16).requires_grad_(False))
    build_lora(transformer, AdapterConfig(rank=16), modules=list_targets(transformer, "blocks", sets=keys.ADAPTER_TARGETS), seed=0)
    predictor.is_fused, predictor.run = False, Lean(keys.LEAN_LAYERS)
    noisy, t = torch.empty(1, 16, 128, 128, device="meta"), torch.empty(1, device="meta")
    condition = {"text": torch.empty(1, 512, 4096, device="meta"), "pooled": torch.empty(1, 768, device="meta"), "guidance": t}
    with FlashOnMeta(), Meter() as meter:
        loss = predictor(noisy, t, condition).float().mean()
        forward = meter.read_stretch()
        loss.backward()
        backward = meter.read_stretch()
    assert 13.5 * GIB < forward.left_bytes < 14 * GIB
    assert backward.peak_bytes < 1.1 * GIB, "what blocks kept goes as the backward pass goes"

    width, tokens, num_blocks = 3072, 4096 + 512, 57
    linear, attention = 2 * 12 * width**2 * tokens * num_blocks, 4 * tokens**2 * width * num_blocks
    adapters = sum(
        2 * 16 * _count_tokens(name) * (3 * (layer.in_features + layer.out_features) + layer.in_features)
        for name, layer in transformer.named_modules()
        if isinstance(layer, BaseTunerLayer)
    )
    formula = 2 * linear + 3.5 * attention + adapters  # a backward pass of flash attention computes 2.5 times as much
    assert 0.99 < (forward.work + backward.work).num_flops / formula < 1.01


def _count_tokens(layer: str) -> int:
    if layer.startswith("single"):
        return 4608
    return 512 if "add_" in layer or "context" in layer else 4096


def test_nothing_is_kept_after_the_backward_pass(build_network: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("first")
    network.predictor.is_fused = False
    network.predictor.run = Lean(network.family.lean_layers)
    fed = network.draw()
    frames: list[weakref.ref[Any]] = []

    class Frame(lean._Frame):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            frames.append(weakref.ref(self))

    monkeypatch.setattr(lean, "_Frame", Frame)
    for _ in range(2):  # the first time is watched
        frames.clear()
        with _without_collector():
            loss = network.predictor(*fed).square().mean()
            assert sum(frame() is not None for frame in frames) == len(network.blocks)
            loss.backward()
            assert [frame() for frame in frames] == [None] * len(network.blocks)
            loss = network.predictor(*fed).square().mean()
            del loss
            assert [frame() for frame in frames] == [None] * 2 * len(network.blocks)


def test_the_block_is_left_as_it_was(build_network: Build) -> None:
    network = build_network("first")
    network.predictor.is_fused = False
    attend = functional.scaled_dot_product_attention
    network.predictor.run = Lean(network.family.lean_layers)
    network.learn(*network.draw())
    noisy, t, condition = network.draw()
    with pytest.raises(RuntimeError):
        network.predictor(noisy, t, condition | {"text": condition["text"][..., :3]})
    block = network.blocks[0]
    with pytest.raises(RuntimeError):
        network.predictor.run(block, block, *(torch.ones(1, 3, 32), torch.ones(2, 3, 32), torch.ones(1, 32), None, None))
    assert functional.scaled_dot_product_attention is attend
    assert all("forward" not in vars(module) for module in network.predictor.transformer.modules())


def test_other_threads_are_left_alone() -> None:
    class Busy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            other = threading.Thread(target=lambda: functional.scaled_dot_product_attention(x.detach(), x.detach(), x.detach()))
            other.start()
            other.join()
            return functional.scaled_dot_product_attention(x, x, x)

    block = Busy()
    x = torch.randn(1, 2, 6, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(block(x).square().sum(), [x])
    (found,) = torch.autograd.grad(Lean({})(block, block, x).square().sum(), [x])
    assert torch.equal(found, expected)


def test_a_saved_tensor_may_be_read_twice() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return (ctx.saved_tensors[0] + ctx.saved_tensors[0]) * gradients[0]

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Twice.apply(functional.gelu(x))

    block, x = Square(), torch.randn(5, requires_grad=True)
    (expected,) = torch.autograd.grad(block(x).sum(), [x])
    (found,) = torch.autograd.grad(Lean({})(block, block, x).sum(), [x])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("format", ["int8", "nf4"])
def test_packed_layers(build_network: Build, format: str) -> None:
    network = build_network("second")
    network.predictor.is_fused = False
    for block in network.blocks:
        for _, layer in list(lean._list_linears(block)):
            base, how = layer.get_base_layer(), FORMATS[format]
            layer.base_layer = PackedLinear(
                how.pack(base.weight.detach()), base.bias, shape=(base.out_features, base.in_features), format=how, dtype=torch.float32
            )
    fed = network.draw()
    expected = network.learn(*fed)
    network.predictor.run = Lean(network.family.lean_layers)
    found = network.learn(*fed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dropout_is_not_for_it(build_network: Build) -> None:
    network = build_network("first", dropout=0.1)
    network.predictor.is_fused = False
    network.predictor.run = Lean(network.family.lean_layers)
    with pytest.raises(AssertionError, match="drawn anew"):
        network.predictor(*network.draw())
