"""docs/optimizers.md says what the tables of the code say."""

from __future__ import annotations

from pathlib import Path

from weber.config.optimizers import FACTS, REFUSED
from weber.optim.page import build_page

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"


def test_the_committed_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == build_page(page), "docs/optimizers.md is old; run: make docs"
    assert all(f"| `{name}` |" in page for name in (*FACTS, *REFUSED))
