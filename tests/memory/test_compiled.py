"""Compiled blocks compute what the library's do, to rounding, and keep what they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor import codecache
from torch._inductor import config as inductor
from torch.nn import functional

from weber.adapters.lora import add_frozen, list_factors
from weber.errors import TrainingError
from weber.families.family import run_plainly
from weber.memory.compiled import CompiledBlocks
from weber.memory.formats import FORMATS
from weber.memory.packed import build_packed

Build = Callable[..., Any]
TRACED = "aot_eager_decomp_partition"
"""What the compiler computes and keeps, without what it makes of it."""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that was compiled before, nor left behind."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, str(tmp_path / "headers"))
    torch._dynamo.reset()
    counters.clear()
    with inductor.patch(compile_threads=1):  # other processes would write elsewhere
        yield
    torch._dynamo.reset()


def _build(build_network: Build, family: str = "first", *, format: str | None = None, num_singles: int = 1, **settings: Any) -> Any:
    """Without blocks of two streams."""
    network = build_network(family)
    network.predictor.is_fused = False
    transformer = network.predictor.transformer
    transformer.single_transformer_blocks = nn.ModuleList(network.blocks[-num_singles:])
    transformer.transformer_blocks, network.blocks = nn.ModuleList(), network.blocks[-num_singles:]
    there = set(transformer.parameters())
    network.parameters = [(name, one) for name, one in network.parameters if one in there]
    for name, layer in list(transformer.named_modules()):
        if format is not None and type(layer) is nn.Linear and "lora" not in name and "transformer_blocks" in name:
            transformer.set_submodule(name, build_packed(layer.weight, layer.bias, format=FORMATS[format], **settings))
    return network


def _compile(network: Any, mode: str | int = "all", *, is_dynamic: bool = False, backend: str = TRACED) -> CompiledBlocks:
    blocks = CompiledBlocks(mode, blocks=network.blocks, is_dynamic=is_dynamic, backend=backend)
    network.predictor.run = blocks
    return blocks


def _assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], *, rel: float = 1e-5) -> None:
    assert found.keys() == expected.keys() and expected
    assert {name: one for name in expected if not (found[name] - (one := expected[name])).norm() <= rel * one.norm()} == {}


class _Small(nn.Module):
    """What blocks are made of, small enough for a compiler: a norm, packed layers with a LoRA, attention."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)) / 4
        self.inward, self.outward = (build_packed(one, None, format=FORMATS["int8"]) for one in weights)
        self.down, self.up = (nn.Parameter(one[:2].clone()) for one in weights)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        normed = functional.rms_norm(x, (16,))
        inward = self.inward(normed) + normed @ self.down.T @ self.up
        return x + gate * self.outward(functional.gelu(inward))


def test_inductor_over_two_sizes_with_packed_weights() -> None:
    """What a user gets, on a CPU: one code for all blocks and sizes, the same numbers at every run, and seconds that are said."""
    layers = [_Small(), _Small()]

    def learn(run: Callable[..., Tensor], size: int) -> dict[str, Tensor]:
        x = torch.randn(2, size, 16, generator=torch.Generator().manual_seed(size)).requires_grad_()
        out = x
        for block in layers:
            out = run(block, block, out, torch.full((16,), 0.5))
        out.square().mean().backward()
        found = {f"{number}.{name}": one.grad for number, block in enumerate(layers) for name, one in block.named_parameters()}
        for block in layers:
            block.zero_grad()
        return {"out": out.detach(), "x": x.grad, **found}  # type: ignore[dict-item]

    expected = [learn(run_plainly, size) for size in (5, 9)]
    blocks = CompiledBlocks("all", blocks=layers, is_dynamic=True)
    assert blocks.kept_bytes is None
    found = [learn(blocks, size) for size in (5, 9)]
    for one, other in zip(found, expected, strict=True):
        _assert_close(one, other)
    again = learn(blocks, 5)
    assert all(torch.equal(again[name], one) for name, one in found[0].items())
    assert counters["stats"]["unique_graphs"] == 1 and blocks.seconds > 0.1
    assert blocks.kept_bytes == 4 * (2 * 2 * 5 * 16 + 2 * 16), "the inputs of both blocks, each with a gate of its own"
    with torch.no_grad():
        blocks(layers[0], layers[0], torch.ones(1, 3, 16), torch.ones(16))
    assert counters["stats"]["unique_graphs"] == 1, "pictures are painted by blocks as they are"


def test_blocks_of_one_kind_share_their_code(build_network: Build) -> None:
    network = _build(build_network, num_singles=3)
    fed = network.draw()
    expected = network.learn(*fed)
    _compile(network, "none")
    for _ in range(2):
        _assert_close(network.learn(*fed), expected)
    assert counters["stats"]["unique_graphs"] == 2, "the first block's inputs want no gradient"


def test_the_choice_of_attention_holds_and_adds_no_code(build_network: Build) -> None:
    """Around the code: the same for all blocks."""
    network = _build(build_network, num_singles=3)
    fed = network.draw()
    expected = network.learn(*fed)
    _compile(network, "none")
    network.predictor.attention = "flash"
    _assert_close(network.learn(*fed), expected)
    assert counters["stats"]["unique_graphs"] == 2, "of the first block, whose input is given, and of the others"


def test_packed_weights_are_not_kept_unpacked(build_network: Build) -> None:
    """The compiler keeps what autograd does, or less; of packed weights nothing."""
    network = _build(build_network, format="int8")
    fed = network.draw()
    plain = CompiledBlocks("none", blocks=network.blocks, is_dynamic=False, backend="eager")
    network.predictor.run = plain
    expected = network.learn(*fed)
    blocks = _compile(network, "none")
    _assert_close(network.learn(*fed), expected)
    assert blocks.kept_bytes is not None and plain.kept_bytes is not None
    assert 0 < blocks.kept_bytes <= plain.kept_bytes


def test_products_in_8_bits(build_network: Build) -> None:
    network = _build(build_network, format="int8", multiplies_packed=True)
    fed = network.draw()
    expected = network.learn(*fed)
    _compile(network, "all")
    _assert_close(network.learn(*fed), expected, rel=0.01)


def test_another_family(build_network: Build) -> None:
    network = _build(build_network, "second")
    fed = network.draw()
    expected = network.learn(*fed)
    _compile(network)
    _assert_close(network.learn(*fed), expected)


@pytest.mark.parametrize("what", ["a level for references", "everything learns with a mask"])
def test_what_else_is_asked_of_blocks(build_network: Build, what: str) -> None:
    is_level = what == "a level for references"
    network = _build(build_network)
    transformer = network.predictor.transformer
    fed = network.draw(references=int(is_level), has_reference_t=is_level)
    if is_level:
        add_frozen(transformer, dict(list(list_factors(transformer).items())[::2]), name="assistant", strength=0.5)
    else:
        fed[2]["text_mask"] = torch.arange(7).expand(2, 7) < torch.tensor([[7], [5]])
        network.parameters = list(transformer.requires_grad_(True).named_parameters())
    expected = network.learn(*fed)
    _compile(network)
    _assert_close(network.learn(*fed), expected)


def test_what_cannot_be_compiled_is_said() -> None:
    block = nn.Linear(2, 2)

    def call(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x

    blocks = CompiledBlocks("none", blocks=[block], is_dynamic=False, backend=TRACED)
    with pytest.raises(TrainingError, match="cannot compile a block") as caught:
        blocks(block, call, torch.ones(1, requires_grad=True))
    assert "memory.compile" in str(caught.value)
