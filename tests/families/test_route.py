"""Tokens that skip blocks: which ones, where they come back, what is never left out, and what of the computation falls away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.memory.conftest import BATCH, FAMILIES, HEIGHT, NUM_TEXT, REFERENCE, WIDTH
from weber.config.objective import RouteConfig
from weber.errors import ConfigError
from weber.families.family import Predictor
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux2.predict import Flux2Predictor
from weber.families.route import Passage, Route, build_routes, count_kept
from weber.families.weights import build_skeleton
from weber.memory.meta import FlashOnMeta
from weber.pocket.published import TRANSFORMERS

KINDS = ("first", "second")
NUM_DOUBLE, NUM_BLOCKS = 2, 5
Inputs = tuple[Tensor, Tensor, dict[str, Tensor]]


def _route(ratio: float = 0.5, first: int = 1, last: int = -2) -> RouteConfig:
    return RouteConfig(ratio=ratio, first=first, last=last)


def _build(kind: str, routes: list[RouteConfig]) -> Predictor:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformer, build, _, _, _ = FAMILIES[kind]()
    predictor: Predictor = build(transformer.requires_grad_(False))
    predictor.routes = build_routes(routes, num_blocks=NUM_BLOCKS)
    predictor.is_fused = False
    return predictor


def _count_tokens(kind: str) -> int:
    return HEIGHT * WIDTH // (4 if kind == "first" else 1)


def _draw(kind: str, *, references: int = 0, is_routed: bool = True) -> Inputs:
    _, _, _, channels, text = FAMILIES[kind]()
    draw = torch.Generator().manual_seed(1)
    condition = {"text": torch.randn(BATCH, NUM_TEXT, text["text"], generator=draw), "guidance": torch.ones(BATCH)}
    if "pooled" in text:
        condition["pooled"] = torch.randn(BATCH, text["pooled"], generator=draw)
    for number in range(references):
        condition[f"reference_{number}"] = torch.randn(BATCH, channels, *REFERENCE, generator=draw)
    noisy, t = torch.randn(BATCH, channels, HEIGHT, WIDTH, generator=draw), torch.rand(BATCH, generator=draw)
    if is_routed:
        condition["route_scores"] = torch.rand(_count_tokens(kind), generator=draw)
    return noisy, t, condition


def _spy(predictor: Predictor) -> list[tuple[int, int]]:
    """Tokens that each block is given, of image and text; filled by the next pass."""
    seen: list[tuple[int, int]] = []

    def run(block: nn.Module, call: Callable[..., Any], image: Tensor, text: Tensor | None, *rest: Any) -> Any:
        seen.append((image.shape[1], 0) if text is None else (image.shape[1], text.shape[1]))
        return call(image, text, *rest)

    predictor.run = run
    return seen


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([_route(0.5, 2, -3)], [(2, 16)]),
        ([_route(0.5, 0, -1)], [(0, 18)]),
        ([_route(0.5, -1, 18), _route(0.2, 1, 4), _route(0.9, 5, 5)], [(1, 4), (5, 5), (18, 18)]),
        ([], []),
    ],
)
def test_blocks_are_counted_from_both_ends(routes: list[RouteConfig], expected: list[tuple[int, int]]) -> None:
    assert [(one.first, one.last) for one in build_routes(routes, num_blocks=19)] == expected


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ([_route(0.5, 19, -1)], ["objective.tread.0.first = 19", "0 to 18"]),
        ([_route(0.5, 0, 3), _route(0.5, 4, -20)], ["objective.tread.1.last = -20", "-19"]),
        ([_route(0.5, 5, 4)], ["ends before it begins", "block 5 to block 4 of 19"]),
        ([_route(0.5, 2, 8), _route(0.5, -11, 9)], ["share blocks", "blocks 2 to 8, and 8 to 9", "begin at 9 or later"]),
        ([_route(0.5, 7, 9), _route(0.5, 0, -1)], ["share blocks", "blocks 0 to 18, and 7 to 9"]),
    ],
)
def test_routes_that_cannot_be_are_refused(routes: list[RouteConfig], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build_routes(routes, num_blocks=19)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_how_many_stay() -> None:
    assert [count_kept(4096, ratio) for ratio in (0.0, 0.3, 0.5, 0.75)] == [4096, 2867, 2048, 1024]
    assert [count_kept(10, ratio) for ratio in (0.04, 0.66, 0.99)] == [10, 3, 1]


def _pass(routes: list[Route], scores: list[float], kept: list[bool] | None = None) -> Passage:
    condition = {"route_scores": torch.tensor(scores)} | ({} if kept is None else {"route_kept": torch.tensor(kept)})
    num_tokens, positions = len(scores), torch.arange(2.0 + len(scores) + 1)[:, None]  # two of text before, one of a reference behind
    return Passage(routes, condition, num_tokens=num_tokens, rotary=(positions, -positions), mask=torch.ones(1, 1, 1, len(positions)))


def test_those_with_low_numbers_stay_in_order_and_the_others_come_back() -> None:
    passage = _pass([Route(0.5, 1, 2)], [0.9, 0.1, 0.4, 0.2])
    tokens = torch.arange(5.0).view(1, 5, 1)
    assert not passage.turns(0) and passage.turns(1)
    left = passage.turn(1, passage.turn(0, tokens))
    assert left.flatten().tolist() == [1, 3, 4]
    assert passage.num_tokens == 2
    assert passage.rotary[0].flatten().tolist() == [0, 1, 3, 5, 6] and torch.equal(passage.rotary[1], -passage.rotary[0])
    assert passage.mask is not None and passage.mask.shape[-1] == 5
    assert not passage.turns(2) and passage.turn(2, left) is left
    assert passage.turns(3)
    back = passage.turn(3, left + 10)
    assert back.flatten().tolist() == [0, 11, 2, 13, 14]
    assert (passage.num_tokens, len(passage.rotary[0]), passage.mask.shape[-1]) == (4, 7, 7)


def test_tokens_that_have_to_stay_do() -> None:
    scores = [0.9, 0.1, 0.4, 0.2]
    for kept, expected in (
        ([True, False, False, False], [0, 1, 4]),
        ([True, False, True, False], [0, 2, 4]),
        ([True, True, True, False], [0, 1, 2, 4]),
        ([False] * 4, [1, 3, 4]),
    ):
        assert _pass([Route(0.5, 0, 0)], scores, kept).turn(0, torch.arange(5.0).view(1, 5, 1)).flatten().tolist() == expected
    tokens = torch.arange(5.0).view(1, 5, 1)
    assert _pass([Route(0.5, 0, 0)], scores, [True] * 4).turn(0, tokens) is tokens


def test_a_second_route_leaves_others_out() -> None:
    """Two routes with one ratio share as many tokens as the golden ratio says: 0.118 of all, where the same ones twice would be a half."""
    draw = torch.Generator().manual_seed(0)
    passage = _pass([Route(0.5, 0, 0), Route(0.5, 1, 1)], torch.rand(4000, generator=draw).tolist())
    tokens = torch.arange(4001.0).view(1, 4001, 1)
    first = passage.turn(0, tokens)
    second = passage.turn(1, first)
    stayed = [set(one.flatten().int().tolist()) - {4000} for one in (first, second)]
    assert [len(one) for one in stayed] == [2000, 2000]
    assert len(stayed[0] & stayed[1]) == pytest.approx(0.118 * 4000, rel=0.1)


@pytest.mark.parametrize("references", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_left_out_no_bit_changes(kind: str, references: int) -> None:
    noisy, t, condition = _draw(kind, references=references)
    plain = _build(kind, [])(noisy, t, condition)
    all_kept = condition | {"route_kept": torch.ones(_count_tokens(kind), dtype=torch.bool)}
    without = {name: one for name, one in condition.items() if name != "route_scores"}
    assert plain.std() > 0.1
    assert torch.equal(plain, _build(kind, [_route(0.0, 0, -1)])(noisy, t, condition))
    assert torch.equal(plain, _build(kind, [_route(0.5, 0, -1)])(noisy, t, all_kept))
    assert torch.equal(plain, _build(kind, [_route(0.5, 0, -1)])(noisy, t, without))
    assert (plain - _build(kind, [_route()])(noisy, t, condition)).abs().max() > 1e-3


@pytest.mark.parametrize("references", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_references_see_every_block(kind: str, references: int) -> None:
    num, num_references = _count_tokens(kind), references * REFERENCE[0] * REFERENCE[1] // (4 if kind == "first" else 1)
    predictor = _build(kind, [_route(0.75, 1, 2), _route(0.5, 4, 4)])
    seen = _spy(predictor)
    predictor(*_draw(kind, references=references))
    images = [num, num - round(0.75 * num), num - round(0.75 * num), num, num - round(0.5 * num)]
    texts = [NUM_TEXT] * NUM_BLOCKS
    if kind == "second":  # its later blocks are given text and image as one
        images = images[:NUM_DOUBLE] + [one + NUM_TEXT for one in images[NUM_DOUBLE:]]
        texts = texts[:NUM_DOUBLE] + [0] * (NUM_BLOCKS - NUM_DOUBLE)
    assert seen == [(image + num_references, text) for image, text in zip(images, texts, strict=True)]


@pytest.mark.parametrize("route", [(0, 0), (1, 3), (2, 3), (2, 2), (3, 4), (0, 4), (4, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_a_model_with_fewer_tokens_where_the_route_is(kind: str, route: tuple[int, int]) -> None:
    """The library's blocks, run one by one on cut tensors with the positions of what stays."""
    predictor = _build(kind, [_route(0.5, *route)])
    noisy, t, condition = _draw(kind, references=1)
    ours = predictor(noisy, t, condition)
    stays = condition["route_scores"].argsort()[: count_kept(_count_tokens(kind), 0.5)].sort().values
    theirs = _predict_by_hand(kind, predictor, (noisy, t, condition), range(route[0], route[1] + 1), stays)
    assert torch.equal(ours, theirs)


