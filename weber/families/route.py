"""Routes past blocks: in training some tokens of the picture skip some blocks and come back unchanged behind them.

TREAD, Krause et al. 2025, arXiv:2501.04765. Which tokens stay is drawn anew for each step. Texts and references are never left out.

Legend: B batch, N tokens of the picture, R of its references, T of text, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.config.objective import RouteConfig
from weber.errors import ConfigError
from weber.kernels.rotate import build_angles

ROUTE_SCORES, ROUTE_KEPT = "route_scores", "route_kept"
Rotary = tuple[Tensor, Tensor]
_TURN = 0.618034  # between one route's numbers and the next one's, the golden ratio: so that others are left out there


@dataclass(frozen=True)
class Route:
    """Blocks `first` to `last`, both included, that a share `ratio` of the picture's tokens skips."""

    ratio: float
    first: int
    last: int


def build_routes(tread: Sequence[RouteConfig], *, num_blocks: int) -> tuple[Route, ...]:
    """The routes in their order. Raises ConfigError for blocks that the model does not have, or that two routes share."""
    routes = [_build_route(one, num_blocks=num_blocks, key=f"objective.tread.{number}") for number, one in enumerate(tread)]
    routes.sort(key=lambda route: route.first)
    for one, other in zip(routes, routes[1:], strict=False):
        if other.first <= one.last:
            raise ConfigError(
                "Two routes of objective.tread share blocks.",
                got=f"blocks {one.first} to {one.last}, and {other.first} to {other.last}",
                expected=f"routes one behind the other; the model has blocks 0 to {num_blocks - 1}",
                fix=f"let the second one begin at {one.last + 1} or later, or remove it",
            )
    return tuple(routes)


def _build_route(config: RouteConfig, *, num_blocks: int, key: str) -> Route:
    for name, value in (("first", config.first), ("last", config.last)):
        if not -num_blocks <= value < num_blocks:
            raise ConfigError(
                "The model has fewer blocks.",
                got=f"{key}.{name} = {value}",
                expected=f"0 to {num_blocks - 1}, or -1 to {-num_blocks} counted from the end",
                fix=f"set {key}.{name} to a block that there is",
            )
    first, last = (value % num_blocks for value in (config.first, config.last))
    if first > last:
        raise ConfigError(
            "A route ends before it begins.",
            got=f"{key}.first = {config.first}, last = {config.last}: from block {first} to block {last} of {num_blocks}",
            expected="first at last or before it",
            fix=f"set {key}.first = 1 and {key}.last = -2" if num_blocks > 2 else f"set {key}.first = 0 and {key}.last = -1",
        )
    return Route(config.ratio, first, last)


def count_kept(num_tokens: int, ratio: float) -> int:
    """Tokens of the picture that see every block, at least one."""
    return max(1, num_tokens - round(num_tokens * ratio))


class Passage:
    """The image tokens on their way through the blocks of one pass, and what goes with those that a block sees.

    `num_tokens` of them are the picture's; `rotary` has the positions of text and image tokens, `mask` (B, 1, 1, T + N + R) says which of
    them are attended to. Without routes, or without `route_scores` in the condition, nothing ever changes.
    """

    def __init__(
        self, routes: Sequence[Route], condition: Mapping[str, Tensor], *, num_tokens: int, rotary: Rotary, mask: Tensor | None = None
    ) -> None:
        self.num_tokens, self.rotary, self.mask = num_tokens, rotary, mask
        self._whole = num_tokens, rotary, mask
        self._routes = {route.first: (number, route) for number, route in enumerate(routes) if ROUTE_SCORES in condition}
        self._scores, self._kept = condition.get(ROUTE_SCORES), condition.get(ROUTE_KEPT)
        self._angles: tuple[Rotary, Tensor] | None = None
        self._left: tuple[int, Tensor, Tensor] | None = None  # of a route: its last block, places that stay, all tokens before it

    def read_angles(self) -> Tensor:
        """The positions of `rotary` as `kernels/rotate.py` takes them."""
        if self._angles is None or self._angles[0] is not self.rotary:
            self._angles = self.rotary, build_angles(self.rotary)
        return self._angles[1]

    def turns(self, number: int) -> bool:
        """Whether tokens come back or leave before block `number`."""
        return number in self._routes or (self._left is not None and number > self._left[0])

    def turn(self, number: int, image_BND: Tensor) -> Tensor:
        """The image tokens that block `number` sees, of those behind the block before it; with the number of blocks, all of them."""
        if self._left is not None and number > self._left[0]:
            _, places, before_BND = self._left
            image_BND = before_BND.index_copy(1, places, image_BND)
            self._left = None
            self.num_tokens, self.rotary, self.mask = self._whole
        if number in self._routes:
            image_BND = self._leave(*self._routes[number], image_BND)
        return image_BND

    def _leave(self, number: int, route: Route, image_BND: Tensor) -> Tensor:
        stays = self._choose(number, route.ratio)
        if len(stays) == self.num_tokens:
            return image_BND
        device, num_image_tokens = image_BND.device, image_BND.shape[1]
        num_text_tokens = len(self.rotary[0]) - num_image_tokens
        places = torch.cat([stays, torch.arange(self.num_tokens, num_image_tokens, device=device)])
        seen = torch.cat([torch.arange(num_text_tokens, device=device), num_text_tokens + places])
        self._left = route.last, places, image_BND
        self.num_tokens = len(stays)
        self.rotary = self.rotary[0].index_select(0, seen), self.rotary[1].index_select(0, seen)
        if self.mask is not None:
            self.mask = self.mask[..., : len(seen)]  # the same for all image tokens, which are the last ones
        return image_BND.index_select(1, places)

    def _choose(self, number: int, ratio: float) -> Tensor:
        """Places of the picture's tokens that stay, in order: those that have to, and then those with the lowest numbers."""
        assert self._scores is not None
        scores, num_kept = (self._scores + number * _TURN) % 1, count_kept(self.num_tokens, ratio)
        if self._kept is not None:
            scores = scores.masked_fill(self._kept, -1.0)
            num_kept = max(num_kept, int(self._kept.sum()))
        return scores.argsort(stable=True)[:num_kept].sort().values
