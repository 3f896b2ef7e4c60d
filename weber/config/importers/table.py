"""The other trainers whose files weber reads: a row each."""

from __future__ import annotations

from weber.config.importers.kohya import KOHYA
from weber.config.importers.tool import Tool

TOOLS: tuple[Tool, ...] = (KOHYA,)