def _predict_by_hand(kind: str, predictor: Any, inputs: Inputs, routed: range, stays: Tensor) -> Tensor:
    noisy, t, condition = inputs
    num, before = _count_tokens(kind), list[Tensor]()
    places = torch.cat([stays, torch.arange(num, num + REFERENCE[0] * REFERENCE[1] // (4 if kind == "first" else 1))])
    number = -1

    def run(block: nn.Module, call: Callable[..., Any], image: Tensor, text: Tensor | None, *rest: Any) -> Any:
        nonlocal number
        number += 1
        if number not in routed:
            return call(image, text, *rest)
        is_joint = text is None
        texts, images = (image[:, :NUM_TEXT], image[:, NUM_TEXT:]) if text is None else (text, image)
        if number == routed[0]:
            before.append(images)
        images = images[:, places]  # what was left out is dragged along, and never looked at
        seen = torch.cat([torch.arange(NUM_TEXT), NUM_TEXT + places])
        rest = tuple(tuple(part[seen] for part in one) if isinstance(one, tuple) and one[0].dim() == 2 else one for one in rest)
        if is_joint:
            out = call(torch.cat([texts, images], dim=1), None, *rest)
            texts, images = out[:, :NUM_TEXT], out[:, NUM_TEXT:]
        else:
            texts, images = call(images, texts, *rest)
        back = before[0].clone()
        back[:, places] = images
        return torch.cat([texts, back], dim=1) if is_joint else (texts, back)

    plain, predictor.routes = predictor.routes, ()
    predictor.run = run
    found: Tensor = predictor(noisy, t, {name: one for name, one in condition.items() if name != "route_scores"})
    predictor.routes = plain
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_what_skips_go_past_the_blocks(kind: str) -> None:
    """Past all blocks, tokens that skip are only read in and written out: their gradient is that of a model without blocks."""
    predictor = _build(kind, [_route(0.5, 0, -1)])
    noisy, t, condition = _draw(kind)
    noisy.requires_grad_(True)
    velocity = predictor(noisy, t, condition)
    upstream = torch.randn(velocity.shape, generator=torch.Generator().manual_seed(3))
    [gradient] = torch.autograd.grad(velocity, noisy, upstream)
    model: Any = predictor.transformer
    model.transformer_blocks, model.single_transformer_blocks = nn.ModuleList(), nn.ModuleList()
    predictor.routes = ()
    short = predictor(noisy, t, condition)
    [expected] = torch.autograd.grad(short, noisy, upstream)
    order = condition["route_scores"].argsort()
    num = len(order)
    edge = 2 if kind == "first" else 1
    skips = torch.zeros(num).index_fill(0, order[count_kept(num, 0.5) :], 1.0).view(1, 1, HEIGHT // edge, WIDTH // edge)
    skips = skips.repeat_interleave(edge, 2).repeat_interleave(edge, 3).bool().expand_as(velocity)
    assert torch.equal(velocity[skips], short[skips]) and torch.allclose(gradient[skips], expected[skips], atol=1e-7)
    assert not torch.allclose(velocity[~skips], short[~skips], atol=1e-2)
    assert not torch.allclose(gradient[~skips], expected[~skips], atol=1e-4)


def _list_linears(block: nn.Module) -> Iterator[tuple[str, int]]:
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module.in_features * module.out_features


def count_flops(model: Any, route: Route, *, num_text: int, num_tokens: int, num_references: int = 0) -> int:
    """FLOPs of a forward pass of one picture: 2 for each weight of a linear layer and each token that it sees, 4 S squared D for attention
    among S tokens of width D. A routed block sees T + R + kept tokens."""
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    width, total = model.config.num_attention_heads * model.config.attention_head_dim, 0
    for name, weights in _list_linears(model):
        if "blocks." not in name:
            seen = {"x_embedder": num_tokens + num_references, "proj_out": num_tokens + num_references, "context_embedder": num_text}
            total += 2 * weights * seen.get(name, 1)
    for number, block in enumerate(blocks):
        own = count_kept(num_tokens, route.ratio) if route.first <= number <= route.last else num_tokens
        image = own + num_references
        for name, weights in _list_linears(block):
            if name.startswith("norm"):  # modulation
                num = 1
            elif number >= len(model.transformer_blocks):
                num = num_text + image
            else:
                num = num_text if "context" in name or "add" in name else image
            total += 2 * weights * num
        total += 4 * (num_text + image) ** 2 * width
    return total


NO_ROUTE = Route(0.0, 0, 0)
FULL_SIZE = {
    "flux1-dev": (FluxTransformer2DModel, Flux1Predictor, 16, 128),
    "flux2-dev": (Flux2Transformer2DModel, Flux2Predictor, 128, 64),
    "flux2-klein-base-9b": (Flux2Transformer2DModel, Flux2Predictor, 128, 64),
    "flux2-klein-base-4b": (Flux2Transformer2DModel, Flux2Predictor, 128, 64),
}
FALL = {"flux1-dev": 0.459, "flux2-dev": 0.436, "flux2-klein-base-9b": 0.420, "flux2-klein-base-4b": 0.412}
"""Share of the FLOPs of a forward pass that half of the tokens save between blocks 2 and -3, at 1024 x 1024 pixels."""


@pytest.mark.parametrize("variant", FULL_SIZE)
def test_computing_falls_by_the_formula_at_full_size(variant: str) -> None:
    """What PyTorch counts is what the formula says, for few blocks of full width; of all blocks the formula says the fall."""
    kind, build, channels, edge = FULL_SIZE[variant]
    model: Any = build_skeleton(kind, {**TRANSFORMERS[variant], "num_layers": 3, "num_single_layers": 5})
    predictor: Predictor = build(model)
    [route] = build_routes([_route(0.5, 2, -3)], num_blocks=8)
    sizes = {"text": (1, 512, model.config.joint_attention_dim), "guidance": (1,), "pooled": (1, 768)}
    condition = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    condition |= {"route_scores": torch.empty(4096, device="meta"), "reference_0": torch.empty(1, channels, edge, edge // 2, device="meta")}
    for references, num_references in ((0, 0), (1, 2048)):
        told = {name: one for name, one in condition.items() if references or name != "reference_0"}
        for routes in ((), (route,)):
            predictor.routes = routes
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), FlashOnMeta(), counter:
                predictor(torch.empty(1, channels, edge, edge, device="meta"), torch.empty(1, device="meta"), told)
            expected = count_flops(model, (*routes, NO_ROUTE)[0], num_text=512, num_tokens=4096, num_references=num_references)
            assert counter.get_total_flops() == expected

    whole: Any = build_skeleton(kind, TRANSFORMERS[variant])
    [route] = build_routes([_route(0.5, 2, -3)], num_blocks=len(whole.transformer_blocks) + len(whole.single_transformer_blocks))
    plain, routed = (count_flops(whole, one, num_text=512, num_tokens=4096) for one in (NO_ROUTE, route))
    assert 1 - routed / plain == pytest.approx(FALL[variant], abs=0.001)
