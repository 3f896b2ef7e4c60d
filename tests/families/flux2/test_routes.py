"""Routes past the blocks of FLUX.2, whose later blocks are given text and image as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.config.objective import RouteConfig
from weber.families.flux2.components import Flux2
from weber.families.flux2.predict import Flux2Predictor
from weber.families.route import build_routes
from weber.memory.load import load_predictor
from weber.memory.run import build_run

CPU = torch.device("cpu")
LAYOUT = [(4, 6), (3, 3)]
ROUTES = {"double": (0, 0), "double to single": (0, 1), "single": (1, 1), "last single": (2, 2), "singles": (1, 2), "all": (0, 2)}
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux2, route: tuple[int, int], mode: Any = "none") -> Flux2Predictor:
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    predictor.run = build_run(MemoryConfig(gradient_checkpointing=mode), predictor, family=family)
    assert isinstance(predictor, Flux2Predictor)
    predictor.routes = build_routes([RouteConfig(ratio=0.5, first=route[0], last=route[1])], num_blocks=3)
    return predictor


def _draw(draw_inputs: Draw) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    noisy, t, condition = draw_inputs(2, LAYOUT, has_guidance=True)
    return noisy, t, condition | {"route_scores": torch.rand(24, generator=torch.Generator().manual_seed(2))}


@pytest.mark.parametrize("route", ROUTES)
def test_tokens_come_back_to_their_places(families: dict[str, Flux2], draw_inputs: Draw, route: str) -> None:
    """Blocks that do nothing leave all as it was, however tokens are left out and come back."""
    predictor = _load(families["dev"], ROUTES[route])
    noisy, t, condition = _draw(draw_inputs)
    predictor.is_fused = False
    predictor.run = lambda block, call, image, text, *rest: image if text is None else (text, image)
    with torch.no_grad():
        assert torch.equal(
            predictor(noisy, t, condition),
            predictor(noisy, t, {name: one for name, one in condition.items() if name != "route_scores"}),
        )


@pytest.mark.parametrize("mode", ["all", 2, "lean"])
@pytest.mark.parametrize("route", ROUTES)
def test_ways_of_keeping_less_change_no_bit(families: dict[str, Flux2], draw_inputs: Draw, route: str, mode: Any) -> None:
    noisy, t, condition = _draw(draw_inputs)
    found: list[dict[str, Tensor | None]] = []
    for one in ("none", mode):
        predictor = _load(families["dev"], ROUTES[route], one)
        predictor.requires_grad_(True)
        velocity = predictor(noisy, t, condition)
        velocity.square().mean().backward()
        found.append({"velocity": velocity.detach()} | {name: parameter.grad for name, parameter in predictor.named_parameters()})
    for name, tensor in found[0].items():
        other = found[1][name]
        assert tensor is not None and other is not None and torch.equal(tensor, other), name
