"""Swapped blocks: the same numbers to the last bit, wherever the weights are, with a mover that is as late as it may be.

The mover here copies when it is waited for and not before, and leaves NaN wherever nothing should be read: in slots that wait for a copy,
and in the host's memory of blocks that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import Flux2Transformer2DModel, Flux3Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux2.predict import Flux2Predictor
from weber.families.flux3.predict import Flux3Predictor
from weber.memory.formats import FORMATS
from weber.memory.movers import DiskMover, HostMover, Mover, Pieces, build_mover
from weber.memory.packed import PackedLinear, build_packed
from weber.memory.swap import ALIGNMENT_BYTES, BlockSwap, build_layout, bytes_per_step, choose_swapped

CPU = torch.device("cpu")
FAMILIES = ("flux1", "flux2", "flux3")
BAD = 255
"""In every byte: NaN in all float formats."""


class LateMover(HostMover):
    """Does everything as late as the protocol allows, notes it, and fails where the protocol is broken."""

    def __init__(self, *, is_trained: bool = False) -> None:
        super().__init__(CPU)
        self.is_trained = is_trained
        self.log: list[tuple[str, int, int, int]] = []
        self.holds: dict[int, int] = {}
        self.used: set[int] = set()
        self.pending: dict[int, int] = {}
        self.returning: dict[int, tuple[int, int]] = {}
        self.shown: dict[int, Tensor] = {}

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> Tensor:
        self.shown[block] = torch.full_like(super().keep(block, pieces, num_bytes=num_bytes), BAD)
        return self.shown[block]

    def start(self, block: int, slot: int) -> None:
        assert slot not in self.used, "a slot that is in use would be overwritten"
        self._return(slot)
        self._slots[slot].fill_(BAD)
        self.holds[slot] = self.pending[slot] = block
        self.log.append(("start", block, slot, len(self._kept[block])))

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        if slot in self.pending:
            super().start(self.pending.pop(slot), slot)
        if is_written:
            self._return(slot)
        self.used.add(slot)
        self.log.append(("wait", self.holds[slot], slot, 0))

    def free(self, slot: int) -> None:
        assert slot in self.used, "freed twice"
        self.used.remove(slot)
        self.log.append(("free", self.holds[slot], slot, 0))

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        self.free(slot)
        assert self.holds[slot] == block and slot not in self.returning
        self.returning[slot] = block, num_bytes
        self.shown[block].fill_(BAD)
        self.log.append(("back", block, slot, num_bytes))

    def settle(self) -> None:
        for slot in list(self.returning):
            self._return(slot)
        for slot in list(self.pending):
            super().start(self.pending.pop(slot), slot)
        if self.is_trained:
            for block, kept in self._kept.items():
                self.shown[block].copy_(kept)

    def _return(self, slot: int) -> None:
        if slot in self.returning:
            block, num_bytes = self.returning.pop(slot)
            super().bring_back(block, slot, num_bytes=num_bytes)


class Adapted(nn.Module):
    """A frozen layer and its low-rank change, which learns."""

    def __init__(self, layer: nn.Linear, *, draw: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(2, layer.in_features, generator=draw))
        self.up = nn.Parameter(0.1 * torch.randn(layer.out_features, 2, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + (x @ self.down.t()) @ self.up.t()
        return out


@dataclass
class Net:
    """A tiny network, its blocks in order, and how it is trained here."""

    predictor: Any
    blocks: list[nn.Module]
    condition: dict[str, Tensor]
    channels: int
    device: torch.device = CPU

    @property
    def learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.predictor.named_parameters() if parameter.requires_grad]

    def predict(self, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        noisy, t = torch.randn(1, self.channels, 4, 4, generator=draw), torch.rand(1, generator=draw)
        condition = {name: one.to(self.device) for name, one in self.condition.items()}
        velocity: Tensor = self.predictor(noisy.to(self.device), t.to(self.device), condition)
        return velocity


def build_net(family: str, *, learns: Literal["lora", "full"] | None = "lora", only: Sequence[int] | None = None) -> Net:
    """The same weights for the same family. `only`: the blocks that learn, else all; with `full` all weights in them."""
    draw = torch.Generator().manual_seed(7)
    sizes: dict[str, Any] = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
    condition = {"text": torch.randn(1, 5, 32, generator=draw)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if family == "flux1":
            model: Any = FluxTransformer2DModel(
                num_layers=2, num_single_layers=4, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6), **sizes
            )
            predictor: Any = Flux1Predictor(model)
            condition["pooled"] = torch.randn(1, 8, generator=draw)
            blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
        elif family == "flux2":
            sizes |= {"in_channels": 128, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False}
            model = Flux2Transformer2DModel(num_layers=2, num_single_layers=4, **sizes)
            predictor = Flux2Predictor(model)
            blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
        else:
            sizes |= {"in_channels": 128, "cond_in_channels": 128, "axes_dims_rope": (4, 4, 4, 4), "timestep_channels": 32}
            model = Flux3Transformer2DModel(num_layers=2, num_single_layers=3, flow_map=False, **sizes)
            predictor = Flux3Predictor(model)
            condition["reference_0"] = torch.randn(1, 128, 2, 2, generator=draw)
            modes = model.mode_blocks
            blocks = [*model.txt_mode_blocks, *modes["image"], *modes["image_cond"], *model.single_transformer_blocks]
    predictor.requires_grad_(False)
    for number, block in enumerate(blocks):
        if learns is not None and (only is None or number in only):
            _let_learn(block, learns, draw)
    return Net(predictor, blocks, condition, 16 if family == "flux1" else 128)


def _let_learn(block: nn.Module, learns: str, draw: torch.Generator) -> None:
    if learns == "full":
        block.requires_grad_(True)
        return
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Linear) and "norm" not in name:
            block.set_submodule(name, Adapted(module, draw=draw))


def attach(net: Net, swap: BlockSwap, mover: Mover) -> None:
    """As the composed run does it; and each block is where the mover says that it is, whenever it runs."""

    def used(block: nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
        def check_and_call(*inputs: Any) -> Any:
            if isinstance(mover, LateMover):
                place = swap._places.get(block, -1)
                assert place < 0 or [slot for slot in mover.used if mover.holds[slot] == place and slot not in mover.pending]
                mover.log.append(("run", place, -1, 0))
            return call(*inputs)

        return check_and_call

    def run(block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        through = partial(swap.call, block, used(block, call))
        marked = swap.mark(block, inputs)
        return checkpoint(through, *marked, use_reentrant=False) if torch.is_grad_enabled() else through(*marked)

    net.predictor.run = run


def train_lora(net: Net, *, steps: int = 3, paints: bool = True, rate: float = 0.05) -> list[Tensor]:
    """Losses, pictures and gradients of some steps, with passes without gradients between."""
    seen = []
    for step in range(steps):
        if paints and step:
            with torch.no_grad():
                seen += [net.predict(100 + step), net.predict(200 + step)]
        loss = net.predict(step).square().mean()
        loss.backward()
        seen.append(loss.detach())
        for _, parameter in net.learning:
            assert parameter.grad is not None
            seen.append(parameter.grad)
            parameter.data.sub_(rate * parameter.grad)
            parameter.grad = None
    return seen


def train_full(net: Net, *, steps: int = 3, rate: float = 0.05, settle: Callable[[], None] = lambda: None) -> list[Tensor]:
    """Losses, pictures, and the weights after every second step; each parameter is stepped as its gradient arrives."""

    def step_it(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.data.sub_(rate * parameter.grad)
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(step_it) for _, parameter in net.learning]
    seen = []
    for step in range(steps):
        loss = net.predict(step).square().mean()
        loss.backward()
        seen.append(loss.detach())
        if step % 2:
            settle()
            seen += [parameter.detach().clone() for _, parameter in net.learning]
            with torch.no_grad():
                seen.append(net.predict(100 + step))
    settle()
    for hook in hooks:
        hook.remove()
    return seen + [parameter.detach().clone() for _, parameter in net.learning]


def check_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(torch.isfinite(one).all() for one in theirs)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@cache
def run_plain(family: str, learns: Literal["lora", "full"]) -> list[Tensor]:
    """What a network does that runs as it is, with nothing computed again."""
    net = build_net(family, learns=learns)
    return train_lora(net) if learns == "lora" else train_full(net)


def build_swap(net: Net, swapped: Sequence[int], mover: Mover, **settings: Any) -> BlockSwap:
    swap = BlockSwap(net.blocks, swapped, device=CPU, mover=mover, **settings)
    attach(net, swap, mover)
    return swap


@pytest.fixture(params=["late", "host", "disk"])
def mover(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mover]:
    one: Mover = LateMover() if request.param == "late" else build_mover(CPU, folder=tmp_path if request.param == "disk" else None)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("num_blocks", "swap", "chosen"), [(6, 0, []), (6, 1, [3]), (6, 3, [1, 3, 5]), (7, 2, [1, 5]), (3, "all", [0, 1, 2])]
)
def test_swapped_blocks_are_spread(num_blocks: int, swap: Any, chosen: list[int]) -> None:
    assert choose_swapped(num_blocks, swap) == chosen


@pytest.mark.parametrize("num_blocks", [1, 8, 57])
def test_any_number_of_blocks_is_spread_evenly(num_blocks: int) -> None:
    for swap in range(1, num_blocks + 1):
        chosen = choose_swapped(num_blocks, swap)
        gaps = [after - before for before, after in zip(chosen, [*chosen[1:], chosen[0] + num_blocks], strict=True)]
        assert len(set(chosen)) == swap and max(gaps) - min(gaps) <= 1 and set(chosen) <= set(range(num_blocks))


@pytest.mark.parametrize("swap", [1, 3, "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_learns_the_same(family: str, swap: Any, mover: Mover) -> None:
    net = build_net(family)
    swap_of_net = build_swap(net, choose_swapped(len(net.blocks), swap), mover)
    check_equal(train_lora(net), run_plain(family, "lora"))
    assert swap_of_net.bytes_in > 0 and swap_of_net.bytes_back == 0


@pytest.mark.parametrize(("swap", "is_late"), [(1, True), (3, True), ("all", True), ("all", False)])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_learn_the_same(family: str, swap: Any, is_late: bool) -> None:
    net = build_net(family, learns="full")
    mover = LateMover(is_trained=True) if is_late else HostMover(CPU)
    swap_of_net = build_swap(net, choose_swapped(len(net.blocks), swap), mover, is_trained=True)
    check_equal(train_full(net, settle=swap_of_net.settle), run_plain(family, "full"))
    assert swap_of_net.bytes_back == 3 * sum(swap_of_net.sizes)


@pytest.mark.parametrize("num_slots", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_number_of_slots(family: str, num_slots: int) -> None:
    net, mover = build_net(family), LateMover()
    build_swap(net, choose_swapped(len(net.blocks), "all"), mover, num_slots=num_slots)
    check_equal(train_lora(net), run_plain(family, "lora"))


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_packed_weights_are_swapped_as_they_are(form: str) -> None:
    def build() -> Net:
        net = build_net("flux1", learns=None)
        for block in net.blocks:
            for name, module in list(block.named_modules()):
                if isinstance(module, nn.Linear):
                    block.set_submodule(name, build_packed(module.weight.detach(), module.bias, format=FORMATS[form]))
            _let_learn(block, "lora", torch.Generator().manual_seed(5))
        return net

    theirs = train_lora(build(), steps=2)
    net, mover = build(), LateMover()
    swap = build_swap(net, choose_swapped(len(net.blocks), "all"), mover)
    buffers = [
        buffer for block in net.blocks for module in block.modules() if isinstance(module, PackedLinear) for buffer in module.buffers()
    ]
    assert sum(swap.sizes) >= sum(buffer.nbytes for buffer in buffers) > 0
    check_equal(train_lora(net, steps=2), theirs)


@pytest.mark.parametrize(("swap", "num_slots"), [(1, 2), (2, 2), (3, 2), ("all", 1), ("all", 2), ("all", 3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_moved_are_those_of_the_formula(family: str, swap: Any, num_slots: int) -> None:
    """From the second step on, with pictures in between, whose bytes are not those of a step."""
    net, mover = build_net(family), LateMover()
    swap_of_net = build_swap(net, choose_swapped(len(net.blocks), swap), mover, num_slots=num_slots)
    moved = []
    for step in range(3):
        if step == 2:
            with torch.no_grad():
                net.predict(9)
        swap_of_net.settle()
        before, position = swap_of_net.bytes_in, len(mover.log)
        net.predict(step).square().mean().backward()
        swap_of_net.settle()
        moved.append(swap_of_net.bytes_in - before)
        assert moved[-1] == sum(num_bytes for event, *_, num_bytes in mover.log[position:] if event == "start")
    expected = bytes_per_step(swap_of_net.sizes, num_slots=num_slots)
    assert moved[1:] == 2 * [expected[0]]
    assert expected[1] == 0
    assert (expected[0] == 0) == (len(swap_of_net.sizes) <= num_slots)


def test_trained_bytes_come_back_once_a_step() -> None:
    net, mover = build_net("flux1", learns="full"), LateMover(is_trained=True)
    for block in net.blocks[::2]:
        block.attn.requires_grad_(False)  # type: ignore[union-attr]
    swap = build_swap(net, choose_swapped(len(net.blocks), "all"), mover, is_trained=True)
    trained = [
        sum((one.nbytes // ALIGNMENT_BYTES + 1) * ALIGNMENT_BYTES for one in block.parameters() if one.requires_grad)
        for block in net.blocks
    ]
    for _ in range(3):
        before = swap.bytes_in, swap.bytes_back
        net.predict(0).square().mean().backward()
    assert (swap.bytes_in - before[0], swap.bytes_back - before[1]) == bytes_per_step(swap.sizes, trained_sizes=trained)
    assert sum(trained) < sum(swap.sizes)
    swap.settle()
    assert [(block, num_bytes) for event, block, _, num_bytes in mover.log if event == "back"][-6:] == list(enumerate(trained))[::-1]


def test_copies_are_started_before_the_blocks_in_between_run() -> None:
    """What a step does, event by event; blocks that are not swapped are -1. When one of these runs, a copy is on its way."""
    net, mover = build_net("flux1"), LateMover()
    swap = build_swap(net, [0, 1, 3, 5], mover)
    for step in range(2):
        swap.settle()
        mover.log.clear()
        net.predict(step).square().mean().backward()
    swap.settle()
    events = [f"{event} {block}" for event, block, *_ in mover.log if event in ("start", "run", "free")]
    forward = "run 0, free 0, start 2, run 1, free 1, start 3, run -1, run 2, free 2, run -1, run 3, free 3"
    backward = "run 3, free 3, start 1, run -1, run 2, free 2, start 0, run -1, run 1, free 1, run 0, free 0"
    assert ", ".join(events) == f"{forward}, {backward}"


def test_pictures_go_round() -> None:
    net, mover = build_net("flux1", learns=None), LateMover()
    build_swap(net, [0, 2, 4], mover)
    with torch.no_grad():
        for step in range(3):
            net.predict(step)
    starts = [block for event, block, *_ in mover.log if event == "start"]
    assert starts == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    assert [block for event, block, *_ in mover.log if event == "run" and block >= 0] == [0, 1, 2] * 3


def test_only_late_blocks_learn() -> None:
    """Early blocks have no backward pass: they are not copied for one, but for the next forward pass."""
    theirs = train_lora(build_net("flux1", only=[4, 5]))
    net, mover = build_net("flux1", only=[4, 5]), LateMover()
    build_swap(net, range(6), mover)
    check_equal(train_lora(net), theirs)
    mover.log.clear()
    net.predict(0).square().mean().backward()
    assert [block for event, block, *_ in mover.log if event == "start"] == [1, 2, 3, 4, 5, 0]


def test_two_forward_passes_before_their_backward_passes() -> None:
    results = []
    for swapped in ([], range(6)):
        net = build_net("flux2")
        build_swap(net, swapped, LateMover())
        first, second = (net.predict(step).square().mean() for step in (1, 2))
        with torch.no_grad():
            picture = net.predict(3)
        second.backward()
        first.backward()
        results.append([first.detach(), second.detach(), picture, *(one.grad for _, one in net.learning if one.grad is not None)])
    check_equal(*results)


def test_blocks_that_run_only_sometimes() -> None:
    """Those of references: what was foreseen is wrong at first, and right at the next step."""
    results = []
    for swapped in ([], range(9)):
        net, mover = build_net("flux3"), LateMover()
        build_swap(net, swapped, mover)
        with_references, without = net.condition, {name: one for name, one in net.condition.items() if name != "reference_0"}
        seen: list[Tensor] = []
        for number, condition in enumerate([with_references, without, without, without, with_references]):
            net.condition = condition
            mover.log.clear()
            seen.append(net.predict(number).square().mean())
            seen[-1].backward()
            if swapped and number == 3:
                assert {block for event, block, *_ in mover.log if event == "start"} == {0, 1, 2, 3, 6, 7, 8}
        results.append([*(one.detach() for one in seen), *(one.grad for _, one in net.learning if one.grad is not None)])
    check_equal(*results)


def test_nothing_is_kept_from_the_forward_to_the_backward_pass() -> None:
    net, mover = build_net("flux1"), LateMover()
    build_swap(net, range(6), mover)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net.predict(0)
    assert kept
    assert not {slot.untyped_storage().data_ptr() for slot in mover._slots} & set(kept)


def test_a_pass_that_breaks_off_harms_nothing() -> None:
    net, mover = build_net("flux1"), LateMover()
    swap = build_swap(net, range(6), mover)
    run = net.predictor.run
    calls = iter(range(100))

    def run_out(block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        def break_off(*inputs: Any) -> Any:
            raise torch.OutOfMemoryError("of course")

        return run(block, break_off if next(calls) == 3 else call, *inputs)

    net.predictor.run = run_out
    with pytest.raises(torch.OutOfMemoryError):
        net.predict(0)
    net.predictor.run = run
    check_equal(train_lora(net), run_plain("flux1", "lora"))
    swap.settle()


def test_what_is_swapped_and_what_is_not() -> None:
    """Frozen parameters and buffers go; adapters stay. With trained weights all go, these first."""
    net = build_net("flux1", only=[1])
    block = net.blocks[1]
    block.register_buffer("table", torch.arange(5, dtype=torch.int16))
    frozen, learning = ([one for one in block.parameters() if one.requires_grad is learns] for learns in (False, True))
    places = {one: one.data_ptr() for one in learning}
    layout = build_layout(block)
    assert {id(one) for one in layout.tensors} == {id(one) for one in [*frozen, block.table]}
    assert layout.num_trained_bytes == 0
    assert all(offset % ALIGNMENT_BYTES == 0 for offset in layout.offsets)
    build_swap(net, [1], HostMover(CPU))
    assert all(one.data_ptr() == place for one, place in places.items())
    assert torch.equal(block.get_buffer("table"), torch.arange(5, dtype=torch.int16))

    trained = build_layout(block, is_trained=True)
    assert [id(one) for one in trained.tensors[: len(learning)]] == [id(one) for one in learning]
    assert trained.num_bytes == trained.num_trained_bytes + layout.num_bytes
    assert build_layout(build_net("flux1", only=[1]).blocks[1].to("meta")).num_bytes == layout.num_bytes - ALIGNMENT_BYTES


def test_trained_weights_are_read_and_written_on_the_host_between_steps() -> None:
    """As for a picture from the running mean: other weights for one pass, then those from before."""
    results = []
    for swapped in ([], range(6)):
        net = build_net("flux1", learns="full")
        swap = build_swap(net, swapped, HostMover(CPU), is_trained=True)  # which copies as early as it may
        seen = train_full(net, settle=swap.settle)
        before = [parameter.detach().clone() for _, parameter in net.learning]
        for _, parameter in net.learning:
            parameter.data.mul_(0.5)
        with torch.no_grad():
            seen += [net.predict(7), net.predict(8)]
        swap.settle()
        for (_, parameter), old in zip(net.learning, before, strict=True):
            parameter.data.copy_(old)
        results.append([*seen, *train_full(net, steps=1, settle=swap.settle)])
    check_equal(*results)


def test_weights_that_learn_unannounced_are_refused() -> None:
    net = build_net("flux1")
    build_swap(net, range(6), HostMover(CPU))
    net.blocks[2].requires_grad_(True)
    with pytest.raises(AssertionError, match="learn"):
        net.predict(0)


def test_on_the_disk_nothing_stays_in_memory(tmp_path: Path) -> None:
    net = build_net("flux1")
    mover = DiskMover(tmp_path, HostMover(CPU))
    swap = build_swap(net, range(6), mover)
    frozen = [parameter for parameter in net.blocks[3].parameters() if not parameter.requires_grad]
    assert all(one.untyped_storage().nbytes() == one.itemsize and one.isnan().all() for one in frozen)
    assert [one.shape for one in frozen] == [one.shape for one in build_net("flux1").blocks[3].parameters() if not one.requires_grad]
    swap.close()


def test_blocks_may_come_one_by_one(tmp_path: Path) -> None:
    """As a model is read, so that the host never holds more than one of them."""
    theirs = train_lora(build_net("flux1", only=[5]))
    full, net = build_net("flux1", only=[5]), build_net("flux1", only=[5])
    for block in net.blocks[:3]:
        block.to("meta")
    mover = DiskMover(tmp_path, HostMover(CPU))
    swap = build_swap(net, range(6), mover)
    for block, source in zip(net.blocks[:3], full.blocks[:3], strict=True):
        block.load_state_dict(source.state_dict(), assign=True)
        block.requires_grad_(False)
        swap.take(block)
    check_equal(train_lora(net), theirs)
    swap.close()


def test_blocks_that_are_not_swapped_run_directly() -> None:
    net, mover = build_net("flux1"), LateMover()
    swap = build_swap(net, [2], mover)
    inputs = (torch.ones(2, requires_grad=True), "text")
    assert swap.mark(net.blocks[0], inputs) is inputs
    assert swap.call(net.blocks[0], lambda *given: given, *inputs) == inputs
    assert not mover.log


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("learns", "place"), [("lora", "host"), ("lora", "disk"), ("full", "host")])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu(family: str, learns: Literal["lora", "full"], place: str, tmp_path: Path) -> None:
    results = []
    for swap in (0, "all"):
        net = build_net(family, learns=learns)
        net.device = torch.device("cuda", 0)
        mover = build_mover(net.device, folder=tmp_path if place == "disk" else None)
        swapped = choose_swapped(len(net.blocks), swap)  # type: ignore[arg-type]
        away = {id(one) for number in swapped for one in [*net.blocks[number].parameters(), *net.blocks[number].buffers()]}
        for tensor in [*net.predictor.parameters(), *net.predictor.buffers()]:
            if id(tensor) not in away:
                tensor.data = tensor.data.to(net.device)
        one = BlockSwap(net.blocks, swapped, device=net.device, mover=mover, is_trained=learns == "full")
        attach(net, one, mover)
        with sdpa_kernel(SDPBackend.MATH):
            seen = train_lora(net, steps=4) if learns == "lora" else train_full(net, steps=4, settle=one.settle)
        results.append([tensor.cpu() for tensor in seen])
        one.close()
    check_equal(results[1], results[0])
