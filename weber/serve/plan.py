"""The plan of a run, before anything is loaded: memory against a card, time, price, disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weber.config.toml import write_value
from weber.memory.cards import CARDS
from weber.serve.files import find_file, list_settings_files
from weber.serve.paths import shorten
from weber.serve.planned import Planned, find_planned, start_planning
from weber.serve.reply import find_site, go, read_text, render, take_form
from weber.serve.site import Site
from weber.serve.words import describe_bytes

_WIDTH, _SMALL, _NUM_COLORS = 1000.0, 0.1, 12
_MOST_CHARACTERS = 60
_HOUR = 3600.0


def routes(site: Site) -> list[Route]:
    """The pages of this file."""
    return [
        Route("/plan", show_plan),
        Route("/plan", take_form(start_plan), methods=["POST"]),
        Route("/plan/state", show_state),
    ]


@dataclass(frozen=True)
class Part:
    """A piece of a bar: where it begins and how wide it is, of 1000, and the number of its color."""

    name: str
    size: str
    left: float
    width: float
    color: int


@dataclass(frozen=True)
class Bar:
    """What one phase takes, against what there is: `limit` is where that ends, of 1000; None: far away."""

    name: str
    size: str
    parts: Sequence[Part]
    limit: float | None
    is_over: bool


def build_bars(phases: Sequence[Mapping[str, Any]], capacity: int | None) -> list[Bar]:
    """Bars of one scale: up to what there is, or to the largest where that is small beside it."""
    largest = max((phase["num_bytes"] for phase in phases), default=0)
    whole = max(largest, capacity if capacity is not None and largest > _SMALL * capacity else 0) or 1
    names = list(dict.fromkeys(name for phase in phases for name, _ in _sort(phase["parts"])))
    bars = []
    for phase in phases:
        left, parts = 0.0, list[Part]()
        for name, size in _sort(phase["parts"]):
            width = _WIDTH * size / whole
            parts.append(Part(name, describe_bytes(size), round(left, 2), round(width, 2), names.index(name) % _NUM_COLORS))
            left += width
        limit = None if capacity is None or capacity > whole else _WIDTH * capacity / whole
        bars.append(
            Bar(phase["name"], describe_bytes(phase["num_bytes"]), parts, limit, capacity is not None and phase["num_bytes"] > capacity)
        )
    return bars


def _sort(parts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, size) for name, size in parts.items() if size), key=lambda part: -part[1])


def show_plan(request: Request) -> Response:
    """The plan of a file, or the files that there are."""
    site, name = find_site(request), request.query_params.get("file", "").strip()
    if not name:
        return render(request, "settings_files.html", files=list_settings_files(site), page="/plan", title="Plan")
    return _show(request, "plan.html")


def show_state(request: Request) -> Response:
    """The part of the page that waits for the plan."""
    return _show(request, "plan_state.html")


def start_plan(request: Request, form: FormData) -> Response:
    """Make the plan anew."""
    site = find_site(request)
    path, card, price = find_file(site, read_text(form, "file")), _clean(read_text(form, "card")), _clean(read_text(form, "price"))
    start_planning(site, path, card=card)
    fields = {"file": shorten(site, path)} | ({"card": card} if card else {}) | ({"price": price} if price else {})
    if "hx-request" in request.headers:
        return _show(request, "plan_state.html", fields=fields)
    return go(request, "/plan?" + urlencode(fields))


def _show(request: Request, template: str, *, fields: Mapping[str, str] | None = None) -> Response:
    site, given = find_site(request), request.query_params if fields is None else fields
    path, card, price = find_file(site, given.get("file", "")), _clean(given.get("card", "")), _clean(given.get("price", ""))
    planned = find_planned(site, path, card=card)
    return render(
        request,
        template,
        file=shorten(site, path),
        card=card,
        price=price,
        cards=[one.name for one in CARDS],
        planned=planned,
        query=urlencode({"file": shorten(site, path), "card": card, "price": price}),
        **_describe(planned, price),
    )


def _clean(text: str) -> str:
    """A short text that can be seen."""
    return "".join(one for one in text if one.isprintable()).strip()[:_MOST_CHARACTERS]


def _describe(planned: Planned, price: str) -> dict[str, Any]:
    """What the page says of a plan that is ready."""
    facts = planned.facts
    if facts is None:
        return {"facts": None}
    capacity, seconds = facts["device_bytes"], sum(facts["seconds"].values())
    lines = [line for lines in facts["sections"].values() for line in lines]
    return {
        "facts": facts,
        "bars": build_bars(facts["phases"], capacity),
        "host_bars": build_bars([_build_host(facts)], facts["host_bytes"]) if facts["host"] else [],
        "capacity": None if capacity is None else describe_bytes(capacity),
        "lacks": [line for line in lines if line.startswith("NOT ENOUGH MEMORY")],
        "chosen": [] if facts["fit"] is None else [f"memory.{key} = {_write(value)}" for key, value in facts["fit"]["settings"].items()],
        "whole_seconds": seconds,
        "hours": seconds / _HOUR,
        "cost": _count_cost(price, seconds),
        "disk_bars": [_build_disk(disk) for disk in facts["disks"]],
    }


def _build_host(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "memory of the host", "num_bytes": sum(facts["host"].values()), "parts": facts["host"]}


def _build_disk(disk: Mapping[str, Any]) -> tuple[str, str, Bar]:
    phase = {"name": disk["place"], "num_bytes": disk["needed_bytes"], "parts": disk["needs"]}
    return disk["place"], describe_bytes(disk["free_bytes"]), build_bars([phase], disk["free_bytes"])[0]


def _write(value: object) -> str:
    return write_value(value) if isinstance(value, str | int | float | bool) else str(value)


def _count_cost(price: str, seconds: float) -> str | None:
    """Price per hour times hours; None where the price is no number."""
    try:
        number = float(price.replace(",", ".")) * seconds / _HOUR
    except ValueError:
        return None
    return f"{number:.2f}" if 0 <= number < 1e9 else None
