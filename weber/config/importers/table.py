"""The other trainers whose files weber reads: a row each."""

from __future__ import annotations

from weber.config.importers.onetrainer import ONETRAINER
from weber.config.importers.simpletuner import SIMPLETUNER
from weber.config.importers.tool import Tool

TOOLS: tuple[Tool, ...] = (
    SIMPLETUNER,
    ONETRAINER,
)
