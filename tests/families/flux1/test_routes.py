"""Routes past the blocks of FLUX.1, with what else is done to its blocks: references with their own noise level, modulation apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from weber.config.objective import RouteConfig
from weber.families.flux1.components import Flux1
from weber.families.flux1.predict import Flux1Predictor
from weber.families.route import build_routes
from weber.memory.load import load_predictor

CPU = torch.device("cpu")
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux1, first: int, last: int) -> Flux1Predictor:
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    assert isinstance(predictor, Flux1Predictor)
    predictor.routes = build_routes([RouteConfig(ratio=0.5, first=first, last=last)], num_blocks=3)
    return predictor


def _draw(draw_inputs: Draw) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    noisy, t, condition = draw_inputs(2, 4, 6, has_guidance=True)
    condition |= {"reference_0": draw_inputs(2, 6, 4, has_guidance=True)[0]}
    return noisy, t, condition | {"route_scores": torch.rand(6, generator=torch.Generator().manual_seed(2))}


@pytest.mark.parametrize("route", [(0, 0), (0, 2), (1, 1), (1, 2)])
def test_references_keep_their_level(kontext: Flux1, draw_inputs: Draw, route: tuple[int, int]) -> None:
    """With one level for all it is the plain block; else only the tokens of the reference are told the other one, wherever they lie now."""
    predictor = _load(kontext, *route)
    predictor.is_fused = False
    noisy, t, condition = _draw(draw_inputs)
    with torch.no_grad():
        shared = predictor(noisy, t, condition)
        assert torch.equal(predictor(noisy, t, condition | {"reference_t": t}), shared)
        clean = predictor(noisy, t, condition | {"reference_t": torch.zeros(2)})
        assert (clean - shared).abs().max() > 1e-4
        predictor.routes = ()
        assert (predictor(noisy, t, condition | {"reference_t": torch.zeros(2)}) - clean).abs().max() > 1e-4


@pytest.mark.parametrize("has_reference_t", [False, True])
def test_modulation_may_be_apart(kontext: Flux1, draw_inputs: Draw, has_reference_t: bool) -> None:
    predictor = _load(kontext, 0, 1)
    noisy, t, condition = _draw(draw_inputs)
    condition |= {"reference_t": 0.5 * t} if has_reference_t else {}
    with torch.no_grad():
        whole = predictor(noisy, t, condition)
        apart = kontext.build_predictor(predictor.transformer, is_modulation_apart=True)
        apart.routes = predictor.routes
        assert torch.equal(apart(noisy, t, condition), whole)


def test_a_picture_that_is_repainted_has_one_token_for_all_it_is_told(fill: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(fill, 0, 2)
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    condition |= {"masked": noisy + 1, "mask": torch.ones(1, 64, 4, 6), "route_scores": torch.arange(6.0) / 6}
    with torch.no_grad():
        velocity, plain = (predictor(noisy, t, one) for one in (condition, {**condition, "route_kept": torch.ones(6, dtype=torch.bool)}))
    assert velocity.shape == noisy.shape and (velocity - plain).abs().max() > 1e-3
