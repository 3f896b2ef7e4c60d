"""Bars of the plan: their scale, what is over the card, and what a run costs."""

from __future__ import annotations

import time

from tests.serve.browsing import Client
from weber.serve.plan import build_bars
from weber.serve.site import Site

GB = 10**9
PHASES = [
    {"name": "training", "num_bytes": 12 * GB, "parts": {"weights": 9 * GB, "activations": 3 * GB, "nothing": 0}},
    {"name": "encoding", "num_bytes": 6 * GB, "parts": {"text encoder": 6 * GB}},
]


def test_bars_are_drawn_against_the_card() -> None:
    training, encoding = build_bars(PHASES, 24 * GB)
    assert [(part.name, part.left, part.width) for part in training.parts] == [("weights", 0, 375), ("activations", 375, 125)]
    assert (training.limit, training.is_over, training.size, encoding.parts[0].width) == (1000, False, "12.0 GB", 250)
    assert len({part.color for bar in (training, encoding) for part in bar.parts}) == 3


def test_what_is_too_much_reaches_over_the_card_and_what_is_little_fills_the_bar() -> None:
    training, encoding = build_bars(PHASES, 6 * GB)
    assert (training.is_over, training.limit, encoding.is_over) == (True, 500, False)
    assert [bar.limit for bar in build_bars(PHASES, 1000 * GB)] == [None, None]
    assert build_bars(PHASES, None)[0].parts[-1].left == 750


def test_a_plan_that_cannot_be_says_why(client: Client, site: Site) -> None:
    """By a real `weber plan`, which refuses the settings at once."""
    (site.roots[0] / "run.toml").write_text("[train]\nsteps = 5\n", encoding="utf-8")
    assert client.post("/plan", file="run.toml", price="2").headers["location"] == "/plan?file=run.toml&price=2"
    deadline = time.monotonic() + 300
    while "Planning" in (page := client.get("/plan", file="run.toml")).text and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "This cannot be planned" in page.text and "data is missing" in page.text and "Try again" in page.text
