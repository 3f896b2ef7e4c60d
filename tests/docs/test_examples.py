"""Examples in the pages can be copied: each is a config, or a part of one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from weber.config.load import build_config

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=[f"{number}" for number in range(len(EXAMPLES))])
def test_an_example_is_a_config(text: str) -> None:
    assert len(EXAMPLES) >= 5
    build_config({"data": [{"path": "pictures"}]} | tomllib.loads(text))
